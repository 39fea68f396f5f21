"""The self-rewarding loop: a model writes new prompts, answers them, judges its own answers, and learns from its judgement.

    Self-Instruction creation        generate_prompts {x_i} -> generate_responses {y_i^1..y_i^N} by M_t
                                     -> generate_rewards {r_i^1..r_i^N} by the same M_t -> select -> pairs {x_i, y_i^w, y_i^l}
    Instruction following training   DPO from M_t with frozen M_t as the reference -> M_{t+1}, the next iteration model

    L_DPO = -log sigmoid(beta {[log pi - log pi_M_t](y^w|x) - [log pi - log pi_M_t](y^l|x)})             (dpo.py)

(Yuan et al., 2401.10020, figure 1.) N is 4. The seed model M_1 has had instruction data and judge data in SFT. The prompts are
always written by M_1, as in the paper. A verdict is a short justification and `Score: n`, 0 to 5; three are sampled for a response and
averaged, and one that cannot be read is dropped, never counted as 0. The reward is nobody's but the model's own; that the tiny
world knows the true reward is used to measure, and by the controls in tests/experiments/judge_controls.py.

Ours: requests with two to four training prompts as examples, where the paper shows eight, two of them generated; rehearsal of SFT
data during DPO, without which a small model forgets how to judge after a round or two.
Left out: training the judge itself (Meta-Rewarding, 2407.19594), of which only the length-controlled selection `rho` is here.

    python self_reward.py                     two rounds from the tiny SFT model
    python self_reward.py --lr 3e-4 --no-rehearsal    three times the learning rate: watch correctness and the judge fall

Watch: the win share of M_{t+1} over M_t by the TRUE reward, the rubric's five points: relevant, correct, complete, polite, concise.
The judge, on responses of mixed quality whose truth is known: `pairwise` agreement, which should not fall, with its `ties`;
`exact`, every pair of a prompt in order; `spearman` and `kendall`, rank correlations; `parsed`, verdicts that can be read.
On the model's own responses: `own_agreement` (0.5 is chance: then the pairs teach nothing), `equally_good`, pairs that no judge
could tell apart, `true_gap` between chosen and rejected. The length of what is chosen grows when the judge likes long answers.
"""

import copy
import functools
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

import dpo
from data import world
from data.files import writing
from data.files.checkpoints import key_of_run, once, tokenizer_of
from data.runtime.command import command, common_flags, out_folder
from data.runtime.decoding import generate
from data.runtime.devices import seed_of, start
from data.runtime.evaluation import evaluate, sampled_rows, table_head, table_line
from data.runtime.measures import kendall, spearman, win_share
from data.runtime.rows import Row
from data.runtime.sizes import sized
from data.world import chat as world_chat
from data.world import judge as world_judge
from model import GPT
from sft import chat_prompts, rehearsal_data, starting_model


@dataclass(frozen=True)
class Settings:
    prompts: int = 300  # new prompts a round
    requests: int = 700  # asked for; what is left after the filters is cut to `prompts`
    responses: int = 4  # N
    verdicts: int = 3  # a response, from one reading of its judge prompt
    temperature: float = 0.7  # of responses and verdicts; the paper's value, as top_p
    top_p: float = 0.9
    prompt_temperature: float = 0.6  # the value of the paper; hotter, a tiny model writes nonsense
    rouge_limit: float = 0.9  # a prompt closer than this to another one or to an example is a duplicate (ROUGE-L of words)
    rho: float = 0.0  # 0: highest against lowest; above: the shortest of the good against the longest of the bad
    held_out: int = 200  # prompts for win rates and for the judge
    training: dpo.Settings = dpo.Settings(steps=40, rows=32, lr=1e-4)


# ---- Self-Instruction creation ----

