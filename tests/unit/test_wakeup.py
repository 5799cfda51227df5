# SPDX-License-Identifier: Apache-2.0
"""What the loop waits on, with real signals and threads."""

import os
import signal
import threading
import time

from agent.wakeup import Wakeup

USED = signal.SIGUSR1


def test_a_message_of_another_thread_ends_the_wait() -> None:
    with Wakeup[str]([]) as wakeup:
        threading.Timer(0.05, wakeup.post, ["news"]).start()
        assert wakeup.wait(10) == ["news"]


def test_nothing_comes() -> None:
    with Wakeup[str]([]) as wakeup:
        assert wakeup.wait(0.01) == []


def test_a_signal_ends_the_wait() -> None:
    with Wakeup[str]([USED]) as wakeup:
        threading.Timer(0.05, os.kill, [os.getpid(), USED]).start()
        assert wakeup.wait(10) == [USED]


def test_order_is_kept() -> None:
    with Wakeup[str]([USED]) as wakeup:
        wakeup.post("first")
        signal.raise_signal(USED)
        wakeup.post("last")
        assert wakeup.wait(10) == ["first", USED, "last"]
        assert wakeup.wait(0) == []


def test_a_signal_that_came_twice_is_one() -> None:
    with Wakeup[str]([USED]) as wakeup:
        for _ in range(3):
            signal.raise_signal(USED)
            wakeup.post("message")
        assert wakeup.wait(10) == [USED, "message", "message", "message"]


def test_more_messages_than_the_pipe_has_room_for() -> None:
    """None is lost, and nobody who posts waits."""
    count = 100_000
    with Wakeup[int]([USED]) as wakeup:
        for number in range(count):
            wakeup.post(number)
        signal.raise_signal(USED)
        received: list[object] = []
        while len(received) <= count:
            received += wakeup.wait(10)
        assert received == [*range(count), USED]


def test_a_storm_of_signals_and_messages() -> None:
    """Signals coalesce as the kernel likes, but the last of them and every message arrive."""
    posted = 2000
    with Wakeup[str]([USED]) as wakeup:

        def post() -> None:
            for number in range(posted):
                wakeup.post(f"message {number}")

        def kill() -> None:
            for _ in range(500):
                os.kill(os.getpid(), USED)

        threads = [threading.Thread(target=target) for target in (post, post, post, kill)]
        for thread in threads:
            thread.start()
        received: list[object] = []
        deadline = time.monotonic() + 20
        while len(received) - received.count(USED) < 3 * posted:
            assert time.monotonic() < deadline
            received += wakeup.wait(1)
        for thread in threads:
            thread.join()
        received += wakeup.wait(0.1)
        assert USED in received


def test_handlers_come_back() -> None:
    before = signal.getsignal(USED)
    with Wakeup[str]([USED]) as wakeup:
        assert signal.getsignal(USED) != before
    assert signal.getsignal(USED) == before
    wakeup.post("to nobody")
