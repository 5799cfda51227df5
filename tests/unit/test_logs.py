# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import pytest

from agent import logs
from agent.events import Event
from agent.settings import LogFormat, LogLevel, LogSettings

AT = 1_700_000_000.25


def tell(level: LogLevel, *events: Event, form: LogFormat = "json") -> None:
    sink = logs.sink(LogSettings(level=level, format=form))
    for event in events:
        sink(event)


def event(name: str, /, level: LogLevel = "info", *, audit: bool = False, **fields: object) -> Event:
    return Event(name, level, AT, audit, fields)


def test_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Time, level and name come first; the rest as it was said."""
    tell("info", event("key.published", audit=True, key="master", versions=["1", "2"], name="x"))
    line = capfd.readouterr().err
    assert line.startswith(
        '{"timestamp": "2023-11-14T22:13:20.250Z", "level": "info", "event": "key.published", '
    )
    document = json.loads(line)
    assert document["versions"] == ["1", "2"]
    assert document["audit"] is True
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["d", "i", "w", "e", "a"]),
        ("info", ["i", "w", "e", "a"]),
        ("warning", ["w", "e", "a"]),
        ("error", ["e", "a"]),
    ],
)
def test_levels(capfd: pytest.CaptureFixture[str], level: LogLevel, told: list[str]) -> None:
    """What an auditor asks for is told at every level."""
    tell(
        level,
        event("d", "debug"),
        event("i"),
        event("w", "warning"),
        event("e", "error"),
        event("a", "debug", audit=True),
    )
    lines = capfd.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == told


@pytest.mark.parametrize(
    "value", ["line\nbreak", "\udcff", "\x1b[31mred", "ключ", {"a": ("b",)}, None, 3.5], ids=repr
)
def test_any_value_is_one_line(capfd: pytest.CaptureFixture[str], value: object) -> None:
    tell("info", event("e", reason=value))
    line = capfd.readouterr().err
    assert line.isascii()
    assert line.count("\n") == 1
    assert "reason" in json.loads(line)


def test_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    tell("info", event("refresh.failed", "warning", reason="no answer"), form="console")
    line = capfd.readouterr().err
    assert "refresh.failed" in line
    assert "no answer" in line
    assert "\x1b" not in line


def test_libraries_are_not_told() -> None:
    """Without a handler of its own a library's warning would go to standard error as it is."""
    script = (
        "import logging; from agent import logs; from agent.settings import LogSettings; "
        "logs.sink(LogSettings()); logging.getLogger('urllib3').warning('a token, perhaps')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stderr == ""


def _broken() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1)


def _closed() -> TextIO:
    stream = _broken()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [_broken, _closed, lambda: None], ids=["broken pipe", "closed", "none"])
def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, make: Callable[[], TextIO | None]) -> None:
    stream = make()
    monkeypatch.setattr("sys.stderr", stream)
    tell("info", event("e"), event("e"))
    if stream is not None:
        with suppress(OSError):
            stream.close()


def test_a_reader_that_has_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nobody up, and hears later how much it missed."""
    reading, writing = os.pipe()
    events = 2000
    with os.fdopen(reading) as reader, os.fdopen(writing, "w", buffering=1) as stream:
        monkeypatch.setattr("sys.stderr", stream)
        sink = logs.sink(LogSettings())
        for _ in range(events):
            sink(event("e", reason="x" * 100))
        # Only so much that what is told next is waited for.
        told = [json.loads(reader.readline()) for _ in range(300)]
        sink(event("last"))
        while told[-1]["event"] != "last":
            told.append(json.loads(reader.readline()))
    *heard, dropped, _ = told
    assert {line["event"] for line in heard} == {"e"}
    assert dropped["event"] == "log.dropped"
    assert len(heard) + dropped["lines"] == events
