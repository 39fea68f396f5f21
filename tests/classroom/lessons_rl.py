"""What lessons 5 to 8 measure: ppo, distill, self_reward, pipeline. Their texts: lessons.py."""

import copy
import random
from dataclasses import replace

import distill
import ppo
import self_reward
import sft
from data import world
from data.runtime import judging
from data.runtime.evaluation import evaluate, pass_rates
from data.runtime.rollouts import ready_tasks
from data.runtime.rows import repeated
from model import GPT
from tests.classroom.lessons_room import (
    Desk,
    chat_reward_model,
    chat_student,
    demonstrations,
    drawn,
    student,
)
from tests.experiments.overoptimise import measured
from tests.experiments.pass_at_k import SAMPLES, pass_at

# two families that the tiny student gets half right after a few hundred steps
REASONED = ("sum", "difference")

# ---- lesson 5: ppo.py ----


def no_kl(
    desk: Desk, iterations: int = 12, rankings: int = 240, prompts: int = 200, **small
) -> None:
    """rl_preference against a reward model of few rankings, with the KL penalty and without."""
    tokenizer = desk.tokenizer
    desk.expected = 3 * len(desk.seeds)
    for seed in desk.seeds:
        start = chat_student(desk, seed, **small)
        reward_model = chat_reward_model(desk, start, seed, rankings)
        queries = world.draw_tasks(world.generator(seed, "lesson 5"), ("chat",), 256)
        tasks = world.evaluation_tasks("chat", prompts)
        kl_coef = ppo.STAGE_SETTINGS["rl_preference"].kl_coef
        for name, coef in (("start", None), (f"kl_coef {kl_coef}", kl_coef), ("kl_coef 0", 0.0)):
            policy = copy.deepcopy(start)
            if coef is not None:
                settings = ppo.STAGE_SETTINGS["rl_preference"]
                settings = replace(settings, iterations=iterations, prompts=16, samples=4)
                settings = replace(settings, kl_coef=coef, lr=1e-3, rehearsal_rows=0)
                how = {"seed": seed, "stage": "lesson_5", "reward_model": reward_model}
                how["log"] = desk.out / f"lesson5.seed{seed}.kl{coef:g}.csv"
                ppo.train(policy, tokenizer, queries, settings, **how)
            numbers = measured(policy, start, reward_model, tokenizer, tasks, seed)
            desk.note(seed, name, score=numbers["rm"], true=numbers["true"], kl=numbers["kl"])


# ---- lesson 6: distill.py ----

# weights of L_DPO, L_pos and L_neg; the last row is the chapter's default
LOSSES = {"L_DPO": (1.0, 0.0, 0.0), "L_pos": (0.0, 1.0, 0.0), "L_neg": (0.0, 0.0, 1.0)}
LOSSES["all three"] = tuple(
    getattr(distill.Settings, name) for name in ("dpo_coef", "pos_coef", "neg_coef")
)


def reasoner(desk: Desk, seed: int, sft_steps: int = 300) -> GPT:
    """A student that has seen sums and differences alone."""
    return student(desk, "reasoner", REASONED, seed, sft_steps)


def three_losses(
    desk: Desk, steps: int = 100, queries: int = 400, prompts: int = 150, **small
) -> None:
    """Each loss of distillation alone, without rehearsal, which is a loss of its own."""
    tokenizer = desk.tokenizer
    desk.expected = 5 * len(desk.seeds)
    teacher = desk.teacher()
    for seed in desk.seeds:
        start = reasoner(desk, seed, **small)
        tasks = drawn(REASONED, queries, seed + 2000)
        settings = distill.Settings(steps=steps, queries=queries)
        how = {"seed": seed, "tasks": tasks}
        pairs = distill.preference_data(teacher, start, tokenizer, settings, **how)[0]
        unseen = {"math": drawn(REASONED, prompts, seed, "test")}
        for name, weights in (("start", None), *LOSSES.items()):
            model = copy.deepcopy(start)
            if weights is not None:
                dpo_coef, pos_coef, neg_coef = weights
                coefs = {"dpo_coef": dpo_coef, "pos_coef": pos_coef, "neg_coef": neg_coef}
                used = replace(settings, **coefs)
                how = {"seed": seed, "stage": "lesson_6"}
                distill.train(model, teacher, tokenizer, pairs, [], used, **how)
            scores = evaluate(model, tokenizer, prompts, seed=seed, tasks=unseen)["math"]
            desk.note(seed, name, greedy=100 * scores["greedy"], sampled=100 * scores["sampled"])


