"""pipeline.py: what a run leaves behind, that a killed run ends with the same weights, and what is refused."""

import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pipeline
import sft
from data import world
from pipeline import STAGES, Run, peak_memory_mb, read_json, settings_of, unfinished

ROOT = Path(__file__).parents[1]
KEYS = [(function.__name__, who) for function, who in STAGES]


# ---- which stages are still to be run ----

@pytest.fixture
def run(tmp_path, tokenizer):
    schedules = {who: sft.smoke(schedule) for who, schedule in sft.SCHEDULES["tiny"].items()}
    return Run(tmp_path, "tiny", 1, torch.device("cpu"), tokenizer, schedules, 8)


def finished(run, keys):
    return {"stages": [{"name": name, "model": who, "settings": settings_of(run, name, who)} for name, who in keys]}


def keys_of(todo):
    return [(function.__name__, who) for function, who in todo]


def test_nothing_finished_leaves_every_stage_to_do(run):
    assert keys_of(unfinished({"stages": []}, run, STAGES, force=False)) == KEYS


def test_a_run_goes_on_at_the_first_unfinished_stage(run):
    results = finished(run, KEYS[:3])
    assert keys_of(unfinished(results, run, STAGES, force=False)) == KEYS[3:]
    assert [(stage["name"], stage["model"]) for stage in results["stages"]] == KEYS[:3]


def test_a_finished_stage_after_an_unfinished_one_is_redone(run):
    results = finished(run, KEYS[:2] + KEYS[3:])
    assert keys_of(unfinished(results, run, STAGES, force=False)) == KEYS[2:]
    assert [(stage["name"], stage["model"]) for stage in results["stages"]] == KEYS[:2]


def test_everything_finished_leaves_nothing_to_do(run):
    results = finished(run, KEYS)
    assert unfinished(results, run, STAGES, force=False) == []
    assert len(results["stages"]) == len(KEYS)


def test_a_stage_finished_with_other_settings_is_refused_and_the_message_names_the_way_out(run):
    results = finished(run, KEYS)
    run.seed = 2
    with pytest.raises(ValueError, match="--force") as caught:
        unfinished(results, run, STAGES, force=False)
    assert "\n" not in str(caught.value) and KEYS[0][0] in str(caught.value)


def test_force_redoes_the_changed_stage_and_all_that_follow(run):
    results = finished(run, KEYS)
    results["stages"][2]["settings"] = "of another day"
    assert keys_of(unfinished(results, run, STAGES, force=True)) == KEYS[2:]
    assert [(stage["name"], stage["model"]) for stage in results["stages"]] == KEYS[:2]


def test_the_settings_digest_tells_stages_models_seeds_and_schedules_apart(run):
    digests = [settings_of(run, name, who) for name, who in KEYS]
    run.seed = 2
    digests.append(settings_of(run, *KEYS[0]))
    run.seed, run.schedules = 1, sft.SCHEDULES["tiny"]
    digests.append(settings_of(run, *KEYS[0]))
    assert len(set(digests)) == len(digests)


# ---- bad input: exit code 2 and one line ----

def refused(monkeypatch, capsys, *arguments):
    """The one line on stderr with which the command ends."""
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--threads", "1", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        pipeline.main()
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1, lines
    return lines[0]


def test_an_unknown_stage_is_refused_with_the_names_that_there_are(monkeypatch, capsys, tmp_path):
    line = refused(monkeypatch, capsys, "--smoke", "--stages", "pretrain,warm_start", "--out", tmp_path)
    assert "warm_start" in line and all(name in line for name, _ in KEYS)


