"""Runs programs that a model wrote, for rewards and checks.

Threat model: reward hacking and accidents. A policy that is rewarded for passing tests finds
every short cut (print a forged result, patch a builtin, return an object that equals everything,
exit before the test), and by accident it writes endless loops and memory bombs.
Each of these costs the program its own reward and nothing else. A determined human attacker
is not in the model: this is one Python process with its teeth pulled, not a virtual machine.
`--no-exec` in the pipeline calls `disable()`: then nothing is executed at all.

How it works. The caller (which may hold torch and a GPU) never forks. It starts a small server:
this file, in a fresh interpreter without site-packages, with an emptied environment and a scratch
directory. The server preloads the allowed modules and forks one child for each program,
a few at a time. A child evaluates expressions and returns literals of exact built-in types over
its own pipe, behind a random token. The expected values never enter it: the caller compares, so
there is nothing to steal and no `__eq__` to override. That alone keeps a wrong answer from passing.
Four fences keep a program from sleeping, from ending its server and from leaving anything behind:

1. Of the names that begin and end with underscores a program may write only those listed here.
2. The program sees copies: a dictionary of safe builtins, and stub modules that hold
   public names only.
3. An audit hook, which cannot be removed, refuses files, sockets, processes, signals, ctypes,
   frames and imports.
4. Limits of the operating system: CPU time, memory, file size, open files, processes;
   a wall clock in the server.

Who is to blame. A program that sleeps until the wall clock has failed. One that worked until then,
was killed without a reason, or may have ended its server, runs again alone; if that happens again,
while an empty program runs, it has failed. Its neighbours run again without it,
so no verdict depends on them. Uncertain is a server that cannot run an empty program.

What was left out: a container or seccomp (neither is portable nor in the standard library).
Where `os.fork` does not exist (Windows) each program has a server of its own,
which is slower, and no memory limit. Not thread-safe. The server's hash seed is fixed,
so that a reward repeats from run to run; `-I` would ignore that seed, so its parts (`-s`,
an empty environment, no script directory on the path) are set one by one.

    python -m data.runtime.sandbox                 three programs and their outcomes
    python -m data.runtime.sandbox --mbpp FILE     an MBPP file's own programs against their tests
"""

import abc
import ast
import atexit
import builtins
import cmath
import collections
import contextlib
import copy
import enum
import functools
import gc
import importlib.util
import json
import math
import os
import random
import re
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import typing
import warnings
from dataclasses import dataclass

try:
    import resource
except ImportError:  # Windows
    resource = None

MAX_PRINTED = 1_000  # characters of stdout that are kept
MAX_VALUE = 20_000  # characters, about, of one returned value
MAX_DEPTH = 30  # nesting of one returned value
MAX_SOURCE = 50_000  # characters of one program

enabled = True


class SandboxDisabled(RuntimeError):
    """Raised by `run_programs` after `disable()`."""


class NoValue(enum.Enum):
    NOT_A_LITERAL = "not a literal"  # not of exact built-in types, or larger than MAX_VALUE
    RAISED = "raised"


NOT_A_LITERAL, RAISED = NoValue.NOT_A_LITERAL, NoValue.RAISED


@dataclass(frozen=True)
class Outcome:
    """What one program did. `values` has one entry for each expression,
    or is None if the program did not get that far."""

    values: list | None = None
    printed: str = ""  # at most MAX_PRINTED characters
    error: str = ""  # '' or one line: the first thing that went wrong
    uncertain: bool = False  # the sandbox failed, not the program: mask it, do not punish it


# 1. Names.

DUNDERS = {
    f"__{word}__"
    for word in """init new str repr format len bool hash int float index contains getitem setitem
    delitem missing iter next reversed call enter exit eq ne lt le gt ge add sub mul truediv
    floordiv mod divmod pow neg pos abs invert round radd rsub rmul rtruediv rfloordiv rmod rpow
    iadd isub imul itruediv and or xor rand ror rxor lshift rshift matmul name doc
    slots future""".split()
}

