"""Each hostile program is rewarded if its f(3) returns 9.
It must cost itself that reward and change nothing else."""

import gzip
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path

import pytest

from data.files import writing
from data.runtime import sandbox
from data.runtime.sandbox import NOT_A_LITERAL, RAISED, passes_tests, run_programs, same_value

INNOCENT = "def f(x):\n    return x * x"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing")

HOSTILE = {
    "hang": "def f(x):\n    while True: pass",
    "hang that catches everything": (
        "def f(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except: pass"
    ),
    "hang inside one C call": "def f(x):\n    return sum(range(10 ** 12)) and 9",
    "power tower": "def f(x):\n    return 9 ** 9 ** 9 and 9",
    "regular expression without end": (
        "import re\ndef f(x):\n    return 9 if not re.match('(a+)+$', 'a' * 40 + 'b') else 0"
    ),
    "infinite recursion": "def f(x):\n    return f(x)",
    "memory bomb": "def f(x):\n    return len('a' * 10 ** 10) and 9",
    "slow memory bomb": "def f(x):\n    kept = []\n    while True: kept.append('a' * 10 ** 7)",
    "huge output": "def f(x):\n    return [9] * 10 ** 6",
    "shared references": "def f(x):\n    a = [9]\n    for _ in range(40): a = [a, a]\n    return a",
    "list that holds itself": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "fork": "import os\ndef f(x):\n    return 9 if os.fork() else 0",
    "os._exit": "import os\nos._exit(0)\ndef f(x):\n    return 9",
    "sys.exit": "import sys\ndef f(x):\n    sys.exit(9)",
    "raise SystemExit": "raise SystemExit(9)",
    "exit after the definition": "def f(x):\n    return 9\nexit()",
    "raise KeyboardInterrupt": "def f(x):\n    raise KeyboardInterrupt",
    "forged result": 'print(\'[[9], "", ""]\')\nprint(\'[0, [[9], "", ""], "", false]\')',
    "replaced builtins": "global __builtins__\n__builtins__ = {}\ndef f(x):\n    return 9",
    "changed builtins": "import builtins\nbuiltins.len = None\ndef f(x):\n    return 9",
    "own pid": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "parent pid": "import os\nos.kill(os.getppid(), 9)",
    "read a file": "def f(x):\n    return 9 if open('/etc/hosts').read() else 0",
    "write a file": "def f(x):\n    open('answer', 'w').write('9')\n    return 9",
    "socket": "import socket\ndef f(x):\n    socket.socket()\n    return 9",
    "subprocess": "import subprocess\ndef f(x):\n    return subprocess.call(['true']) + 9",
    "ctypes": "import ctypes\ndef f(x):\n    return ctypes.string_at(0)",
    "importlib": "import importlib\ndef f(x):\n    return importlib.import_module('os') and 9",
    "__import__": "def f(x):\n    return __import__('os') and 9",
    "module inside a module": "import re\ndef f(x):\n    return re.enum.sys.modules['os'] and 9",
    "private module inside a module": (
        "import random\ndef f(x):\n    return random._os.getpid() and 9"
    ),
    "eval": "def f(x):\n    return eval('9')",
    "subclasses": "def f(x):\n    return ().__class__.__base__.__subclasses__() and 9",
    "mro": "def f(x):\n    return int.mro()[-1] and 9",
    "fullwidth letters": "def f(x):\n    return ().__\uff43lass__ and 9",
    "getattr": "def f(x):\n    return getattr((), '__cl' + 'ass__') and 9",
    "getattr with a lying string": (
        "class S(str):\n    def startswith(self, p): return False\ndef f(x):\n"
        "    return getattr((), S('__class__')) and 9"
    ),
    "attrgetter": (
        "import operator\ndef f(x):\n    return operator.attrgetter('__class__')(()) and 9"
    ),
    "metaclass": "def f(x):\n    return type(type(9))('A', (), {'__class__': 9}) and 9",
    "match": "def f(x):\n    match x:\n        case object(__class__=c): return 9",
    "generator frame": "def g():\n    yield 1\ndef f(x):\n    return g().gi_frame.f_builtins and 9",
    "traceback frame": (
        "def f(x):\n    try: 1 / 0\n"
        "    except Exception as e: return e.__traceback__.tb_frame.f_back and 9"
    ),
    "frame from __exit__": (
        "class C:\n    def __enter__(self): pass\n    def __exit__(self, a, b, t):\n"
        "        self.frame = t.tb_frame\n        return True\ndef f(x):\n    c = C()\n"
        "    with c: 1 / 0\n    return c.frame and 9"
    ),
    "string.Formatter": (
        "import string\ndef f(x):\n    return string.Formatter().format('{0.__class__}', x) and 9"
    ),
    "UserString": (
        "import collections\ndef f(x):\n"
        "    return collections.UserString('{0.__class__}').format(x) and 9"
    ),
    "evaluated annotation": (
        "import functools\n@functools.singledispatch\ndef g(a): pass\n@g.register\n"
        "def _(a: '().__class__'): pass\ndef f(x):\n    return 9"
    ),
    "copied globals": (
        "import functools, heapq\nclass A: pass\ndef f(x):\n"
        "    return functools.update_wrapper(A(), heapq.merge, ('__globals__',), ()) and 9"
    ),
    "globals by enum": (
        "import re\nnames = []\ndef f(x):\n"
        "    try: re.RegexFlag._convert_('E', '__main__', names.append)\n"
        "    except TypeError: pass\n    return 9 if names else 0"
    ),
    "emptied enum": "import re\nre.RegexFlag._member_map_.clear()\ndef f(x):\n    return 9",
    "sleep on a lock": (
        "import functools\ndef f(x):\n    lock = functools.cached_property(f).lock\n"
        "    lock._acquire_restore((1, 1))\n    return 9 if lock.acquire() else 0"
    ),
    "forbidden name by cached_property": (
        "import copy, functools\nclass A: pass\n"
        "A.p = functools.cached_property(lambda self: lambda *args: (list, ((9,),)))\n"
        "A.p.attrname = '__reduce_ex__'\ndef f(x):\n    a = A()\n    a.p\n"
        "    return copy.copy(a)[0]"
    ),
    "forbidden name by the memo": (
        "import copy\nclass A: pass\na = A()\na.y = 1\nclass Any:\n"
        "    def __new__(cls, *args): return copy.copy\nclass Memo(dict):\n    n = 0\n"
        "    def get(self, key, default=None):\n        self.n += 1\n"
        "        return {2: Any, 3: (None, {'__kwdefaults__': {'y': 9}})}.get(self.n, default)\n"
        "    def __setitem__(self, key, value): pass\ndef f(x):\n"
        "    return 9 if copy.deepcopy(a, Memo()) is copy.copy else 0"
    ),
    "registration": (
        "import collections.abc\nclass A: pass\ncollections.abc.Mapping.register(A)\n"
        "def f(x):\n    return 9"
    ),
    "object that equals everything": (
        "class A:\n    def __eq__(self, other): return True\ndef f(x):\n    return A()"
    ),
    "subclass of int": (
        "class A(int):\n    def __eq__(self, other): return True\n"
        "    __hash__ = int.__hash__\ndef f(x):\n    return A(9)"
    ),
    "list of objects": (
        "class A:\n    def __eq__(self, other): return True\ndef f(x):\n    return [A()]"
    ),
    "exception with an endless message": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x):\n"
        "    raise E"
    ),
    "no program": "Sure! Here is the program:",
    "nested parentheses": "(" * 5000,
    "long chain": "f = " + "-" * 40000 + "1",
    "null byte": "def f(x):\n    return 9\0",
    "lone surrogate": "def f(x):\n    return '\ud800' and 9",
    "async": "async def f(x):\n    return 9",
}


