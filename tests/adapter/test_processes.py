# SPDX-License-Identifier: Apache-2.0
"""The adapter in whole processes: forks, signals, another clock."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import libfaketime
import pytest

from tests.adapter.volume import Volume, version, withdrawn

PREAMBLE = """
import os, signal, sys, threading, time, traceback
from keyferry import FileAdapter, KeyferryError

def eventually(done, seconds=20):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)

def in_child(check):
    "Fork, run check in the child, and return whether it came through within a while."
    child = os.fork()
    if child == 0:
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False

keys = FileAdapter(sys.argv[1], check_interval=float(sys.argv[2]))
"""

# Without coverage's own: its tracer takes a lock that a child forked beside running threads inherits locked.
INHERITED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def start(
    script: str, volume: Volume, check_interval: float = 0, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    # Ignored: a fork beside a running thread, which Python 3.12 warns of, is what is being tested.
    flags = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *flags, "-c", PREAMBLE + textwrap.dedent(script), str(volume.path)]
    return subprocess.Popen(
        [*command, str(check_interval)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**INHERITED, **(environment or {})},
    )


def finish(process: "subprocess.Popen[str]") -> list[str]:
    out, err = process.communicate(timeout=50)
    assert (err, process.returncode) == ("", 0)
    return out.splitlines()


def test_a_worker_looks_for_itself(volume: Volume) -> None:
    """A prefork server reads the key before it forks; its workers go on from there."""
    volume.publish(version("1"))
    script = """
        print(keys.active.id, flush=True)
        sys.stdin.readline()
        def check():
            # The parent's look is an hour young, but this is another process.
            assert keys.active.id == "2", keys.active
        print(in_child(check))
        print(keys.active.id)
        """
    process = start(script, volume, check_interval=3600)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "1\n"
    volume.publish(version("1"), version("2"))
    process.stdin.write("\n")
    process.stdin.flush()
    assert finish(process) == ["True", "1"]


def test_fork_while_a_thread_is_in_the_middle_of_a_look(volume: Volume) -> None:
    """The child inherits a locked lock and no thread that would ever release it."""
    volume.publish(version("1"))
    script = """
        held, release = threading.Event(), threading.Event()
        def look():
            with keys._lock, keys._watch._lock:
                held.set()
                release.wait()
        threading.Thread(target=look, daemon=True).start()
        held.wait()
        def check():
            assert keys.wait(timeout=5).active.id == "1"
            keys.on_change(print)
            keys.close()
        print(in_child(check))
        release.set()
        """
    assert finish(start(script, volume)) == ["True"]


def test_fork_again_and_again_while_threads_read(volume: Volume) -> None:
    volume.publish(version("1"))
    script = """
        stop = threading.Event()
        def use():
            while not stop.is_set():
                assert keys.active.id == "1"
        for _ in range(3):
            threading.Thread(target=use).start()
        def check():
            for _ in range(100):
                assert keys.active.id == "1"
        print(all(in_child(check) for _ in range(30)))
        stop.set()
        """
    assert finish(start(script, volume)) == ["True"]


def test_callbacks_registered_before_the_fork_work_in_the_workers(volume: Volume) -> None:
    """As gunicorn does with a preloaded app: register once, fork, and every worker hears of a rotation."""
    volume.publish(version("1"))
    script = """
        heard = []
        keys.on_change(lambda snapshot: heard.append(snapshot.active.id))
        # Until the kernel's watch stands, with watchdog's own threads.
        eventually(lambda: len(threading.enumerate()) > 4)
        def worker():
            print("ready", flush=True)
            eventually(lambda: heard == ["2"])
            # No thread of watchdog's: the parent's inotify descriptor and locks are no good here.
            names = [thread.name for thread in threading.enumerate()]
            assert names == ["MainThread", "keyferry-watch-master"]
            keys.close()
        assert in_child(lambda: in_child(worker) or sys.exit("grandchild"))
        eventually(lambda: heard == ["2"])
        keys.close()
        print("done")
        """
    process = start(script, volume, check_interval=0.02)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    volume.publish(version("1"), version("2"))
    assert finish(process) == ["done"]


# By what they do to whoever uses them.
OTHER_WATCHDOGS = {
    "older": "class Observer:\n    def schedule(self, event_handler, path, recursive=False): ...\n",
    "broken": "raise OSError('no inotify here')\n",
    "empty": "",
}


@pytest.mark.parametrize("observers", OTHER_WATCHDOGS.values(), ids=OTHER_WATCHDOGS)
def test_a_watchdog_that_is_not_ours_costs_no_callback(
    volume: Volume, tmp_path: Path, observers: str
) -> None:
    """The app chooses its version: the looks bring the withdrawal all the same."""
    package = tmp_path / "watchdog"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "events.py").write_text("class FileMovedEvent: ...\nclass FileSystemEventHandler: ...\n")
    (package / "observers.py").write_text(observers)
    volume.publish(version("1"))
    script = """
        import watchdog
        heard = []
        keys.on_change(lambda snapshot: heard.append(snapshot.withdrawn))
        print(watchdog.__file__, flush=True)
        eventually(lambda: heard)
        print(heard)
        """
    process = start(script, volume, check_interval=0.02, environment={"PYTHONPATH": str(tmp_path)})
    assert process.stdout is not None
    assert process.stdout.readline() == f"{package / '__init__.py'}\n"
    volume.publish(master=withdrawn("denied"))
    assert finish(process) == ["['denied']"]


def test_a_signal_handler_may_use_the_key_at_any_moment(volume: Volume) -> None:
    """The handler runs in the thread that may be in the middle of a look, first look included."""
    volume.publish(version("1"))
    script = """
        handled = []
        def handler(*_):
            handled.append(keys.active.id)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while len(handled) < 300:
            FileAdapter(sys.argv[1]).active
            assert keys.active.id == "1"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(set(handled))
        """
    assert finish(start(script, volume)) == ["{'1'}"]


def test_a_process_that_ends_waits_for_no_callback_thread(volume: Volume) -> None:
    volume.publish(version("1"))
    started = time.monotonic()
    assert finish(start("keys.on_change(print)", volume, check_interval=3600)) == []
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "steps", [(0, 3600), (0, 3600, -3600), (0, 3600, -7200, 0)], ids=["forward", "and back", "and forth"]
)
def test_a_real_clock_that_steps(volume: Volume, steps: tuple[int, ...]) -> None:
    """Once active, a version stays so, whatever the wall clock says next."""
    volume.publish(version("1"), version("2", activates_at=time.time() + 1800))
    script = f"""
        for step in {steps}:
            step_clock(step)
            print(keys.active.id)
        """
    running = start_with_clock(script, volume)
    assert finish(running) == ["1", *["2"] * (len(steps) - 1)]


def test_a_real_clock_that_was_ahead(volume: Volume) -> None:
    """What is new after that waits for its time, as if the clock had been right all along."""
    volume.publish(version("1"))
    script = """
        step_clock(3600)
        assert keys.active.id == "1"
        step_clock(0)
        print("back", flush=True)
        eventually(lambda: len(keys.keyring) == 2)
        print(keys.active.id)
        """
    running = start_with_clock(script, volume)
    assert running.stdout is not None
    assert running.stdout.readline() == "back\n"
    volume.publish(version("1"), version("2", activates_at=time.time() + 1800))
    assert finish(running) == ["1"]


def start_with_clock(script: str, volume: Volume) -> "subprocess.Popen[str]":
    """Start ``script`` with a wall clock of its own, which ``step_clock`` sets that many seconds ahead."""
    control = volume.path.with_name("clock")
    control.write_text("+0")
    _, preload = libfaketime.get_reload_information()
    faked = {"FAKETIME_TIMESTAMP_FILE": str(control), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    step_clock = f"""
def step_clock(seconds):
    with open({str(control)!r}, "w") as stream:
        stream.write(f"{{seconds:+d}}")
"""
    return start(step_clock + textwrap.dedent(script), volume, environment=preload | faked)