# Public names that lead from a generator, a traceback or a class to frames
# and to every loaded class.
INTROSPECTION = set(
    """gi_frame gi_code gi_yieldfrom tb_frame tb_next mro
    f_back f_builtins f_code f_generator f_globals f_locals f_trace""".split()
)


class Refused(Exception):
    """The program contains something that the sandbox does not run."""


def check_name(name):
    """Raises Refused for `__x__` and `_x_` names that are not in DUNDERS
    and for names that lead to frames.

    `_x_` names belong to enum, whose classes hand out
    the globals of any module. `self._items` is ordinary Python.
    """
    if type(name) is not str:  # a subclass of str could show two faces
        raise TypeError("attribute name must be string")
    hidden = name.startswith("_") and name.endswith("_") and name.strip("_") and name not in DUNDERS
    if hidden or name in INTROSPECTION:
        raise Refused(f"the name {name}")


def checked_code(text, mode):
    """Code object of a program (mode 'exec') or an expression ('eval').
    Raises Refused or SyntaxError."""
    if len(text) > MAX_SOURCE:
        raise Refused("a program of this length")
    tree = ast.parse(text, mode=mode)
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):  # needs an event loop
            raise Refused("async")
        for _, value in ast.iter_fields(node) if not isinstance(node, ast.Constant) else []:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):  # every identifier, wherever the grammar allows one
                    check_name(item)
    return compile(tree, "<program>", mode, dont_inherit=True)


# 2. What the program sees.

MODULES = """array bisect cmath collections collections.abc copy datetime decimal fractions
    functools heapq itertools math operator random re statistics string""".split()

# These look up names inside the standard library,
# where fence 1 does not look; SystemRandom has no seed.
HIDDEN = set(
    """singledispatch singledispatchmethod attrgetter methodcaller
    Formatter UserString SystemRandom""".split()
)

# Imported by allowed modules only when they need them, which in a child is too late.
LAZY = """_strptime unicodedata annotationlib
    encodings.latin_1 encodings.ascii encodings.utf_16 encodings.cp1252""".split()

BUILTINS = """abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict
    divmod enumerate filter float format frozenset hash hex id int isinstance issubclass iter len
    list map max min next object oct ord pow property range repr reversed round set slice sorted
    staticmethod str sum super tuple zip NotImplemented Ellipsis __build_class__""".split()


def guarded(function):
    """getattr and its relatives, for names that a program could also have written after a dot."""

    def call(obj, name, *rest):
        check_name(name)
        return function(obj, name, *rest)

    return call


class TypeOf:
    """`type` with one argument. The real one builds classes
    with any double-underscore name, so `type(int)` is not it."""

    def __call__(self, obj):
        return self if isinstance(obj, type) else type(obj)

    def __instancecheck__(self, obj):
        return isinstance(obj, type)


class Annotation:
    """Stands for everything in `typing`, whose real objects evaluate strings."""

    def __call__(self, *args, **kwargs):
        return self

    __getitem__ = __or__ = __ror__ = __call__

    def __mro_entries__(self, bases):
        return ()


