"""What is held out is never trained on: the world, own records, real files, plain text."""

import sys

import pytest
import torch
from recorder import Recorder

import distill
import dpo
import pipeline
import ppo
import reward_model
import sft
from data import world
from data.files import checkpoints, real, writing
from data.files import tokenizer as tokenizers
from data.runtime import alone, annotator, rollouts
from model import GPT, Config

CPU = torch.device("cpu")
OWN = {"tokens": 1, "seconds": 1.0, "loss": 0.5, "kl": 0.5, "held_out_losses": [0.5]}


@pytest.fixture
def recorder(monkeypatch, tmp_path, tokenizer):
    """The loops and what is measured around them; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(monkeypatch)
    for place in (sft, dpo, reward_model):
        recorder.stand_in(place, "train", OWN)
    recorder.stand_in(checkpoints, "save_checkpoint")
    recorder.stand_in(
        dpo, "reference_logprobs", lambda **given: 2 * (torch.zeros(len(given["pairs"])),)
    )
    recorder.stand_in(alone, "evaluate", {})
    for place in (dpo, reward_model):
        recorder.stand_in(place, "starting_model", lambda **given: small(tokenizer))
    recorder.stand_in(annotator, "report", {})
    recorder.stand_in(reward_model, "centre")
    return recorder


def small(tokenizer) -> GPT:
    return GPT(Config(tokenizer.vocab_size, 128, 1, 8, 1, 1, 8)).init_weights(0)


def command(monkeypatch, module, *flags):
    monkeypatch.setattr(sys, "argv", ["command", "--threads", "1", "--out", "out", *flags])
    module.main()


def prompt_of(tokenizer, row) -> str:
    """What stands before the last reply of a row, by its tokens."""
    ids, mask = row
    last = len(mask) - 1 - mask[::-1].index(True)
    start = max((k for k in range(last) if not mask[k]), default=-1) + 1
    return tokenizer.decode(ids[:start])


def prompts_of(tokenizer, rows) -> set:
    return {prompt_of(tokenizer, row) for row in rows}


# ---- the world ----


def evaluation_prompts() -> set:
    """Every prompt that evaluation or a held-out loss may use."""
    domains = [domain for domain in (*world.DOMAINS, "phrasing") if domain != "judge"]
    asked = {
        task.prompt
        for part in ("test", "dev")
        for domain in domains
        for task in world.evaluation_tasks(domain, 200, part)
    }
    return asked | {
        task.prompt
        for part in ("test", "dev")
        for task, *_ in world.evaluation_judge_pairs(200, part)
    }


@pytest.mark.slow
def test_no_stage_of_the_world_trains_on_a_prompt_of_the_evaluation(
    recorder, tokenizer, monkeypatch
):
    held_out, model, seed = evaluation_prompts(), small(tokenizer), 1
    recorder.stand_in(rollouts, "pass_rates", lambda **given: [0.5 for _ in given["tasks"]])
    tasks = distill.queries(seed, 300)
    for stage in ppo.STAGE_SETTINGS:
        tasks += ppo.ready_tasks(model, tokenizer, stage, ppo.STAGE_SETTINGS[stage], seed)[0]
    asked = {task.prompt for task in tasks} | set(sft.chat_prompts("tiny", seed))
    assert len(asked) > 500 and not asked & held_out


@pytest.mark.parametrize("stage", ["cold_start_sft", "overall_sft"])
@pytest.mark.slow
def test_the_held_out_dialogues_of_sft_have_prompts_that_are_not_trained_on(
    recorder, tokenizer, stage
):
    schedule, model = sft.smoke(sft.SCHEDULES["tiny"]["student"]), small(tokenizer)
    getattr(sft, stage)(model, tokenizer, schedule, seed=1)
    given = recorder.one("train")
    held_out = prompts_of(tokenizer, given["held_out"])
    assert len(held_out) > 50 and not held_out & prompts_of(tokenizer, given["rows"])
    rehearsal = sft.rehearsal_data(tokenizer, "tiny", 1, 256)
    assert len(rehearsal) > 1000 and not held_out & prompts_of(tokenizer, rehearsal)


def test_the_held_out_rows_of_pretraining_are_other_rows(recorder, tokenizer):
    sft.pretrain(small(tokenizer), tokenizer, sft.smoke(sft.SCHEDULES["tiny"]["student"]), seed=1)
    given = recorder.one("train")
    trained, held_out = ({tuple(ids) for ids, _ in given[name]} for name in ("rows", "held_out"))
    assert held_out and not trained & held_out


def test_a_reward_model_is_measured_on_rankings_of_other_prompts_than_it_learns(
    recorder, tokenizer, monkeypatch
):
    recorder.stand_in(
        annotator,
        "sample_outputs",
        lambda **given: [
            [(prompt + [7, tokenizer.end_id], [False] * len(prompt) + [True, True])]
            * given["outputs"]
            for prompt in given["prompts"]
        ],
    )
    settings = reward_model.Settings(prompts=200, held_out=100)
    policy = small(tokenizer)
    made, _ = reward_model.reward_model(policy, tokenizer, settings, seed=1)
    reward_model.held_out_report(made, policy, tokenizer, settings, seed=1)
    learned, measured = (
        {ranking["prompt"] for ranking in recorder.one(name)["rankings"]}
        for name in ("train", "report")
    )
    assert len(learned) > 100 and len(measured) > 50 and not learned & measured


def test_the_pairs_that_dpo_makes_itself_are_trained_on_or_held_out(
    recorder, tokenizer, monkeypatch
):
    recorder.stand_in(dpo, "annotated_pairs", lambda **given: [(k, -k) for k in range(30)])
    command(monkeypatch, dpo)
    check_split(
        recorder.one("train")["pairs"],
        recorder.of("reference_logprobs"),
        [(k, -k) for k in range(30)],
    )


def check_split(trained, looks, everything):
    """Trained and held-out pairs are apart, and are all; both looks are at the held-out ones."""
    first, second = (look["pairs"] for look in looks)
    assert first == second and first and not [pair for pair in trained if pair in first]
    assert sorted([*trained, *first]) == sorted(everything)


# ---- own records ----


def test_own_dialogues_are_trained_on_or_held_out(recorder, tokenizer, monkeypatch):
    writing.write_jsonl(
        "own.jsonl", [{"prompt": f"Say {k}.", "response": f"It is {k}."} for k in range(60)]
    )
    command(monkeypatch, sft, "--data", "own.jsonl", "--steps", "30")
    given = recorder.one("train")
    trained, held_out = (prompts_of(tokenizer, given[name]) for name in ("rows", "held_out"))
    assert held_out and not trained & held_out and len(trained) + len(held_out) == 60


def test_the_split_of_own_dialogues_does_not_depend_on_the_steps(recorder, tokenizer):
    rows = [
        tokenizer.render(
            [{"role": "user", "content": f"Say {k}."}, {"role": "assistant", "content": f"{k}."}]
        )
        for k in range(80)
    ]
    for steps in (3, 60):
        sft.sft_on_rows(
            small(tokenizer),
            tokenizer,
            rows,
            sft.Settings(steps=steps),
            seed=1,
            stage="sft",
            device=CPU,
        )
    first, second = recorder.of("train")
    assert first["held_out"] == second["held_out"]


@pytest.mark.parametrize("seed", [1, 2])
def test_own_pairs_of_dpo_are_trained_on_or_held_out(recorder, tokenizer, monkeypatch, seed):
    writing.write_jsonl(
        "own.jsonl",
        [{"prompt": f"Say {k}.", "chosen": f"It is {k}.", "rejected": "No."} for k in range(60)],
    )
    command(monkeypatch, dpo, "--data", "own.jsonl", "--seed", str(seed))
    pairs, (before, after) = recorder.one("train")["pairs"], recorder.of("reference_logprobs")
    trained, held_out = (
        {prompt_of(tokenizer, pair[0]) for pair in some} for some in (pairs, before["pairs"])
    )
    assert (
        before["pairs"] == after["pairs"]
        and held_out
        and not trained & held_out
        and len(trained) + len(held_out) == 60
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_own_rankings_are_trained_on_or_held_out_and_the_shift_is_by_what_is_trained_on(
    recorder, tokenizer, monkeypatch, seed
):
    writing.write_jsonl(
        "own.jsonl",
        [
            {
                "prompt": f"Say {k}.",
                "responses": [f"It is {k}.", "No.", "Why?"],
                "ranking": "A > B > C",
            }
            for k in range(60)
        ],
    )
    command(monkeypatch, reward_model, "--data", "own.jsonl", "--seed", str(seed))
    trained, held_out = (
        {
            prompt_of(tokenizer, row)
            for ranking in recorder.one(name)["rankings"]
            for row in ranking["rows"]
        }
        for name in ("train", "report")
    )
    assert held_out and not trained & held_out and len(trained) + len(held_out) == 60
    assert prompts_of(tokenizer, recorder.one("centre")["rows"]) == trained


# ---- real files ----


def test_no_stage_on_real_files_is_given_a_held_out_prompt(tokenizer, tmp_path, monkeypatch):
    writing.write_jsonl(
        tmp_path / "math.jsonl",
        [
            {"question": f"What is {k}+{k}?", "answer": f"so {2 * k}\n#### {2 * k}"}
            for k in range(99)
        ],
    )
    writing.write_jsonl(
        tmp_path / "code.jsonl",
        [
            {
                "text": f"Add {k}.",
                "code": f"def f(x): return x+{k}",
                "test_list": [f"assert f(1) == {1 + k}"],
            }
            for k in range(99)
        ],
    )
    writing.write_jsonl(
        tmp_path / "preference.jsonl",
        [
            {"prompt": f"Name fruit {k}.", "chosen": f"Plum {k}.", "rejected": "No."}
            for k in range(99)
        ],
    )
    data, recorder = real.read_folder(tmp_path), Recorder(monkeypatch)
    run = pipeline.Run(
        tmp_path,
        "tiny",
        1,
        CPU,
        tokenizer,
        sft.SCHEDULES["tiny"],
        8,
        True,
        pipeline.stage_settings("tiny", True),
        data,
    )
    run.models = {name: small(tokenizer) for name in ("student", "teacher", "reward_model")}
    recorder.stand_in(sft, "sft_on_rows", OWN)
    recorder.stand_in(distill, "distill", OWN)
    for name in ("rl_stem", "rl_code", "rl_preference"):
        recorder.stand_in(ppo, name, OWN)
    for stage in (
        "cold_start_sft",
        "overall_sft",
        "distill",
        "rl_stem",
        "rl_code",
        "rl_preference",
    ):
        getattr(pipeline, stage)(run, "student")
    held_out = {task.prompt for tasks in data.tasks["test"].values() for task in tasks}
    assert all(data.tasks["test"].values())
    for called, given in recorder.calls:
        asked = {task.prompt for task in given.get("tasks", ())}
        shown = [
            tokenizer.decode(ids)
            for name in ("rows", "rehearsal")
            for ids, _ in given.get(name, ())
        ]
        assert asked or shown, called
        assert not asked & held_out
        assert not [text for text in shown for prompt in held_out if prompt in text], called


# ---- plain text ----


def test_the_last_tenth_of_a_text_is_seen_by_neither_the_tokenizer_nor_the_loss(
    recorder, tokenizer, tmp_path, monkeypatch
):
    """The end of the text is of letters that the beginning does not have."""
    text = "ABC ABD " * 450 + "XYZ XYW " * 50
    writing.write_text("own.txt", text)
    seen = []
    recorder.stand_in(tokenizers, "trained", lambda **given: seen.append("".join(given["texts"])))
    recorder.stand_in(alone.hf_tokenizer, "portable", tokenizer)
    command(monkeypatch, sft, "--pretrain", "--data", "own.txt", "--steps", "40")
    given = recorder.one("train")
    trained, held_out = (
        "".join(tokenizer.decode(ids) for ids, _ in given[name]) for name in ("rows", "held_out")
    )
    assert len(seen) == 1 and "ABC" in seen[0] and len(seen[0]) == 0.9 * len(text)
    assert not set("XYZW") & set(seen[0]) and not set("XYZW") & set(trained) and "ABC" in trained
    assert set("XYZW") <= set(held_out) and not set("ABCD") & set(held_out)
    model = given["model"]
    assert model.config.vocab_size == tokenizer.vocab_size
    # from a checkpoint the tokenizer is the checkpoint's, and none is trained
    recorder.stand_in(sft, "load_checkpoint", (small(tokenizer), {}))
    command(
        monkeypatch, sft, "--pretrain", "--data", "own.txt", "--init", "own.txt", "--steps", "40"
    )
    assert len(seen) == 1
