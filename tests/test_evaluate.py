"""What evaluation asks and what it counts: `evaluate`, `pass_rates` and a run's fixed samples, with
`generate` by script."""

import inspect
import math

import pytest
import torch

import pipeline
from data import world
from data.files import formats, real
from data.files.tokenizer import Reply
from data.runtime import decoding, evaluation, samples
from data.runtime.decoding import Samples
from data.runtime.evaluation import evaluate, pass_rates
from data.runtime.measures import interval, wilson
from data.runtime.rows import pad_rows
from data.world import judge as world_judge

DOMAINS = ("math", "code", "stem", "chat", "agent")


class Script:
    """Stands in for `generate`: reply(prompt's ids, temperature, k) are the ids of the k-th sample.

    Every call is kept, with all its settings by name, defaults too.
    """

    def __init__(self, reply):
        self.reply, self.calls, self.signature = reply, [], inspect.signature(decoding.generate)

    def __call__(self, *args, **how):
        bound = self.signature.bind(*args, **how)
        bound.apply_defaults()
        call = bound.arguments
        self.calls.append(call)
        heat = call["temperature"]
        heat = heat if isinstance(heat, list) else [heat] * call["n"]
        rows = [self.reply(ids, heat[k], k) for ids in call["prompts"] for k in range(call["n"])]
        own = pad_rows([[True] * len(row) for row in rows], False)
        lengths = torch.tensor([len(row) for row in rows])
        cut = torch.zeros(len(rows), dtype=torch.bool)
        tokens = pad_rows(rows, call["tokenizer"].pad_id)
        return Samples(tokens, torch.zeros(own.shape), own, lengths, cut)


@pytest.fixture
def script(monkeypatch):
    """script(reply) puts a Script in the place of `generate`."""

    def install(reply):
        played = Script(reply)
        for module in (evaluation, samples):
            monkeypatch.setattr(module, "generate", played)
        return played

    return install


def asked(call, *names):
    return [call[name] for name in names]


def right(tokenizer, task):
    """The ids of a perfect reply, calls and tool results included."""
    prompt = tokenizer.prompt(task.messages)
    return tokenizer.render([*task.messages, *world.reference(task)])[0][len(prompt) :]


def said(tokenizer, text):
    return [*tokenizer.encode(text), tokenizer.end_id]


def answers_to(tokenizer, domains, n, part="test"):
    """Prompt's ids -> ids of a perfect reply."""
    tasks = [task for domain in domains for task in world.evaluation_tasks(domain, n, part)]
    return {tuple(tokenizer.prompt(task.messages)): right(tokenizer, task) for task in tasks}


def verdicts_by(tokenizer, script, text):
    """Every verdict is text(true reward of the response, number of the prompt), text or ids."""
    count = iter(range(10**6))

    def reply(ids, heat, k):
        told = tokenizer.decode(ids)
        question, response, _ = world_judge.read_judge_prompt(told[told.index("Rate this") :])
        words = text(world_judge.true_reward(world.parse(question), response), next(count))
        return said(tokenizer, words) if isinstance(words, str) else words

    return script(reply)


# ---- evaluate ----


def test_greedy_is_what_is_said_at_temperature_0_and_sampled_what_is_said_at_1(tokenizer, script):
    """A model that is right at 0 alone, and one that is right at 1 alone."""
    known = answers_to(tokenizer, (*DOMAINS, "phrasing"), 3)
    for good in (0.0, 1.0):
        script(lambda ids, heat, k: known[tuple(ids)] if heat == good else said(tokenizer, "?"))
        results = evaluate(None, tokenizer, 3, seed=1, domains=(*DOMAINS, "phrasing"))
        assert list(results) == [*DOMAINS, "phrasing"]
        for row in results.values():
            assert (row["greedy"], row["sampled"], row["n"]) == (1 - good, good, 3)
            assert (row["low"], row["high"]) == wilson(3 - 3 * good, 3)


def test_every_prompt_is_read_once_for_both_temperatures(tokenizer, script):
    played = script(lambda ids, heat, k: said(tokenizer, "Score: 3"))
    evaluate("the model", tokenizer, 2, seed=1)
    (call,) = played.calls
    assert asked(call, "model", "n", "temperature", "max_new") == ["the model", 2, [0.0, 1.0], 64]
    assert (call["top_k"], call["top_p"], call["run_tool"]) == (0, 1.0, world.run_tool)