class Printed:
    """A stdout that keeps the first MAX_PRINTED characters."""

    text = ""

    def write(self, text):
        self.text += str(text)[: MAX_PRINTED - len(self.text)]

    def print(self, *values, sep=" ", end="\n", file=None, flush=False):
        self.write(
            (" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end)
        )


def leave(code=None):
    raise SystemExit(code)


def stub(name, members):
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


def safe_modules(printed):
    """name -> stub module with public members only,
    and no modules among them: `re.enum.sys` is the real sys."""
    modules = {}
    for name in MODULES:
        real = importlib.import_module(name)
        public = {
            m: getattr(real, m)
            for m in getattr(real, "__all__", vars(real))
            if m[0] != "_" and m not in HIDDEN
        }
        modules[name] = stub(
            name, {m: v for m, v in public.items() if not isinstance(v, types.ModuleType)}
        )
    modules["collections"].abc = modules["collections.abc"]
    # The other arguments of the real ones copy any attribute, `__globals__` included.
    modules["functools"].wraps = lambda wrapped: (
        lambda wrapper: functools.update_wrapper(wrapper, wrapped)
    )
    modules["functools"].update_wrapper = lambda wrapper, wrapped: functools.update_wrapper(
        wrapper, wrapped
    )
    # The memo of the real one may replace the state of any object, its own attributes included.
    modules["copy"].deepcopy = lambda value, memo=None: copy.deepcopy(value)
    # The real one has a lock to sleep on (until 3.11)
    # and writes under any name; this one computes each time.
    modules["functools"].cached_property = property
    modules["typing"] = stub(
        "typing", {m: Annotation() for m in typing.__all__} | {"NamedTuple": typing.NamedTuple}
    )
    modules["__future__"] = stub("__future__", {"annotations": None})
    modules["sys"] = stub(
        "sys",
        {name: getattr(sys, name) for name in ("maxsize", "maxunicode", "float_info", "getsizeof")},
    )
    modules["sys"].setrecursionlimit = lambda limit: sys.setrecursionlimit(
        min(limit, 5000)
    )  # the C stack is finite
    modules["sys"].stdout = stub("stdout", {"write": printed.write, "flush": lambda: None})
    modules["sys"].exit = leave
    return modules


def safe_builtins(printed):
    modules = safe_modules(printed)

    def guarded_import(name, globals=None, locals=None, fromlist=(), level=0):
        if (
            name in LAZY
        ):  # C code imports through this function too, but takes the real module from sys.modules
            return stub(name, {})
        if level or name not in modules:
            raise ModuleNotFoundError(f"no module {name} in the sandbox", name=name)
        return modules[name] if fromlist else modules[name.partition(".")[0]]

    safe = {name: getattr(builtins, name) for name in BUILTINS}
    safe |= {
        n: v
        for n, v in vars(builtins).items()
        if isinstance(v, type) and issubclass(v, BaseException)
    }
    safe |= {"setattr": guarded(setattr), "delattr": guarded(delattr), "hasattr": guarded(hasattr)}
    safe |= {"getattr": guarded(getattr), "__import__": guarded_import, "type": TypeOf()}
    return safe | {
        "print": printed.print,
        "input": lambda prompt="": "",
        "exit": leave,
        "quit": leave,
    }


# 3. and 4. The audit hook and the limits.

# All that the allowed modules raise: namedtuple compiles its __new__,
# asks for its caller's name and sets defaults.
EVENTS = set(
    """compile exec builtins.id sys._getframe sys._getframemodulename
    object.__setattr__ sys.unraisablehook""".split()
)


def refuse_system_events():
    """From here on the process may raise EVENTS alone,
    as they are now: no name leads to the set in the closure."""
    allowed = frozenset(EVENTS)

    def hook(event, args):
        if event not in allowed or event == "object.__setattr__" and args[1] == "__code__":
            raise PermissionError(f"the sandbox refuses {event}")

    sys.addaudithook(hook)


def limit_resources(memory_mb, cpu_seconds=None):
    if resource is None:
        return
    # A child that runs as root is not held by NPROC;
    # the audit hook refuses fork before the kernel is asked.
    limits = {"AS": memory_mb << 20, "FSIZE": 0, "CORE": 0, "NOFILE": 0, "NPROC": 0}
    if cpu_seconds:
        limits["CPU"] = math.ceil(cpu_seconds) + 1
        signal.setitimer(
            signal.ITIMER_PROF, cpu_seconds
        )  # fractions of a second; its default action ends the process
    for name, limit in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS has no RLIMIT_AS
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


# What travels: JSON, where a list starts with the name of its type.
# No method of the program's own classes is called.

DICTS = (dict, collections.Counter, collections.OrderedDict, collections.defaultdict)
CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def encode(value, room, depth=0):
    """JSON-able form of a literal. Raises TypeError.
    `room` is a one-element list: the characters left."""
    kind = type(value)
    size = value.bit_length() // 3 if kind is int else len(value) if kind in (str, bytes) else 1
    room[0] -= size + 1
    if (
        room[0] < 0 or depth > MAX_DEPTH or (kind is int and size > 4_000)
    ):  # json refuses ints of more than 4,300 digits
        raise TypeError("too large")
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind in DICTS:
        return ["dict"] + [
            [encode(item, room, depth + 1) for item in pair] for pair in dict.items(value)
        ]
    if kind in CONTAINERS.values():
        return [kind.__name__] + [encode(item, room, depth + 1) for item in value]
    raise TypeError("not a literal")


def decode(data):
    """The value that `encode` was given.
    Raises TypeError, ValueError or KeyError for anything else."""
    if not isinstance(data, list):
        return data
    tag, *items = data
    if tag == "complex":
        return complex(*items)
    if tag == "bytes":
        return bytes.fromhex(*items)
    if tag == "dict":
        return {decode(key): decode(value) for key, value in items}
    if tag == "no value":
        return NoValue[items[0]]
    return CONTAINERS[tag](map(decode, items))


def run_program(source, expressions, printed, safe):
    """Runs in the child. Returns [encoded values or None, printed, error]."""
    namespace = {"__name__": "__main__", "__builtins__": safe}
    values, errors = [], [""]
    random.seed(0)  # a fork reseeds it from the system
    try:
        exec(checked_code(source, "exec"), namespace)
    except BaseException as problem:
        return [None, printed.text, describe(problem)]
    for expression in expressions:
        place = len(values)
        values.append(["no value", "RAISED"])
        try:
            value = eval(checked_code(expression, "eval"), namespace)
            values[place] = ["no value", "NOT_A_LITERAL"]
            values[place] = encode(value, [MAX_VALUE])
        except BaseException as problem:
            errors.append(describe(problem))
    return [values, printed.text, errors[:2][-1]]


def describe(problem):
    try:
        return " ".join(f"{type(problem).__name__}: {problem}"[:200].split())
    except BaseException:  # __str__ of the program's own exception
        return type(problem).__name__


# The server. A reply is [index in the batch, result or None, error, uncertain].

WIDTH = min(os.cpu_count() or 1, 8)  # children at a time


@dataclass
class Child:
    index: int
    pid: int
    token: bytes
    deadline: float
    received: bytes = b""
    overdue: bool = False
    busy: bool = False  # got too little of a processor, rather than slept


def wall_limit(seconds):
    """Seconds on the clock for `seconds` of CPU time:
    enough even where all children share one core."""
    return (WIDTH + 1) * seconds + 1


def serve_batch(programs, seconds, memory_mb, send, printed, safe):
    """Forks a child for each (source, expressions), WIDTH at a time,
    and sends the replies in order of completion."""
    waiting = list(enumerate(programs))[::-1]
    running = {}  # reading end of its pipe -> Child
    while waiting or running:
        while waiting and len(running) < WIDTH:
            index, program = waiting.pop()
            token = secrets.token_hex(16).encode()
            reader, writer = os.pipe()
            try:
                pid = os.fork()
            except OSError as problem:
                os.close(reader), os.close(writer)
                send(index, None, f"the server cannot fork: {problem}", True)
                continue
            if pid == 0:
                run_child(program, token, writer, seconds, memory_mb, printed, safe)
            os.close(writer)
            running[reader] = Child(index, pid, token, time.monotonic() + wall_limit(seconds))
        nearest = min((child.deadline for child in running.values()), default=0)
        ready = select.select(list(running), [], [], max(0, nearest - time.monotonic()))[0]
        now = time.monotonic()
        for pipe, child in list(running.items()):
            chunk = os.read(pipe, 1 << 16) if pipe in ready else None
            child.received += chunk or b""
            # Not the pipe's end but the result's:
            # a process that the program left behind may hold the pipe.
            complete = child.received.endswith(b"\n") or len(child.received) > 1 << 22
            child.overdue = not complete and now > child.deadline
            if complete or child.overdue or chunk == b"":
                del running[pipe]
                os.close(pipe)
                kill(child.pid)
                _, status, usage = os.wait4(child.pid, 0)
                child.busy = usage.ru_utime + usage.ru_stime > wall_limit(seconds) / 10
                send(child.index, *verdict(child, status))


def run_child(program, token, writer, seconds, memory_mb, printed, safe):
    """Runs in the child; never returns."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.closerange(3, writer), os.closerange(writer + 1, 64)
        signal.alarm(
            math.ceil(wall_limit(seconds)) + 5
        )  # if the server is killed, nobody else ends this child
        limit_resources(memory_mb, seconds)
        refuse_system_events()
        message = token + json.dumps(run_program(*program, printed, safe)).encode() + b"\n"
        while message:
            message = message[os.write(writer, message) :]
    finally:
        os._exit(0)


def kill(pid):
    for send_signal in (os.killpg, os.kill):  # it may not have reached setsid
        with contextlib.suppress(OSError):
            send_signal(pid, signal.SIGKILL)


def verdict(child, status):
    """(result or None, error, uncertain) of a child that has ended with this wait status."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    try:
        if child.received.startswith(child.token):
            return json.loads(child.received[len(child.token) :]), "", False
    except (ValueError, RecursionError):
        return None, "broken result", False
    if child.overdue:
        return None, "wall-clock limit", child.busy
    if number in (signal.SIGPROF, signal.SIGXCPU):
        return None, "time limit", False
    if number == signal.SIGKILL:  # the machine is out of memory, or it closed its pipe and went on
        return None, "killed from outside", True
    return None, f"ended without a result (signal {number})", False


def serve(fork):
    """Main loop of the server: a batch a line on stdin, a reply a line on stdout.
    Without fork it runs one program and ends."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0), os.dup2(null, 1)
    warnings.simplefilter("ignore")  # printing a SyntaxWarning would open files
    printed = Printed()
    safe = safe_builtins(printed)
    for name in LAZY:
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    abc.ABCMeta.register = (
        None  # a program could make the standard library take its classes for others
    )

    def send(*reply):
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()

    os.chdir(tempfile.mkdtemp() if fork else os.sep)
    if fork:
        os.rmdir(
            os.getcwd()
        )  # in a directory that is gone nothing can be created, and nothing is left behind
    else:
        os.dup2(null, 2)
        refuse_system_events()
    gc.collect()
    gc.freeze()  # the collector of a child must not copy the server's pages
    send("ready")
    for line in requests:
        request = json.loads(line)
        if fork:
            serve_batch(
                request["programs"], request["seconds"], request["memory_mb"], send, printed, safe
            )
        else:
            limit_resources(request["memory_mb"])
            [program] = request["programs"]
            send(0, run_program(*program, printed, safe), "", False)
            break
    os._exit(0)  # past exit handlers that the audit hook might refuse


# The caller's side.

SLACK = 10.0  # seconds beyond the longest time between two replies after which a server is given up
_server = (
    None  # (process, process id of its owner, fork): a fork of the caller must not share the pipes
)


def start_server(fork):
    """A running server of this process. Raises RuntimeError if it does not start."""
    global _server
    if _server is None or _server[1:] != (os.getpid(), fork):
        close()
        keep = ("SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in keep if name in os.environ} | {
            "PYTHONHASHSEED": "0"
        }
        boot = (
            "import sys; sys.path.remove(''); import runpy; "
            f"runpy.run_path({os.path.abspath(__file__)!r}, None, '__main__')"
        )
        command = [sys.executable, "-s", "-S", "-c", boot, "--serve" if fork else "--serve-one"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # A session of its own: Ctrl-C is for the caller.
        process = subprocess.Popen(
            command, env=environment, start_new_session=os.name == "posix", **pipes
        )
        _server = (process, os.getpid(), fork)
        if process.stdout.readline() != b'["ready"]\n':
            close()
            raise RuntimeError("the sandbox's server does not start")
    return _server[0]


def close():
    """Ends the server; the next call starts a new one."""
    global _server
    server, _server = _server, None
    if server is None or server[1] != os.getpid():
        return
    try:
        server[0].communicate(timeout=1)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        server[0].kill()
        server[0].wait()


atexit.register(close)


def disable():
    """For --no-exec: from now on nothing is executed."""
    global enabled
    enabled = False
    close()


def run_programs(programs, *, seconds=1.0, memory_mb=256):
    """Runs each (source, expressions) in its own sandbox;
    returns a list of Outcome in the same order.

    Each expression is evaluated in the program's namespace after its source was executed.
    `seconds` is CPU time for a whole program, `memory_mb` its address space.
    Raises SandboxDisabled after `disable()`.
    """
    if not enabled:
        raise SandboxDisabled("running programs is disabled (--no-exec)")
    programs = [(source, list(expressions)) for source, expressions in programs]
    return run_batches(programs, seconds, memory_mb, fork=hasattr(os, "fork"))


def run_batches(programs, seconds, memory_mb, fork):
    """Sends batches until every program has an outcome;
    the docstring of this file says who is to blame for none."""
    outcomes, alone = {}, set()  # alone: what runs in a batch of its own
    everything = list(range(len(programs)))
    batches = [everything] * bool(programs) if fork else [[i] for i in everything]
    while batches:
        batch = batches.pop()
        replies = ask_server([programs[i] for i in batch], seconds, memory_mb, fork)
        outcomes |= {batch[place]: outcome for place, outcome in replies.items()}
        missing = [i for i in batch if i not in outcomes]
        if missing and batch[0] in alone:
            if not ask_server([("", [])], seconds, memory_mb, fork):
                break
            outcomes[batch[0]] = Outcome(error="ended its server or was stopped at the time limit")
        elif missing:
            suspects, rest = missing[:WIDTH], missing[WIDTH:]  # the server takes programs in order
            alone.update(suspects)
            batches += [rest] * bool(rest) + [[i] for i in suspects]
    lost = Outcome(error="the sandbox's server does not stay alive", uncertain=True)
    return [outcomes.get(i, lost) for i in everything]


def ask_server(programs, seconds, memory_mb, fork):
    """{index: Outcome} of a batch, without what the server
    was not certain of or did not reach before it ended."""
    server = start_server(fork)
    # Some child is always within its wall clock; a server that is silent for longer hangs.
    patience = wall_limit(seconds) + SLACK if fork else 2 * seconds
    request = {"programs": programs, "seconds": seconds, "memory_mb": memory_mb}
    outcomes = {}
    try:
        for text in [json.dumps(request).encode() + b"\n"] + [b""] * (len(programs) - 1):
            watchdog = threading.Timer(patience, server.kill)
            watchdog.daemon = True  # after Ctrl-C nobody waits for it
            watchdog.start()
            server.stdin.write(text)  # may block too
            server.stdin.flush()
            line = server.stdout.readline()
            watchdog.cancel()
            index, *reply = json.loads(line)
            outcomes[index] = read_reply(*reply, len(programs[index][1]))
    except (OSError, ValueError, LookupError, TypeError):
        close()
    except BaseException:  # Ctrl-C between a request and its replies
        close()
        raise
    if not fork:
        close()
    return {i: outcome for i, outcome in outcomes.items() if not outcome.uncertain}


def read_reply(result, error, uncertain, expected_values):
    if result is None:
        return Outcome(error=error, uncertain=uncertain)
    with contextlib.suppress(TypeError, ValueError, KeyError, RecursionError):
        values, printed, error = result
        values = None if values is None else [decode(value) for value in values]
        if type(printed) is type(error) is str and (
            values is None or len(values) == expected_values
        ):
            return Outcome(values, printed, error)
    return Outcome(error="broken result")


# Tests: (expression, expected value).


def same_value(value, expected):
    """Whether a returned value is the expected one:
    True is not 1, a list is not a tuple, 2.0 is 2, floats within 1e-9."""
    kinds = {type(value), type(expected)}
    if kinds <= {int, float} and float in kinds:
        try:
            both_nan = math.isnan(value) and math.isnan(expected)
            return both_nan or math.isclose(value, expected, rel_tol=1e-9)
        except OverflowError:  # an int beyond the floats
            return False
    if len(kinds) == 2:
        return False
    if isinstance(expected, complex):
        return cmath.isclose(value, expected, rel_tol=1e-9)
    if isinstance(expected, (list, tuple)):
        return len(value) == len(expected) and all(map(same_value, value, expected))
    if isinstance(expected, (set, frozenset)):
        return set(map(strict_key, value)) == set(map(strict_key, expected))
    if isinstance(expected, dict):
        values = {strict_key(key): item for key, item in value.items()}
        wanted = {strict_key(key): item for key, item in expected.items()}
        return values.keys() == wanted.keys() and all(
            same_value(values[key], wanted[key]) for key in wanted
        )
    return value == expected


def strict_key(value):
    """A hashable stand-in in which True is not 1:
    scalars become pairs that start with a bool, which no container's does."""
    if isinstance(value, (tuple, frozenset)):
        return type(value)(map(strict_key, value))
    return (isinstance(value, bool), value)


@dataclass(frozen=True)
class Judge:
    """An expected value: the expression must be true where `values` is what the program returned.

    It is evaluated in a sandbox without the program,
    whose objects, functions and hidden names it never meets.
    """

    expression: str


def passes_tests(programs_and_tests, *, seconds=1.0, memory_mb=256):
    """For each (source, [(expression, expected), ...]):
    whether all values are as expected; None when uncertain or disabled.

    A program without tests does not pass.
    The comparison happens here, so the program never sees an expected value.
    """
    pairs = list(programs_and_tests)
    if not enabled:
        return [None] * len(pairs)
    programs = [(source, [expression for expression, _ in tests]) for source, tests in pairs]
    done = run_programs(programs, seconds=seconds, memory_mb=memory_mb)
    passed, judged = [], []  # judged: (index of the program, program of the judge)
    for i, ((_, tests), outcome) in enumerate(zip(pairs, done)):
        passed.append(None if outcome.uncertain else bool(outcome.values))
        for value, (_, expected) in zip(outcome.values or [], tests):
            if isinstance(expected, Judge) and not isinstance(value, NoValue):
                judged.append(
                    (i, (f"{IMPORTS}\nvalues = {value!r}", [f"not not ({expected.expression})"]))
                )
            elif not same_value(value, expected):
                passed[i] = False
    judged = [(i, program) for i, program in judged if passed[i]]
    for (i, _), outcome in zip(judged, run_programs([program for _, program in judged])):
        if passed[i]:
            passed[i] = None if outcome.uncertain else outcome.values == [True]
    return passed


# MBPP.

# inf and nan as repr writes them
IMPORTS = f"import {', '.join(MODULES)}, sys\ninf, nan = float('inf'), float('nan')"
KNOWN = {*dir(builtins), *MODULES, "sys", "values"}
TRUTH = re.compile(
    r"(not )*([\w.]+\()*values\[0\]\)*( is not None)?"
)  # of one value, as it is or after calls like set(...)


class OwnCalls(ast.NodeTransformer):
    """Collects the calls of the program's own functions and puts `values[i]` in their places."""

    def __init__(self):
        self.calls = []

    def visit(self, node):
        root = node
        while isinstance(root, (ast.Call, ast.Attribute, ast.Subscript)):
            root = root.func if isinstance(root, ast.Call) else root.value
        if root is node or not isinstance(root, ast.Name) or root.id in KNOWN:
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.parse(f"values[{len(self.calls) - 1}]", mode="eval").body


def split_calls(text):
    """(list of the program's own calls, the rest over `values`) as texts;
    None where more of its names are left over or the rest asks for the truth of one value alone."""
    own = OwnCalls()
    tree = own.visit(ast.parse(text, mode="eval"))
    rest, names = (
        ast.unparse(tree),
        {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)},
    )
    return (
        (f"[{', '.join(own.calls)}]", rest)
        if own.calls and names <= KNOWN and not TRUTH.fullmatch(rest)
        else None
    )


