# SPDX-License-Identifier: Apache-2.0
"""Runs an action in a process of its own under strace(1), which fails any of its system calls or kills it."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

# They touch no volume, cannot fail, or are as many as the allocator likes.
_IRRELEVANT = re.compile(
    r"mmap|munmap|mremap|madvise|mprotect|brk|rt_sig.*|kill|tgkill|restart_syscall|futex|exit_group|get(e?[ug]id|p?pid)"
)
_PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True, slots=True)
class Call:
    """The ``number``-th call of a system call since the trace began."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Run:
    """What the action returned (``None`` if it was killed), and the system calls that it made, in order."""

    result: str | None
    calls: list[Call]


def traced(prepare: Callable[[], Callable[[], str]], inject: str | None = None) -> Run:
    """Fork, ``prepare`` the action, attach strace with the injection, and run the action.

    ``inject`` is what strace's -e inject= takes. What comes before the action is not traced.
    """
    assert shutil.which("strace"), "strace is missing, and this test means nothing without it: install strace"
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # The child touches nothing that another thread could have locked.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _act(prepare, write_end)
    os.close(write_end)
    os.waitpid(child, os.WUNTRACED)
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["strace", "-o", log.name, "-p", str(child)]
        if inject is not None:
            command += ["-e", f"inject={inject}"]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert strace.stderr is not None
        attached = strace.stderr.readline()
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        strace.communicate()
        assert "attached" in attached, attached
        calls = _calls(log.read())
    with os.fdopen(read_end, encoding="utf-8") as answer:
        result = answer.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return Run(None, calls)
    assert status == 0, result
    return Run(result, calls)


def _act(prepare: Callable[[], Callable[[], str]], answer: int) -> None:
    status = 1
    try:
        # Some systems let only a parent trace.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))
        action = prepare()
        os.kill(os.getpid(), signal.SIGSTOP)
        os.getppid()
        result = action()
        os.getppid()
        os.write(answer, result.encode())
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must not return into the test run
        os.write(answer, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _calls(log: str) -> list[Call]:
    seen: Counter[str] = Counter()
    found: list[Call] = []
    marks = 0
    for name in re.findall(r"^(\w+)\(", log, re.MULTILINE):
        seen[name] += 1
        marks += name == "getppid"
        if marks == 1 and not _IRRELEVANT.fullmatch(name):
            found.append(Call(name, seen[name]))
    return found