def rouge_l(a: list[str], b: list[str]) -> float:
    """F1 of the longest common subsequence of two word lists (Lin 2004), 0 to 1."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b):
            before, row[j + 1] = row[j + 1], before + 1 if word == other else max(row[j + 1], row[j])
    return 2 * row[-1] / (len(a) + len(b)) if a and b else 0.0


def near_any(words: list[str], others: list[list[str]], limit: float) -> bool:
    """Whether ROUGE-L to one of the others reaches the limit; the words in common bound it, and cost less to count."""
    known = set(words)
    return any(2 * min(len(words), len(other)) >= limit * (len(words) + len(other)) and
               2 * sum(word in known for word in other) >= limit * (len(words) + len(other)) and rouge_l(words, other) >= limit for other in others)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


@functools.cache
def evaluation_words() -> frozenset[str]:
    """The words of every chat prompt that evaluation can use, whatever their case and punctuation."""
    tasks = [task for part in ("test", "dev") for domain in ("chat", "phrasing") for task in world.evaluation_tasks(domain, 1000, part)]
    tasks += [task for part in ("test", "dev") for task, *_ in world.evaluation_judge_pairs(1000, part)]
    return frozenset(" ".join(words_of(task.prompt)) for task in tasks)


def generate_prompts(seed_model: GPT, tokenizer, settings: Settings, seed: int, training_prompts: list[str]) -> tuple[list[str], list[dict], dict]:
    """(new prompts {x_i}, dropped prompts with the reason, counts). Written from two to four of the training prompts as examples;
    filtered by form, length, likeness to each other and to any training prompt, and the evaluation list.

    Whether the world could answer a prompt is counted ("parsed") and no reason to keep or drop it; what it knows to be held out is dropped.
    """
    rng = world.generator(seed, "generate_prompts")
    requests = [world_judge.new_prompt_request(rng.sample(training_prompts, rng.randint(2, 4)), rng.randrange(4)) for _ in range(settings.requests)]
    prompts = [tokenizer.prompt([{"role": "user", "content": request}]) for request in requests]
    samples = generate(seed_model, tokenizer, prompts, max_new=40, temperature=settings.prompt_temperature, top_p=settings.top_p,
                       seed=seed_of(seed, "generate_prompts"))
    forbidden = evaluation_words()
    known = [words_of(prompt) for prompt in training_prompts]
    accepted, accepted_words, dropped, counts = [], [], [], Counter()
    for ids in samples.lists():
        reply = tokenizer.read_reply(ids)
        text = reply.content
        words = words_of(text)
        if not reply.complete or reply.calls or reply.think or "\n" in text:
            reason = "malformed"
        elif not 2 <= len(words) <= 24:
            reason = "too short or too long"
        elif " ".join(words) in forbidden or (task := world.parse(text)) is not None and (
                world.part_of(task) != "train" or task.phrasing == world.UNSEEN):
            reason = "evaluation prompt"
        elif near_any(words, accepted_words, settings.rouge_limit):
            reason = "near-duplicate"
        elif near_any(words, known, settings.rouge_limit):
            reason = "not novel"
        else:
            reason = "accepted"
            accepted.append(text)
            accepted_words.append(words)
        counts[reason] += 1
        if reason != "accepted":
            dropped.append({"prompt": text, "dropped": reason})
    accepted = accepted[:settings.prompts]
    formed = counts["accepted"] + counts["not novel"]
    return accepted, dropped, dict(counts) | {"parsed": sum(world.parse(text) is not None for text in accepted) / max(1, len(accepted)),
                                              "novel": counts["accepted"] / max(1, formed)}


def generate_responses(model: GPT, tokenizer, prompts: list[str], settings: Settings, seed: int) -> list[list[Row]]:
    """N responses {y_i^1..y_i^N} of M_t to each prompt."""
    ids = [tokenizer.prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    rows = sampled_rows(ids, generate(model, tokenizer, ids, n=settings.responses, temperature=settings.temperature, top_p=settings.top_p,
                                      seed=seed_of(seed, "generate_responses")))
    return [rows[i:i + settings.responses] for i in range(0, len(rows), settings.responses)]


def text_of(tokenizer, row: Row) -> str | None:
    """The response's text, or None where it broke off."""
    reply = tokenizer.read_reply([token for token, on in zip(*row) if on])
    return reply.content if reply.complete else None