@pytest.fixture(scope="module")
def hostile_batch():
    batch = [(INNOCENT, [("f(3)", 9)])]
    for source in HOSTILE.values():
        batch += [(source, [("f(3)", 9)]), (INNOCENT, [("f(3)", 9)])]
    return passes_tests(batch, seconds=0.2)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_costs_its_own_reward_and_nothing_else(hostile_batch, name):
    place = 2 * list(HOSTILE).index(name) + 1
    assert hostile_batch[place - 1 : place + 2] == [True, False, True]


@pytest.mark.slow
def test_without_fork_the_culprit_is_found_and_the_rest_unaffected():
    names = [
        "hang",
        "power tower",
        "memory bomb",
        "sys.exit",
        "subclasses",
        "object that equals everything",
    ]
    patch = (
        "import collections\ncollections.Counter.most_common = lambda self, n: [9]\n"
        "def f(x):\n    return 9"
    )
    victim = (
        "import collections\ndef f(x):\n    return collections.Counter('aab').most_common(1)[0][1]"
    )
    programs = [(INNOCENT, ["f(3)"]), (patch, ["f(3)"]), (victim, ["f(3)"])]
    for name in names:
        programs += [(HOSTILE[name], ["f(3)"]), (INNOCENT, ["f(3)"])]
    outcomes = sandbox.run_batches(programs, 0.2, 256, fork=False)
    assert [done.values for done in outcomes[:3]] == [[9], [9], [2]]
    assert all(done.values == [9] and not done.error for done in outcomes[4::2])
    assert all(done.values != [9] and done.error and not done.uncertain for done in outcomes[3::2])


