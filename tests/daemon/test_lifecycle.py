# SPDX-License-Identifier: Apache-2.0
"""The agent from its start to its end, and what its successor makes of it."""

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import libfaketime
import pytest

from agent.daemon import LONGEST_WAIT_SECONDS
from keyferry.times import parse_time
from tests.daemon.agent_process import AgentProcess, eventually
from tests.daemon.conftest import new_key


def vault_key(address: str, *, path: str = "secret/app/key") -> dict[str, object]:
    return {
        "provider": "vault",
        "address": address,
        "path": path,
        "auth": {"token": "no-token-of-any-server"},
    }


def test_first_publication(agent: AgentProcess, key: str) -> None:
    """The key's bytes are there as they are at the source, for the group to read and nobody to write."""
    agent.start()
    agent.wait_ready()
    assert agent.plain() == key
    assert stat.S_IMODE((agent.volume / "master").stat().st_mode) == 0o440
    generation = agent.published()
    assert generation is not None
    assert list(generation.keys) == ["master"]
    assert agent.told("key.published", key="master", audit=True)


class TestRefresh:
    @pytest.fixture(autouse=True)
    def _slow_timer(self, agent: AgentProcess) -> None:
        agent.configure(refresh={"interval": "1h"})

    def test_ttl(self, agent: AgentProcess) -> None:
        agent.configure(refresh={"interval": "300ms", "timeout": "250ms"})
        agent.start()
        agent.wait_ready()
        rotated = new_key()
        agent.key_file.write_text(rotated)
        agent.wait_published(rotated)

    def test_sighup(self, agent: AgentProcess, black_hole: str) -> None:
        """A signal is enough, without a timer or a file event."""
        agent.configure(keys={"master": agent.file_key()})
        agent.start()
        agent.wait_ready()
        asked = len(agent.told("refresh.started"))
        agent.send(signal.SIGHUP)
        agent.wait_for("refresh.started", count=asked + 1)

    def test_a_storm_of_sighups_is_few_refreshes_and_none_is_lost(self, agent: AgentProcess) -> None:
        agent.start()
        agent.wait_ready()
        asked = len(agent.told("refresh.started"))
        for _ in range(50):
            agent.send(signal.SIGHUP)
        rotated = new_key()
        agent.key_file.write_text(rotated)
        agent.send(signal.SIGHUP)
        agent.wait_published(rotated)
        assert len(agent.told("refresh.started")) - asked < 51

    def test_a_file_is_asked_once_at_the_start(self, agent: AgentProcess) -> None:
        """A ciphertext in it would be decrypted at the vendor each time."""
        agent.configure(refresh={"interval": "1h"})
        agent.start()
        agent.wait_for("http.listening")
        rotated = new_key()
        agent.write_key(rotated)
        agent.wait_published(rotated)
        assert len(agent.told("refresh.started")) == 2

    def test_file_event(self, agent: AgentProcess) -> None:
        agent.start()
        agent.wait_ready()
        rotated = new_key()
        agent.write_key(rotated)
        agent.wait_published(rotated)

    def test_swap_of_a_mounted_source(self, agent: AgentProcess) -> None:
        """A ConfigMap changes by a rename of ``..data`` beside the links that name its files."""
        mount = ConfigMap(agent.home / "mounted", {"key": new_key()})
        agent.configure(keys={"master": agent.file_key() | {"path": str(mount.path / "key")}})
        agent.start()
        agent.wait_ready()
        rotated = new_key()
        mount.swap({"key": rotated})
        agent.wait_published(rotated)

    def test_swap_of_a_mounted_agent_yaml(self, agent: AgentProcess) -> None:
        mount = ConfigMap(agent.home / "mounted", {"agent.yaml": agent.config.read_text()})
        settings = agent.config
        agent.config = mount.path / "agent.yaml"
        agent.start()
        agent.wait_ready()
        second = new_key()
        agent.write_key(second, "second")
        agent.config = settings
        agent.configure(keys={"master": agent.file_key(), "second": agent.file_key("second")})
        mount.swap({"agent.yaml": settings.read_text()})
        agent.wait_published(second, "second")

    def test_a_source_behind_a_linked_directory(self, agent: AgentProcess) -> None:
        """Inotify would watch the link, and see nothing of the directory behind it."""
        link = agent.home / "linked"
        link.symlink_to(agent.key_file.parent)
        agent.configure(keys={"master": agent.file_key() | {"path": str(link / "key")}})
        agent.start()
        agent.wait_ready()
        rotated = new_key()
        agent.write_key(rotated)
        agent.wait_published(rotated)


