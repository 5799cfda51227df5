# SPDX-License-Identifier: Apache-2.0
"""A volume in a directory, written by the letter of docs/volume-contract.md.

It stands in for the agent in the adapter's tests and shares no code with it: keyring.json is written from the
contract's words, so that both sides of ``keyferry.layout`` are held to the prose.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def version(
    version_id: str, *, activates_at: float | None = 0.0, material: str | None = None, **fields: object
) -> dict[str, Any]:
    """Return a version's document; it has long been active unless ``activates_at`` says otherwise."""
    material = secrets.token_urlsafe(32) if material is None else material
    digest = hashlib.sha256(b"keyferry-fingerprint-v1\0" + material.encode()).hexdigest()[:16]
    return {
        "id": version_id,
        "created_at": moment(1_700_000_000),
        "activates_at": None if activates_at is None else moment(activates_at),
        "fingerprint": f"sha256:{digest}",
        "material": material,
    } | fields


def keyring(*versions: Mapping[str, Any], **fields: object) -> dict[str, Any]:
    return {
        "provider": "vault",
        "source": "sha256:0123456789abcdef",
        "encoding": "base64url",
        "length": 32,
        "versions": list(versions),
    } | fields


def withdrawn(reason: str = "denied by the key store") -> dict[str, Any]:
    document = keyring(withdrawn=reason)
    del document["versions"]
    return document


class Volume:
    """The writing side of a volume at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        path.mkdir(exist_ok=True)

    def publish(self, *versions: Mapping[str, Any], **keys: Mapping[str, Any]) -> str:
        """Publish ``versions`` of the key master, or ``keys``, as a new generation; return its name."""
        self.number += 1
        return self.write(
            {
                "schema": "keyferry/v1",
                "generation": self.number,
                "published_at": moment(time.time()),
                "keys": keys or {"master": keyring(*versions)},
            }
        )

    def write(self, document: object) -> str:
        """Publish whatever ``document`` is."""
        return self.write_bytes(json.dumps(document).encode())

    def write_bytes(self, data: bytes) -> str:
        """Publish ``data`` as keyring.json."""
        name = f"..gen-{self.number:06d}.{secrets.token_hex(4)}"
        directory = self.path / name
        directory.mkdir()
        (directory / "keyring.json").write_bytes(data)
        self.point_to(name)
        return name

    def point_to(self, name: str) -> None:
        """Let ``..data`` point to ``name`` in one rename."""
        temporary = self.path / f"..tmp-{secrets.token_hex(4)}"
        temporary.symlink_to(name)
        temporary.rename(self.path / "..data")

    def retire(self, name: str) -> None:
        shutil.rmtree(self.path / name)

    def unpublish(self) -> None:
        (self.path / "..data").unlink()

    def write_status(self, document: object) -> None:
        (self.path / "..status").mkdir(exist_ok=True)
        (self.path / "..status" / "status.json").write_text(json.dumps(document))


def status(keys: Sequence[str] = ("master",), fields: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return a heartbeat's document; ``fields`` replace those of each key."""
    return {
        "schema": "keyferry-status/v1",
        "agent_version": "0.1.0",
        "pid": os.getpid(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "started_at": moment(1_700_000_000),
        "written_at": moment(1_700_000_060),
        "generation": 7,
        "config_problems": [],
        "keys": {name: key_status(fields or {}) for name in keys},
    }


def key_status(fields: Mapping[str, object]) -> dict[str, Any]:
    return {
        "provider": "vault",
        "freshness": "fresh",
        "outcome": "unchanged",
        "reason": None,
        "attempts": 3,
        "failures": 0,
        "last_attempt_at": moment(1_700_000_060),
        "last_success_at": moment(1_700_000_060),
        "last_success_boottime": 12.5,
        "next_refresh_at": moment(1_700_000_360),
        "bound_seconds": 741.0,
        "activation_delay_seconds": 1200.0,
        "unstaged": None,
        "beyond_bound": False,
        "withdrawn": None,
        "skipped": [],
        **fields,
    }