# ---- lesson 7: self_reward.py ----


def blind_judge(desk: Desk, prompts: int = 120, responses: int = 4) -> None:
    """The given teacher judges written responses of mixed quality, and its own answers."""
    tokenizer = desk.tokenizer
    desk.expected = 2 * len(desk.seeds)
    model = desk.teacher()
    settings = replace(self_reward.Settings(), responses=responses)
    one_turn = [family.name for family in world.families_of("chat") if family.name != "memory"]
    for seed in desk.seeds:
        tasks = drawn(one_turn, prompts, seed, "test")
        questions = [task.prompt for task in tasks]
        written = [written_rows(tokenizer, task, responses, seed) for task in tasks]
        own = self_reward.generate_responses(model, tokenizer, questions, settings, seed)
        for name, groups in (("written", written), ("its own", own)):
            how = tokenizer, questions, groups
            judged, _ = self_reward.generate_rewards(model, *how, settings, seed)
            found = judging.audit(*how, judged, [None] * len(groups))
            same = found.pop("equally_good")
            found["own_differ"] = None if same is None else 1 - same
            numbers = {}
            for column in ("differ", "agreement", "correct", "complete", "polite", "concise"):
                share = found[f"own_{column}"]
                numbers[column] = None if share is None else 100 * share
            desk.note(seed, name, **numbers)


def written_rows(tokenizer, task, count: int, seed: int) -> list:
    """Responses of mixed quality that the world writes to a task, as rows."""
    rng = world.generator(seed, "lesson 7", task.prompt)
    rows = []
    for _ in range(count):
        text = world.judge.response_to(task, rng)
        rows.append(tokenizer.render([*task.messages, {"role": "assistant", "content": text}]))
    return rows


# ---- lesson 8: pipeline.py ----


def add_or_concentrate(
    desk: Desk, iterations: int = 10, candidates: int = 384, prompts: int = 80, **small
) -> None:
    """pass@1 and pass@8 before and after RL, and after as many updates of SFT."""
    tokenizer = desk.tokenizer
    desk.expected = 4 * len(desk.seeds)
    for seed in desk.seeds:
        start = reasoner(desk, seed, **small)
        settings = ppo.STAGE_SETTINGS["rl_stem"]
        settings = replace(settings, iterations=iterations, prompts=16, candidates=candidates)
        asked = drawn(REASONED, candidates, seed + 1000)
        ready, _ = ready_tasks(start, tokenizer, "rl_stem", settings, seed, asked)
        if not ready:
            raise ValueError(f"lesson 8: the student of seed {seed} gets no prompt right at times")
        unseen = drawn(REASONED, prompts, seed, "test")
        earlier = demonstrations(tokenizer, drawn(REASONED, 1500, seed), seed)
        for name in ("start", "RL", "RL, no rehearsal", "SFT"):
            policy = copy.deepcopy(start)
            how = {"seed": seed, "stage": "lesson_8"}
            if name.startswith("RL"):
                rehearsal = [] if "no rehearsal" in name else earlier
                ppo.train(policy, tokenizer, ready, settings, rehearsal=rehearsal, **how)
            if name == "SFT":
                updates = iterations * settings.minibatches
                rng = random.Random(seed)
                rows = repeated(demonstrations(tokenizer, ready, seed), 16 * updates, rng)
                rows += repeated(earlier, 16 * updates, rng)
                rng.shuffle(rows)
                sft.train(policy, tokenizer, rows, sft.Settings(updates, rows=32), **how)
            numbers = {"trained_on": passed(policy, tokenizer, ready[:prompts], seed)["pass_1"]}
            desk.note(seed, name, **numbers, **passed(policy, tokenizer, unseen, seed))


def passed(policy: GPT, tokenizer, tasks: list, seed: int) -> dict:
    """Percent of the tasks that one and that eight samples get right, and that none of 16 did."""
    rates = pass_rates(policy, tokenizer, tasks, samples=SAMPLES, seed=seed)
    rights = [round(rate * SAMPLES) for rate in rates]
    shares = {f"pass_{k}": [pass_at(k, right, SAMPLES) for right in rights] for k in (1, 8)}
    shares["never"] = [right == 0 for right in rights]
    return {name: 100 * sum(values) / len(values) for name, values in shares.items()}