def test_no_permitted_name_leads_to_a_module_a_frame_a_lock_or_globals():
    """From all that a program is given, through attributes
    that it may name and instances that it may make."""
    printed = sandbox.Printed()
    safe, stubs = sandbox.safe_builtins(printed), sandbox.safe_modules(printed)
    forbidden = (
        types.ModuleType,
        types.FrameType,
        types.CodeType,
        type(threading.Lock()),
        type(threading.RLock()),
    )
    plain = (
        int,
        str,
        float,
        bytes,
        bool,
        type(None),
        types.BuiltinMethodType,
        types.MethodWrapperType,
    )
    waiting = [(name, value, 0) for name, value in [*safe.items(), *stubs.items()]]
    met, found = {}, []
    while waiting:
        path, value, depth = waiting.pop()
        if id(value) in met or (type(value) in plain and depth):
            continue
        met[id(value)] = value
        if (
            isinstance(value, forbidden)
            and depth
            and not path.startswith(("sys.stdout", "collections.abc"))
        ):
            found.append(path)
        if isinstance(value, dict) and "__builtins__" in value:
            found.append(path)
        for name in dir(value) if depth < 4 else []:
            try:
                sandbox.check_name(name)
                waiting.append((f"{path}.{name}", getattr(value, name), depth + 1))
            except (sandbox.Refused, AttributeError, TypeError, NotImplementedError):
                pass
        for args in (
            [(), (len,), ([],), (1,), ("a",)] if isinstance(value, type) and depth < 3 else []
        ):
            try:
                waiting.append((f"{path}{args}", value(*args), depth + 1))
                break
            except Exception:
                pass
    assert found == [] and len(met) > 500


def test_format_walks_attributes_but_yields_text_and_no_frame():
    source = "def g():\n    yield '{0.gi_frame.f_back}'.format(running)\nrunning = g()"
    texts = {
        "'{0.__class__}'.format(3)": "<class 'int'>",
        "'{a.__class__}'.format_map({'a': 3})": "<class 'int'>",
        "type('{0.__globals__}'.format(g)) is str": True,
    }
    [done] = run_programs([(source, [*texts, "next(running)", "'{0.__code__}'.format(g)"])])
    assert done.values == [*texts.values(), RAISED, RAISED]
    assert done.error.startswith("PermissionError")


def without_fences(tmp_path, name="open_sandbox"):
    """The sandbox without its first three fences:
    any name, modules of the system, no audit hook."""
    text = Path(sandbox.__file__).read_text()
    for old, new in [
        ("def check_name(name):\n", "def check_name(name):\n    return\n"),
        ("def refuse_system_events():\n", "def refuse_system_events():\n    return\n"),
        ('MODULES = """', 'MODULES = """os signal threading time '),
    ]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Each would return the right answer in the end, or does something to its server.
