"""The self-rewarding loop: a model writes prompts, answers them, judges its answers, and learns.

    create_self_instruction_data ("Self-Instruction creation")
        generate_prompts {x_i} by M_1 -> generate_responses {y_i^1 .. y_i^N} by M_t
        -> generate_rewards {r_i^1 .. r_i^N} by the same M_t -> select -> pairs {x_i, y_i^w, y_i^l}
    train_instruction_following ("Instruction following training")
        DPO from M_t, with frozen M_t as the reference -> M_{t+1}, the next_iteration_model

    L_DPO = -log sigmoid(beta {[log pi - log pi_M_t](y^w|x) - [log pi - log pi_M_t](y^l|x)})

(Yuan et al., 2401.10020, figure 1; dpo.py adds the cross-entropy of 5.) x_i is a prompt, y_i^k a
response, r_i^k the model's own reward, y^w the chosen, y^l the rejected one. M_1 has had chat and
judge data in SFT. The tiny world (data/world) knows the true reward, and only measures a round.

Details that matter. Numbers: true reward (0 to 5) gained in two rounds, or win shares with ties as
half, on an older world, without the cap `passes` (tests/experiments/README.md has the present):

1. Is it the judge? From overall SFT its own gains 0.38 +-0.16, a random one +0.01, the truth 0.30.
   From the model after RL none does: -0.08 +-0.24, -0.03, 0.02.
2. A verdict is a short justification and `Score: n`, 0 to 5; what cannot be read is dropped, not
   counted as 0. A reward is the mean of three (eight, after RL: no change).
3. A pair is the highest against the lowest of N = 4 (8, after RL: no change), if they differ.
4. M_1 writes all prompts, shown two to four of its training prompts (in the paper a fixed model,
   shown eight). 40% are tasks that the world knows; shown the whole world's, 3 to 7%.
5. Rehearsal of earlier rows during DPO (ours). Without it AND at three times the learning rate
   correctness falls and M_3 loses to M_2 (win share 0.45; by default 0.52).

Left out: training the judge (Meta-Rewarding, 2407.19594; its length control is here, `rho`).

    python self_reward.py                             two rounds from the tiny SFT model
    python self_reward.py --lr 3e-4 --no-rehearsal    watch correctness and the judge fall
    python self_reward.py --show                      one made-up prompt, from verdicts to the loss

Watch the wins of M_{t+1} over M_t by the TRUE reward, and the judge. On the world's own answers of
mixed quality: `pairwise` agreement, which should not fall; `ties`; `exact`, share of prompts all in
order; rank correlations; `parsed`, verdicts read. On its own: `own_agreement` (0.5: a coin),
`equally_good` (share of twos), `true_gap` of a pair. DPO's `loss`, `chosen_logprob`, `kl`: dpo.py.
"""

import copy
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import dpo
from data.runtime import judging
from data.runtime.alone import Alone
from data.runtime.command import chapter_flags, command
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.evaluation import sampled_rows
from data.runtime.judging import chat_answers, check_seed_model, text_of
from data.runtime.rows import Row
from data.world import judge as world_judge
from data.world.novelty import NewPrompts, new_prompt_requests
from model import GPT
from sft import chat_prompts, rehearsal_data, starting_model


@dataclass(frozen=True)
class Settings:
    prompts: int = 300  # new prompts a round, at most
    requests: int = 700  # asked for; what is left after the filters is cut to `prompts`
    responses: int = 4  # N
    verdicts: int = 3  # sampled for each response; their mean is its reward
    temperature: float = 0.7  # of responses and verdicts; the paper's value, as top_p
    top_p: float = 0.9
    prompt_temperature: float = 0.6  # the paper's value; hotter, a tiny model writes nonsense
    rouge_limit: float = 0.9  # least ROUGE-L, by words, of a duplicate (Self-Instruct: 0.7)
    rho: float = 0.0  # 0: highest against lowest; above: shortest good one against longest bad one
    held_out: int = 200  # prompts for win rates and for the judge
    training: dpo.Settings = dpo.Settings(steps=40, rows=32, lr=1e-4)
    passes: int = 4  # over the pairs, at most: 60 pairs are 8 steps; 40 cost 3 to 5% of chat