class ConfigMap:
    """A directory that changes as the kubelet changes a mounted ConfigMap."""

    def __init__(self, path: Path, files: dict[str, str]) -> None:
        self.path = path
        self._count = 0
        path.mkdir()
        self.swap(files)
        for name in files:
            (path / name).symlink_to(f"..data/{name}")

    def swap(self, files: dict[str, str]) -> None:
        self._count += 1
        directory = self.path / f"..{self._count}"
        directory.mkdir()
        for name, text in files.items():
            (directory / name).write_text(text)
        old = self.path / "..data"
        before = old.readlink() if old.is_symlink() else None
        (self.path / "..data_tmp").symlink_to(directory.name)
        (self.path / "..data_tmp").rename(old)
        if before is not None:
            for file in (self.path / before).iterdir():
                file.unlink()
            (self.path / before).rmdir()


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
    def test_signal(self, agent: AgentProcess, key: str, number: signal.Signals) -> None:
        """A clean end; the key stays for the app."""
        agent.start()
        agent.wait_ready()
        assert agent.stop(number) == 0
        assert agent.plain() == key

    def test_while_a_provider_hangs(self, agent: AgentProcess, black_hole: str) -> None:
        """A minute's call does not hold up the end."""
        agent.configure(refresh={"interval": "1h", "timeout": "1m"}, keys={"master": vault_key(black_hole)})
        agent.start()
        agent.wait_for("refresh.started")
        assert agent.stop() == 0

    def test_signals_that_do_not_stop_coming(self, agent: AgentProcess) -> None:
        """Whoever is impatient gets the same clean end."""
        agent.start()
        agent.wait_ready()
        for _ in range(200):
            for number in (signal.SIGTERM, signal.SIGHUP):
                agent.send(number)
        assert agent.wait() == 0
        assert (agent.volume / "..lock").read_text() == ""

    def test_wipe_on_exit(self, agent: AgentProcess) -> None:
        agent.configure(volume={"path": str(agent.volume), "wipe_on_exit": True})
        agent.start()
        agent.wait_ready()
        assert agent.stop() == 0
        assert {path.name for path in agent.volume.iterdir()} == {"..lock", "..status"}

    def test_orphans_are_reaped_as_pid_1(self, agent: AgentProcess) -> None:
        """In a container the agent is PID 1, and inherits every orphan."""
        script = 'sh -c "sleep 0.2 & exec true"; (sleep 0.2 &) ; exec "$@"'
        agent.start(
            before=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"]
        )
        agent.wait_ready()
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        assert len(children) == 1
        inside = Path(f"/proc/{children[0]}/task/{children[0]}/children")
        eventually(lambda: not inside.read_text(), what="no zombies")
        os.kill(int(children[0]), signal.SIGTERM)
        assert agent.wait() == 0


