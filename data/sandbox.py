"""Runs programs that a model wrote, for rewards and checks.

Threat model: reward hacking and accidents. A policy that is rewarded for passing tests finds every short cut (print a
forged result, patch a builtin, return an object that equals everything, exit before the test), and by accident it writes
endless loops and memory bombs. Each of these costs the program its own reward and nothing else. A determined human
attacker is not in the model: this is one Python process with its teeth pulled, not a virtual machine. `--no-exec` in the
pipeline calls `disable()`: then nothing is executed at all.

How it works. The caller (which may hold torch and a GPU) never forks. It starts a small server: this file, in a fresh
interpreter without site-packages, with an emptied environment and a scratch directory. The server preloads the
allowed modules and forks one child for each program, a few at a time. Four fences stand around a child:

1. The syntax tree may contain only the node types and the double-underscore names listed here.
2. The program sees copies: a dictionary of safe builtins, and stub modules that hold public names only.
3. An audit hook, which cannot be removed, refuses files, sockets, processes, signals, ctypes and further imports.
4. Limits of the operating system: CPU time, memory, file size, open files, processes; a wall clock in the server.

A child evaluates expressions and returns literals of exact built-in types over its own pipe, behind a random token. The
expected values never enter the child: the caller compares, so there is nothing to steal and no `__eq__` to override.

What was left out: a container or seccomp (neither is portable nor in the standard library). Where `os.fork` does not exist
(Windows) one child runs a whole batch, see `run_in_turn`; it has no memory limit there. Not thread-safe.
The server's hash seed is fixed, so that the order of a set of strings, and with it a reward, repeats from run to run; `-I`
would ignore that seed, so its parts (`-s`, an empty environment, no script directory on the path) are set one by one.

    python -m data.sandbox                   three programs and their outcomes
    python -m data.sandbox --mbpp FILE       reference programs of an MBPP file against their own tests
"""

import ast
import atexit
import builtins
import cmath
import collections
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
import string
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
    """What one program did. `values` has one entry for each expression, or is None if the program did not get that far."""

    values: list | None = None
    printed: str = ""  # at most MAX_PRINTED characters
    error: str = ""  # '' or one line: the first thing that went wrong
    uncertain: bool = False  # the sandbox failed, not the program: mask it, do not punish it


# 1. The syntax tree. Left out on purpose: async (needs an event loop) and whatever a later Python adds.

NODES = set(
    """Module Expression Expr Constant Name Load Store Del Attribute Subscript Slice Starred Tuple List Set Dict
    FunctionDef Lambda ClassDef arguments arg keyword Return Yield YieldFrom Global Nonlocal Assign AugAssign AnnAssign Delete
    NamedExpr If For While Break Continue Pass Try TryStar ExceptHandler Raise Assert With withitem Import ImportFrom alias
    Call IfExp BoolOp And Or BinOp UnaryOp Compare ListComp SetComp DictComp GeneratorExp comprehension JoinedStr FormattedValue
    Add Sub Mult Div FloorDiv Mod Pow MatMult LShift RShift BitOr BitXor BitAnd Invert Not UAdd USub
    Eq NotEq Lt LtE Gt GtE Is IsNot In NotIn
    Match match_case MatchValue MatchSingleton MatchSequence MatchMapping MatchClass MatchStar MatchAs MatchOr""".split()
)

DUNDERS = {
    f"__{word}__"
    for word in """init new str repr format len bool hash int float index contains getitem setitem delitem missing iter next
    reversed call enter exit eq ne lt le gt ge add sub mul truediv floordiv mod divmod pow neg pos abs invert round radd rsub
    rmul rtruediv rfloordiv rmod rpow iadd isub imul itruediv and or xor rand ror rxor lshift rshift matmul name doc slots
    future""".split()
}

# Public names that lead from a generator, a traceback or a class to frames and to every loaded class.
INTROSPECTION = set(
    """gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await ag_frame ag_code ag_await tb_frame tb_next mro
    f_back f_builtins f_code f_generator f_globals f_locals f_trace""".split()
)
FORMATS = ("format", "format_map")
GETATTR = "<getattr>"  # not an identifier, so no program can name it