# ---- Self-Instruction creation ----


def one_turn(tokenizer, texts: list[str]) -> list[list[int]]:
    """Texts as prompts of one turn."""
    return [tokenizer.prompt([{"role": "user", "content": text}]) for text in texts]


def generate_prompts(
    seed_model: GPT, tokenizer, settings: Settings, seed: int, training_prompts: list[str]
) -> tuple[list[str], list[dict], dict]:
    """(new prompts {x_i}, dropped prompts with the reason, counts).

    Filtered by form, length, likeness to each other and to any training prompt, and by what
    evaluation asks (data/world/novelty.py).
    """
    requests = new_prompt_requests(seed, settings.requests, training_prompts)
    how = {"temperature": settings.prompt_temperature, "top_p": settings.top_p, "max_new": 40}
    how["seed"] = seed_of(seed, "generate_prompts")
    samples = generate(seed_model, tokenizer, one_turn(tokenizer, requests), **how)
    new = NewPrompts(training_prompts, settings.rouge_limit)
    for ids in samples.lists():
        new.take(tokenizer.read_reply(ids))
    return new.first(settings.prompts)


def generate_responses(
    model: GPT, tokenizer, prompts: list[str], settings: Settings, seed: int
) -> list[list[Row]]:
    """N responses {y_i^1 .. y_i^N} of M_t to each prompt."""
    ids = one_turn(tokenizer, prompts)
    n = settings.responses
    how = {"temperature": settings.temperature, "top_p": settings.top_p}
    how["seed"] = seed_of(seed, "generate_responses")
    rows = sampled_rows(ids, generate(model, tokenizer, ids, n=n, **how))
    return [rows[i : i + n] for i in range(0, len(rows), n)]


def judge(
    model: GPT, tokenizer, questions: list[str], responses: list[str], settings: Settings, seed: int
) -> tuple[list[float | None], list[list[str]]]:
    """(the mean score of the verdicts on each response, the verdicts' texts)."""
    if not questions:  # every response broke off
        return [], []
    prompts = [world_judge.judge_prompt(*pair) for pair in zip(questions, responses)]
    n = settings.verdicts
    how = {"temperature": settings.temperature, "top_p": settings.top_p, "max_new": 48}
    how["seed"] = seed_of(seed, "judge")
    samples = generate(model, tokenizer, one_turn(tokenizer, prompts), n=n, **how)
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    texts = [reply.content if reply.complete else "" for reply in replies]
    groups = [texts[i : i + n] for i in range(0, len(texts), n)]
    return [mean_score(group) for group in groups], groups


def mean_score(verdicts: list[str]) -> float | None:
    """The mean of the scores that can be read, or None."""
    scores = [world_judge.parse_verdict(text) for text in verdicts]
    scores = [score for score in scores if score is not None]
    return sum(scores) / len(scores) if scores else None


def generate_rewards(
    model, tokenizer, prompts: list[str], responses: list[list[Row]], settings: Settings, seed: int
) -> tuple[list[list[float | None]], list[list[list[str]]]]:
    """({r_i^1 .. r_i^N} by the same M_t, verdict texts), both by prompt.

    The reward is None for a response that broke off or has no readable verdict.
    """
    whole = []  # (prompt, response, its text)
    for i, group in enumerate(responses):
        texts = [text_of(tokenizer, row) for row in group]
        whole += [(i, k, text) for k, text in enumerate(texts) if text is not None]
    questions = [prompts[i] for i, _, _ in whole]
    answers = [text for _, _, text in whole]
    scores, verdicts = judge(model, tokenizer, questions, answers, settings, seed)
    rewards = [[None] * len(group) for group in responses]
    told = [[[] for _ in group] for group in responses]
    for (i, k, _), score, texts in zip(whole, scores, verdicts):
        rewards[i][k] = score
        told[i][k] = texts
    return rewards, told


