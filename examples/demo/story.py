# SPDX-License-Identifier: Apache-2.0
"""What happens in the demo, in order.

Rules:

- It waits for what must happen, each wait with a deadline, and says what did not happen. It pauses only to
  let people see a state.
- A new version must reach every app within the bound that the agents themselves work out.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from examples.demo.app import create_store
from examples.demo.console import Console
from examples.demo.pod import Message, Pod
from examples.demo.store import Notice, Store
from examples.demo.timeline import Rotation, Span, Timeline
from keyferry.status import KeyStatus

ACTIVATION_DELAY_SECONDS = 6.0
# Those of production in short; the agents check that they fit together.
TIMES = {
    "refresh": {"interval": "1500ms", "jitter": "10%", "timeout": "600ms", "max_backoff": "300ms"},
    "rotation": {"activation_delay": f"{ACTIVATION_DELAY_SECONDS:g}s", "clock_skew": "0s"},
}
START_SECONDS = 20.0
# How late an app may use a version that is due, on a machine that does other things too.
LATEST_SECONDS = 2.0
PAUSE_SECONDS = 0.8
CLEAR_SECONDS = 0.6


class DemoError(Exception):
    """Something did not happen, or should not have."""


class Story:
    """Tells the story once."""

    def __init__(
        self,
        store: Store,
        pods: Sequence[Pod],
        inbox: SimpleQueue[Message],
        timeline: Timeline,
        console: Console,
    ) -> None:
        """Keep who plays; ``inbox`` is where the pods' apps are heard."""
        self._store = store
        self._pods = pods
        self._inbox = inbox
        self._timeline = timeline
        self._console = console

    def tell(self, records: Path, *, in_memory: bool) -> None:
        """Play it to its end; raises ``DemoError`` where it goes wrong."""
        self._begin(records, in_memory=in_memory)
        self._rotate("timer", "timer", "nobody is told")
        self._wait_until_active()
        self._rotate("file", "file event", self._store.watched)
        self._outage()
        self._rotate("signal", "SIGHUP", "then keyferry-agent refresh")
        self._wait_until_active()
        self._pause(2 * PAUSE_SECONDS)
        # The picture ends with the last counts of every app.
        self._timeline.ended = min(samples[-1].at for samples in self._timeline.samples.values())
        self.judge()

    def _begin(self, records: Path, *, in_memory: bool) -> None:
        create_store(records)
        self._timeline.rotations.append(Rotation("1", self._timeline.began, "start"))
        self._console.row("store", "version 1 is there")
        for pod in self._pods:
            pod.configure(
                {
                    "volume": {"path": str(pod.volume), "require_tmpfs": in_memory},
                    **TIMES,
                    "http": {"listen": "off"},
                    "keys": {
                        "master": self._store.settings(pod.name) | {"encoding": "base64url", "length": 32}
                    },
                }
            )
            self._console.row(f"agent {pod.name}", f"started, pid {pod.start_agent()}")
            pod.start_app(records)
        self._until(
            lambda: self._timeline.everywhere("1", "active"), START_SECONDS, "the apps did not get version 1"
        )
        self._until(self._all_fresh, START_SECONDS, "the agents do not tell how they are")
        self._pause()

    def _rotate(self, notice: Notice, found_by: str, how: str) -> None:
        if notice != "timer":
            self._until(self._no_timer_soon, START_SECONDS, "the agents refresh more often than they should")
        version = str(len(self._timeline.rotations) + 1)
        # The clock is read first: what the store itself takes counts too.
        self._timeline.rotations.append(Rotation(version, time.time(), found_by))
        self._console.row("store", f"version {version} written, {how}")
        self._store.rotate(notice)
        if notice == "signal":
            self._refresh()
        bound = max(status.bound_seconds for pod in self._pods if (status := pod.status) is not None)
        message = f"version {version} did not reach every app within the bound, {bound:.1f} s"
        self._until(lambda: self._timeline.is_known(version), bound, message)

    def _no_timer_soon(self) -> bool:
        """Tell whether no agent would find a new version by its timer in the next moment anyway."""
        clear = time.time() + CLEAR_SECONDS
        return self._all_say(lambda status: (status.next_refresh_at or 0.0) > clear)

    def _refresh(self) -> None:
        self._timeline.signals.append(time.time())
        commands = [pod.refresh() for pod in self._pods]
        try:
            self._until(
                lambda: None not in [c.poll() for c in commands], START_SECONDS, "refresh did not come back"
            )
        finally:
            for command in commands:
                command.kill()
                command.wait()
        if any(command.returncode for command in commands):
            message = f"keyferry-agent refresh exited with {[command.returncode for command in commands]}"
            raise DemoError(message)

    def _wait_until_active(self) -> None:
        version = self._timeline.rotations[-1].version
        due = max(self._timeline.due[pod.name, version] for pod in self._pods)
        self._until(
            lambda: self._timeline.everywhere(version, "active"),
            due - time.time() + LATEST_SECONDS,
            f"version {version} was due, but not every app uses it",
        )
        self._pause()

    def _outage(self) -> None:
        """Let the version activate while the store is away and one agent is dead, then bring both back."""
        timeline, console, first = self._timeline, self._console, self._pods[0]
        self._pause()
        timeline.away = Span(time.time())
        console.row("store", f"away: {self._store.absence}")
        self._store.go_away()
        self._pause()
        timeline.killed[first.name] = Span(time.time())
        first.kill_agent()
        console.row(f"agent {first.name}", "killed by SIGKILL; its app goes on with the volume")
        self._wait_until_active()
        pid = first.start_agent()
        console.row(f"agent {first.name}", f"started, pid {pid}, while the store is away")
        self._until(
            lambda: first.status is not None,
            START_SECONDS,
            "the restarted agent did not take over the volume",
        )
        timeline.killed[first.name].end = time.time()
        console.row(f"agent {first.name}", f"took over what is published; what it knows is {first.freshness}")
        self._pause()
        self._store.come_back()
        timeline.away.end = time.time()
        console.row("store", "back")
        self._until(self._all_fresh, START_SECONDS, "the agents did not find the store again")
        console.row("agents", "fresh again")
        self._pause()

    def _all_fresh(self) -> bool:
        return self._all_say(lambda status: status.freshness == "fresh" and not status.failures)

    def _all_say(self, what: Callable[[KeyStatus], bool]) -> bool:
        """Tell whether every agent has said something, and that."""
        return all((status := pod.status) is not None and what(status) for pod in self._pods)

    def judge(self) -> None:
        """Raise ``DemoError`` unless every app decrypted, and all that it tried."""
        self._pass_failures()
        idle = [pod for pod, samples in self._timeline.samples.items() if not samples[-1].decrypted]
        if idle:
            message = f"the app of pod {idle[0]} decrypted nothing at all"
            raise DemoError(message)

    def _pass_failures(self) -> None:
        timeline = self._timeline
        if timeline.failure is not None:
            message = f"{timeline.totals.failures:,} decrypts failed so far; the first: {timeline.failure}"
            raise DemoError(message)

    def _pause(self, seconds: float = PAUSE_SECONDS) -> None:
        self._listen(time.monotonic() + seconds, lambda: False)

    def _until(self, happened: Callable[[], bool], seconds: float, problem: str) -> None:
        if not self._listen(time.monotonic() + seconds, happened):
            raise DemoError(problem)

    def _listen(self, deadline: float, happened: Callable[[], bool]) -> bool:
        """Take what the apps tell until ``happened`` or the deadline (monotonic); return which."""
        while not happened():
            if time.monotonic() >= deadline:
                return False
            self._pass_failures()
            for ended in filter(None, (pod.ended for pod in self._pods)):
                raise DemoError(ended)
            for pod, message in self._heard():
                self._console.sightings(self._timeline.take(pod, message))
                self._console.count()
        return True

    def _heard(self) -> Iterable[Message]:
        try:
            yield self._inbox.get(timeout=0.02)
        except Empty:
            return
