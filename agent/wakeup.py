# SPDX-License-Identifier: Apache-2.0
"""The one thing that the agent's loop waits on: signals, finished calls and changed files.

Rules:

- A signal handler only appends to a deque; the interpreter's wakeup descriptor ends the wait. (Event.set and
  Queue.put in a handler deadlocked under stress; a blocked signal mask would be inherited by children.)
- A signal that came many times is returned once: each asks for the same.
- Any thread may ``post``. Nothing is lost when the pipe is full: the messages are in the deque, one unread
  byte is enough to wake.
"""

import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Generic, Self, TypeVar

M = TypeVar("M")


class Wakeup(Generic[M]):
    """A mailbox whose ``wait`` also ends at signals. Enter it in the main thread."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        """Handle ``signals`` while entered."""
        self._signals = tuple(signals)
        self._messages: deque[M | signal.Signals] = deque()

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._old_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, self._on_signal) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_descriptor)
        self._selector.close()
        self._reader.close()
        self._writer.close()

    def post(self, message: M) -> None:
        """Have the next ``wait`` return ``message``; safe in any thread, never blocks."""
        self._messages.append(message)
        # Full: a byte is unread anyway. Closed: the loop has ended and nobody waits.
        with suppress(OSError):
            self._writer.send(b"\0")

    def wait(self, timeout: float | None) -> list[M | signal.Signals]:
        """Return what came, after at most ``timeout`` seconds (``None``: no limit)."""
        self._selector.select(timeout)
        with suppress(BlockingIOError):
            self._reader.recv(4096)
        messages: list[M | signal.Signals] = []
        signals: set[signal.Signals] = set()
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, signal.Signals):
                if message in signals:
                    continue
                signals.add(message)
            messages.append(message)
        return messages

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._messages.append(signal.Signals(number))


def reap() -> None:
    """Collect orphans that were handed to this process, which happens when it is PID 1."""
    if os.getpid() != 1:
        return
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