def select(rewards: list, lengths: list[int], rho: float = 0.0) -> tuple[int, int] | None:
    """(chosen, rejected), or None where all rewards are equal or fewer than two are known.

    rho 0: highest against lowest, the first of equals. rho above 0: the shortest with a score in
    the top window against the longest in the bottom window, windows as wide as rho times the spread
    (Meta-Rewarding, 2407.19594, section 2.3).
    """
    known = [k for k, reward in enumerate(rewards) if reward is not None]
    different = {rewards[k] for k in known}
    if len(different) < 2:
        return None
    high, low = max(different), min(different)
    good = [k for k in known if rewards[k] >= (1 - rho) * high + rho * low]
    bad = [k for k in known if rewards[k] <= (1 - rho) * low + rho * high]
    if rho == 0:
        chosen, rejected = good[0], bad[0]
    else:
        chosen = min(good, key=lambda k: lengths[k])
        rejected = max(bad, key=lambda k: lengths[k])
    return (chosen, rejected) if rewards[chosen] > rewards[rejected] else None


def create_self_instruction_data(
    model, seed_model, tokenizer, settings: Settings, seed: int, training_prompts, *, score=None
) -> tuple[list[dpo.Pair], list[dict], dict]:
    """(preference pairs, readable records of everything that was generated, counts).

    score(prompts, responses) -> rewards takes the judge's place in the control experiments.
    """
    drawn = settings, seed
    prompts, dropped, counts = generate_prompts(seed_model, tokenizer, *drawn, training_prompts)
    if not prompts:
        return [], dropped, counts | {"pairs": 0}
    responses = generate_responses(model, tokenizer, prompts, *drawn)
    if score is None:
        rewards, verdicts = generate_rewards(model, tokenizer, prompts, responses, *drawn)
    else:
        rewards = score(prompts, responses)
        verdicts = [[[] for _ in group] for group in responses]
    picks = []
    for group, reward in zip(responses, rewards):
        picked = select(reward, [sum(mask) for _, mask in group], settings.rho)
        if picked and group[picked[0]] == group[picked[1]]:
            picked = None  # the same response, judged twice
        picks.append(picked)
    pairs = [(group[pick[0]], group[pick[1]]) for group, pick in zip(responses, picks) if pick]
    made = (tokenizer, prompts, responses, rewards, picks)
    counts |= judging.audit(*made) | judging.counted(prompts, pairs, verdicts)
    return pairs, judging.records_of(*made, verdicts) + dropped, counts


# ---- Instruction following training ----


