# SPDX-License-Identifier: Apache-2.0
"""The whole of it: a real agent, the app's processes writing all the time, two rotations, not a row lost."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from examples.demo.store import Provider, open_store
from fedha.accounts.models import Account
from keyferry import FileAdapter
from tests.daemon.agent_process import AgentProcess, eventually
from tests.django.conftest import EXAMPLE, environment
from tests.django.rows import all_stored, legacy, store

WRITERS = 3
WRITER = Path(__file__).with_name("writer.py")
# As fast as staging goes: the adapter's look each second is part of the bound.
STAGED = {"activation_delay": "2500ms", "clock_skew": "0s"}


@contextmanager
def writers(environ: dict[str, str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run the app's processes; whoever is left at the end is killed."""
    with ExitStack() as stage:
        running = []
        for number in range(WRITERS):
            command = [sys.executable, str(WRITER), str(number)]
            process = subprocess.Popen(
                command,
                env=environ,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            running.append(stage.enter_context(process))
            stage.callback(process.kill)
        yield running


def manage(*arguments: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE / "manage.py"), *arguments]
    return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


@pytest.mark.parametrize(
    ("database", "provider", "count"),
    [
        pytest.param("sqlite", "file", 500, id="500 rows, keyring file"),
        pytest.param("sqlite", "file", 10_000, id="10000 rows, keyring file", marks=pytest.mark.slow),
        pytest.param("sqlite", "vault", 10_000, id="10000 rows, OpenBao", marks=pytest.mark.slow),
        pytest.param(
            "postgresql", "file", 10_000, id="10000 rows in PostgreSQL, keyring file", marks=pytest.mark.slow
        ),
    ],
    indirect=["database"],
)
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("database")
def test_no_row_is_lost_across_two_rotations(
    home: Path, monkeypatch: pytest.MonkeyPatch, provider: Provider, count: int
) -> None:
    with ExitStack() as stage:
        key_store = stage.enter_context(open_store(provider, home, ["app"]))
        key = {"encoding": "base64url", "length": 32, **key_store.settings("app")}
        agent = stage.enter_context(AgentProcess(home / "agent", keys={"master": key}, rotation=STAGED))
        agent.start()
        agent.wait_ready()
        environ = environment(agent.volume)
        keys = FileAdapter(agent.volume)
        monkeypatch.setattr(settings, "KMS_ADAPTER", keys)
        assert finish(manage("bootstrap_master_key", environ=environ))[0] == 0
        Account.objects.bulk_create(
            Account(holder=str(number % WRITERS), iban=f"row {number}") for number in range(count)
        )
        for account in Account.objects.filter(pk__lte=count // 5):
            store(account, legacy(keys.active, account.iban))

        running = stage.enter_context(writers(environ))
        key_store.rotate("file")
        eventually(lambda: keys.active.id == "2", within=60, what="version 2 is active")
        first = manage("rotate_encryption_keys", environ=environ)
        eventually(lambda: all_stored()[0].startswith("kf1:2:"), within=60, what="the first rows have moved")
        first.kill()
        finish(first)
        # Two at once: whoever is later at a row leaves it.
        both = [manage("rotate_encryption_keys", "--batch-size", "100", environ=environ) for _ in range(2)]
        # Again while the rows are on their way.
        key_store.rotate("file")
        assert {finish(process)[0] for process in both} <= {0, 3}
        eventually(lambda: keys.active.id == "3", within=60, what="version 3 is active")
        # Not at the first try: a writer trusts its last look for a second.
        eventually(
            lambda: (
                finish(manage("rotate_encryption_keys", environ=environ))[0] == 0
                and {ciphertext[:6] for ciphertext in all_stored()} == {"kf1:3:"}
            ),
            within=60,
            what="every row is at version 3",
        )
        reports = [process.communicate(timeout=30) for process in running]

    assert [report[1] for report in reports] == [""] * WRITERS
    results = [json.loads(out) for out, _ in reports]
    written = {int(pk): text for result in results for pk, text in result["texts"].items()}
    assert min(result["turns"] for result in results) > 50
    assert dict(Account.objects.values_list("pk", "iban")) == written
    untouched = sum(text.startswith("row ") for text in written.values())
    changed = sum(text.startswith("changed ") for text in written.values())
    assert untouched > 0
    assert changed > 0


@pytest.mark.usefixtures("database")
def test_a_terminal_gets_a_progress_bar(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stage:
        key_store = stage.enter_context(open_store("file", home, ["app"]))
        key = {"encoding": "base64url", "length": 32, **key_store.settings("app")}
        agent = stage.enter_context(AgentProcess(home / "agent", keys={"master": key}))
        agent.start()
        agent.wait_ready()
        keys = FileAdapter(agent.volume, check_interval=0)
        monkeypatch.setattr(settings, "KMS_ADAPTER", keys)
        Account.objects.bulk_create(Account(iban="row") for _ in range(50))
        key_store.rotate("file")
        eventually(lambda: keys.active.id == "2")
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb"):
            command = [sys.executable, str(EXAMPLE / "manage.py"), "rotate_encryption_keys"]
            environ = environment(agent.volume)
            done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=theirs, check=True)
            os.close(theirs)
            shown = os.read(ours, 65536).decode()
    assert shown.startswith("\raccounts.Account.iban [..............................] 1/50")
    assert shown.endswith("\r\033[K")
    assert done.stdout.decode().startswith("accounts.Account.iban: 50 re-encrypted")