def mbpp_tests(record):
    """The `test_list` of an MBPP record as [(expression, expected), ...].
    Raises ValueError for what is no assert.

    `assert f(x) == y` becomes (f(x), y). If y is no literal, it is evaluated in a sandbox of its
    own without the program under test, which could otherwise choose what it is compared with.
    In every other shape that compares, the program's own calls are returned and a Judge decides.
    The rest (`assert not f(x)`, a comprehension, a function with the name
    of a builtin) is evaluated whole beside the program and must be true.
    `test_setup_code` is for the caller to append to the program.
    """
    tests, open_sides = [], []
    for text in record["test_list"]:
        body = ast.parse(text.strip()).body
        if len(body) != 1 or not isinstance(body[0], ast.Assert):
            raise ValueError(f"not one assert: {text}")
        test = body[0].test
        parts = split_calls(ast.unparse(test))
        tests.append(
            (parts[0], Judge(parts[1])) if parts else (f"not not ({ast.unparse(test)})", True)
        )
        if (
            not isinstance(test, ast.Compare)
            or len(test.ops) > 1
            or not isinstance(test.ops[0], (ast.Eq, ast.Is))
        ):
            continue
        left, right = ast.unparse(test.left), test.comparators[0]
        if split_calls(left):  # `f(x) - y == 0`: an object could answer to the subtraction
            continue
        try:
            tests[-1] = (left, ast.literal_eval(right))
        except ValueError:
            open_sides.append((len(tests) - 1, left, ast.unparse(right)))
    if open_sides and enabled:
        for (place, left, _), done in zip(
            open_sides, run_programs([(IMPORTS, [right]) for _, _, right in open_sides])
        ):
            if done.values and not isinstance(done.values[0], NoValue):
                tests[place] = (left, done.values[0])
    return tests