UNFENCED = {
    "sleep": "import time\ndef f(x):\n    time.sleep(60)\n    return 9",
    "lock": (
        "import threading\ndef f(x):\n    lock = threading.Lock()\n"
        "    lock.acquire(), lock.acquire()\n    return 9"
    ),
    "stopped": (
        "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 9"
    ),
    "closed pipe, then sleep": (
        "import os, time\ndef f(x):\n    os.closerange(3, 64)\n    time.sleep(60)\n    return 9"
    ),
    "closed pipe": "import os\ndef f(x):\n    os.closerange(3, 64)\n    return 9",
    "kills itself": "import os\ndef f(x):\n    os.kill(os.getpid(), 9)\n    return 9",
    "kills its server": "import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    return 9",
    "deaf to the limit": (
        "import signal\ndef f(x):\n    signal.signal(signal.SIGPROF, signal.SIG_IGN)\n"
        "    while True: pass"
    ),
    "result without the token": (
        "import os\nfor n in range(3, 64):\n"
        '    try: os.write(n, b\'[[9], "", ""]\\n\')\n'
        "    except OSError: pass\ndef f(x):\n    return 0"
    ),
    "child and exit": (
        "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        time.sleep(20)\n    os._exit(0)"
    ),
}


@needs_fork
@pytest.mark.slow
def test_without_the_other_fences_the_limits_still_fail_the_culprit_and_nobody_else(tmp_path):
    loose = without_fences(tmp_path)
    # in a batch of its own: a stopped child without a server would stay for ever
    killer = "kills its server"
    names = [name for name in UNFENCED if name != killer] + [killer]
    batch = [(INNOCENT, [("f(3)", 9)])]
    for name in names:
        batch += [(UNFENCED[name], [("f(3)", 9)]), (INNOCENT, [("f(3)", 9)])]
    started = time.monotonic()
    try:
        passed = loose.passes_tests(batch[:-2], seconds=0.1)
        passed += loose.passes_tests(batch[-2:], seconds=0.1)
    finally:
        loose.close()
    assert passed[::2] == [True] * (len(UNFENCED) + 1)
    assert dict(zip(names, passed[1::2])) == dict.fromkeys(names, False)
    assert time.monotonic() - started < 25


@needs_fork
def test_a_process_that_was_left_behind_does_not_hold_up_the_batch(tmp_path):
    left = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(20)\n"
        "    os._exit(0)\ndef f(x):\n    return 9"
    )
    loose = without_fences(tmp_path)
    run_programs([(INNOCENT, ["f(3)"])])
    started = time.monotonic()
    try:
        assert (
            loose.passes_tests([(left, [("f(3)", 9)]), (INNOCENT, [("f(3)", 9)])], seconds=5.0)[1]
            is True
        )
    finally:
        loose.close()
    assert time.monotonic() - started < 5


@needs_fork
def test_a_server_that_hangs_is_replaced(monkeypatch):
    monkeypatch.setattr(sandbox, "SLACK", 0.0, raising=False)
    run_programs([(INNOCENT, ["f(3)"])])
    os.kill(sandbox._server[0].pid, signal.SIGSTOP)
    safety = threading.Timer(20, sandbox._server[0].kill)
    safety.start()
    longer_than_a_pipe = INNOCENT + "\n#" + "x" * 40_000
    assert passes_tests([(longer_than_a_pipe, [("f(3)", 9)])] * 3, seconds=0.1) == [True] * 3
    assert safety.is_alive()
    safety.cancel()


def test_the_wall_clock_leaves_its_cpu_time_to_each_child_even_on_one_core():
    assert all(sandbox.wall_limit(seconds) > sandbox.WIDTH * seconds for seconds in (0.1, 1.0, 5.0))


def run_behind_the_fences(setup, attack):
    """Output of a fresh interpreter that runs `setup`,
    installs the audit hook and runs `attack` as ordinary Python."""
    template = (
        "import sys\nfrom data.runtime import sandbox\n{}\nsandbox.refuse_system_events()\n"
        "try:\n{}\n    print('done')\n"
    )
    code = (
        template.format(setup, textwrap.indent(attack, "    "))
        + "except Exception as e: print(type(e).__name__)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20
    ).stdout.strip()


def test_the_audit_hook_alone_refuses_the_system():
    attacks = [
        "open('/etc/hosts')",
        "os.listdir('/')",
        "os.system('true')",
        "subprocess.run(['true'])",
        "os.kill(os.getpid(), 0)",
        "socket.socket()",
        "ctypes.CDLL(None)",
        "import wave",
        "os.remove('x')",
        "sys._current_frames()",
        "(lambda: 0).__code__.replace(co_consts=())",
    ]
    if hasattr(os, "fork"):
        attacks.append("os.fork()")
    attacks += [
        "(sandbox.EVENTS.update(['open']), open('/etc/hosts'))",
        "setattr(run, '__code__', (lambda: 0).__code__)",
    ]
    attack = "\n".join(
        f"try:\n    {a}\n    print('done')\nexcept Exception as e: print(type(e).__name__)"
        for a in attacks
    )
    lines = run_behind_the_fences(
        "import os, socket, subprocess, ctypes\ndef run(): pass", attack
    ).splitlines()
    assert lines == ["PermissionError"] * len(attacks) + ["done"]