def judge(model: GPT, tokenizer, questions: list[str], responses: list[str], settings: Settings,
          seed: int) -> tuple[list[float | None], list[list[str]]]:
    """(the mean score of each response's readable verdicts, None where there is none; the verdicts' texts)."""
    if not questions:  # every response broke off
        return [], []
    prompts = [tokenizer.prompt([{"role": "user", "content": world_judge.judge_prompt(question, response)}])
               for question, response in zip(questions, responses)]
    samples = generate(model, tokenizer, prompts, n=settings.verdicts, temperature=settings.temperature, top_p=settings.top_p, max_new=48,
                       seed=seed_of(seed, "judge"))
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    texts = [reply.content if reply.complete else "" for reply in replies]
    groups = [texts[i:i + settings.verdicts] for i in range(0, len(texts), settings.verdicts)]
    return [mean_score(group) for group in groups], groups


def mean_score(verdicts: list[str]) -> float | None:
    """The mean of the scores that can be read, or None."""
    scores = [score for score in map(world_judge.parse_verdict, verdicts) if score is not None]
    return sum(scores) / len(scores) if scores else None


def generate_rewards(model: GPT, tokenizer, prompts: list[str], responses: list[list[Row]], settings: Settings, seed: int):
    """({r_i^1..r_i^N} by the same M_t, verdict texts), both by prompt; None for a response that broke off or has no readable verdict."""
    flat = [(i, k, text) for i, group in enumerate(responses) for k, row in enumerate(group) if (text := text_of(tokenizer, row)) is not None]
    scores, verdicts = judge(model, tokenizer, [prompts[i] for i, _, _ in flat], [text for _, _, text in flat], settings, seed)
    rewards, texts = [[None] * len(group) for group in responses], [[[] for _ in group] for group in responses]
    for (i, k, _), score, verdict in zip(flat, scores, verdicts):
        rewards[i][k], texts[i][k] = score, verdict
    return rewards, texts


def select(rewards: list[float | None], lengths: list[int], rho: float = 0.0) -> tuple[int, int] | None:
    """(chosen, rejected), or None where all rewards are equal or fewer than two are known.

    rho 0: highest against lowest, the first of equals. rho above 0: the shortest with a score in the top window against the
    longest in the bottom window, windows as wide as rho times the spread (Meta-Rewarding, 2407.19594, section 2.3).
    """
    known = [k for k, reward in enumerate(rewards) if reward is not None]
    if len(known) < 2 or max(rewards[k] for k in known) == min(rewards[k] for k in known):
        return None
    high, low = max(rewards[k] for k in known), min(rewards[k] for k in known)
    if rho == 0:
        chosen, rejected = next(k for k in known if rewards[k] == high), next(k for k in known if rewards[k] == low)
    else:
        chosen = min((k for k in known if rewards[k] >= (1 - rho) * high + rho * low), key=lambda k: lengths[k])
        rejected = max((k for k in known if rewards[k] <= (1 - rho) * low + rho * high), key=lambda k: lengths[k])
    return (chosen, rejected) if rewards[chosen] > rewards[rejected] else None


def create_self_instruction_data(model: GPT, seed_model: GPT, tokenizer, settings: Settings, seed: int, training_prompts: list[str],
                                 score=None) -> tuple[list[dpo.Pair], list[dict], dict]:
    """(preference pairs, readable records of everything that was generated, counts). score(prompts, responses) -> rewards takes
    the judge's place in the control experiments."""
    prompts, dropped, counts = generate_prompts(seed_model, tokenizer, settings, seed, training_prompts)
    if not prompts:
        return [], dropped, counts | {"pairs": 0}
    responses = generate_responses(model, tokenizer, prompts, settings, seed)
    if score is None:
        rewards, verdicts = generate_rewards(model, tokenizer, prompts, responses, settings, seed)
    else:
        rewards, verdicts = score(prompts, responses), [[[] for _ in group] for group in responses]
    pairs, records, lengths = [], [], []
    for prompt, group, reward, verdict in zip(prompts, responses, rewards, verdicts):
        picked = select(reward, [sum(mask) for _, mask in group], settings.rho)
        if picked and group[picked[0]] == group[picked[1]]:
            picked = None  # the same response, judged twice
        if picked:
            pairs.append((group[picked[0]], group[picked[1]]))
            lengths.append([sum(group[k][1]) for k in picked])
        texts = [tokenizer.decode([token for token, on in zip(*row) if on]) for row in group]
        chosen, rejected = picked or (None, None)
        records.append({"prompt": prompt, "responses": texts, "rewards": reward, "verdicts": verdict, "chosen": chosen, "rejected": rejected})
    counts |= audit(tokenizer, prompts, responses, rewards, [(record["chosen"], record["rejected"]) for record in records])
    all_verdicts = [text for group in verdicts for texts in group for text in texts]
    counts |= {"prompts": len(prompts), "pairs": len(pairs), "verdicts": len(all_verdicts),
               "verdicts_parsed": sum(world_judge.parse_verdict(text) is not None for text in all_verdicts) / max(1, len(all_verdicts)),
               "chosen_length": sum(chosen for chosen, _ in lengths) / max(1, len(lengths)),
               "rejected_length": sum(rejected for _, rejected in lengths) / max(1, len(lengths))}
    return pairs, records + dropped, counts