def check_mbpp(path):
    """Raises ValueError in one line for a file that is not MBPP's."""
    from data.files import formats  # not at the top: the server runs this file alone

    records, dropped, _ = formats.read_records(path, "instruction")
    records = [record for record in records if "tests" in record]
    if not records:
        raise ValueError(f"{path}: no record has tests; expected MBPP's text, code and test_list")
    if dropped:
        print(formats.dropped_line(dropped))
    programs = []
    for number, record in enumerate(records, 1):
        setup = record["tests"]["test_setup_code"]
        try:
            tests = mbpp_tests(record["tests"])
        except (ValueError, SyntaxError) as error:
            told = str(error).split("\n")[0]
            raise ValueError(
                f"{path}: record {number} with tests: {told}; expected asserts"
            ) from None
        programs.append((f"{record['messages'][-1]['content']}\n{setup}", tests))
    passed = passes_tests(programs, seconds=5.0)
    for number, ok in enumerate(passed, 1):
        if not ok:
            print(f"record {number} with tests: {'failed' if ok is False else 'uncertain'}")
    print(f"{sum(map(bool, passed))} of {len(records)} pass")


def main():
    if sys.argv[1:] in (["--serve"], ["--serve-one"]):
        serve(fork=sys.argv[1] == "--serve")
    elif sys.argv[1:2] == ["--mbpp"] and len(sys.argv) == 3:
        from data.runtime import command

        command.guarded(check_mbpp, sys.argv[2])
    else:
        bodies = ["return x * x", "while True: pass", "import os; return os.getcwd()"]
        sources = [f"def f(x):\n    {body}" for body in bodies]
        for source, done in zip(sources, run_programs([(source, ["f(3)"]) for source in sources])):
            print(f"{source}\n    {done}\n")


if __name__ == "__main__":
    main()
