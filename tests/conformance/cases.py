# SPDX-License-Identifier: Apache-2.0
"""What readers must get right over time: activation, clocks and publications.

Rules, for all cases:

- They are written from docs/volume-contract.md, and from the mistakes that each language makes easy. The
  adapter is not used.
- Times are relative to now, hence they are to be run within the hour, those with ``after_seconds`` at once.
"""

import time
from collections.abc import Iterator, Mapping

from tests.adapter.volume import version, withdrawn
from tests.conformance.case import (
    BROKEN,
    HOUR,
    NOT_PUBLISHED,
    WITHDRAWN,
    Answer,
    Case,
    Content,
    Step,
    generation,
    ok,
    one,
)
from tests.conformance.contents import documents, encodings, places


def cases() -> dict[str, Case]:
    """Return all cases by name, with new keys."""
    return dict([*_activation(), *_clocks(), *_steps(), *documents(), *encodings(), *places()])


def _activation() -> Iterator[tuple[str, Case]]:
    now = time.time()
    active, waits, gone = "active", "pre-active", "deactivated"
    table: list[tuple[str, str, list[float | None], list[str]]] = [
        ("one", "One version, long active", [-HOUR], [active]),
        ("staged", "The next version is there and not yet used", [-HOUR, HOUR], [active, waits]),
        ("switched", "The next version's time has come", [-2 * HOUR, -HOUR], [gone, active]),
        ("queue", "Two versions wait", [-HOUR, HOUR, 2 * HOUR], [active, waits, waits]),
        ("unsorted", "The list's order counts, and times do not", [-HOUR, -2 * HOUR], [gone, active]),
        ("tie", "Two at the same time: the later in the list", [-HOUR, -HOUR], [gone, active]),
        ("overtaken", "One that waits was overtaken", [-HOUR, HOUR, -60], [gone, gone, active]),
        ("too-early", "No time has come: the first one, rather than none", [HOUR, 2 * HOUR], [active, waits]),
        ("deleted-last", "Deleted at the key store: it only decrypts", [-HOUR, None], [active, gone]),
        ("deleted-first", "Never active, not even as the first", [None, HOUR], [gone, active]),
        ("deleted-between", "Deleted while it waited", [-HOUR, None, HOUR], [active, gone, waits]),
    ]
    for name, about, offsets, states in table:
        versions = [
            version(str(number), activates_at=None if offset is None else now + offset)
            for number, offset in enumerate(offsets, 1)
        ]
        yield f"activation-{name}", one(about, generation(*versions), ok(*states, of=versions))
    # A comparison with tolerance, or one that ends at the second, is wrong half of the time.
    old, new = version("1"), version("2", activates_at=now + 2.0)
    a = "..gen-000007.a"
    steps = [
        Step(a, ok("active", "pre-active", of=[old, new])),
        Step(a, ok("deactivated", "active", of=[old, new]), after_seconds=3.1),
    ]
    about = "The clock alone activates, without a new generation"
    yield "activation-by-clock", Case(about, {a: generation(old, new)}, steps)


def _clocks() -> Iterator[tuple[str, Case]]:
    now = time.time()
    old, new = version("1"), version("2", activates_at=now + HOUR)
    ahead = generation(old, new, published_at=now + 2 * HOUR)
    switched = ok("deactivated", "active", of=[old, new])
    yield (
        "clock-behind",
        one("This clock is behind the agent's: published_at counts as now", ahead, switched),
    )
    again = {"..gen-000007.a": ahead, "..gen-000008.b": generation(old, new, number=8)}
    steps = [Step("..gen-000007.a", switched), Step("..gen-000008.b", switched)]
    yield "clock-back", Case("An activation that was seen is never taken back", again, steps)
    # Whoever remembers what was now, and not what was activated, takes the second for active.
    waits = ok("active", "pre-active", of=[old, new])
    again = {
        "..gen-000007.a": generation(old, published_at=now + 2 * HOUR),
        "..gen-000008.b": generation(old, new),
    }
    steps = [Step("..gen-000007.a", ok("active", of=[old])), Step("..gen-000008.b", waits)]
    yield "clock-was-ahead", Case("A clock that was ahead brings no later version forward", again, steps)
    early, sooner = version("1", activates_at=now + HOUR), version("2", activates_at=now + HOUR / 2)
    again = {"..gen-000007.a": generation(early), "..gen-000008.b": generation(early, sooner, number=8)}
    steps = [
        Step("..gen-000007.a", ok("active", of=[early])),
        Step("..gen-000008.b", ok("active", "pre-active", of=[early, sooner])),
    ]
    yield "clock-too-early", Case("One that serves before its time has activated nothing", again, steps)


def _steps() -> Iterator[tuple[str, Case]]:
    old, new, other = version("1"), version("2"), version("1")
    a, b, c = "..gen-000007.a", "..gen-000008.b", "..gen-000001.c"
    first, second = ok("active", of=[old]), ok("deactivated", "active", of=[old, new])
    one, two = generation(old), generation(old, new, number=8)
    gone = generation(keys={"master": withdrawn()}, number=8)

    def case(about: str, generations: Mapping[str, Content], *steps: tuple[str | None, Answer]) -> Case:
        return Case(about, generations, [Step(link, answer) for link, answer in steps])

    yield "rotation", case("A new generation is seen", {a: one, b: two}, (a, first), (a, first), (b, second))
    yield (
        "wiped",
        case(
            "A wiped volume counts from one again: names are compared, never numbers",
            {a: one, c: generation(other, number=7)},
            (a, first),
            (c, ok("active", of=[other])),
        ),
    )
    yield "wait", case("Nothing yet, then a key", {a: one}, (None, NOT_PUBLISHED), (a, first))
    yield "unpublished", case("A missing ..data is no withdrawal", {a: one}, (a, first), (None, first))
    yield (
        "dangling",
        case("..data names nothing, again and again", {a: one}, (b, BROKEN), (a, first), (b, first)),
    )
    yield "withdrawn", case("No key and no material", {b: gone}, (b, WITHDRAWN))
    yield (
        "withdrawal",
        case(
            "It is dropped, stays dropped when ..data goes, and comes back with a publication",
            {a: one, b: gone},
            (a, first),
            (b, WITHDRAWN),
            (None, WITHDRAWN),
            (a, first),
        ),
    )
    broken = {a: one, b: one[:-20], c: generation(old, new, schema="keyferry/v2")}
    yield (
        "keeps",
        case("What breaks the contract replaces nothing", broken, (a, first), (b, first), (c, first)),
    )