@pytest.mark.parametrize("part", ["test", "dev"])
def test_the_prompts_are_fixed_and_a_seed_changes_the_samples_alone(tokenizer, script, part):
    played = script(lambda ids, heat, k: said(tokenizer, "Score: 3"))
    how = {} if part == "test" else {"part": part}
    for seed in (1, 2):
        evaluate(None, tokenizer, 2, seed=seed, **how)
    expected = []
    for domain in ("math", "code", "stem", "chat", "agent", "judge", "phrasing"):
        if domain == "judge":
            texts = [
                world_judge.judge_prompt(task.prompt, response)
                for task, *both in world.evaluation_judge_pairs(2, part)
                for response in both
            ]
            expected += [tokenizer.prompt([{"role": "user", "content": text}]) for text in texts]
        else:
            tasks = world.evaluation_tasks(domain, 2, part)
            expected += [tokenizer.prompt(task.messages) for task in tasks]
    assert len(expected) == 16 and all(call["prompts"] == expected for call in played.calls)
    assert played.calls[0]["seed"] != played.calls[1]["seed"]


def test_a_reply_without_its_end_mark_counts_as_wrong(tokenizer, script):
    known = answers_to(tokenizer, DOMAINS, 3)
    script(lambda ids, heat, k: known[tuple(ids)][:-1])
    for row in evaluate(None, tokenizer, 3, seed=1, domains=DOMAINS).values():
        assert (row["greedy"], row["sampled"], row["n"]) == (0, 0, 3)
        assert (row["low"], row["high"]) == wilson(0, 3)


def test_chat_is_the_true_reward_as_a_share_of_five(tokenizer, script):
    tasks = world.evaluation_tasks("chat", 8)
    texts = [world.reference(task)[-1]["content"].removeprefix("Sure! ") for task in tasks]  # rude
    prompts = [tuple(tokenizer.prompt(task.messages)) for task in tasks]
    script(lambda ids, heat, k: said(tokenizer, texts[prompts.index(tuple(ids))]))
    row = evaluate(None, tokenizer, 8, seed=1, domains=("chat",))["chat"]
    truth = [world_judge.true_reward(task, text) / 5 for task, text in zip(tasks, texts)]
    assert row["greedy"] == pytest.approx(sum(truth) / 8)
    assert set(truth) <= {0.8, 1.0} and 0.8 in truth
    assert (row["low"], row["high"]) == pytest.approx(interval(truth))


@pytest.mark.parametrize(
    "text, agreement, parsed",
    [
        (lambda true, k: f"so so. Score: {true}", 1, 1),
        (lambda true, k: f"Score: {5 - true}", 0, 1),
        (lambda true, k: "Score: 3", 0.5, 1),
        (lambda true, k: "I like it.", 0, 0),
        (lambda true, k: f"Score: {true + 6}", 0, 0),
        (lambda true, k: f"Score: {true}" if k % 2 else "Score: none", 0, 0.5),
        (lambda true, k: f"Score: \u0663 or Score: {true}", 0, 0),
        (lambda true, k: "Score: \u0663", 0, 0),
    ],
)
def test_verdicts_as_the_truth_are_right_a_tie_half_right_and_an_unreadable_one_wrong(
    tokenizer, script, text, agreement, parsed
):
    verdicts_by(tokenizer, script, text)
    how = {"domains": ("judge",), "temperatures": {"greedy": 0.0}}
    row = evaluate(None, tokenizer, 4, seed=1, **how)["judge"]
    assert (row["greedy"], row["greedy_parsed"], row["n"]) == (agreement, parsed, 4)


def test_a_verdict_without_its_end_mark_cannot_be_read(tokenizer, script):
    verdicts_by(tokenizer, script, lambda true, k: tokenizer.encode(f"Score: {true}"))
    row = evaluate(None, tokenizer, 4, seed=1, domains=("judge",))["judge"]
    assert asked(row, "greedy", "sampled", "greedy_parsed", "sampled_parsed") == [0] * 4
    assert row["low"] == 0 < row["high"] < 1


