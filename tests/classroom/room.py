"""Where a student's code runs: a process of its own, which answers in JSON through a pipe.

It holds the teacher's project with the one function that is graded taken from the student's file,
and the inputs of the fresh cases. What a right function returns is not in it, so nothing that is
changed in it (torch.allclose, sys.exit, a test) makes a wrong answer right: an answer is a claim,
which another process compares. The fence around it keeps honest work apart and simple cheats out:
it refuses to read the solutions, to write, and to start or stop a process. It is no jail. Where
that matters, grade in a container, as Gradescope does.

    python -m tests.classroom.room     reads a job as JSON, where a process cannot be forked
"""

import ast
import importlib.abc
import importlib.util
import json
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import torch

from tests.classroom.blank import CHAPTERS, ROOT, definition, span
from tests.classroom.cases import computed, generator
from tests.classroom.exercises import Exercise, named

MEMORY = 2 * 2**30  # bytes on top of what the interpreter and torch have mapped
ANSWER = 16 * 2**20  # the longest answer in bytes that is read


# ---- the student's function among the teacher's ----


def student_nodes(exercise: Exercise, path: Path, known: set[str]) -> list[ast.stmt]:
    """The student's function, after the imports and helpers that were added to its file.

    Of a file that is no Python the function alone is tried, so that a slip in another exercise
    does no harm. Raises SyntaxError, or ValueError where the function is gone.
    """
    source = path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        lines = source.split("\n")
        starts = [
            k for k, line in enumerate(lines) if re.match(rf"def {exercise.function}\b", line)
        ]
        if not starts:
            raise
        first = starts[0]
        while first and lines[first - 1].startswith("@"):
            first -= 1
        after = range(starts[0] + 1, len(lines))
        end = next((k for k in after if re.match(r"(def|class|@|#|[A-Z])", lines[k])), len(lines))
        return ast.parse("\n" * first + "\n".join(lines[first:end])).body
    function = definition(tree, exercise.function)
    added = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            added.append(node)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in known:
            added.append(node)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names and not names & known:
                added.append(node)
    return [*added, function]


