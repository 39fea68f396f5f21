"""What the truth says of a self-rewarding round: measured and told, and used for nothing else.

The tiny world knows the true reward of a chat response, the rubric's five points. The model, and
its judge as a function, come as arguments.
"""

from pathlib import Path

from data import world
from data.files import writing
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.measures import kendall, spearman, win_share
from data.runtime.rows import Row
from data.world import chat as world_chat
from data.world import judge as world_judge


def text_of(tokenizer, row: Row) -> str | None:
    """The response's text, or None where it broke off."""
    reply = tokenizer.read_reply([token for token, on in zip(*row) if on])
    return reply.content if reply.complete else None


def mean_or_none(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def two_of(items) -> list[tuple[int, int]]:
    """The places (i, j), j before i, of every two items."""
    return [(i, j) for i in range(len(items)) for j in range(i)]


# ---- what a round made ----


def records_of(tokenizer, prompts, responses, rewards, picks, verdicts) -> list[dict]:
    """Everything that was made of each prompt, as it is read by people."""
    records = []
    for prompt, group, reward, texts, pick in zip(prompts, responses, rewards, verdicts, picks):
        said = [tokenizer.decode([token for token, on in zip(*row) if on]) for row in group]
        record = {"prompt": prompt, "responses": said, "rewards": reward, "verdicts": texts}
        chosen, rejected = pick or (None, None)
        records.append(record | {"chosen": chosen, "rejected": rejected})
    return records


def keep(path: Path | None, records: list[dict]) -> None:
    if path is not None:
        writing.write_jsonl(path, records)


def counted(prompts: list[str], pairs: list[tuple[Row, Row]], verdicts: list) -> dict:
    """How much a round made; lengths are means, in tokens of a response."""
    texts = [text for group in verdicts for of_one in group for text in of_one]
    parsed = sum(world_judge.parse_verdict(text) is not None for text in texts)
    chosen = sum(sum(mask) for (_, mask), _ in pairs)
    rejected = sum(sum(mask) for _, (_, mask) in pairs)
    return {
        "prompts": len(prompts),
        "pairs": len(pairs),
        "verdicts": len(texts),
        "verdicts_parsed": parsed / max(1, len(texts)),
        "chosen_length": chosen / max(1, len(pairs)),
        "rejected_length": rejected / max(1, len(pairs)),
    }


def audit(
    tokenizer,
    prompts: list[str],
    responses: list[list[Row]],
    rewards: list[list[float | None]],
    picks: list[tuple[int, int] | None],
) -> dict:
    """What the truth says of the judge and of its pairs, on chat prompts that the world can parse.

    "own_agreement": pairwise agreement on the model's own responses (0.5 is chance).
    "equally_good": the share of two responses to a prompt that no judge could tell apart by their
    truth. "true_gap": true reward of the chosen minus that of the rejected, in points.
    "own_correct", "own_polite", ...: the agreement on two responses of which one meets this
    criterion and the other does not.
    """
    agreement = []
    gaps = []
    count = 0  # of two responses to one prompt
    by_criterion = {name: [] for name in world_chat.CRITERIA}
    for prompt, group, reward, pick in zip(prompts, responses, rewards, picks):
        task = world.parse(prompt)
        texts = [text_of(tokenizer, row) for row in group]
        if task is None or task.domain != "chat" or None in texts or None in reward:
            continue
        truth = [world_judge.true_reward(task, text) for text in texts]
        met = [world_judge.criteria_met(task, text) for text in texts]
        for i, j in two_of(group):
            count += 1
            for name, known in by_criterion.items():
                one, other = met[i][name], met[j][name]
                if one != other:
                    known.append(world.pairwise_agreement(reward[i], reward[j], one, other))
            if truth[i] != truth[j]:
                right = world.pairwise_agreement(reward[i], reward[j], truth[i], truth[j])
                agreement.append(right)
        if pick:
            chosen, rejected = pick
            gaps.append(truth[chosen] - truth[rejected])
    return {
        "own_agreement": mean_or_none(agreement),
        "equally_good": 1 - len(agreement) / count if count else None,
        "true_gap": mean_or_none(gaps),
        **{f"own_{name}": mean_or_none(known) for name, known in by_criterion.items()},
    }


# ---- a model on held-out prompts ----


def report(judge, settings, seed: int, part: str, responses: int = 4) -> dict:
    """How well a judge judges: held-out chat prompts with `responses` responses of mixed quality
    each, whose truth is known. `settings`: self_reward.Settings.

    judge(questions, responses, settings, seed) -> (scores, verdict texts).

    By pairs with different true scores: "pairwise" agreement (a tie is half right) and the share of
    "ties". "exact" is the share of prompts with every such pair in the right order. "spearman" and
    "kendall" are means over prompts, without the "constant" ones, whose scores are all equal.
    "histogram" counts single verdicts, rounded to whole scores.
    """
    rng = world.generator(world.WORLD_VERSION, "judge report", part)
    tasks = world.evaluation_tasks("chat", settings.held_out, part)
    texts = [[world_judge.response_to(task, rng) for _ in range(responses)] for task in tasks]
    questions = [task.prompt for task in tasks for _ in range(responses)]
    flat = [text for group in texts for text in group]
    scores, verdicts = judge(questions, flat, settings, seed)
    agreement, exact, ranks, taus = [], [], [], []
    ties = 0
    constant = 0
    for k, (task, group) in enumerate(zip(tasks, texts)):
        truth = [float(world_judge.true_reward(task, text)) for text in group]
        given = scores[k * responses : (k + 1) * responses]
        rights = []
        for i, j in two_of(group):
            if truth[i] != truth[j]:
                rights.append(world.pairwise_agreement(given[i], given[j], truth[i], truth[j]))
                ties += given[i] is not None and given[i] == given[j]
        agreement += rights
        if rights:
            exact.append(min(rights) == 1)
        if None in given:
            continue
        rank = spearman(given, truth)
        if rank is None:
            constant += 1
        else:
            ranks.append(rank)
            taus.append(kendall(given, truth))
    parsed = [world_judge.parse_verdict(text) for group in verdicts for text in group]
    read = [round(score) for score in parsed if score is not None]
    return {
        "pairwise": sum(agreement) / len(agreement),
        "ties": ties / len(agreement),
        "exact": sum(exact) / max(1, len(exact)),
        "spearman": mean_or_none(ranks),
        "kendall": mean_or_none(taus),
        "constant": constant,
        "parsed": len(read) / len(parsed),
        "histogram": {str(n): read.count(n) for n in range(6)},
    }


def chat_answers(model, tokenizer, settings, seed: int, part: str = "test") -> dict:
    """True rewards (0 to 5), mean length, and the share of correct and of polite answers on
    held-out chat prompts, sampled once each. `settings`: self_reward.Settings."""
    tasks = world.evaluation_tasks("chat", settings.held_out, part)
    samples = generate(
        model,
        tokenizer,
        [tokenizer.prompt(task.messages) for task in tasks],
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=seed_of(seed, "chat answers"),
    )
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    texts = [reply.content if reply.complete else "" for reply in replies]
    met = [world_judge.criteria_met(task, text) for task, text in zip(tasks, texts)]
    return {
        "rewards": [5 * score for score in world.score_replies(tasks, replies)],
        "length": float(samples.lengths.float().mean()),
        **{name: sum(one[name] for one in met) / len(met) for name in ("correct", "polite")},
    }


def compared(new: dict, old: dict, first: dict) -> dict:
    """The `chat_answers` of M_{t+1}, and their true rewards against those of M_t and of M_1."""
    return {
        "true_reward": sum(new["rewards"]) / len(new["rewards"]),
        **{name: new[name] for name in ("length", "correct", "polite")},
        "against_previous": win_share(new["rewards"], old["rewards"]),
        "against_seed": win_share(new["rewards"], first["rewards"]),
    }


def check_seed_model(judged: dict) -> None:
    """Raises ValueError when M_1's verdicts cannot be read: its rewards would be noise."""
    if judged["parsed"] < 0.9:
        raise ValueError(
            f"only {100 * judged['parsed']:.0f}% of the seed model's verdicts can be read; "
            "give overall SFT more judge demonstrations (the shares in sft.py), "
            "or a seed model that has had them"
        )


# ---- the command ----


def flags(parser, settings) -> None:
    """The flags of self_reward.py beside those of every chapter; `settings`: its Settings."""
    told = "how many next iteration models"
    parser.add_argument("--rounds", type=int, default=2, help=told)
    told = f"of DPO; default: {settings.training.lr} at size tiny"
    parser.add_argument("--lr", type=float, default=None, help=told)
    told = "length-controlled selection; 0 is highest against lowest"
    parser.add_argument("--rho", type=float, default=settings.rho, help=told)
    told = "DPO pairs alone, as in the paper"
    parser.add_argument("--no-rehearsal", action="store_true", help=told)


def listed(numbers: dict, *names: str) -> str:
    known = [name for name in names if numbers.get(name) is not None]
    return ", ".join(f"{name} {numbers[name]:.3f}" for name in known)


def judge_line(judged: dict) -> str:
    names = ("pairwise", "ties", "exact", "spearman", "kendall", "parsed")
    return f"  judge: {listed(judged, *names)}"


def round_lines(made: dict, measured: dict, number: int) -> str:
    """Four lines about round `number`: what it made, what the next model is worth, its judge."""
    against = measured["against_previous"]
    return (
        f"  {made.get('prompts', 0)} prompts ({100 * made['parsed']:.0f}% the world can parse, "
        f"{100 * made['novel']:.0f}% novel), {made['pairs']} pairs, "
        f"chosen {made.get('chosen_length', 0):.0f} and rejected "
        f"{made.get('rejected_length', 0):.0f} tokens, {made['seconds']:.0f} s\n"
        f"  true reward {measured['true_reward']:.2f} of 5, correct {measured['correct']:.2f}, "
        f"polite {measured['polite']:.2f}, length {measured['length']:.1f}; "
        f"wins {against['wins']:.2f} ties {against['ties']:.2f} losses {against['losses']:.2f} "
        f"against M_{number}\n"
        f"{judge_line(measured['judge'])}\n"
        f"  on its own responses: {listed(made, 'own_agreement', 'equally_good', 'true_gap')}"
    )
