# SPDX-License-Identifier: Apache-2.0
import pytest

from examples.demo.timeline import Sample, Sighting, Timeline
from examples.demo.words import description, summary, title
from tests.demo.runs import BEGAN, run, versions


def test_only_changes_are_news() -> None:
    """A republication of what an app already uses is no line on the terminal."""
    timeline = Timeline("file", ("a",), 4.0, BEGAN)
    assert timeline.take("a", versions(1, 1, {"1": "active"})) == [Sighting(BEGAN + 1, "a", "1", "active")]
    assert timeline.take("a", versions(2, 2, {"1": "active"})) == []
    assert timeline.generations == {"a": 2}


@pytest.mark.parametrize(("pod", "seconds"), [("a", 0.5), ("b", 1.0)])
def test_latency_is_counted_from_the_write_to_the_app(pod: str, seconds: float) -> None:
    assert run().reached_after(pod, "2") == pytest.approx(seconds)


def test_lateness_is_counted_from_the_due_time() -> None:
    assert run().late("b", "2") == pytest.approx(0.003, abs=1e-6)


def test_a_version_nobody_saw_has_no_times() -> None:
    assert (run().reached_after("a", "3"), run().late("a", "3")) == (None, None)


def test_everywhere_means_every_app() -> None:
    timeline = Timeline("file", ("a", "b"), 4.0, BEGAN)
    timeline.take("a", versions(1, 1, {"1": "active"}))
    assert not timeline.everywhere("1", "active")
    assert not timeline.is_known("1")
    timeline.take("b", versions(2, 1, {"1": "active"}))
    assert timeline.everywhere("1", "active")
    assert timeline.is_known("1")


def test_segments_follow_each_other_to_the_end() -> None:
    segments = list(run().segments("a", "2"))
    assert [state for state, _, _ in segments] == ["pre-active", "active"]
    edges = [edge - BEGAN for _, start, end in segments for edge in (start, end)]
    assert edges == pytest.approx([2.5, 6.503, 6.503, 10.0])


@pytest.mark.parametrize(
    ("at", "count"),
    [
        pytest.param(-1, 0, id="before the first sample"),
        pytest.param(2.5, 500, id="between two samples"),
        pytest.param(5, 1000, id="at a sample"),
        pytest.param(99, 4000, id="after the last sample"),
    ],
)
def test_decrypts_are_interpolated_over_all_apps(at: float, count: int) -> None:
    assert run().decrypted_by(BEGAN + at) == pytest.approx(count)


def test_the_rate_is_that_of_all_apps() -> None:
    rates = [number for at, rate in run().decrypts_per_second(5.0) for number in (at - BEGAN, rate)]
    assert rates == pytest.approx([2.5, 200, 7.5, 600])


def test_totals_add_up() -> None:
    assert run().totals == Sample(BEGAN + 10, 200, 4000, 0)


def test_the_first_failure_is_kept() -> None:
    assert run(failure="record a-7 of version 2: InvalidTag").failure == "record a-7 of version 2: InvalidTag"


def test_the_summary_tells_each_rotation_and_the_totals() -> None:
    assert list(summary(run())) == [
        "version  fingerprint              found by    written to readable   active, late by",
        "      2  sha256:2222222222222222  timer       a 0.50 s, b 1.00 s    a 3.0 ms, b 3.0 ms",
        "",
        "200 records encrypted, 4,000 decrypts, 0 failed",
        "2,000 of the decrypts in the 4.0 s while the store was away",
    ]


def test_the_title_does_not_hide_a_failure() -> None:
    assert title(run()) == "1 rotations, an outage and a killed agent: no failed decrypt"
    assert title(run(failure="InvalidTag")) == "1 rotations, an outage and a killed agent: 2 failed decrypts"


def test_the_description_says_in_words_what_the_picture_shows() -> None:
    assert description(run()) == (
        "Version 2 was written at 2.0 s, became known by timer, reached the apps after 0.50 and 1.00 s, "
        "and was used after the activation delay. The store was away for 4.0 s. Agent a was killed and away "
        "for 2.0 s. 4,000 decrypts of 200 records, 0 failed."
    )