class Chapters(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the teacher's chapters, in one of which a function is the student's."""

    def __init__(self, exercise: Exercise, folder: Path):
        self.nodes = {}  # chapter -> [(statement, the file that it is from)]
        for name in CHAPTERS:
            path = ROOT / f"{name}.py"
            body = ast.parse(path.read_text(encoding="utf-8")).body
            self.nodes[name] = [(node, str(path)) for node in body]
        theirs = folder / f"{exercise.module}.py"
        known = {getattr(node, "name", "") for node, _ in self.nodes[exercise.module]}
        for node, _ in self.nodes[exercise.module]:
            if isinstance(node, ast.Assign):
                known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        new = [(node, str(theirs)) for node in student_nodes(exercise, theirs, known)]
        kept = []
        for node, path in self.nodes[exercise.module]:
            is_graded = isinstance(node, ast.FunctionDef) and node.name == exercise.function
            kept += new if is_graded else [(node, path)]
        self.nodes[exercise.module] = kept

    def find_spec(self, name, path=None, target=None):
        if name not in self.nodes:
            return None
        return importlib.util.spec_from_file_location(name, ROOT / f"{name}.py", loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # each statement under its own file name, so that a traceback shows the student's line
        for node, path in self.nodes.pop(module.__name__):
            code = compile(ast.Module([node], []), path, "exec", dont_inherit=True)
            exec(code, module.__dict__)


# ---- the fence ----

REFUSED = re.compile(
    r"os\.(fork|forkpty|exec|spawn|posix_spawn|system|kill|killpg|startfile)|pty\.|subprocess\."
    r"|signal\.pthread_kill|ctypes\.|gc\.|socket\.(connect|bind|getaddrinfo|sendto)|sqlite3\."
    r"|sys\.(settrace|setprofile)"
)
CHANGES = re.compile(
    r"os\.(remove|rename|rmdir|mkdir|truncate|link|symlink|chmod|chown|utime)|shutil\."
)
SOLUTIONS = re.compile(r"[^/\\]*\.py|__pycache__|\.git|tests[/\\]classroom")


def limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return  # no such limit here
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: int) -> None:
    """Of the processor; a process that waits is stopped from outside."""
    try:
        import resource

        used = sum(os.times()[:2])
        most = int(used) + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
    except ImportError:
        pass


def put_up_fence(own_folder: str) -> None:
    """An audit hook, which no Python code can take away again."""
    own = os.path.realpath(own_folder) + os.sep
    root = str(ROOT) + os.sep
    refused, changes, solutions = REFUSED.match, CHANGES.match, SOLUTIONS.match
    resolve, decode, is_open = os.path.realpath, os.fsdecode, "open".__eq__
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def is_own(path) -> bool:
        return (resolve(decode(path)) + os.sep).startswith(own)

    def hook(event: str, args: tuple) -> None:
        if is_open(event):
            path, _, given = args
            if isinstance(path, int):
                return
            full = resolve(decode(path))
            if full.startswith("/proc/") and full.endswith("/mem"):
                raise PermissionError(f"{full}: is not for exercises")
            if full.startswith(root) and solutions(full[len(root) :]):
                raise PermissionError(f"{full}: a solution is not read here")
            if given & writing and full != os.devnull and not is_own(path):
                raise PermissionError(f"{full}: an exercise does not write here")
        elif refused(event):
            raise PermissionError(f"{event}: an exercise does not do that")
        elif changes(event) and not is_own(args[0]):
            raise PermissionError(f"{event} {args[0]}: an exercise does not write here")

    sys.addaudithook(hook)


# ---- the two jobs ----


def told_error(error: BaseException, folder: Path) -> str:
    """One line: what was raised, and the last line of the student's file that led there."""
    told = f"{type(error).__name__}: {error}".split("\n")[0][:300]
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{told} (line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(str(folder)):
            return f"{told} ({Path(frame.filename).name}, line {frame.lineno})"
    return told


def fresh(exercise: Exercise, seed: int, send) -> None:
    """What the student's function makes of each fresh case, one answer a case."""
    chapter = importlib.import_module(exercise.module)
    function = getattr(chapter, exercise.function)
    for case in exercise.draw(generator(exercise.name, seed)):
        torch.manual_seed(0)
        random.seed(0)
        send(computed(case, chapter, function))


class Collector:
    """A pytest plugin: which tests passed, and the first line of why the others did not."""

    def __init__(self):
        self.outcomes = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = "" if crash is None else crash.message.split("\n")[0][:300]
            name = report.nodeid.split("::")[-1]
            self.outcomes.append([name, report.passed, why])


def cut_tests(exercise: Exercise, own_folder: str) -> str:
    """A copy of the teacher's test file in which the other tests are empty lines; and conftest.py.

    Most of the time of a test run goes into reading the tests that are not run.
    """
    tests = ROOT / "tests"
    source = (tests / f"test_{exercise.module}.py").read_text(encoding="utf-8")
    lines = source.split("\n")
    for node in ast.parse(source).body:
        is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if is_test and node.name not in exercise.tests:
            first, last = span(node)
            lines[first - 1 : last] = [""] * (last - first + 1)
    folder = Path(own_folder) / "tests"
    folder.mkdir()
    path = folder / f"test_{exercise.module}.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    shutil.copyfile(tests / "conftest.py", folder / "conftest.py")
    return str(path)


def visible(exercise: Exercise, own_folder: str, path: str, send) -> None:
    """The teacher's own tests of the exercise."""
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    collector = Collector()
    flags = ["-q", "-p", "no:cacheprovider", "--basetemp", os.path.join(own_folder, "pytest")]
    flags += ["--rootdir", own_folder, "-c", os.devnull, "-p", "no:unraisableexception"]
    pytest.main([path, *flags], plugins=[collector])
    send({"outcomes": collector.outcomes})


def work(job: dict, answer: int) -> None:
    """Does a job and writes its answers to the file descriptor `answer`, a line of JSON each."""
    encode, write = json.dumps, os.write

    def send(value: dict) -> None:
        line = encode(value).encode() + b"\n"
        while line:
            line = line[write(answer, line) :]

    exercise = named(job["exercise"])
    folder = Path(job["folder"])
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    tempfile.tempdir = job["own_folder"]
    os.chdir(job["own_folder"])
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    limit_memory()
    limit_time(job["seconds"])
    try:
        sys.meta_path.insert(0, Chapters(exercise, folder))
        path = "" if job["kind"] == "fresh" else cut_tests(exercise, job["own_folder"])
        put_up_fence(job["own_folder"])
        if job["kind"] == "fresh":
            fresh(exercise, job["seed"], send)
        else:
            visible(exercise, job["own_folder"], path, send)
        send({"done": True})
    except BaseException as error:
        send({"error": told_error(error, folder)})


def main() -> None:
    job = json.loads(sys.stdin.read())
    answer = os.dup(1)
    work(job, answer)


if __name__ == "__main__":
    main()