def audit(tokenizer, prompts: list[str], responses: list[list[Row]], rewards: list[list[float | None]], picks: list[tuple]) -> dict:
    """What the truth says of the judge and of its pairs, on the chat prompts that the world can parse; measured, and used for nothing.

    "own_agreement": pairwise agreement on the model's own responses (0.5 is chance); "equally_good": the share of two responses to a
    prompt that no judge could tell apart by their truth; "true_gap": true reward of the chosen minus that of the rejected, in points.
    "own_correct", "own_polite", ...: the agreement on two responses of which one meets this criterion and the other does not.
    """
    agreement, pairs, gaps = [], 0, []
    by_criterion = {name: [] for name in world_chat.CRITERIA}
    for prompt, group, reward, (chosen, rejected) in zip(prompts, responses, rewards, picks):
        task, texts = world.parse(prompt), [text_of(tokenizer, row) for row in group]
        if task is None or task.domain != "chat" or None in texts or None in reward:
            continue
        truth = [world_judge.true_reward(task, text) for text in texts]
        met = [world_judge.criteria_met(task, text) for text in texts]
        for i in range(len(group)):
            for j in range(i):
                pairs += 1
                for name, known in by_criterion.items():
                    if met[i][name] != met[j][name]:
                        known.append(world.pairwise_agreement(reward[i], reward[j], met[i][name], met[j][name]))
                if truth[i] != truth[j]:
                    agreement.append(world.pairwise_agreement(reward[i], reward[j], truth[i], truth[j]))
        if chosen is not None:
            gaps.append(truth[chosen] - truth[rejected])
    return {"own_agreement": sum(agreement) / len(agreement) if agreement else None, "equally_good": 1 - len(agreement) / pairs if pairs else None,
            "true_gap": sum(gaps) / len(gaps) if gaps else None,
            **{f"own_{name}": sum(known) / len(known) if known else None for name, known in by_criterion.items()}}


# ---- Instruction following training ----

def train_instruction_following(model: GPT, tokenizer, pairs: list[dpo.Pair], settings: Settings, *, seed: int, stage: str, rehearsal: list[Row] = (),
                                log: Path | None = None, device=torch.device("cpu")) -> dict:
    """DPO from M_t with frozen M_t as the reference."""
    return dpo.train(model, tokenizer, pairs, settings.training, seed=seed, stage=stage, rehearsal=rehearsal, log=log, device=device)


def next_iteration_model(model: GPT, seed_model: GPT, tokenizer, settings: Settings, *, seed: int, round_number: int,
                         training_prompts: list[str], rehearsal: list[Row] = (), data: Path | None = None, log: Path | None = None, score=None,
                         device=torch.device("cpu")) -> tuple[GPT, dict]:
    """One round: (M_{t+1}, what was counted). Without a single pair M_{t+1} is M_t, and a line says so."""
    began = time.perf_counter()
    stage = f"self_reward_{round_number}"
    pairs, records, counts = create_self_instruction_data(model, seed_model, tokenizer, settings, seed_of(seed, stage), training_prompts, score)
    if data is not None:
        writing.write_jsonl(data, records)
    following = copy.deepcopy(model)
    if not pairs:
        print(f"{stage}: no pair ({counts.get('prompts', 0)} prompts were left, and none got two different rewards); the next model is this one")
        return following, counts | {"tokens": 0, "seconds": time.perf_counter() - began}
    measured = train_instruction_following(following, tokenizer, pairs, settings, seed=seed, stage=stage, rehearsal=rehearsal, log=log, device=device)
    return following, counts | measured | {"seconds": time.perf_counter() - began}