def test_a_broken_results_file_is_one_line_and_is_left_alone(monkeypatch, capsys, tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"stages": [', encoding="utf-8")
    assert "results.json" in refused(monkeypatch, capsys, "--smoke", "--out", tmp_path)
    assert path.read_text(encoding="utf-8") == '{"stages": [' and list(tmp_path.iterdir()) == [path]


def test_a_missing_json_file_is_its_default(tmp_path):
    assert read_json(tmp_path / "none.json", {"stages": []}) == {"stages": []}


@pytest.mark.skipif(os.name != "posix", reason="only POSIX tells a process its peak memory")
def test_peak_memory_holds_what_was_allocated():
    block = torch.ones(8 * 2 ** 20)  # 32 MB
    assert 32 < peak_memory_mb() < 64 * 1024
    del block


# ---- whole smoke runs ----

def command(out, *more):
    return [sys.executable, "pipeline.py", "--smoke", "--threads", "1", "--out", str(out), *more]


def smoke_run(out, *more):
    return subprocess.run(command(out, *more), cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=600)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, seconds) of one smoke run from start to end."""
    out, began = tmp_path_factory.mktemp("uninterrupted"), time.perf_counter()
    done = smoke_run(out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, time.perf_counter() - began


def refuse_constant(name):
    raise AssertionError(f"results.json holds {name}")


def results_of(out):
    return json.loads((out / "results.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)  # NaN, Infinity


def contents(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def assert_same_weights(out, expected):
    for name, who in KEYS:
        ours, theirs = (torch.load(folder / f"{name}.{who}.pt", map_location="cpu", weights_only=True)["model"] for folder in (out, expected))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), f"{name} ({who}): {key} differs"


@pytest.mark.slow
def test_a_run_leaves_every_file_behind(uninterrupted):
    out, _ = uninterrupted
    for name in ("config.json", "env.json", "results.json", "samples.md", "report.md"):
        assert (out / name).stat().st_size > 0, name
    for name, who in KEYS:
        assert (out / f"{name}.{who}.pt").exists()
        rows = (out / f"{name}.{who}.csv").read_text(encoding="utf-8").splitlines()
        assert "loss" in rows[0].split(",") and len(rows) == 1 + sft.SMOKE["steps"]
        assert f"{name} ({who})" in (out / "samples.md").read_text(encoding="utf-8")
        assert name in (out / "report.md").read_text(encoding="utf-8")
    plots = list((out / "plots").glob("*.png"))
    assert plots and all(path.read_bytes().startswith(b"\x89PNG") for path in plots)
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]


@pytest.mark.slow
def test_results_have_the_published_shape(uninterrupted):
    results = results_of(uninterrupted[0])
    assert (results["size"], results["seed"], results["world_version"]) == ("tiny", 1, world.WORLD_VERSION)
    assert results["seconds"] > 0 and results["params"]["teacher"] > results["params"]["student"] > 0
    assert results["peak_memory_mb"] is None or results["peak_memory_mb"] > 0
    assert [(stage["name"], stage["model"]) for stage in results["stages"]] == KEYS
    for stage in results["stages"]:
        assert stage["seconds"] > 0 and stage["tokens"] > 0 and stage["own"]
        assert (uninterrupted[0] / stage["checkpoint"]).exists()
        assert set(world.DOMAINS) <= set(stage["eval"]) and len(world.DOMAINS) == 6
        for row in stage["eval"].values():
            assert 0 <= row["greedy"] <= 1 and 0 <= row["sampled"] <= 1 and row["n"] > 0
            assert row["ci"] >= 0 and math.isfinite(row["ci"])


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(uninterrupted):
    out, _ = uninterrupted
    before = contents(out)
    done = smoke_run(out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert contents(out) == before


@pytest.mark.slow
def test_another_seed_in_the_same_folder_is_refused(uninterrupted):
    out, _ = uninterrupted
    before = contents(out)
    done = smoke_run(out, "--seed", "2")
    assert done.returncode == 2 and "--force" in done.stderr and len(done.stderr.splitlines()) == 1
    assert contents(out) == before


def start_and_kill(out, seconds):
    """Start the smoke run and kill it after so many seconds; True if it was killed, False if it had ended by itself."""
    process = subprocess.Popen(command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert process.wait(timeout=seconds) == 0
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_weights_and_scores(uninterrupted, tmp_path):
    expected, seconds = uninterrupted
    rng = random.Random(0)
    killed = [start_and_kill(tmp_path, rng.uniform(0, seconds)) for _ in range(5)]
    assert any(killed)
    done = smoke_run(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_weights(tmp_path, expected)
    ours, theirs = results_of(tmp_path), results_of(expected)
    for key in ("name", "model", "tokens", "settings", "eval"):
        assert [stage[key] for stage in ours["stages"]] == [stage[key] for stage in theirs["stages"]], key
    assert (tmp_path / "samples.md").read_bytes() == (expected / "samples.md").read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
