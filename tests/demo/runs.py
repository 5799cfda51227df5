# SPDX-License-Identifier: Apache-2.0
"""Recorded runs, made up: one second after the other, so that every number can be checked by hand."""

from typing import Any

from examples.demo.timeline import Rotation, Span, Timeline
from keyferry.layout import State

BEGAN = 1_700_000_000.0
FINGERPRINTS = {"1": "sha256:1111111111111111", "2": "sha256:2222222222222222"}


def versions(
    at: float, generation: int, states: dict[str, State], due: float | None = None
) -> dict[str, Any]:
    """Return what an app tells of its versions ``at`` seconds after the beginning."""
    entries = [
        {
            "id": id_,
            "state": state,
            "fingerprint": FINGERPRINTS[id_],
            "activates_at": BEGAN if id_ == "1" else BEGAN + (due or 0.0),
        }
        for id_, state in states.items()
    ]
    return {"kind": "versions", "at": BEGAN + at, "generation": generation, "versions": entries}


def totals(at: float, encrypted: int, decrypted: int, failure: str | None = None) -> dict[str, Any]:
    """Return what an app tells of its work."""
    return {
        "kind": "totals",
        "at": BEGAN + at,
        "encrypted": encrypted,
        "decrypted": decrypted,
        "failures": 0 if failure is None else 1,
        "failure": failure,
    }


def run(failure: str | None = None) -> Timeline:
    """Return ten seconds with one rotation, an outage, and one agent killed."""
    timeline = Timeline("file", ("a", "b"), 4.0, BEGAN, ended=BEGAN + 10)
    timeline.rotations += [Rotation("1", BEGAN, "start"), Rotation("2", BEGAN + 2, "timer")]
    for pod, delay in (("a", 0.5), ("b", 1.0)):
        timeline.take(pod, versions(1, 1, {"1": "active"}))
        timeline.take(pod, versions(2 + delay, 2, {"1": "active", "2": "pre-active"}, due=6 + delay))
        timeline.take(pod, versions(6.003 + delay, 2, {"1": "deactivated", "2": "active"}, due=6 + delay))
        timeline.take(pod, totals(0, 0, 0))
        timeline.take(pod, totals(5, 50, 500))
        timeline.take(pod, totals(10, 100, 2000, failure))
    timeline.away = Span(BEGAN + 4, BEGAN + 8)
    timeline.killed["a"] = Span(BEGAN + 5, BEGAN + 7)
    timeline.signals.append(BEGAN + 2)
    return timeline