# ---- measuring a round against the truth ----

def judge_report(model: GPT, tokenizer, settings: Settings, seed: int, part: str = "test", responses: int = 4) -> dict:
    """How well the model judges: held-out chat prompts with `responses` responses of mixed quality each, whose truth is known.

    By pairs with different true scores: "pairwise" agreement (a tie is half right) and the share of "ties"; "exact" is the share
    of prompts with every such pair in the right order; "spearman" and "kendall" are means over prompts; "histogram" counts
    single verdicts, rounded to whole scores.
    """
    rng = world.generator(world.WORLD_VERSION, "judge report", part)
    tasks = [task for task in world.evaluation_tasks("chat", settings.held_out, part)]
    texts = [[world_judge.response_to(task, rng) for _ in range(responses)] for task in tasks]
    truth = [[float(world_judge.true_reward(task, text)) for text in group] for task, group in zip(tasks, texts)]
    questions = [task.prompt for task in tasks for _ in range(responses)]
    scores, verdicts = judge(model, tokenizer, questions, [text for group in texts for text in group], settings, seed)
    groups = [scores[i:i + responses] for i in range(0, len(scores), responses)]
    agreement, ties, rank, tau, constant, exact = [], 0, [], [], 0, []
    for group, true in zip(groups, truth):
        before = len(agreement)
        for i in range(responses):
            for j in range(i):
                if true[i] != true[j]:
                    agreement.append(world.pairwise_agreement(group[i], group[j], true[i], true[j]))
                    ties += group[i] is not None and group[i] == group[j]
        if len(agreement) > before:
            exact.append(min(agreement[before:]) == 1)
        if None not in group:
            both = spearman(group, true), kendall(group, true)
            constant += both[0] is None
            rank, tau = (rank + [both[0]], tau + [both[1]]) if both[0] is not None else (rank, tau)
    parsed = [world_judge.parse_verdict(text) for group in verdicts for text in group]
    return {"pairwise": sum(agreement) / len(agreement), "ties": ties / len(agreement), "exact": sum(exact) / max(1, len(exact)),
            "spearman": sum(rank) / len(rank) if rank else None, "kendall": sum(tau) / len(tau) if tau else None, "constant": constant,
            "parsed": sum(score is not None for score in parsed) / len(parsed),
            "histogram": {str(n): sum(score is not None and round(score) == n for score in parsed) for n in range(6)}}


def chat_answers(model: GPT, tokenizer, settings: Settings, seed: int, part: str = "test") -> dict:
    """True rewards (0 to 5), mean length, and the share of correct and of polite answers on held-out chat prompts, sampled once each."""
    tasks = world.evaluation_tasks("chat", settings.held_out, part)
    samples = generate(model, tokenizer, [tokenizer.prompt(task.messages) for task in tasks], temperature=settings.temperature, top_p=settings.top_p,
                       seed=seed_of(seed, "chat answers"))
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    met = [world_judge.criteria_met(task, reply.content if reply.complete else "")
           for task, reply in zip(tasks, replies)]
    return {"rewards": [5 * score for score in world.score_replies(tasks, replies)], "length": float(samples.lengths.float().mean()),
            **{name: sum(one[name] for one in met) / len(met) for name in ("correct", "polite")}}


def measure(model: GPT, before: GPT, seed_model: GPT, tokenizer, settings: Settings, seed: int, part: str = "test") -> dict:
    """M_{t+1} against M_t and against M_1, and its judge."""
    new, old, first = (chat_answers(m, tokenizer, settings, seed, part) for m in (model, before, seed_model))
    return {"true_reward": sum(new["rewards"]) / len(new["rewards"]), **{name: new[name] for name in ("length", "correct", "polite")},
            "against_previous": win_share(new["rewards"], old["rewards"]), "against_seed": win_share(new["rewards"], first["rewards"]),
            "judge": judge_report(model, tokenizer, settings, seed, part)}


def check_seed_model(report: dict) -> None:
    """Raises ValueError when M_1's verdicts cannot be read: its rewards would be noise."""
    if report["parsed"] < 0.9:
        raise ValueError(f"only {100 * report['parsed']:.0f}% of the seed model's verdicts can be read; give overall SFT more judge demonstrations "
                         "(the shares in sft.py), or a seed model that has had them")


