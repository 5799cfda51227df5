# SPDX-License-Identifier: Apache-2.0
"""Overviews of an agent that never ran, for what shows them."""

import secrets
from typing import Any

from agent.clock import moment
from agent.overview import Overview
from keyferry.layout import Generation, Keyring, Version
from keyferry.material import Material
from keyferry.status import KeyStatus, Status

KEY_STATUS = KeyStatus(
    provider="vault",
    freshness="fresh",
    outcome="unchanged",
    reason=None,
    attempts=3,
    failures=0,
    last_attempt_at=1_700_000_000.0,
    last_success_at=1_700_000_000.0,
    last_success_boottime=None,
    next_refresh_at=None,
    bound_seconds=900.0,
    activation_delay_seconds=1200.0,
    unstaged=None,
    beyond_bound=False,
    withdrawn=None,
)


def version(version_id: str, activates_at: float | None, material: str | None = None) -> Version:
    text = material or secrets.token_urlsafe(32)
    return Version(
        version_id, 1_600_000_000.0, activates_at, "sha256:0123456789abcdef", Material(text.encode())
    )


def keyring(*versions: Version, withdrawn: str | None = None) -> Keyring:
    return Keyring("vault", "sha256:0123456789abcdef", "text", None, versions, withdrawn)


def key_status(age: float | None = None, **changes: Any) -> KeyStatus:
    """Return a key's status whose last success is ``age`` seconds ago."""
    last = None if age is None else moment().boot - age
    return KEY_STATUS._replace(last_success_boottime=last, **changes)


def overview(
    keys: dict[str, KeyStatus] | None = None,
    rings: dict[str, Keyring] | None = None,
    *,
    unready: tuple[tuple[str, str], ...] = (),
    turned_ago: float = 0.0,
    published_at: float = 1_700_000_000.0,
) -> Overview:
    generation = None if rings is None else Generation(7, published_at, rings)
    status = Status(
        agent_version="0.1.0",
        pid=7,
        boot_id="boot",
        started_at=1_700_000_000.0,
        written_at=1_700_000_000.0,
        generation=7 if generation else 0,
        config_problems=(),
        keys=keys or {},
    )
    return Overview(moment().boot - turned_ago, status, generation, unready)