class TestRestart:
    def test_adopts_during_an_outage(self, agent: AgentProcess, key: str) -> None:
        """What was published is served on, stale and ready; no restart makes it fresh."""
        agent.start()
        agent.wait_ready()
        agent.stop()
        last = agent.status().keys["master"].last_success_boottime
        agent.key_file.unlink()
        before = agent.tree()

        agent.start()
        agent.wait_for("volume.adopted")
        agent.wait_for("refresh.failed", outcome="missing", count=2)
        agent.wait_ready()
        eventually(lambda: agent.status().keys["master"].freshness == "stale")
        assert "master: stale" in agent.request("/readyz").body
        assert agent.status().keys["master"].last_success_boottime == last
        assert agent.plain() == key
        assert agent.tree() == before

    def test_after_sigkill(self, agent: AgentProcess, key: str) -> None:
        """The kernel gives the lock free, and the next start publishes nothing that is there already."""
        agent.start()
        agent.settle()
        agent.send(signal.SIGKILL)
        assert agent.wait() == -signal.SIGKILL
        assert agent.plain() == key
        before = agent.tree()
        agent.start()
        agent.settle()
        assert agent.tree() == before

    def test_no_clock_makes_it_fresh(self, agent: AgentProcess) -> None:
        """The wall clock in the heartbeat says one thing, the boot clock another: the boot clock is right."""
        agent.configure(outage={"max_stale": "2h"}, refresh={"interval": "1h"})
        agent.start()
        agent.wait_ready()
        agent.stop()
        file = agent.volume / "..status" / "status.json"
        status = agent.status()
        last = status.keys["master"].last_success_boottime
        assert last is not None
        text = file.read_text()
        file.write_text(text.replace(str(last), str(last - 3 * 3600)))
        agent.key_file.unlink()
        agent.start()
        agent.wait_for("refresh.failed")
        agent.wait_ready()
        assert agent.status().keys["master"].freshness == "expired"

    def test_a_clock_that_was_ahead_activates_nothing_early(self, agent: AgentProcess, key: str) -> None:
        """A day later the clock is right again: what is new then waits its delay all the same."""
        agent.configure(rotation={"activation_delay": "1h"})
        clock = agent.home / "clock"
        clock.write_text("+1d")
        _, preload = libfaketime.get_reload_information()
        agent.start(
            environment=preload
            | {
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        )
        agent.wait_published(key)
        before = agent.published()
        assert before is not None
        assert before.published_at > time.time() + 80_000
        clock.write_text("+0")
        agent.write_key(new_key())
        agent.wait_for("key.published", count=2)
        after = agent.published()
        assert after is not None
        first, second = after.keys["master"].versions
        assert first.material.text == key
        assert second.activates_at is not None
        assert second.activates_at >= before.published_at + 3600
        assert agent.plain() == key

    def test_another_source_is_a_conflict(self, agent: AgentProcess, key: str) -> None:
        """A new pod has a new volume; this one holds another key, which stays byte for byte."""
        agent.start()
        agent.settle()
        agent.stop()
        before = agent.tree()
        agent.write_key(new_key(), "other")
        agent.configure(keys={"master": agent.file_key("other")})
        agent.start()
        reason = agent.wait_for("refresh.failed", outcome="conflict", audit=True)["reason"]
        assert reason.startswith("the volume holds key 'master' of another source (file); ")
        agent.wait_for("refresh.failed", outcome="conflict", count=2)
        assert agent.plain() == key
        assert agent.tree() == before
        assert agent.request("/readyz").status == 200


class TestRefusal:
    """What cannot work is said at once, in sentences, with exit code 2."""

    def complaint(self, agent: AgentProcess) -> list[str]:
        agent.start()
        assert agent.wait() == 2
        return [line.removeprefix("keyferry-agent: ") for line in agent.lines if not line.startswith("{")]

    def test_second_agent(self, agent: AgentProcess) -> None:
        agent.start()
        agent.wait_ready()
        run = agent.run("run", "-c", str(agent.config))
        assert run.returncode == 2
        assert run.stderr == (
            f"keyferry-agent: volume.path: another keyferry-agent (pid {agent.pid}) already publishes on "
            f"{agent.volume}; one volume has one agent: stop the other, or give this one its own volume\n"
        )

    def test_disk(self, agent: AgentProcess) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as disk:
            agent.configure(volume={"path": disk})
            (line,) = self.complaint(agent)
            assert line.startswith(f"volume.path: {disk} ")
            assert "tmpfs" in line
            assert list(Path(disk).iterdir()) == []

    def test_everything_that_is_wrong_at_once(self, agent: AgentProcess) -> None:
        agent.configure(
            refesh={},
            http={"listen": "nonsense"},
            keys={"master": {"provider": "fil"}},
            log={"level": "loud"},
        )
        lines = self.complaint(agent)
        for place in ("refesh", "http.listen", "keys.master.provider", "log.level"):
            assert [line for line in lines if line.startswith(place)], place

    def test_port_in_use(self, agent: AgentProcess, black_hole: str) -> None:
        port = black_hole.rpartition(":")[2]
        agent.configure(http={"listen": f"127.0.0.1:{port}"})
        (line,) = self.complaint(agent)
        assert line == (
            f"http.listen: cannot listen on 127.0.0.1:{port} (Address already in use); "
            'choose another port, or "off"'
        )

    def test_startup_timeout(self, agent: AgentProcess) -> None:
        """Exit code 3, at the time that was set and not at the loop's next turn."""
        agent.key_file.unlink()
        agent.configure(startup={"timeout": "700ms"}, refresh={"interval": "1h"})
        agent.start()
        assert agent.wait() == 3
        told = agent.wait_for("startup.timeout")
        times = [datetime.fromisoformat(event["timestamp"]) for event in agent.events]
        assert times[-1] - times[0] < timedelta(seconds=LONGEST_WAIT_SECONDS - 1)
        assert told["keys"] == {
            "master": f"file {agent.key_file} does not exist; create it, or check the "
            "volume's mount and the key's path"
        }


# How `once` ends, by whether it is told to go on trying.
WITHOUT_SUCCESS = pytest.mark.parametrize(
    ("startup", "code"),
    [({}, 1), ({"timeout": "500ms"}, 3)],
    ids=["one try fails", "not ready in time"],
)


class TestOnce:
    def test_publishes_and_ends(self, agent: AgentProcess, key: str) -> None:
        agent.configure(volume={"path": str(agent.volume), "wipe_on_exit": True})
        agent.start("once")
        assert agent.wait() == 0
        assert agent.plain() == key
        assert agent.told("key.published")

    @WITHOUT_SUCCESS
    def test_without_a_key(self, agent: AgentProcess, startup: dict[str, str], code: int) -> None:
        agent.key_file.unlink()
        agent.configure(startup=startup)
        agent.start("once")
        assert agent.wait() == code
        assert agent.told("refresh.failed", outcome="missing")

    def test_tells_what_it_waits_for(self, agent: AgentProcess, key: str) -> None:
        """An init container that never comes to an end needs a log the most."""
        agent.key_file.unlink()
        agent.configure(startup={"timeout": "10m"})
        agent.start("once")
        agent.wait_for("refresh.failed", outcome="missing")
        agent.write_key(key)
        assert agent.wait() == 0
        assert agent.plain() == key

    def test_what_was_there_before_is_not_enough(self, agent: AgentProcess) -> None:
        """Who asks for a fetch wants to know if it worked."""
        agent.start("once")
        assert agent.wait() == 0
        agent.key_file.unlink()
        agent.start("once")
        assert agent.wait() == 1

    @WITHOUT_SUCCESS
    def test_fetched_and_not_published_is_not_enough(
        self, agent: AgentProcess, key: str, startup: dict[str, str], code: int
    ) -> None:
        """As on a full volume: the old key is still there, and that is not what was asked for."""
        agent.configure(startup=startup)
        agent.start("once")
        assert agent.wait() == 0
        agent.write_key(new_key())
        agent.start("once", before=["prlimit", "--fsize=0"])
        assert agent.wait() == code
        assert agent.told("refresh.succeeded", outcome="changed")
        assert agent.told("publish.failed")
        assert agent.plain() == key

    @WITHOUT_SUCCESS
    def test_one_key_of_two_is_not_enough(
        self, agent: AgentProcess, key: str, startup: dict[str, str], code: int
    ) -> None:
        """What could be had is published all the same."""
        agent.configure(
            startup=startup, keys={"master": agent.file_key(), "other": agent.file_key("nothing")}
        )
        agent.start("once")
        assert agent.wait() == code
        assert agent.plain() == key
        assert agent.told("refresh.failed", key="other", outcome="missing")

    def test_a_signal_before_the_key_is_no_success(self, agent: AgentProcess, black_hole: str) -> None:
        agent.configure(refresh={"interval": "1h", "timeout": "1m"}, keys={"master": vault_key(black_hole)})
        agent.start("once")
        eventually((agent.volume / "..lock").exists)
        assert agent.stop() == 1


def test_withdrawal_and_recovery(agent: AgentProcess, key: str) -> None:
    """A withdrawn key is nowhere on the volume, not even after a restart, until its source has it again."""
    agent.configure(outage={"on_missing": "withdraw"})
    agent.start()
    agent.wait_ready()
    agent.key_file.unlink()
    agent.wait_for("key.withdrawn", audit=True)
    reply = agent.request("/readyz")
    assert reply.status == 503
    assert reply.body.startswith(
        f"not ready\nmaster: withdrawn: missing: file {agent.key_file} does not exist"
    )
    for _ in range(2):
        assert agent.plain() is None
        assert not [path for path in agent.volume.rglob("*") if path.is_file() and key in path.read_text()]
        agent.stop()
        agent.start()
        agent.wait_for("refresh.failed", outcome="missing")
        assert agent.request("/readyz").status == 503
    agent.write_key(key)
    agent.wait_ready()
    assert agent.plain() == key


def test_what_cannot_be_published_is_not_ready(agent: AgentProcess) -> None:
    """And it is not the fetch that is told to have failed."""
    agent.start(before=["prlimit", "--fsize=0"])
    agent.wait_for("publish.failed")
    assert agent.request("/readyz").body == "not ready\nmaster: not published yet\n"


def test_a_failed_publication_does_not_call_for_the_next(agent: AgentProcess) -> None:
    """What it made and removed is a change on the volume, and must not end the wait before the next try."""
    agent.configure(refresh={"interval": "1h"})
    agent.start(before=["prlimit", "--fsize=100"])
    third = agent.wait_for("publish.failed", count=3)
    first = agent.told("publish.failed")[0]
    # One second and then two.
    assert parse_time(third["timestamp"]) - parse_time(first["timestamp"]) > 2.5


class TestHangingCalls:
    def test_one_key_never_holds_up_another(self, agent: AgentProcess, key: str, black_hole: str) -> None:
        agent.configure(
            refresh={"interval": "1h", "timeout": "5m"},
            keys={"hung": vault_key(black_hole), "master": agent.file_key()},
        )
        agent.start()
        agent.wait_published(key)
        rotated = new_key()
        agent.write_key(rotated)
        agent.wait_published(rotated)
        assert agent.request("/readyz").body == "not ready\nhung: not fetched yet\n"
        assert agent.request("/livez").status == 200

    def test_an_answer_that_drips(self, agent: AgentProcess, key: str, dripping: str) -> None:
        """Each byte would start a read timeout anew; the deadline of the whole call ends it."""
        agent.configure(keys={"drips": vault_key(dripping), "master": agent.file_key()})
        agent.start()
        agent.wait_for("refresh.failed", key="drips", outcome="unavailable", count=3)
        agent.wait_for("refresh.started", key="drips", count=3)
        rotated = new_key()
        agent.write_key(rotated)
        agent.wait_published(rotated)
        assert agent.stop() == 0

    def test_no_answer_is_unavailable(self, agent: AgentProcess, black_hole: str) -> None:
        agent.configure(keys={"master": vault_key(black_hole)})
        agent.start()
        agent.wait_for("refresh.failed", outcome="unavailable", count=3)
        assert agent.request("/readyz").status == 503


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- >&- <&-"])
def test_without_standard_error(agent: AgentProcess, key: str, redirection: str) -> None:
    """Nobody to tell is no reason to end, and no file of the agent becomes its standard error."""
    command = f'exec "$@" {redirection}'
    process = subprocess.Popen(
        ["sh", "-c", command, "sh", sys.executable, "-m", "agent", "run", "-c", str(agent.config)],
    )
    try:
        agent.wait_published(key)
        rotated = new_key()
        agent.write_key(rotated)
        agent.wait_published(rotated)
        lock = (agent.volume / "..lock").read_text()
        assert re.fullmatch(rf"{process.pid} [0-9]+\n", lock)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