@needs_fork
def test_the_limits_alone_stop_files_memory_and_time():
    limit = "sandbox.limit_resources(256, 0.2)"
    assert run_behind_the_fences(limit, "len(bytearray(10 ** 9))") == "MemoryError"
    assert run_behind_the_fences(limit + "\nimport os", "os.dup(1)") == "OSError"
    started = time.monotonic()
    assert run_behind_the_fences(limit, "while True: pass") == ""
    assert time.monotonic() - started < 5


@needs_fork
def test_a_child_that_blocks_is_killed_by_the_wall_clock_and_has_failed(monkeypatch):
    replies = []
    monkeypatch.setattr(sandbox, "run_program", lambda *args: signal.pause())
    sandbox.serve_batch(
        [(INNOCENT, ["f(3)"])], 0.1, 1 << 20, lambda *reply: replies.append(reply), None, None
    )
    assert replies == [(0, None, "wall-clock limit", False)]


@needs_fork
def test_a_child_that_works_until_the_wall_clock_may_have_been_starved(monkeypatch):
    replies = []
    monkeypatch.setattr(sandbox, "wall_limit", lambda seconds: 0.3)
    monkeypatch.setattr(sandbox, "run_program", lambda *args: any(iter(int, 1)))
    sandbox.serve_batch(
        [(INNOCENT, ["f(3)"])], 9.0, 1 << 20, lambda *reply: replies.append(reply), None, None
    )
    assert replies == [(0, None, "wall-clock limit", True)]


@needs_fork
def test_a_result_without_the_token_is_no_result():
    child = sandbox.Child(0, 0, b"token", 0.0, b'forge[[9], "", ""]')
    assert sandbox.verdict(child, 0)[0] is None
    child.received = b'token[[9], "", ""]'
    assert sandbox.verdict(child, 0)[0] == [[9], "", ""]


def test_a_program_that_ends_its_process_is_blamed_but_one_killed_from_outside_is_not():
    child = sandbox.Child(0, 0, b"token", 0.0)
    assert sandbox.verdict(child, 0)[2] is False  # os._exit(0)
    assert sandbox.verdict(child, signal.SIGSEGV)[2] is False
    assert sandbox.verdict(child, signal.SIGKILL)[2] is True


def test_values_are_returned_as_they_are():
    expressions = [
        "None",
        "True",
        "10 ** 1000",
        "-0.0",
        "1e400",
        "2j",
        "'\\ud83d\\n\u00e9'",
        "b'\\xff'",
        "[1, (2, [3])]",
        "set()",
        "{1, 'a'}",
        "frozenset([(1,)])",
        "{(1, 2): [None], 'a': {}}",
        "[]",
        "()",
    ]
    [done] = run_programs([("", expressions)])
    wanted = [eval(expression) for expression in expressions]
    assert (
        done.values == wanted
        and [type(v) for v in done.values] == [type(v) for v in wanted]
        and done.error == ""
    )
    assert math.copysign(1, done.values[3]) == -1
    assert math.isnan(run_programs([("", ["float('nan')"])])[0].values[0])


def test_what_is_no_literal_becomes_a_sentinel():
    source = "from collections import Counter, deque\nclass A: pass"
    [done] = run_programs(
        [
            (
                source,
                [
                    "A()",
                    "1 / 0",
                    "A",
                    "deque()",
                    "[A()]",
                    "Counter('aa')",
                    "'a' * 30000",
                    "10 ** 5000",
                    "1",
                ],
            )
        ]
    )
    refused = NOT_A_LITERAL
    assert done.values == [
        refused,
        RAISED,
        refused,
        refused,
        refused,
        {"a": 2},
        refused,
        refused,
        1,
    ]
    assert done.error and not done.uncertain


