# SPDX-License-Identifier: Apache-2.0
"""The agent as a process with a wrapped keyring: with an SDK's threads and files in it."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.agent_process import AgentProcess
from tests.daemon.conftest import new_key
from tests.providers.wrapped_drivers import GcpKmsDriver
from tests.servers.gcp_kms import State


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GcpKmsDriver]:
    with ExitStack() as stack:
        yield GcpKmsDriver(stack, tmp_path, lambda: pytest.fail("Cloud KMS needs no Vault"))


def test_a_day_with_cloud_kms(home: Path, store: GcpKmsDriver) -> None:
    """It publishes, sees an appended version at once, tells of a disabled KMS key, and stops in time."""
    source = store.source()
    key: dict[str, Any] = {
        "provider": "gcp-kms",
        "key_name": source.key_name,
        "keyring": str(source.keyring),
        "mounted": False,
        "credentials_file": str(source.credentials_file),
        "endpoint": source.endpoint,
        "ca_file": str(source.ca_file),
        "encoding": "base64url",
        "length": 32,
    }
    refresh = {"interval": "1h", "timeout": "30s", "max_backoff": "1s"}
    with AgentProcess(home, keys={"master": key}, refresh=refresh) as agent:
        first, second = new_key(), new_key()
        store.put(first)
        agent.start()
        agent.wait_published(first)

        store.put(second)
        agent.wait_published(second)

        store.kms.set_state(store.key_name, 1, State.DISABLED)
        agent.send(signal.SIGHUP)
        agent.wait_for("refresh.failed", outcome="denied")
        assert agent.plain() == second

        store.kms.set_state(store.key_name, 1, State.ENABLED)
        before = len(agent.told("refresh.succeeded"))
        agent.send(signal.SIGHUP)
        agent.wait_for("refresh.succeeded", count=before + 1)
        assert agent.stop() == 0
        assert [line for line in agent.lines if not line.startswith("{")] == []
