"""Evaluation: the model answers fixed held-out prompts, and the world checks the replies.

Every function takes the model as an argument, so any stage and any checkpoint is measured alike.
"""

from typing import NamedTuple

from data import world
from data.runtime.decoding import generate
from data.runtime.devices import agreed, seed_of
from data.runtime.measures import interval, mean_of
from data.runtime.rows import Row
from data.world import judge as world_judge

COLUMNS = (*world.DOMAINS, "phrasing")  # of the table of results


def sampled_rows(prompts: list[list[int]], samples) -> list[Row]:
    """What `generate` wrote as rows: each prompt with its n samples, prompt-major.

    The mask is True on the model's own tokens only: not on the prompt, nor on a tool's result.
    """
    n = len(samples.lengths) // len(prompts)
    own = samples.own.tolist()
    rows = []
    for i, reply in enumerate(samples.lists()):
        prompt = prompts[i // n]
        rows.append((prompt + reply, [False] * len(prompt) + own[i][: len(reply)]))
    return rows


def scored(tasks: list, replies: list) -> list[float | None]:
    """The truth about each reply (`world.score_replies`), 0 to 1; None where it cannot be checked.

    Under torchrun rank 0 finds it for all, since programs run against the clock.
    """
    return agreed(lambda: world.score_replies(tasks, replies))


class Question(NamedTuple):
    """A held-out prompt; `judged` is the response that a prompt of the domain judge asks about."""

    domain: str
    task: world.Task
    messages: list[dict]
    judged: str | None = None


def held_out_questions(domain: str, n: int, part: str) -> list[Question]:
    """The fixed questions of a domain: n of them, or for judge n pairs, one after the other."""
    if domain != "judge":
        tasks = world.evaluation_tasks(domain, n, part)
        return [Question(domain, task, task.messages) for task in tasks]
    questions = []
    for task, *responses in world.evaluation_judge_pairs(n, part):
        for response in responses:
            prompt = world_judge.judge_prompt(task.prompt, response)
            messages = [{"role": "user", "content": prompt}]
            questions.append(Question(domain, task, messages, response))
    return questions


def evaluate(
    model,
    tokenizer,
    n: int,
    *,
    seed: int,
    part: str = "test",
    temperatures: dict | None = None,
    domains=COLUMNS,
    max_new: int = 64,
    tasks: dict[str, list] | None = None,
) -> dict:
    """Scores on the fixed held-out prompts, by domain; with `tasks`, on each domain's first n.

    {"math": {"greedy", "sampled", "n", "low", "high"}, ...}: "greedy" is temperature 0, "sampled"
    temperature 1, both from one reading of every prompt; "low" and "high" are greedy's 95% interval
    (`measures.interval`), "n" the replies that could be checked. chat is the true reward divided by
    5, judge the pairwise agreement with the rubric, the rest accuracies; "phrasing" is the score on
    the phrasing of each family that no demonstration used. chat also has the shares of correct and
    of polite replies, "greedy_correct" and so on.
    """
    temperatures = temperatures or {"greedy": 0.0, "sampled": 1.0}
    domains = list(tasks or domains)
    asked = []
    for domain in domains:
        if tasks is None:
            asked += held_out_questions(domain, n, part)
        else:
            asked += [Question(domain, task, task.messages) for task in tasks[domain][:n]]
    samples = generate(
        model,
        tokenizer,
        [tokenizer.prompt(question.messages) for question in asked],
        n=len(temperatures),
        temperature=list(temperatures.values()),
        max_new=max_new,
        seed=seed_of(seed, "evaluate"),
        run_tool=world.run_tool,
    )
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    results = {domain: {} for domain in domains}
    for k, name in enumerate(temperatures):
        said = replies[k :: len(temperatures)]
        for domain in domains:
            places = [i for i, question in enumerate(asked) if question.domain == domain]
            questions = [asked[i] for i in places]
            answers = [said[i] for i in places]
            if domain == "judge":
                scores, parsed = judged_pairs(questions, answers)
                results[domain][f"{name}_parsed"] = parsed
            else:
                scores = scored([question.task for question in questions], answers)
                scores = [score for score in scores if score is not None]
            if domain == "chat" and tasks is None:
                for criterion, share in criteria_shares(questions, answers).items():
                    results[domain][f"{name}_{criterion}"] = share
            results[domain][name] = mean_of(scores)
            if k == 0:
                low, high = interval(scores)
                results[domain] |= {"n": len(scores), "low": low, "high": high}
    return results


def criteria_shares(questions: list[Question], replies: list) -> dict[str, float]:
    """The shares of correct and of polite replies to chat prompts of the world."""
    met = []
    for question, reply in zip(questions, replies):
        text = reply.content if reply.complete else ""
        met.append(world_judge.criteria_met(question.task, text))
    return {name: mean_of([one[name] for one in met]) for name in ("correct", "polite")}


def judged_pairs(questions: list[Question], replies: list) -> tuple[list[float], float]:
    """(agreement with the rubric of each pair of verdicts, the share of verdicts that are read)."""
    verdicts = []
    for reply in replies:
        verdicts.append(world_judge.parse_verdict(reply.content) if reply.complete else None)
    truths = [world_judge.true_reward(one.task, one.judged) for one in questions]
    scores = []
    for i in range(0, len(verdicts), 2):
        agreement = world.pairwise_agreement(*verdicts[i : i + 2], *truths[i : i + 2])
        scores.append(agreement)
    parsed = sum(verdict is not None for verdict in verdicts) / len(verdicts)
    return scores, parsed


def pass_rates(
    model, tokenizer, tasks: list, *, samples: int = 16, seed: int, max_new: int = 64
) -> list[float | None]:
    """The share of right replies among `samples` at temperature 1 for each task (avg@16).

    None where no reply could be checked. Reinforcement learning can learn from a task with a rate
    strictly between 10% and 90%.
    """
    drawn = generate(
        model,
        tokenizer,
        [tokenizer.prompt(task.messages) for task in tasks],
        n=samples,
        max_new=max_new,
        seed=seed_of(seed, "pass rates"),
        run_tool=world.run_tool,
    )
    asked = [task for task in tasks for _ in range(samples)]
    scores = scored(asked, [tokenizer.read_reply(ids) for ids in drawn.lists()])
    rates = []
    for i in range(0, len(scores), samples):
        known = [score for score in scores[i : i + samples] if score is not None]
        rates.append(sum(known) / len(known) if known else None)
    return rates


def table_line(name: str, results: dict) -> str:
    """One line of the growing table: greedy/sampled in percent by domain."""
    line = f"{name:26}"
    for scores in results.values():
        line += f"{100 * scores['greedy']:5.0f}/{100 * scores['sampled']:3.0f} "
    return line


def table_head(domains=COLUMNS) -> str:
    return f"{'greedy/sampled, percent':26}" + "".join(f"{domain:>9} " for domain in domains)
