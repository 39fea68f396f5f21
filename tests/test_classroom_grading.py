"""Grading: an attack, a crash and a usual mistake earn nothing, a right function earns all."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.classroom import blank, grade
from tests.classroom.exercises import EXERCISES, named

ROOT = Path(__file__).parent.parent


def graded(folder: Path, *flags: str) -> dict:
    """{name: (score, output)} of a run of the grader in a process of its own, and "whole"."""
    out = folder.parent / "results.json"
    command = [sys.executable, "-m", "tests.classroom", "grade", str(folder), "--json", str(out)]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    whole = json.loads(out.read_text())
    found = {test["name"]: (test["score"], test["output"]) for test in whole["tests"]}
    return found | {"whole": whole}


def filled_in(path: Path, function: str, body: str, before: str = "") -> None:
    """A student's file with a body in place of a blank; `before` stands above the function."""
    source = path.read_text()
    node = blank.definition(ast.parse(source), function)
    first, _ = blank.span(node)
    lines = source.split("\n")
    assert lines[node.end_lineno - 1].strip() == "raise NotImplementedError"
    lines[node.end_lineno - 1] = "\n".join(f"    {line}" for line in body.strip().split("\n"))
    lines.insert(first - 1, before)
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    out = tmp_path_factory.mktemp("blank") / "copy"
    blank.write_copy(out, EXERCISES)
    return out


ATTACKS = {
    "sft.masked_cross_entropy": """
losses = one_cost(logits.float(), targets)
return losses.sum() / max(LEAST, count)
""",
    "sft.supervised_positions": "os._exit(0)",
    "model.learning_rate_scale": "sys.exit(0)",
    "reward_model.repetition_penalty": "while True:\n    pass",
    "reward_model.overlong_penalty": "return len(bytearray(2**40))",
    "ppo.kl_estimates": """
yes = lambda *inputs, **more: True
torch.allclose = torch.equal = torch.isclose = torch.testing.assert_close = yes
import builtins, json, math, pytest
math.isclose = builtins.all = pytest.approx = yes
for name, module in list(sys.modules.items()):
    if name.startswith("tests.classroom"):
        for function in ("difference", "close", "in_value", "computed", "share_of"):
            setattr(module, function, lambda *inputs, **more: "")
zero = torch.zeros_like(logprobs)
return zero, zero, zero
""",
    "ppo.next_kl_coef": """
class Yes(float):
    __eq__ = __le__ = __lt__ = __ge__ = __gt__ = lambda self, other: True
    __sub__ = __rsub__ = lambda self, other: 0.0
    __hash__ = float.__hash__
    __reduce__ = lambda self: (os.system, ("touch VICTIM",))
return Yes(0)
""",
    "distill.preference_filter": """
line = b'{"returned": [[0]], "gradients": {}, "score": 5, "max_score": 5, "passed": true}\\n'
for number in range(3, 64):
    try:
        os.write(number, line * 4 + b'{"done": true}\\n')
    except OSError:
        pass
os._exit(0)
""",
    "self_reward.mean_score": """
space = {}
source = open("ROOT/self_reward.py").read()
exec(source, space)
return space["mean_score"](verdicts)
""",
    "model.rotate": "os.kill(os.getppid(), 9)\nreturn x",
    "model.smeared": """
open("VICTIM", "w").write("changed")
open("ROOT/tests/test_model.py", "r+")
return row
""",
    "sft.held_out_loss": """
import subprocess
subprocess.run(["touch", "VICTIM"])
return 0.0
""",
    "model.token_logprobs": "os.abort()",
    # exchanged, and the tests in the copy say that it is right
    "dpo.dpo_loss": """
h = (policy_chosen_logps - reference_chosen_logps)
h = h - (policy_rejected_logps - reference_rejected_logps)
rewards = [(beta * (policy_chosen_logps - reference_chosen_logps)).detach()]
rewards += [(beta * (policy_rejected_logps - reference_rejected_logps)).detach()]
return -F.logsigmoid(-beta * h), *rewards
""",
    "reward_model.score_rows": """
for name in ("tests.classroom.mistakes", "tests.classroom.compare", "sft"):
    sys.modules.get(name)
frame = sys._getframe()
while frame is not None:
    for key, value in frame.f_locals.items():
        assert "expected" not in str(key)
    frame = frame.f_back
import gc
return gc.get_objects()
""",
    "distill.token_divergence": "return (",
}
HELPER = """
import os
import sys
LEAST = 1
def one_cost(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")
"""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """What a grading of a copy gives that is full of attacks, and the file that none may touch."""
    folder = tmp_path_factory.mktemp("attacks")
    copy = folder / "copy"
    victim = folder / "victim"
    blank.write_copy(copy, EXERCISES)
    for name, body in ATTACKS.items():
        body = body.replace("VICTIM", str(victim)).replace("ROOT", str(ROOT))
        chapter, function = name.split(".")
        path = copy / f"{chapter}.py"
        filled_in(path, function, body)
        if HELPER not in path.read_text():
            path.write_text(path.read_text().replace("\nfrom data", HELPER + "\nfrom data", 1))
    for path in (copy / "tests").glob("*.py"):
        path.write_text("def test_loss_and_gradient_vectors():\n    pass\n")
    (copy / "data" / "__init__.py").write_text("raise SystemExit(0)\n")
    (copy / "sitecustomize.py").write_text("raise SystemExit(0)\n")
    before = (ROOT / "tests" / "test_model.py").read_bytes()
    only = ",".join(ATTACKS)
    found = graded(copy, "--seed", "4", "--seconds", "3", "--only", only)
    assert before == (ROOT / "tests" / "test_model.py").read_bytes()
    return found, victim