def test_what_could_not_be_checked_is_no_part_of_the_score_nor_of_n(tokenizer, script, monkeypatch):
    script(lambda ids, heat, k: said(tokenizer, "x"))
    scores = iter([[None, 1.0, 0.0, None], [None, 1.0, 1.0, None]])  # greedy, then sampled
    monkeypatch.setattr(world, "score_replies", lambda tasks, replies: next(scores))
    row = evaluate(None, tokenizer, 4, seed=1, domains=("code",))["code"]
    assert (row["greedy"], row["sampled"], row["n"]) == (0.5, 1, 2)
    assert (row["low"], row["high"]) == wilson(1, 2)
    monkeypatch.setattr(world, "score_replies", lambda tasks, replies: [None] * len(tasks))
    row = evaluate(None, tokenizer, 4, seed=1, domains=("code",))["code"]
    unknown = ("greedy", "sampled", "low", "high")
    assert row["n"] == 0 and all(math.isnan(row[key]) for key in unknown)


def test_given_tasks_take_the_place_of_the_worlds(tokenizer, script):
    """The first n of each domain, in their order."""
    sums = [real.Task("math", f"{k}?", (("user", f"{k}?"),), str(k)) for k in range(9)]
    program = real.Task("code", "f?", (("user", "f?"),), tests=(("f(2)", 4),))
    replies = {tuple(tokenizer.prompt(task.messages)): f"It is {task.answer}." for task in sums[:2]}
    square = "def f(x): return x * x"
    played = script(lambda ids, heat, k: said(tokenizer, replies.get(tuple(ids), square)))
    tasks = {"math": sums, "code": [program]}
    results = evaluate(None, tokenizer, 4, seed=1, tasks=tasks, max_new=256)
    (call,) = played.calls
    assert call["prompts"] == [tokenizer.prompt(task.messages) for task in (*sums[:4], program)]
    assert call["max_new"] == 256 and list(results) == ["math", "code"]
    assert (results["math"]["greedy"], results["math"]["n"]) == (0.5, 4)
    assert (results["code"]["greedy"], results["code"]["n"]) == (1, 1)


def test_the_interval_is_of_the_first_temperature_that_is_asked_for(tokenizer, script):
    known = answers_to(tokenizer, ("math",), 4)
    played = script(lambda ids, heat, k: known[tuple(ids)] if heat == 0.5 else said(tokenizer, "?"))
    how = {"domains": ("math",), "temperatures": {"cool": 0.5, "hot": 2.0}}
    row = evaluate(None, tokenizer, 4, seed=1, **how)["math"]
    assert played.calls[0]["temperature"] == [0.5, 2.0]
    assert row == {"cool": 1, "hot": 0, "n": 4, "low": wilson(4, 4)[0], "high": wilson(4, 4)[1]}


# ---- pass rates ----


def test_a_pass_rate_is_the_share_of_sixteen_samples_at_temperature_1(tokenizer, script):
    """The k-th prompt is answered rightly k times, and once more without an end mark."""
    tasks = [task for domain in ("math", "stem") for task in world.evaluation_tasks(domain, 3)]
    place = {tuple(tokenizer.prompt(task.messages)): i for i, task in enumerate(tasks)}

    def reply(ids, heat, k):
        i = place[tuple(ids)]
        good = right(tokenizer, tasks[i])
        return good if k < i else good[:-1] if k == i else said(tokenizer, "?")

    played = script(reply)
    assert pass_rates("the model", tokenizer, tasks, seed=1) == [i / 16 for i in range(6)]
    (call,) = played.calls
    assert asked(call, "model", "n", "temperature", "max_new") == ["the model", 16, 1.0, 64]
    assert (call["top_k"], call["top_p"], call["run_tool"]) == (0, 1.0, world.run_tool)
    assert call["prompts"] == [tokenizer.prompt(task.messages) for task in tasks]
    pass_rates("the model", tokenizer, tasks, seed=2, max_new=9)
    assert played.calls[1]["seed"] != call["seed"] and played.calls[1]["max_new"] == 9