class Refused(Exception):
    """The program contains something that the sandbox does not run."""


def check_name(name):
    """Raises Refused for a double-underscore name that is not in DUNDERS and for names that lead to frames.

    One leading underscore is fine: stub modules hold no such name, and `self._items` is ordinary Python.
    """
    if type(name) is not str:  # a subclass of str could show two faces
        raise TypeError("attribute name must be string")
    if (name.startswith("__") and name.endswith("__") and name not in DUNDERS) or name in INTROSPECTION:
        raise Refused(f"the name {name}")


class FormatCalls(ast.NodeTransformer):
    """`text.format` walks attributes ('{0.__class__}'), so it is looked up through `guarded_getattr`."""

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr not in FORMATS:
            return node
        if not isinstance(node.ctx, ast.Load):
            raise Refused(f"assigning to .{node.attr}")
        call = ast.Call(ast.Name(GETATTR, ast.Load()), [node.value, ast.Constant(node.attr)], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


def checked_code(text, mode):
    """Code object of a program (mode 'exec') or an expression ('eval'). Raises Refused or SyntaxError."""
    if len(text) > MAX_SOURCE:
        raise Refused("a program of this length")
    tree = ast.parse(text, mode=mode)
    for node in ast.walk(tree):
        kind = type(node).__name__
        if kind not in NODES:
            raise Refused(kind)
        if kind == "Constant":
            continue
        for _, value in ast.iter_fields(node):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):  # every identifier, wherever the grammar allows one
                    check_name(item)
                    if kind == "MatchClass" and item in FORMATS:
                        raise Refused(f"matching .{item}")
    return compile(FormatCalls().visit(tree), "<program>", mode, dont_inherit=True)


# 2. What the program sees.

MODULES = """array bisect cmath collections collections.abc copy datetime decimal fractions functools heapq itertools math
    operator random re statistics string""".split()

# These evaluate or walk strings inside the standard library, where fence 1 does not look; SystemRandom has no seed.
HIDDEN = set("singledispatch singledispatchmethod attrgetter methodcaller Formatter UserString SystemRandom".split())

# Imported by allowed modules only when they need them, which in a child is too late.
LAZY = "_strptime unicodedata annotationlib encodings.latin_1 encodings.ascii encodings.utf_16 encodings.cp1252".split()

BUILTINS = """abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate filter float
    format frozenset hash hex id int isinstance issubclass iter len list map max min next object oct ord pow property range
    repr reversed round set slice sorted staticmethod str sum super tuple zip NotImplemented Ellipsis __build_class__""".split()


def guarded(function):
    """getattr and its relatives, for names that a program could also have written after a dot."""

    def call(obj, name, *rest):
        check_name(name)
        return function(obj, name, *rest)

    return call


def check_template(template):
    for _, field, spec, _ in string.Formatter().parse(template):
        for part in re.split(r"[.\[\]]", field or ""):
            check_name(part)
        check_template(spec or "")


@guarded
def guarded_getattr(obj, name, *default):
    value = getattr(obj, name, *default)
    if name not in FORMATS:
        return value

    def checked_format(template, /, *args, **kwargs):
        template = str.__str__(template)  # of a subclass: its plain text
        check_template(template)
        return getattr(template, name)(*args, **kwargs)

    if value is getattr(str, name):
        return checked_format
    if type(value) is types.BuiltinMethodType and isinstance(value.__self__, str):
        return functools.partial(checked_format, value.__self__)
    return value