def test_an_error_is_one_line_and_leaves_no_values():
    done, late = run_programs(
        [("raise ValueError('a\\nb')", ["1"]), ("def f(): return g()", ["f()", "1"])]
    )
    assert (done.values, done.error) == (None, "ValueError: a b")
    assert late.values == [RAISED, 1] and late.error == "NameError: name 'g' is not defined"


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): pass",
        "x.__class__",
        "def __del__(self): pass",
        "import a as __builtins__",
        "f.f_back",
    ],
)
def test_the_syntax_tree_alone_is_refused(source):
    with pytest.raises(sandbox.Refused):
        sandbox.checked_code(source, "exec")


def test_printed_text_is_captured_and_truncated():
    sources = [
        "print(1, 2, sep='-', end='!')\nprint()",
        "for i in range(10 ** 5): print(i)",
        "import sys\nsys.stdout.write('a')",
        "print('before')\n1 / 0",
        "print(repr(input('?')))",
    ]
    printed = [done.printed for done in run_programs([(source, []) for source in sources])]
    assert (
        printed[0] == "1-2!\n"
        and len(printed[1]) == 1000
        and printed[2:] == ["a", "before\n", "''\n"]
    )


def test_ordinary_python_runs():
    source = """
    from __future__ import annotations
    import collections.abc, datetime, functools, itertools, math, random, sys
    from collections import *
    from typing import List, NamedTuple, Optional, TypeVar
    T = TypeVar('T')
    class Stack:
        __slots__ = ('_items', '__size')
        def __init__(self): self._items, self.__size = [], 0
        def push(self, item: Optional[T]) -> List[int]:
            self._items.append(item); self.__size += 1
            return self
        def __len__(self): return self.__size
        def __add__(self, other): return len(self) + len(other)
        def format(self): return 'own'
    class Point(NamedTuple):
        x: int
        y: int = 2
    P = namedtuple('P', 'a b', defaults=[5])
    @functools.lru_cache(maxsize=None)
    def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
    def traced(g):
        @functools.wraps(g)
        def call(*args): return g(*args)
        return call
    @traced
    def named(x):
        '''text'''
        return x
    def kind(x):
        match x:
            case []: return 'empty'
            case {'a': int(y)}: return y
            case _: return type(x).__name__
    def caught():
        try: raise KeyError('k')
        except (KeyError, IndexError) as e: return str(e)
        finally: pass
    if __name__ == '__main__': ran = True
    """
    facts = {
        "Stack().push(1).push(2) + Stack().push(3)": 3,
        "Stack().format()": "own",
        "Point(1).y + P(1).b": 7,
        "fibonacci(60)": 1548008755920,
        "named.__name__ + named.__doc__": "namedtext",
        "[kind(x) for x in ([], {'a': 4}, 1.5)]": ["empty", 4, "float"],
        "caught()": "'k'",
        "'{0:>{1}} {a[b]:.2f} {{}}'.format(1, 3, a={'b': 2})": "  1 2.00 {}",
        "'{a}'.format_map({'a': 1}) + ''.join(map('<{}>'.format, [1, 2]))": "1<1><2>",
        "f'{3.14159:.2f} {1!r:>3}'": "3.14   1",
        "isinstance(int, type), type(int) is type, type(3) is int": (True, True, True),
        "isinstance([], collections.abc.Sequence)": True,
        "str(datetime.datetime.strptime('2024-02-29', '%Y-%m-%d').date())": "2024-02-29",
        "'\u00e9'.encode('latin-1')": b"\xe9",
        "getattr(Point(1), 'x') + getattr(1, 'nothing', 4)": 5,
        "ran and sys.maxsize > 0": True,
    }
    [done] = run_programs([(textwrap.dedent(source), facts)])
    assert done.error == "" and dict(zip(facts, done.values)) == facts


def test_programs_do_not_see_each_other_and_repeat_exactly():
    source = "import random\nseen = random.random()\nwords = list({'a', 'b', 'c', 'd', 'e'})"
    first = run_programs([(source, ["seen", "words"])] * 3)
    sandbox.close()
    assert len({repr(done) for done in first + run_programs([(source, ["seen", "words"])])}) == 1


@needs_fork
def test_a_server_that_was_killed_is_replaced():
    assert passes_tests([(INNOCENT, [("f(3)", 9)])]) == [True]
    os.kill(sandbox._server[0].pid, signal.SIGKILL)
    assert passes_tests([(INNOCENT, [("f(3)", 9)])] * 3) == [True] * 3


