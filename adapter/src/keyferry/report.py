# SPDX-License-Identifier: Apache-2.0
"""What a volume holds, told to people and programs: no material, only ids, states, times and fingerprints.

``python -m keyferry``, ``keyferry-agent status`` and the agent's ``/status`` all show this one report.
"""

from collections.abc import Iterator
from typing import Any, Final

from keyferry.layout import Generation, Keyring, states
from keyferry.reader import staleness
from keyferry.status import KeyStatus, Status
from keyferry.times import format_time

_COLUMNS: Final = ("id", "state", "created_at", "activates_at", "fingerprint")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def describe(generation: Generation | None, status: Status | None, now: float) -> dict[str, Any]:
    """Return the report as a JSON document: times as RFC 3339 text, durations in seconds."""
    keyrings = generation.keys if generation else {}
    names = dict.fromkeys((*keyrings, *(status.keys if status else ())))
    as_of = max(now, generation.published_at) if generation else now
    return {
        "generation": generation.number if generation else None,
        "published_at": format_time(generation.published_at) if generation else None,
        "age_seconds": round(now - generation.published_at, 3) if generation else None,
        "agent": None if status is None else _agent(status, now),
        "keys": {name: _key(name, keyrings.get(name), status, as_of) for name in names},
    }


def lines(place: str, report: dict[str, Any]) -> Iterator[str]:
    """Return the report as lines for a terminal; ``place`` names the volume."""
    if report["generation"] is None:
        yield f"{place}: nothing is published yet"
    else:
        age = duration(report["age_seconds"])
        yield f"{place}: generation {report['generation']}, published {report['published_at']} ({age} ago)"
    agent = report["agent"]
    if agent is None:
        yield "agent: no heartbeat"
    else:
        yield f"agent: {agent['version']}, heartbeat {duration(agent['heartbeat_seconds'])} ago"
        for problem in agent["config_problems"]:
            yield f"agent: refused a change of its configuration: {printable(problem)}"
        if agent["publish_problem"] is not None:
            yield f"agent: holds what it could not publish: {printable(agent['publish_problem'])}"
    for name, key in report["keys"].items():
        yield ""
        yield from _key_lines(name, key)


def printable(text: str) -> str:
    """Return ``text`` without control characters: ids and reasons are the provider's words."""
    return "".join(character if character.isprintable() else "?" for character in text)


def duration(seconds: float) -> str:
    """Return ``seconds`` in the largest unit of which there are at least two."""
    size, unit = next((pair for pair in _UNITS if abs(seconds) >= 2 * pair[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def _agent(status: Status, now: float) -> dict[str, Any]:
    return {
        "version": status.agent_version,
        "pid": status.pid,
        "started_at": format_time(status.started_at),
        "heartbeat_seconds": round(now - status.written_at, 3),
        "config_problems": list(status.config_problems),
        "publish_problem": status.publish_problem,
    }


def _key(name: str, keyring: Keyring | None, status: Status | None, now: float) -> dict[str, Any]:
    known = None if status is None else status.keys.get(name)
    age = None if status is None else staleness(status, name)
    return {
        "provider": keyring.provider if keyring else known.provider if known else None,
        "encoding": keyring.encoding if keyring else None,
        "length": keyring.length if keyring else None,
        "withdrawn": keyring.withdrawn if keyring else None,
        "freshness": None if known is None else known.freshness,
        "staleness_seconds": None if age is None else round(age, 3),
        "refresh": None if known is None else _refresh(known),
        "versions": [] if keyring is None else _versions(keyring, now),
    }


def _refresh(known: KeyStatus) -> dict[str, Any]:
    upcoming = known.next_refresh_at
    return {
        "outcome": known.outcome,
        "reason": known.reason,
        "failures": known.failures,
        "next_at": None if upcoming is None else format_time(upcoming),
        "beyond_bound": known.beyond_bound,
        "bound_seconds": known.bound_seconds,
        "activation_delay_seconds": known.activation_delay_seconds,
        "unstaged": known.unstaged,
        "skipped": [
            {"id": version.id, "outcome": version.outcome, "reason": version.reason}
            for version in known.skipped
        ],
    }


def _versions(keyring: Keyring, now: float) -> list[dict[str, Any]]:
    return [
        {
            "id": version.id,
            "state": state,
            "created_at": None if version.created_at is None else format_time(version.created_at),
            "activates_at": None if version.activates_at is None else format_time(version.activates_at),
            "fingerprint": version.fingerprint,
        }
        for version, state in zip(keyring.versions, states(keyring.versions, now), strict=True)
    ]


def _key_lines(name: str, key: dict[str, Any]) -> Iterator[str]:
    yield f"{name}: {', '.join(_facts(key))}"
    refresh = key["refresh"]
    if refresh is not None:
        if refresh["reason"] is not None:
            times = "" if refresh["failures"] < 2 else f" ({refresh['failures']} times)"  # noqa: PLR2004 - once is no count
            yield f"  last refresh: {refresh['outcome']}{times}: {printable(refresh['reason'])}"
        if refresh["unstaged"] is not None:
            yield f"  staged: no, {printable(refresh['unstaged'])}"
        for skipped in refresh["skipped"]:
            yield f"  skipped {printable(skipped['id'])}: {printable(skipped['reason'])}"
    yield from _table(
        [[printable(version[column] or "-") for column in _COLUMNS] for version in key["versions"]]
    )


def _facts(key: dict[str, Any]) -> Iterator[str]:
    if key["provider"] is not None:
        yield key["provider"]
    if key["encoding"] is not None:
        yield key["encoding"]
    if key["length"] is not None:
        yield f"{key['length']} bytes"
    yield key["freshness"] or "freshness unknown"
    if key["staleness_seconds"] is not None:
        yield f"key store answered {duration(key['staleness_seconds'])} ago"
    if key["withdrawn"] is not None:
        yield f"WITHDRAWN: {printable(key['withdrawn'])}"


def _table(rows: list[list[str]]) -> Iterator[str]:
    if not rows:
        return
    table = [[column.removesuffix("_at") for column in _COLUMNS], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
