# SPDX-License-Identifier: Apache-2.0
"""The heartbeat file, ``..status/status.json``: what the agent last knew of each key. It holds no secret.

Rules:

- The agent writes it after every refresh; readers only look. A missing or unreadable file is "unknown".
- The age of the last success is kept on the boot clock (CLOCK_BOOTTIME), so that neither a restart nor a
  step of the wall clock makes a key look fresh. Another ``boot_id`` makes it void.
- Times are Unix seconds in memory and RFC 3339 text on disk; durations are seconds.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from keyferry.document import Fields, parse_object
from keyferry.layout import STATUS_FILE
from keyferry.times import format_time

STATUS_SCHEMA: Final = "keyferry-status/v1"

Freshness = Literal["never", "fresh", "stale", "expired"]
Outcome = Literal["none", "changed", "unchanged", "unavailable", "denied", "missing", "malformed", "conflict"]


class Skipped(NamedTuple):
    """One version that could not be used at the last refresh."""

    id: str
    outcome: Outcome
    reason: str


class KeyStatus(NamedTuple):
    """What the agent knows of one key.

    ``outcome`` and ``reason`` tell the last attempt; ``failures`` counts those in a row. An attempt's time is
    when it began: what it brought is true as of then.
    ``last_success_boottime`` is CLOCK_BOOTTIME seconds. ``unstaged`` says why rotations cannot be staged.
    """

    provider: str
    freshness: Freshness
    outcome: Outcome
    reason: str | None
    attempts: int
    failures: int
    last_attempt_at: float | None
    last_success_at: float | None
    last_success_boottime: float | None
    next_refresh_at: float | None
    bound_seconds: float
    activation_delay_seconds: float
    unstaged: str | None
    beyond_bound: bool
    withdrawn: str | None
    skipped: tuple[Skipped, ...] = ()


class Status(NamedTuple):
    """The agent's heartbeat.

    ``config_problems`` are those of a change of agent.yaml that was refused. ``publish_problem`` says why the
    volume does not show what the agent holds, ``None`` if it does.
    """

    agent_version: str
    pid: int
    boot_id: str
    started_at: float
    written_at: float
    generation: int
    config_problems: tuple[str, ...]
    keys: Mapping[str, KeyStatus]
    publish_problem: str | None = None


def serialize_status(status: Status) -> bytes:
    """Return status.json for ``status``; ``parse_status`` gives an equal one back."""
    document = {"schema": STATUS_SCHEMA} | _times_as_text(status._asdict())
    document["keys"] = {name: _key_document(key) for name, key in status.keys.items()}
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_status(data: bytes) -> Status:
    """Return the heartbeat that status.json holds; ``DocumentError`` if it is none."""
    root = parse_object(data, STATUS_FILE)
    root.choice("schema", (STATUS_SCHEMA,))
    keys = root.object("keys")
    return Status(
        agent_version=root.text("agent_version"),
        pid=root.integer("pid"),
        boot_id=root.text("boot_id"),
        started_at=root.time("started_at"),
        written_at=root.time("written_at"),
        generation=root.integer("generation"),
        config_problems=tuple(root.texts("config_problems")),
        publish_problem=root.optional("publish_problem", root.text),
        keys={name: _key_status(keys.object(name)) for name in keys.document},
    )


def _key_document(key: KeyStatus) -> dict[str, Any]:
    return _times_as_text(key._asdict()) | {"skipped": [version._asdict() for version in key.skipped]}


def _times_as_text(document: dict[str, Any]) -> dict[str, Any]:
    return {
        name: format_time(value) if name.endswith("_at") and value is not None else value
        for name, value in document.items()
    }


def _key_status(key: Fields) -> KeyStatus:
    return KeyStatus(
        provider=key.text("provider"),
        freshness=key.choice("freshness", get_args(Freshness)),
        outcome=key.choice("outcome", get_args(Outcome)),
        reason=key.optional("reason", key.text),
        attempts=key.integer("attempts"),
        failures=key.integer("failures"),
        last_attempt_at=key.optional("last_attempt_at", key.time),
        last_success_at=key.optional("last_success_at", key.time),
        last_success_boottime=key.optional("last_success_boottime", key.number),
        next_refresh_at=key.optional("next_refresh_at", key.time),
        bound_seconds=key.number("bound_seconds"),
        activation_delay_seconds=key.number("activation_delay_seconds"),
        unstaged=key.optional("unstaged", key.text),
        beyond_bound=key.flag("beyond_bound"),
        withdrawn=key.optional("withdrawn", key.text),
        skipped=tuple(
            Skipped(
                id=item.text("id"),
                outcome=item.choice("outcome", get_args(Outcome)),
                reason=item.text("reason"),
            )
            for item in key.objects("skipped")
        ),
    )