def test_a_server_that_always_dies_leaves_programs_uncertain(monkeypatch):
    start = sandbox.start_server

    def start_and_kill(fork):
        server = start(fork)
        server.kill()
        server.wait()
        return server

    monkeypatch.setattr(sandbox, "start_server", start_and_kill)
    assert passes_tests([(INNOCENT, [("f(3)", 9)])] * 3) == [None] * 3


@needs_fork
def test_a_fork_of_the_caller_has_a_server_of_its_own():
    run_programs([(INNOCENT, ["f(3)"])])
    pid = os.fork()
    if pid == 0:
        good = (
            passes_tests([(INNOCENT, [("f(3)", 9)])]) == [True]
            and sandbox._server[1] == os.getpid()
        )
        sandbox.close()
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert passes_tests([(INNOCENT, [("f(3)", 9)])]) == [True]


def test_disabled_means_that_nothing_is_executed(monkeypatch):
    monkeypatch.setattr(sandbox, "enabled", True)
    sandbox.disable()
    assert passes_tests([(INNOCENT, [("f(3)", 9)])] * 2) == [None, None] and sandbox._server is None
    with pytest.raises(sandbox.SandboxDisabled):
        run_programs([(INNOCENT, ["f(3)"])])


def test_one_wrong_test_or_none_at_all_does_not_pass():
    assert passes_tests(
        [(INNOCENT, [("f(3)", 9), ("f(2)", 5)]), (INNOCENT, []), (INNOCENT, [("f(2)", 4.0)])]
    ) == [False, False, True]


# a line of cases for each kind of value: one case a line would be a page long
@pytest.mark.parametrize(
    "value, expected, same",
    [
        (True, 1, False), (1, True, False), (0, False, False), (True, True, True),
        (2.0, 2, True), (2, 2.0, True), (2, 3, False),
        (0.1 + 0.2, 0.3, True), (0.3001, 0.3, False), (10**400, 1.0, False),
        (math.inf, math.inf, True), (math.nan, math.nan, True),
        ([1], (1,), False), ([1, [2.0]], [1, [2]], True), ([True], [1], False),
        ([1], [1, 2], False), ("1", 1, False), (None, 0, False),
        ({1, 2}, {2, 1}, True), ({True}, {1}, False), ({("bool", 1)}, {True}, False),
        ({(True, 1)}, {True}, False), ({(False, 1)}, {1}, False),
        ({(True,)}, {(1,)}, False), ({1}, frozenset({1}), False), (b"a", "a", False),
        ({"a": 1.0}, {"a": 1}, True), ({"a": True}, {"a": 1}, False),
        ({1: 2}, {True: 2}, False), ({"a": 1}, {"a": 1, "b": 2}, False),
        (1j, 1j, True), (NOT_A_LITERAL, None, False), (RAISED, "raised", False),
    ],
)  # fmt: skip
def test_comparison_knows_types(value, expected, same):
    assert same_value(value, expected) is same


def test_mbpp_asserts_become_expressions_and_values():
    record = {
        "test_list": [
            "assert f([1, 2]) == (3, -4)",
            "assert f(1) == f(2), 'message'",
            "assert not f(1)",
            "assert set(f(1)) == set([1, 2])",
            "assert f(1) is None",
            "assert math.isclose(f(1), 0.5, rel_tol=0.001)",
        ]
    }
    assert sandbox.mbpp_tests(record) == [
        ("f([1, 2])", (3, -4)),
        ("[f(1), f(2)]", sandbox.Judge("values[0] == values[1]")),
        ("not not (not f(1))", True),
        ("set(f(1))", {1, 2}),
        ("f(1)", None),
        ("[f(1)]", sandbox.Judge("math.isclose(values[0], 0.5, rel_tol=0.001)")),
    ]
    with pytest.raises(ValueError, match="not one assert: print"):
        sandbox.mbpp_tests({"test_list": ["print(1)"]})


