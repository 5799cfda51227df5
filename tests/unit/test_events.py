# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from agent.events import Event, Events, publication_events
from keyferry.layout import Generation, Keyring
from tests.unit.scenes import keyring, version

OLD, NEW, LATER = version("1", 0.0), version("2", 100.0), version("3", 1000.0)


def generation(number: int, at: float, **keys: Keyring) -> Generation:
    return Generation(number, at, keys)


SCENARIOS: dict[str, tuple[Generation | None, Generation, list[tuple[str, str | None]]]] = {
    "first": (None, generation(1, 50.0, master=keyring(OLD)), [("key.published", "1")]),
    "staged": (
        generation(1, 50.0, master=keyring(OLD)),
        generation(2, 60.0, master=keyring(OLD, NEW)),
        [("key.published", "1")],
    ),
    "activated by the clock": (
        generation(2, 60.0, master=keyring(OLD, NEW)),
        generation(3, 100.0, master=keyring(OLD, NEW)),
        [("key.activated", "2")],
    ),
    "replaced at once": (
        generation(2, 60.0, master=keyring(OLD)),
        generation(3, 200.0, master=keyring(OLD, NEW, LATER)),
        [("key.published", "2"), ("key.activated", "2")],
    ),
    "repaired": (generation(2, 60.0, master=keyring(OLD)), generation(3, 70.0, master=keyring(OLD)), []),
    "withdrawn": (
        generation(2, 60.0, master=keyring(OLD)),
        generation(3, 70.0, master=keyring(withdrawn="denied")),
        [("key.withdrawn", None)],
    ),
    "still withdrawn": (
        generation(2, 60.0, master=keyring(withdrawn="denied")),
        generation(3, 70.0, master=keyring(withdrawn="denied"), second=keyring(OLD)),
        [("key.published", "1")],
    ),
    "back": (
        generation(2, 60.0, master=keyring(withdrawn="denied")),
        generation(3, 70.0, master=keyring(OLD)),
        [("key.published", "1")],
    ),
    "removed": (
        generation(2, 60.0, master=keyring(OLD), second=keyring(NEW)),
        generation(3, 70.0, second=keyring(NEW)),
        [("key.removed", None)],
    ),
}


@pytest.mark.parametrize(("before", "after", "expected"), SCENARIOS.values(), ids=SCENARIOS)
def test_publication(
    before: Generation | None, after: Generation, expected: list[tuple[str, str | None]]
) -> None:
    """An auditor hears of each key that came, changed hands or went, and of nothing else."""
    told = list(publication_events(before, after))
    assert [(name, fields.get("version")) for name, _, fields in told] == expected
    assert all(fields["generation"] == after.number for _, _, fields in told)


def test_no_event_holds_material() -> None:
    for before, after, _ in SCENARIOS.values():
        told = repr(list(publication_events(before, after)))
        assert not [item for item in (OLD, NEW, LATER) if item.material.text in told]


def test_those_who_come_late_are_told_of_the_past_once() -> None:
    clock = itertools.count(1.0)
    events = Events(lambda: next(clock))
    events.emit("first", "warning", audit=True, name="a field may have any name", level=7)
    first: list[Event] = []
    second: list[Event] = []
    events.attach(first.append)
    events.emit("second")
    events.attach(second.append)
    events.emit("third")
    assert [event.name for event in first] == ["first", "second"]
    assert [event.name for event in second] == ["third"]
    fields = {"name": "a field may have any name", "level": 7}
    assert first[0] == Event("first", "warning", 1.0, audit=True, fields=fields)