class TypeOf:
    """`type` with one argument. The real one builds classes with any double-underscore name, so `type(int)` is not it."""

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
        self.write((" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end))


def leave(code=None):
    raise SystemExit(code)


def stub(name, members):
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


def safe_modules(printed):
    """name -> stub module with public members only, and no modules among them: `re.enum.sys` is the real sys."""
    modules = {}
    for name in MODULES:
        real = importlib.import_module(name)
        public = {m: getattr(real, m) for m in getattr(real, "__all__", vars(real)) if m[0] != "_" and m not in HIDDEN}
        modules[name] = stub(name, {m: v for m, v in public.items() if not isinstance(v, types.ModuleType)})
    modules["collections"].abc = modules["collections.abc"]
    # The other arguments of the real ones copy any attribute, `__globals__` included.
    modules["functools"].wraps = lambda wrapped: lambda wrapper: functools.update_wrapper(wrapper, wrapped)
    modules["functools"].update_wrapper = lambda wrapper, wrapped: functools.update_wrapper(wrapper, wrapped)
    modules["typing"] = stub("typing", {m: Annotation() for m in typing.__all__} | {"NamedTuple": typing.NamedTuple})
    modules["__future__"] = stub("__future__", {"annotations": None})
    modules["sys"] = stub("sys", {name: getattr(sys, name) for name in ("maxsize", "maxunicode", "float_info", "getsizeof")})
    modules["sys"].setrecursionlimit = lambda limit: sys.setrecursionlimit(min(limit, 5000))  # the C stack is finite
    modules["sys"].stdout = stub("stdout", {"write": printed.write, "flush": lambda: None})
    modules["sys"].exit = leave
    return modules


def safe_builtins(printed):
    modules = safe_modules(printed)

    def guarded_import(name, globals=None, locals=None, fromlist=(), level=0):
        if name in LAZY:  # C code imports through this function too, but takes the real module from sys.modules
            return stub(name, {})
        if level or name not in modules:
            raise ModuleNotFoundError(f"no module {name} in the sandbox", name=name)
        return modules[name] if fromlist else modules[name.partition(".")[0]]

    safe = {name: getattr(builtins, name) for name in BUILTINS}
    safe |= {n: v for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, BaseException)}
    safe |= {"setattr": guarded(setattr), "delattr": guarded(delattr), "hasattr": guarded(hasattr)}
    safe |= {"getattr": guarded_getattr, GETATTR: guarded_getattr, "__import__": guarded_import, "type": TypeOf()}
    return safe | {"print": printed.print, "input": lambda prompt="": "", "exit": leave, "quit": leave}


# 3. and 4. The audit hook and the limits.

# All that the allowed modules raise: namedtuple compiles its __new__ and asks for its caller's name, and sets defaults.
EVENTS = set("compile exec builtins.id sys._getframe sys._getframemodulename object.__setattr__ sys.unraisablehook".split())


def refuse_system_events():
    def hook(event, args):
        if event not in EVENTS:
            raise PermissionError(f"the sandbox refuses {event}")

    sys.addaudithook(hook)


def limit_resources(memory_mb, cpu_seconds=None):
    if resource is None:
        return
    # A child that runs as root is not held by NPROC; the audit hook refuses fork before the kernel is asked.
    limits = {"AS": memory_mb << 20, "FSIZE": 0, "CORE": 0, "NOFILE": 0, "NPROC": 0}
    if cpu_seconds:
        limits["CPU"] = math.ceil(cpu_seconds) + 1
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # fractions of a second; its default action ends the process
    for name, limit in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
        except (AttributeError, ValueError, OSError):  # macOS has no RLIMIT_AS
            pass


# What travels: JSON, where a list starts with the name of its type. No method of the program's own classes is called.

DICTS = (dict, collections.Counter, collections.OrderedDict, collections.defaultdict)
CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def encode(value, room, depth=0):
    """JSON-able form of a literal. `room` is a one-element list: the characters left. Raises TypeError."""
    kind = type(value)
    size = value.bit_length() // 3 if kind is int else len(value) if kind in (str, bytes) else 1
    room[0] -= size + 1
    if room[0] < 0 or depth > MAX_DEPTH or (kind is int and size > 4_000):  # json refuses ints of more than 4,300 digits
        raise TypeError("too large")
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind in DICTS:
        return ["dict"] + [[encode(item, room, depth + 1) for item in pair] for pair in dict.items(value)]
    if kind in CONTAINERS.values():
        return [kind.__name__] + [encode(item, room, depth + 1) for item in value]
    raise TypeError("not a literal")


def decode(data):
    """The value that `encode` was given. Raises TypeError, ValueError or KeyError for anything else."""
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


def serve_batch(programs, seconds, memory_mb, send, printed, safe):
    """Forks a child for each (source, expressions), WIDTH at a time, and sends the replies in order of completion."""
    waiting = list(enumerate(programs))[::-1]
    running = {}  # reading end of its pipe -> Child
    while waiting or running:
        while waiting and len(running) < WIDTH:
            index, program = waiting.pop()
            token = secrets.token_bytes(16)
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
            # Nothing that a program can reach blocks, so only a starved machine meets this deadline before the CPU limit.
            running[reader] = Child(index, pid, token, time.monotonic() + 3 * seconds + 1)
        nearest = min((child.deadline for child in running.values()), default=0)
        for pipe in select.select(list(running), [], [], max(0, nearest - time.monotonic()))[0]:
            child = running[pipe]
            chunk = os.read(pipe, 1 << 16)
            child.received += chunk
            if not chunk or len(child.received) > 1 << 22:
                del running[pipe]
                os.close(pipe)
                kill(child.pid)
                send(child.index, *verdict(child, os.waitpid(child.pid, 0)[1]))
        for child in running.values():
            if time.monotonic() > child.deadline:
                child.overdue, child.deadline = True, child.deadline + 60
                kill(child.pid)


def run_child(program, token, writer, seconds, memory_mb, printed, safe):
    """Runs in the child; never returns."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.closerange(3, writer), os.closerange(writer + 1, 64)
        signal.alarm(math.ceil(4 * seconds) + 5)  # if the server is killed, nobody else ends this child
        limit_resources(memory_mb, seconds)
        refuse_system_events()
        message = token + json.dumps(run_program(*program, printed, safe)).encode()
        while message:
            message = message[os.write(writer, message) :]
    finally:
        os._exit(0)


def kill(pid):
    for send_signal in (os.killpg, os.kill):  # it may not have reached setsid
        try:
            send_signal(pid, signal.SIGKILL)
        except OSError:
            pass


def verdict(child, status):
    """(result or None, error, uncertain) of a child that has ended with this wait status."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    try:
        if child.received.startswith(child.token):
            return json.loads(child.received[len(child.token) :]), "", False
    except (ValueError, RecursionError):
        return None, "broken result", False
    if child.overdue:
        return None, "wall-clock limit", True
    if number in (signal.SIGPROF, signal.SIGXCPU):
        return None, "time limit", False
    if number == signal.SIGKILL:  # not from this server: most likely the machine is out of memory
        return None, "killed from outside", True
    return None, f"ended without a result (signal {number})", False


def run_in_turn(programs, memory_mb, send, printed):
    """Where fork is missing: runs the programs in this process, which ends if one changed a class that the next would use."""
    limit_resources(memory_mb)
    before = shared_members()
    for index, program in enumerate(programs):
        printed.text = ""
        sys.setrecursionlimit(1000)
        send(index, run_program(*program, printed, safe_builtins(printed)), "", False)
        after = shared_members()
        if after.keys() != before.keys() or any(after[key] is not before[key] for key in before):
            os._exit(0)


def shared_members():
    """(class, name) -> member, for every class of the allowed modules."""
    stubs = safe_modules(Printed()).values()
    classes = {member for module in stubs for member in vars(module).values() if isinstance(member, type)}
    return {(kind, name): member for kind in classes for name, member in vars(kind).items() if name != "__doc__"}


def serve(fork):
    """Main loop of the server: a batch a line on stdin, a reply a line on stdout."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0), os.dup2(null, 1)
    warnings.simplefilter("ignore")  # printing a SyntaxWarning would open files
    printed = Printed()
    safe = safe_builtins(printed)
    for name in LAZY:
        if importlib.util.find_spec(name):
            importlib.import_module(name)

    def send(*reply):
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()

    os.chdir(tempfile.mkdtemp() if fork else os.sep)
    if fork:
        os.rmdir(os.getcwd())  # in a directory that is gone nothing can be created, and nothing is left behind
    else:
        os.dup2(null, 2)
        refuse_system_events()
    gc.collect()
    gc.freeze()  # the collector of a child must not copy the server's pages
    send("ready")
    for line in requests:
        request = json.loads(line)
        if fork:
            serve_batch(request["programs"], request["seconds"], request["memory_mb"], send, printed, safe)
        else:
            run_in_turn(request["programs"], request["memory_mb"], send, printed)
    os._exit(0)  # past exit handlers that the audit hook might refuse


# The caller's side.

_server = None  # (process, process id of its owner, fork): a fork of the caller must not share the pipes


def start_server(fork):
    """A running server of this process. Raises RuntimeError if it does not start."""
    global _server
    if _server is None or _server[1:] != (os.getpid(), fork):
        close()
        keep = ("SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in keep if name in os.environ} | {"PYTHONHASHSEED": "0"}
        boot = f"import sys; sys.path.remove(''); import runpy; runpy.run_path({os.path.abspath(__file__)!r}, None, '__main__')"
        command = [sys.executable, "-s", "-S", "-c", boot, "--serve" if fork else "--serve-in-turn"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # A session of its own: Ctrl-C is for the caller.
        process = subprocess.Popen(command, env=environment, start_new_session=os.name == "posix", **pipes)
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
    """Runs each (source, expressions) in its own sandbox; returns a list of Outcome in the same order.

    Each expression is evaluated in the program's namespace after its source was executed. `seconds` is CPU time for a whole
    program, `memory_mb` its address space. Raises SandboxDisabled after `disable()`.
    """
    if not enabled:
        raise SandboxDisabled("running programs is disabled (--no-exec)")
    programs = [(source, list(expressions)) for source, expressions in programs]
    return run_batches(programs, seconds, memory_mb, fork=hasattr(os, "fork"))


def run_batches(programs, seconds, memory_mb, fork):
    """Sends batches until every program has an outcome.

    If the server dies, hangs or breaks the protocol, the batch is split: what it may have been running runs again, alone
    where there is no fork, and is given up the second time. With fork that is the sandbox's fault, without it the program's.
    """
    outcomes = [None] * len(programs)
    failures = [0] * len(programs)
    while None in outcomes:
        missing = [i for i, done in enumerate(outcomes) if done is None]
        if not fork and failures[missing[0]]:
            missing = missing[:1]
        server = start_server(fork)
        request = {"programs": [programs[i] for i in missing], "seconds": seconds, "memory_mb": memory_mb}
        try:
            server.stdin.write(json.dumps(request).encode() + b"\n")
            server.stdin.flush()
            for _ in missing:
                watchdog = None if fork else threading.Timer(2 * seconds, server.kill)
                if watchdog:
                    watchdog.start()
                line = server.stdout.readline()
                if watchdog:
                    watchdog.cancel()
                index, *reply = json.loads(line)
                outcomes[missing[index]] = read_reply(*reply, len(programs[missing[index]][1]))
        except (OSError, ValueError, LookupError, TypeError):
            close()
            for i in [i for i in missing if outcomes[i] is None][: WIDTH if fork else 1]:
                failures[i] += 1
                if failures[i] == 2:
                    outcomes[i] = Outcome(error="the server ended or was stopped at the time limit", uncertain=fork)
        except BaseException:  # Ctrl-C between a request and its replies
            close()
            raise
    return outcomes


def read_reply(result, error, uncertain, expected_values):
    if result is None:
        return Outcome(error=error, uncertain=uncertain)
    try:
        values, printed, error = result
        values = None if values is None else [decode(value) for value in values]
        if type(printed) is type(error) is str and (values is None or len(values) == expected_values):
            return Outcome(values, printed, error)
    except (TypeError, ValueError, KeyError, RecursionError):
        pass
    return Outcome(error="broken result")


# Tests: (expression, expected value).


def same_value(value, expected):
    """Whether a returned value is the expected one: True is not 1, a list is not a tuple, 2.0 is 2, floats within 1e-9."""
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
        return values.keys() == wanted.keys() and all(same_value(values[key], wanted[key]) for key in wanted)
    return value == expected


def strict_key(value):
    """A hashable stand-in in which True is not 1."""
    if isinstance(value, (tuple, frozenset)):
        return type(value)(map(strict_key, value))
    return ("bool", value) if isinstance(value, bool) else value


def passes_tests(programs_and_tests, *, seconds=1.0, memory_mb=256):
    """For each (source, [(expression, expected), ...]): whether all values are as expected; None when uncertain or disabled.

    A program without tests does not pass. The comparison happens here, so the program never sees an expected value.
    """
    pairs = list(programs_and_tests)
    if not enabled:
        return [None] * len(pairs)
    programs = [(source, [expression for expression, _ in tests]) for source, tests in pairs]
    passed = []
    for (_, tests), done in zip(pairs, run_programs(programs, seconds=seconds, memory_mb=memory_mb)):
        values = done.values or []
        ok = bool(values) and all(same_value(value, expected) for value, (_, expected) in zip(values, tests))
        passed.append(None if done.uncertain else ok)
    return passed


def mbpp_tests(record):
    """The `test_list` of an MBPP record as [(expression, expected), ...]. Raises ValueError for what is no assert.

    `assert f(x) == y` becomes (f(x), y). If y is no literal, it is evaluated in a sandbox of its own without the program under
    test, which could otherwise choose what it is compared with. Every other shape (`assert not f(x)`, math.isclose, a right
    side that needs the program) is evaluated whole beside the program and must be true; that is weaker, because there a
    program may hide `math` or define `__eq__`. `test_setup_code` is for the caller to append to the program.
    """
    tests, open_sides = [], []
    for text in record["test_list"]:
        body = ast.parse(text.strip()).body
        if len(body) != 1 or not isinstance(body[0], ast.Assert):
            raise ValueError(f"MBPP task {record.get('task_id')}: not one assert: {text}")
        test = body[0].test
        whole = (f"not not ({ast.unparse(test)})", True)
        if not isinstance(test, ast.Compare) or len(test.ops) > 1 or not isinstance(test.ops[0], (ast.Eq, ast.Is)):
            tests.append(whole)
            continue
        try:
            tests.append((ast.unparse(test.left), ast.literal_eval(test.comparators[0])))
        except ValueError:
            open_sides.append((len(tests), ast.unparse(test.left), ast.unparse(test.comparators[0])))
            tests.append(whole)
    if open_sides and enabled:
        imports = "import " + ", ".join(MODULES + ["sys"])
        for (place, left, _), done in zip(open_sides, run_programs([(imports, [right]) for _, _, right in open_sides])):
            if done.values and not isinstance(done.values[0], NoValue):
                tests[place] = (left, done.values[0])
    return tests


def check_mbpp(path):
    try:
        with open(path, encoding="utf-8") as file:
            records = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {path}: not a JSONL of MBPP's records ({error})") from None
    tests = [mbpp_tests(record) for record in records]
    programs = [f"{record['code']}\n{record.get('test_setup_code') or ''}" for record in records]
    started = time.perf_counter()
    outcomes = run_programs([(p, [expression for expression, _ in t]) for p, t in zip(programs, tests)], seconds=5.0)
    elapsed = time.perf_counter() - started
    failures = 0
    for record, wanted, done in zip(records, tests, outcomes):
        values = done.values or []
        wrong = [(e, v, y) for (e, y), v in zip(wanted, values) if not same_value(v, y)]
        if wrong or not values:
            failures += 1
            reason = done.error or "{0}: {1!r}, expected {2!r}".format(*wrong[0])
            print(f"task {record['task_id']}: {ascii(reason)[1:-1][:200]}")
    total = len(records)
    print(f"{total - failures} of {total} pass ({100 * (total - failures) / total:.1f}%), {total / elapsed:.0f} programs a second")


def main():
    if sys.argv[1:] in (["--serve"], ["--serve-in-turn"]):
        serve(fork=sys.argv[1] == "--serve")
    elif sys.argv[1:2] == ["--mbpp"] and len(sys.argv) == 3:
        check_mbpp(sys.argv[2])
    else:
        sources = ["def f(x):\n    return x * x", "def f(x):\n    while True: pass", "import os\ndef f(x): return os.getcwd()"]
        for source, done in zip(sources, run_programs([(source, ["f(3)"]) for source in sources])):
            print(f"{source}\n    {done}\n")


if __name__ == "__main__":
    main()