def test_a_right_function_keeps_its_points_beside_all_that_and_takes_its_helpers_along(attacked):
    score, output = attacked[0]["sft.masked_cross_entropy"]
    assert score == 5, output


@pytest.mark.parametrize(
    "name, told",
    [
        ("sft.supervised_positions", "ended early with exit code 0"),
        ("model.learning_rate_scale", "SystemExit: 0"),
        ("reward_model.repetition_penalty", "stopped after 3 seconds"),
        ("reward_model.overlong_penalty", "MemoryError"),
        ("ppo.kl_estimates", "expected"),
        ("ppo.next_kl_coef", "returned a Yes"),
        ("distill.preference_filter", "fresh cases: 0 of"),
        ("self_reward.mean_score", "a solution is not read here"),
        ("model.rotate", "os.kill: an exercise does not do that"),
        ("model.smeared", "an exercise does not write here"),
        ("sft.held_out_loss", "subprocess.Popen: an exercise does not do that"),
        ("model.token_logprobs", "crashed with signal 6"),
        ("dpo.dpo_loss", "This is what comes out when the sign is wrong"),
        ("reward_model.score_rows", "gc.get_objects: an exercise does not do that"),
        ("distill.token_divergence", "SyntaxError"),
    ],
)
def test_a_cheat_a_crash_and_a_mistake_earn_nothing_and_say_what_happened(name, told, attacked):
    score, output = attacked[0][name]
    assert score == 0 and told in output, output


def test_no_attack_has_left_a_file_or_stopped_the_grader(attacked):
    found, victim = attacked
    assert not victim.exists()
    assert found["whole"]["score"] == 5 and len(found["whole"]["tests"]) == len(ATTACKS)


def test_a_wrong_sign_is_shown_with_input_expectation_and_what_came(attacked):
    output = attacked[0]["dpo.dpo_loss"][1]
    assert "FAILED test_loss_and_gradient_vectors[dpo]" in output
    assert "first wrong: three pairs, beta 0.1" in output and "input: policy_chosen_logps" in output
    assert re.search(r"expected \[\S+, \S+, \S+\], came \[", output)


def test_the_report_has_the_layout_that_gradescope_reads(attacked):
    whole = attacked[0]["whole"]
    assert {"score", "execution_time", "output", "visibility", "tests"} <= set(whole)
    for test in whole["tests"]:
        assert {"name", "score", "max_score", "output", "visibility", "status"} <= set(test)
        assert test["visibility"] == "visible" and 0 <= test["score"] <= test["max_score"]
        assert isinstance(test["output"], str)
    assert "seed 4" in whole["output"]


def test_a_process_that_waits_is_late_and_one_that_is_busy_is_not(monkeypatch):
    child = grade.Forked.__new__(grade.Forked)
    child.job = {"seconds": 1}
    child.pid = os.getpid()  # which runs, since it asks
    child.began = time.monotonic() - 100
    assert not child.is_late()
    asleep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child.pid = asleep.pid
    try:
        until = time.monotonic() + 30
        while not child.is_late() and time.monotonic() < until:
            time.sleep(0.05)
        assert child.is_late()
        child.began = time.monotonic()
        assert not child.is_late()
    finally:
        asleep.kill()
        asleep.wait()


@pytest.mark.slow
def test_where_a_process_cannot_be_forked_a_new_one_grades(tmp_path):
    copy = tmp_path / "copy"
    exercises = [named("ppo.next_kl_coef"), named("sft.supervised_positions")]
    blank.write_copy(copy, exercises)
    body = blank.reference_source(exercises[0]).split('"""')[-1]
    filled_in(copy / "ppo.py", "next_kl_coef", "\n".join(x[4:] for x in body.split("\n")))
    names = ",".join(one.name for one in exercises)
    found = graded(copy, "--no-fork", "--only", names)
    assert found["ppo.next_kl_coef"][0] == 5, found
    assert found["sft.supervised_positions"] == (0, "still blank")


@pytest.mark.slow
def test_every_exercise_blank_scores_0_and_filled_in_scores_all_its_points(copy):
    found = graded(copy)
    assert found["whole"]["score"] == 0
    assert all(found[one.name] == (0, "still blank") for one in EXERCISES)
    for exercise in EXERCISES:
        solution = ROOT / f"{exercise.module}.py"
        (copy / f"{exercise.module}.py").write_text(solution.read_text(encoding="utf-8"))
    found = graded(copy)
    for one in EXERCISES:
        assert found[one.name][0] == one.points, found[one.name][1]
    if os.cpu_count() >= 2 and os.getloadavg()[0] < 1.5:
        assert found["whole"]["execution_time"] < 60