GOOD = {"text": "Add 1.", "code": "def f(x):\r\n\treturn x + 1", "test_list": ["assert f(1) == 2"]}


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("none.jsonl", None, "none.jsonl: cannot be read"),
        (
            "gsm8k.jsonl",
            [{"question": "2+3?", "answer": "5\n#### 5"}],
            "gsm8k.jsonl: no record has tests",
        ),
        ("keys.jsonl", [GOOD, {"text": "Add 2."}], "keys.jsonl:2: no instruction layout fits"),
        (
            "print.jsonl",
            [GOOD, GOOD | {"test_list": ["print(f(1))"]}],
            "print.jsonl: record 2 with tests: not one assert",
        ),
        (
            "broken.jsonl",
            [GOOD | {"test_list": ["assert f(1) = 2"]}],
            "broken.jsonl: record 1 with tests: ",
        ),
    ],
)
def test_a_file_that_is_not_mbpps_ends_the_check_with_one_line_and_code_two(
    tmp_path, monkeypatch, capsys, name, content, told
):
    if content is not None:
        writing.write_jsonl(tmp_path / name, content)
    monkeypatch.setattr(sys, "argv", ["sandbox", "--mbpp", str(tmp_path / name)])
    with pytest.raises(SystemExit) as ended:
        sandbox.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and told in err and err.count("\n") == 1


def test_the_check_of_an_mbpp_file_counts_what_passes_gzipped_too(tmp_path, monkeypatch, capsys):
    with gzip.open(tmp_path / "mbpp.jsonl.gz", "wt") as file:
        file.write(
            json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"test_list": ["assert f(1) == 3"]}) + "\n"
        )
    monkeypatch.setattr(sys, "argv", ["sandbox", "--mbpp", str(tmp_path / "mbpp.jsonl.gz")])
    sandbox.main()
    assert capsys.readouterr().out == "record 2 with tests: failed\n1 of 2 pass\n"


def test_a_program_cannot_choose_the_right_side_it_is_compared_with():
    record = {"test_list": ["assert f(3) == sorted([2, 1])"]}
    assert passes_tests(
        [("def f(x): return 0\ndef sorted(x): return 0", sandbox.mbpp_tests(record))]
    ) == [False]


ANYTHING = """
class A:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __eq__
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    def __float__(self): return 0.5
    def __len__(self): return 2
def f(x): return A()
def isclose(*args, **kwargs): return True
class math: isclose = isclose
"""
ASSERTS = """(f(3) == 9) == True
(f(3) == 9) is True
True == (f(3) == 9)
bool(f(3) == 9) == True
not (f(3) != 9)
not f(3) != 9
not (f(3) == 9) == False
f(3) == 9 and f(2) == 4
[f(3) == 9] == [True]
all([f(3) == 9, f(2) == 4])
9 == f(3)
f(3) in [9]
8 < f(3) < 10
f(3) - 9 == 0
abs(f(3) - 9) == 0
f(3) == f(-3) == 9
math.isclose(f(3), 9)
math.isclose(f(3), 9) == True
f(3.0) == float('9')
(f(3) if f(3) == 9 else 0) == 9
f(float('inf')) == math.inf""".splitlines()


@pytest.fixture(scope="module")
def mbpp_verdicts():
    """assert -> verdicts of an honest program,
    a wrong one and one whose object equals everything."""
    sources = [INNOCENT, "def f(x):\n    return 0", ANYTHING]
    tests = {text: sandbox.mbpp_tests({"test_list": [f"assert {text}"]}) for text in ASSERTS}
    passed = iter(passes_tests([(source, test) for test in tests.values() for source in sources]))
    return {text: [next(passed) for _ in sources] for text in tests}


@pytest.mark.parametrize("text", ASSERTS)
def test_no_object_passes_an_mbpp_assert_by_its_own_methods(mbpp_verdicts, text):
    assert mbpp_verdicts[text] == [True, False, False]


def test_mbpp_asserts_that_have_no_such_form_are_run_beside_the_program():
    texts = [
        "all(f(x) == x * x for x in [1, 2])",
        "not f(0)",
        "f(3)",
        "sum(3) == 9",
        "not sum(0)",
        "list(map(f, [1, 2])) == [1, 4]",
        "f(3) is not None",
    ]
    tests = sandbox.mbpp_tests({"test_list": [f"assert {text}" for text in texts]})
    match = "import re\ndef f(x):\n    return re.match('', '')"
    assert not any(isinstance(expected, sandbox.Judge) for _, expected in tests)
    assert passes_tests([(INNOCENT + "\nsum = f", tests), (match, [tests[2], tests[-1]])]) == [
        True,
        True,
    ]