def train_instruction_following(model, tokenizer, pairs, settings: Settings, **how) -> dict:
    """DPO from M_t with frozen M_t as the reference. `how`: seed, stage, rehearsal, log, device."""
    steps = min(settings.training.steps, -(-settings.passes * len(pairs) // settings.training.rows))
    return dpo.train(model, tokenizer, pairs, replace(settings.training, steps=steps), **how)


def next_iteration_model(
    model: GPT,
    seed_model: GPT,
    tokenizer,
    settings: Settings,
    *,
    seed: int,
    round_number: int,
    training_prompts: list[str],
    rehearsal: list[Row] = (),
    data: Path | None = None,
    log: Path | None = None,
    score=None,
    device=torch.device("cpu"),
) -> tuple[GPT, dict]:
    """One round: (M_{t+1}, what was counted). Without a single pair M_{t+1} is M_t, and a line says
    so. `data`: the JSONL of the records; `log`: the CSV of DPO."""
    began = time.perf_counter()
    stage = f"self_reward_{round_number}"
    drawn = settings, seed_of(seed, stage), training_prompts
    made = create_self_instruction_data(model, seed_model, tokenizer, *drawn, score=score)
    pairs, records, counts = made
    judging.keep(data, records)
    following = copy.deepcopy(model)
    measured = {"tokens": 0}
    if pairs:
        how = {"seed": seed, "stage": stage, "rehearsal": rehearsal, "log": log, "device": device}
        measured = train_instruction_following(following, tokenizer, pairs, settings, **how)
    else:
        left = f"{counts.get('prompts', 0)} prompts were left, and none got two different rewards"
        print(f"{stage}: no pair ({left}); the next model is this one")
    return following, counts | measured | {"seconds": time.perf_counter() - began}


# ---- a round against the truth ----


def judge_report(model, tokenizer, settings: Settings, seed: int, part: str = "test") -> dict:
    """How well the model judges responses whose truth is known (`judging.report`)."""
    return judging.report(partial(judge, model, tokenizer), settings, seed, part)


def measure(model, before, seed_model, tokenizer, settings, seed, *, part="test") -> dict:
    """M_{t+1} against M_t and against M_1, and its judge."""
    how = tokenizer, settings, seed, part
    answers = [chat_answers(one, *how) for one in (model, before, seed_model)]
    return judging.compared(*answers) | {"judge": judge_report(model, *how)}


# ---- alone ----


def show() -> None:
    """One made-up prompt: verdicts, rewards, the pair, and DPO's loss on it."""
    verdicts = [
        ["correct, polite. Score: 4", "correct. Score: 5", "correct. Score: 4"],
        ["correct. Score: 4", "correct, wordy. Score: 4", "correct. Score: 4"],
        ["wrong. Score: 2", "wrong, polite. Score: 1", "correct. Score: 3"],
        ["off topic. Score: 1", "I like it", "off topic. Score: 2"],
    ]
    lengths = [30, 12, 20, 9]  # tokens
    rewards = [mean_score(texts) for texts in verdicts]
    for k, texts in enumerate(verdicts):
        scores = [world_judge.parse_verdict(text) for text in texts]
        print(f"response {k}, {lengths[k]} tokens: {texts}")
        print(f"    scores {scores}, reward {rewards[k]:.4f}")
    for rho in (0.0, 0.2):
        chosen, rejected = select(rewards, lengths, rho)
        print(f"rho {rho}: response {chosen} is chosen, response {rejected} rejected")
    policy, reference = torch.tensor([[-20.0, -6.0], [-21.0, -5.0]])  # (2,): chosen, rejected
    logps = *policy[:, None], *reference[:, None]  # (1,) each
    losses, chosen_reward, rejected_reward = dpo.dpo_loss(*logps, beta=Settings.training.beta)
    print(f"log pi of chosen and rejected {policy.tolist()}, log pi_M_t {reference.tolist()}")
    print(f"implicit rewards: {chosen_reward.item():.4f}, {rejected_reward.item():.4f}")
    print(f"L_DPO = -log sigmoid(their difference) = {losses.item():.4f}")


def main() -> None:
    init = "checkpoint of M_1; default: a run's overall_sft, or SFT is done first"
    parser = chapter_flags(__doc__, "self_reward", init)
    judging.flags(parser, Settings)
    command(parser, run, "stopped; the rounds that were finished are kept")


def run(args) -> None:
    if args.show:
        return show()
    alone = Alone(args, "self_reward")
    if args.data:
        raise ValueError("--data: the loop writes its own prompts")
    tokenizer = alone.tokenizer
    seed_model = starting_model(args, "student", tokenizer, alone.device)
    settings = alone.settings(Settings(), "rho")
    if args.lr is not None:
        settings = replace(settings, training=replace(settings.training, lr=args.lr))
    if not 0 <= args.rho < 0.5:
        raise ValueError(f"--rho {args.rho}: needs a number from 0 to below 0.5")
    out = alone.folder()
    how = {"seed": args.seed, "device": alone.device, "rehearsal": []}
    if not args.no_rehearsal:
        context = seed_model.config.context
        how["rehearsal"] = rehearsal_data(tokenizer, args.size, args.seed, context)
    how["training_prompts"] = chat_prompts(args.size, args.seed)
    first = judge_report(seed_model, tokenizer, settings, args.seed)
    if not args.smoke:
        check_seed_model(first)
    alone.scores("M_1", seed_model)
    print(judging.judge_line(first))
    model = seed_model
    for number in range(1, args.rounds + 1):
        how["round_number"] = number
        path = out / f"self_reward_{number}.pt"
        files = {"data": path.with_suffix(".jsonl"), "log": path.with_suffix(".csv")}

        def training() -> tuple[GPT, dict]:
            return next_iteration_model(model, seed_model, tokenizer, settings, **how, **files)

        more = {"into": lambda: copy.deepcopy(model), "seed_model": seed_model}
        following, made = alone.once(path, model, settings, training, **more)
        measured = measure(following, model, seed_model, tokenizer, settings, args.seed)
        alone.scores(f"M_{number + 1}", following)
        print(judging.round_lines(made, measured, number), flush=True)
        model = following
    print(f"checkpoints, data and logs are in {out}")


if __name__ == "__main__":
    main()