def test_a_pass_rate_leaves_out_what_could_not_be_checked(tokenizer, script, monkeypatch):
    script(lambda ids, heat, k: said(tokenizer, "x"))
    scores = [1.0, None, 0.0, None, None, None, None, None, 1.0, 1.0, 1.0, None]
    monkeypatch.setattr(world, "score_replies", lambda tasks, replies: scores)
    tasks = world.evaluation_tasks("code", 3)
    assert pass_rates(None, tokenizer, tasks, samples=4, seed=1) == [0.5, None, 1.0]


# ---- the fixed samples of a run ----


def run_in(folder, tokenizer, data=None):
    both = {"student": "the student", "teacher": "the teacher"}
    cpu = torch.device("cpu")
    return pipeline.Run(folder, "tiny", 1, cpu, tokenizer, {}, 8, True, {}, data, models=both)


def test_the_fixed_samples_are_greedy_answers_to_two_prompts_of_five_domains(
    tokenizer, script, tmp_path
):
    known = answers_to(tokenizer, DOMAINS, 2)
    played = script(lambda ids, heat, k: known[tuple(ids)])
    pipeline.answer_samples(run_in(tmp_path, tokenizer), "overall_sft", "teacher")
    (call,) = played.calls
    tasks = [task for domain in DOMAINS for task in world.evaluation_tasks(domain, 2)]
    assert asked(call, "model", "n", "temperature", "max_new") == ["the teacher", 1, 0.0, 64]
    assert call["prompts"] == [tokenizer.prompt(task.messages) for task in tasks]
    assert call["run_tool"] is world.run_tool
    lines = formats.read_jsonl(tmp_path / "samples.jsonl")
    whose = {"stage": "overall_sft", "model": "teacher"}
    assert lines == [
        whose
        | {
            "domain": task.domain,
            "prompt": task.prompt,
            "reply": tokenizer.encoding.decode(right(tokenizer, task)),
        }
        for task in tasks
    ]
    assert all(line["reply"].endswith("<|end|>") for line in lines)


def test_a_stage_that_is_done_again_replaces_its_own_samples_alone(tokenizer, script, tmp_path):
    run = run_in(tmp_path, tokenizer)
    for who, text in (("student", "first"), ("teacher", "other"), ("student", "second")):
        script(lambda ids, heat, k: said(tokenizer, text))
        pipeline.answer_samples(run, "distill", who)
    lines = formats.read_jsonl(tmp_path / "samples.jsonl")
    lines = [(line["model"], line["reply"]) for line in lines]
    assert lines == [("teacher", "other<|end|>")] * 10 + [("student", "second<|end|>")] * 10
    text = (tmp_path / "samples.md").read_text(encoding="utf-8")
    assert text.count("- distill (student): `second<|end|>`") == 10 and "first" not in text
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        task.prompt for domain in DOMAINS for task in world.evaluation_tasks(domain, 2)
    ]


def test_with_real_files_the_samples_are_of_their_test_part_and_longer(tokenizer, script, tmp_path):
    def three(part, domain):
        texts = [f"{part} {domain} {k}" for k in range(3)]
        return [real.Task(domain, text, (("user", text),)) for text in texts]

    parts = {
        part: {domain: three(part, domain) for domain in real.DOMAINS} for part in ("train", "test")
    }
    data = real.Folder(parts, {}, [], {})
    played = script(lambda ids, heat, k: said(tokenizer, "x"))
    pipeline.answer_samples(run_in(tmp_path, tokenizer, data), "rl_code", "student")
    (call,) = played.calls
    assert asked(call, "model", "temperature", "max_new") == ["the student", 0.0, 256]
    assert [line["prompt"] for line in formats.read_jsonl(tmp_path / "samples.jsonl")] == [
        f"test {domain} {k}" for domain in ("math", "code", "chat") for k in range(2)
    ]


def test_chat_is_told_by_criterion_correct_and_polite_apart(monkeypatch):
    """Of three replies two are polite, one is correct, and the one that broke off is neither."""
    met = {"a": (True, False), "b": (False, True), "c": (False, True), "": (False, False)}
    monkeypatch.setattr(
        world_judge,
        "criteria_met",
        lambda task, text: dict(zip(("correct", "polite"), met[text])),
    )
    questions = [evaluation.Question("chat", None, [])] * 4
    replies = [Reply(text, complete=text != "d") for text in "abcd"]
    shares = evaluation.criteria_shares(questions, replies)
    assert shares == {"correct": 0.25, "polite": 0.5}
