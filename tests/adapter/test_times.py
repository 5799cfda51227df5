# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyferry.times import format_time, parse_time, to_millis
from tests.adapter.strategies import times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("2026-01-31T08:15:00.250Z", 1769847300.25, id="as written"),
        pytest.param("2026-01-31T09:15:00.250+01:00", 1769847300.25, id="another offset"),
        pytest.param("2026-01-31T08:15:00.2504999Z", 1769847300.25, id="rounded to the millisecond"),
        pytest.param(
            "2026-01-31T08:15:00.123456789Z", 1769847300.123, id="nanoseconds, as Vault writes them"
        ),
        pytest.param("0999-01-01T00:00:00.000Z", -30641760000.0, id="a year of three digits"),
    ],
)
def test_parse_time(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


def test_format_time() -> None:
    assert format_time(1769847300.25) == "2026-01-31T08:15:00.250Z"
    assert format_time(-30641760000.0) == "0999-01-01T00:00:00.000Z"


def test_a_time_without_an_offset_is_refused() -> None:
    """It would mean another instant on each machine."""
    with pytest.raises(ValueError, match=r"^a time needs an offset, such as Z$"):
        parse_time("2026-01-31T08:15:00.250")


@given(times)
def test_round_trip(seconds: float) -> None:
    assert parse_time(format_time(seconds)) == seconds


@given(st.lists(times))
def test_times_sort_as_text(moments: list[float]) -> None:
    assert sorted(map(format_time, moments)) == list(map(format_time, sorted(moments)))


@given(st.floats(0, 7e9))
def test_to_millis_rounds_up_and_survives_writing(seconds: float) -> None:
    """An activation is never earlier than asked for, by more than a float's own error."""
    rounded = to_millis(seconds)
    assert -1e-6 <= rounded - seconds <= 0.001 + 1e-6
    assert parse_time(format_time(rounded)) == rounded == to_millis(rounded)
    assert re.fullmatch(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", format_time(rounded)
    )


@given(st.text())
def test_parse_time_raises_nothing_but_value_error(text: str) -> None:
    try:
        parse_time(text)
    except ValueError:
        return
