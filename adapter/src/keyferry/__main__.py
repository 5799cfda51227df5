# SPDX-License-Identifier: Apache-2.0
"""``python -m keyferry``: what does this volume hold? It never shows a key, only fingerprints.

Exit codes: 0 the volume was read, 1 what lies on it is broken, 2 wrong usage or a wrong mount, 3 nothing is
published yet.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from keyferry.errors import ContractError, KeyferryError, NotPublishedError
from keyferry.layout import DEFAULT_PATH, Keyring, states
from keyferry.reader import Published, read_status, read_volume, staleness
from keyferry.status import Status
from keyferry.times import format_time

_OK: Final = 0
_BROKEN: Final = 1
_WRONG: Final = 2
_NOT_YET: Final = 3

_COLUMNS: Final = ("id", "state", "created_at", "activates_at", "fingerprint")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the volume holds and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m keyferry", description="Show what a keyferry volume holds."
    )
    default = os.environ.get("KEYFERRY_DIR") or DEFAULT_PATH
    parser.add_argument("--dir", default=default, help="the volume's directory (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    options = parser.parse_args(arguments)
    try:
        published = read_volume(options.dir)
    except KeyferryError as error:
        print(f"keyferry: {error}", file=sys.stderr)
        return _exit_code(error)
    report = describe(published, read_status(options.dir), time.time())
    print(json.dumps(report, indent=1) if options.json else "\n".join(_lines(options.dir, report)))
    return _OK


def describe(published: Published, status: Status | None, now: float) -> dict[str, Any]:
    """Return what ``--json`` prints: no material, times as text, durations in seconds."""
    generation = published.generation
    return {
        "generation": generation.number,
        "link": published.link,
        "published_at": format_time(generation.published_at),
        "age_seconds": round(now - generation.published_at, 3),
        "agent": None if status is None else _agent(status, now),
        "keys": {
            name: _key(name, keyring, status, max(now, generation.published_at))
            for name, keyring in generation.keys.items()
        },
    }


def _agent(status: Status, now: float) -> dict[str, Any]:
    return {
        "version": status.agent_version,
        "heartbeat_seconds": round(now - status.written_at, 3),
        "config_problems": list(status.config_problems),
    }


def _key(name: str, keyring: Keyring, status: Status | None, now: float) -> dict[str, Any]:
    known = None if status is None else status.keys.get(name)
    age = None if status is None else staleness(status, name)
    return {
        "provider": keyring.provider,
        "encoding": keyring.encoding,
        "length": keyring.length,
        "withdrawn": keyring.withdrawn,
        "freshness": None if known is None else known.freshness,
        "staleness_seconds": None if age is None else round(age, 3),
        "versions": [
            {
                "id": version.id,
                "state": state,
                "created_at": None if version.created_at is None else format_time(version.created_at),
                "activates_at": None if version.activates_at is None else format_time(version.activates_at),
                "fingerprint": version.fingerprint,
            }
            for version, state in zip(keyring.versions, states(keyring.versions, now), strict=True)
        ],
    }


def _lines(path: str, report: dict[str, Any]) -> Iterator[str]:
    age = _duration(report["age_seconds"])
    yield f"{path}: generation {report['generation']}, published {report['published_at']} ({age} ago)"
    agent = report["agent"]
    if agent is None:
        yield "agent: no heartbeat"
    else:
        yield f"agent: {agent['version']}, heartbeat {_duration(agent['heartbeat_seconds'])} ago"
        yield from (
            f"agent: refused a change of its configuration: {problem}" for problem in agent["config_problems"]
        )
    for name, key in report["keys"].items():
        yield ""
        yield _title(name, key)
        yield from _table([[_cell(version[column]) for column in _COLUMNS] for version in key["versions"]])


def _title(name: str, key: dict[str, Any]) -> str:
    facts = [key["provider"], key["encoding"]]
    if key["length"] is not None:
        facts.append(f"{key['length']} bytes")
    facts.append(key["freshness"] or "freshness unknown")
    if key["staleness_seconds"] is not None:
        facts.append(f"key store answered {_duration(key['staleness_seconds'])} ago")
    withdrawn = "" if key["withdrawn"] is None else f", WITHDRAWN: {_cell(key['withdrawn'])}"
    return f"{name}: {', '.join(facts)}{withdrawn}"


def _table(rows: list[list[str]]) -> Iterator[str]:
    if not rows:
        return
    table = [[column.removesuffix("_at") for column in _COLUMNS], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: str | None) -> str:
    # Ids and reasons are the provider's words: they must not reach the terminal as control sequences.
    return "-" if value is None else "".join(c if c.isprintable() else "?" for c in value)


def _duration(seconds: float) -> str:
    size, unit = next((pair for pair in _UNITS if abs(seconds) >= 2 * pair[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def _exit_code(error: KeyferryError) -> int:
    match error:
        case NotPublishedError():
            return _NOT_YET
        case ContractError():
            return _BROKEN
        case _:
            return _WRONG


if __name__ == "__main__":
    sys.exit(main())