def listed(numbers: dict, *names: str) -> str:
    return ", ".join(f"{name} {numbers[name]:.3f}" for name in names if numbers.get(name) is not None)


def judge_line(report: dict) -> str:
    return listed(report, "pairwise", "ties", "exact", "spearman", "kendall", "parsed")


# ---- alone ----

def main() -> None:
    parser = common_flags(__doc__, "runs/self_reward, runs/self_reward-smoke with --smoke")
    parser.add_argument("--init", default=None, help="checkpoint of M_1; default: a run's overall_sft, or SFT is done first")
    parser.add_argument("--rounds", type=int, default=2, help="how many next iteration models")
    parser.add_argument("--lr", type=float, default=None, help=f"of DPO; default: {Settings.training.lr} at size tiny")
    parser.add_argument("--rho", type=float, default=0.0, help="length-controlled selection; 0 is highest against lowest")
    parser.add_argument("--no-rehearsal", action="store_true", help="DPO pairs alone, as in the paper")
    parser.add_argument("--eval-n", type=int, default=128, help="held-out prompts a domain")
    command(parser, run, "stopped; the rounds that were finished are kept")


def run(args) -> None:
    device = start(args)
    if args.data:
        raise ValueError("--data: the loop writes its own prompts")
    tokenizer = tokenizer_of(args.init)
    seed_model = starting_model(args, "student", tokenizer, device)
    settings = sized(Settings(rho=args.rho), "self_reward", args.size, args.smoke)
    settings = replace(settings, training=replace(settings.training, lr=args.lr)) if args.lr is not None else settings
    if not 0 <= args.rho < 0.5:
        raise ValueError(f"--rho {args.rho}: needs a number from 0 to below 0.5")
    out = out_folder(args.out or f"runs/self_reward{'-smoke' if args.smoke else ''}")
    rehearsal = [] if args.no_rehearsal else rehearsal_data(tokenizer, args.size, args.seed, seed_model.config.context)
    training_prompts = chat_prompts(args.size, args.seed)
    eval_n = 4 if args.smoke else args.eval_n
    first = judge_report(seed_model, tokenizer, settings, args.seed)
    if not args.smoke:
        check_seed_model(first)
    print(table_head())
    print(table_line("M_1", evaluate(seed_model, tokenizer, eval_n, seed=args.seed)), flush=True)
    print(f"  judge: {judge_line(first)}")
    model = seed_model
    for number in range(1, args.rounds + 1):
        name = f"self_reward_{number}"
        following, made = once(out / f"{name}.pt", key_of_run(args, tokenizer, device, weights=model, seed_model=seed_model), lambda: copy.deepcopy(model),
                              tokenizer, name,
                              lambda: next_iteration_model(model, seed_model, tokenizer, settings, seed=args.seed, round_number=number,
                                                           training_prompts=training_prompts, rehearsal=rehearsal, data=out / f"{name}.jsonl",
                                                           log=out / f"{name}.csv", device=device), settings=asdict(settings))
        measured = measure(following, model, seed_model, tokenizer, settings, args.seed)
        print(table_line(f"M_{number + 1}", evaluate(following, tokenizer, eval_n, seed=args.seed)), flush=True)
        against, judged = measured["against_previous"], measured["judge"]
        print(f"  {made.get('prompts', 0)} prompts ({100 * made['parsed']:.0f}% the world can parse, {100 * made['novel']:.0f}% novel), {made['pairs']} pairs, "
              f"chosen {made.get('chosen_length', 0):.0f} and rejected {made.get('rejected_length', 0):.0f} tokens, {made['seconds']:.0f} s")
        print(f"  true reward {measured['true_reward']:.2f} of 5, correct {measured['correct']:.2f}, polite {measured['polite']:.2f}, "
              f"length {measured['length']:.1f}; wins {against['wins']:.2f} ties {against['ties']:.2f} losses {against['losses']:.2f} against M_{number}")
        print(f"  judge: {judge_line(judged)}")
        print(f"  on its own responses: {listed(made, 'own_agreement', 'equally_good', 'true_gap')}", flush=True)
        model = following
    print(f"checkpoints, data and logs are in {out}")


if __name__ == "__main__":
    main()
