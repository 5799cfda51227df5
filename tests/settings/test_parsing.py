# SPDX-License-Identifier: Apache-2.0
"""What each kind of value accepts, refuses, and writes."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import kinds
from agent.kinds import Kind
from agent.parsing import WrongValueError, format_duration, parse_duration

DURATION, DELAY, LIMIT = kinds.duration(), kinds.duration(zero=True), kinds.duration(never=True)
COUNT, KV = kinds.whole(), kinds.choice(("1", "2"), bare=int)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        pytest.param(DURATION, "5m", 300.0, id="minutes"),
        pytest.param(DURATION, "1h30m", 5400.0, id="two units"),
        pytest.param(DURATION, "250ms", 0.25, id="milliseconds"),
        pytest.param(DURATION, "1d2h3m4s5ms", 93784.005, id="all units"),
        pytest.param(DURATION, "90m", 5400.0, id="more than the next unit"),
        pytest.param(DELAY, "0s", 0.0, id="zero where it is allowed"),
        pytest.param(kinds.SHARE, "0%", 0.0, id="no share"),
        pytest.param(kinds.SHARE, "12.5%", 0.125, id="a share with a fraction"),
        pytest.param(kinds.SHARE, "50%", 0.5, id="the largest share"),
        pytest.param(kinds.MODE, "0440", 0o440, id="mode"),
        pytest.param(kinds.MODE, "400", 0o400, id="mode without its zero"),
        pytest.param(kinds.MODE, "0644", 0o644, id="the widest mode"),
        pytest.param(kinds.FLAG, "true", True, id="flag"),
        pytest.param(kinds.FLAG, "false", False, id="no flag"),
        pytest.param(kinds.TEXT, "two words", "two words", id="text with a blank inside"),
        pytest.param(kinds.TEXT, "größe", "größe", id="text beyond ASCII"),
        pytest.param(kinds.PATH, "/a/b", Path("/a/b"), id="path"),
        pytest.param(kinds.STORE_PATH, "/secret/app/key/", "secret/app/key", id="slashes around a path"),
        pytest.param(kinds.STORE_PATH, "secret/data/app", "secret/data/app", id="path as KV 2 spells it"),
        pytest.param(kinds.ADDRESS, "https://v.example:8200", "https://v.example:8200", id="address"),
        pytest.param(kinds.ADDRESS, "HTTPS://V.Example:443/", "https://v.example", id="normal form"),
        pytest.param(kinds.ADDRESS, "http://127.0.0.1:80", "http://127.0.0.1", id="plain http's own port"),
        pytest.param(kinds.ADDRESS, "http://127.0.0.1:443", "http://127.0.0.1:443", id="another port"),
        pytest.param(kinds.ADDRESS, "https://[::1]:8200", "https://[::1]:8200", id="IPv6 address"),
        pytest.param(kinds.VARIABLE, "MASTER_ENCRYPTION_KEY", "MASTER_ENCRYPTION_KEY", id="variable"),
        pytest.param(kinds.GROUP, "2000", 2000, id="group number"),
        pytest.param(kinds.GROUP, "0", 0, id="root's group"),
        pytest.param(kinds.GROUP, "app-readers", "app-readers", id="group name"),
        pytest.param(kinds.LISTEN_HOST, ":8181", "", id="all addresses"),
        pytest.param(kinds.LISTEN_PORT, ":8181", 8181, id="port"),
        pytest.param(kinds.LISTEN_HOST, "[::1]:0", "::1", id="IPv6 host"),
        pytest.param(kinds.LISTEN_PORT, "localhost:0", 0, id="a free port"),
        pytest.param(kinds.LISTEN_PORT, "off", None, id="off"),
        pytest.param(kinds.LISTEN_HOST, "off", "", id="off has no host"),
        pytest.param(COUNT, "32", 32, id="count"),
        pytest.param(COUNT, "65536", 65536, id="the largest count"),
        pytest.param(KV, "2", 2, id="a number out of some"),
        pytest.param(kinds.choice(("keep", "withdraw")), "keep", "keep", id="a word out of some"),
    ],
)
def test_reads(kind: Kind, text: str, value: object) -> None:
    read = kind.read(text)
    assert (read, type(read)) == (value, type(value))


REFUSED = [
    (DURATION, "", "is not a duration"),
    (DURATION, "300", "is not a duration"),
    (DURATION, "5 m", "is not a duration"),
    (DURATION, "5M", "is not a duration"),
    (DURATION, "-5m", "is not a duration"),
    (DURATION, "1.5h", "is not a duration"),
    (DURATION, "30m1h", "is not a duration"),
    (DURATION, "1m1m", "is not a duration"),
    (DURATION, "5m\n", "is not a duration"),
    (DURATION, "\u0665m", "is not a duration"),
    (DURATION, "never", "is not a duration"),
    (DURATION, "1234567890s", "is not a duration"),
    (DURATION, "0s", "is no time at all"),
    (LIMIT, "0h0m", "is no time at all"),
    (kinds.SHARE, "10", "is not a percentage"),
    (kinds.SHARE, "0.1", "is not a percentage"),
    (kinds.SHARE, "-1%", "is not a percentage"),
    (kinds.SHARE, "50.01%", "is too much"),
    (kinds.MODE, "0448", "is not a file mode"),
    (kinds.MODE, "44", "is not a file mode"),
    (kinds.MODE, "4440", "is not a file mode"),
    (kinds.MODE, "r--r-----", "is not a file mode"),
    (kinds.MODE, "0446", "lets others than the agent write"),
    (kinds.MODE, "0460", "lets others than the agent write"),
    (kinds.MODE, "0000", "does not let the agent itself read"),
    (kinds.MODE, "0040", "does not let the agent itself read"),
    (kinds.MODE, "0500", "makes the key a program"),
    (kinds.FLAG, "yes", "is not a choice"),
    (kinds.TEXT, "", "is empty"),
    (kinds.TEXT, " a", "has blanks around it or control characters in it"),
    (kinds.TEXT, "a\nb", "has blanks around it or control characters in it"),
    (kinds.PATH, "", "is not an absolute path"),
    (kinds.PATH, "run/keyferry", "is not an absolute path"),
    (kinds.PATH, "/a\0b", "is not an absolute path"),
    (kinds.STORE_PATH, "/", "is not the path of a secret"),
    (kinds.STORE_PATH, "a//b", "is not the path of a secret"),
    (kinds.STORE_PATH, "a/../b", "is not the path of a secret"),
    (kinds.STORE_PATH, "a/b?version=1", "is not the path of a secret"),
    (kinds.STORE_PATH, "a/b c", "is not the path of a secret"),
    (kinds.STORE_PATH, "a/b\n", "is not the path of a secret"),
    (kinds.ADDRESS, "vault.example:8200", "is not a server's address"),
    (kinds.ADDRESS, "ftp://vault.example", "is not a server's address"),
    (kinds.ADDRESS, "https://vault.example/v1", "is not a server's address"),
    (kinds.ADDRESS, "https://user:word@vault.example", "is not a server's address"),
    (kinds.ADDRESS, "https://vault.example?x=1", "is not a server's address"),
    (kinds.ADDRESS, "https://vault.example:0", "is not a server's address"),
    (kinds.ADDRESS, "https://vault.example:65536", "is not a server's address"),
    (kinds.VARIABLE, "1A", "is not the name of an environment variable"),
    (kinds.VARIABLE, "A-B", "is not the name of an environment variable"),
    (kinds.GROUP, "-1", "is not a group"),
    (kinds.GROUP, "App Readers", "is not a group"),
    (kinds.LISTEN_PORT, "8181", "is not an address to listen on"),
    (kinds.LISTEN_PORT, ":", "is not an address to listen on"),
    (kinds.LISTEN_PORT, ":65536", "is not an address to listen on"),
    (kinds.LISTEN_PORT, "::1:8181", "is not an address to listen on"),
    (kinds.LISTEN_HOST, "http://localhost:8181", "is not an address to listen on"),
    (COUNT, "0", "is not a whole number in the range"),
    (COUNT, "-3", "is not a whole number in the range"),
    (COUNT, "65537", "is not a whole number in the range"),
    (COUNT, "3.0", "is not a whole number in the range"),
    (COUNT, "all", "is not a whole number in the range"),
    (KV, "3", "is not a choice"),
    (KV, "02", "is not a choice"),
]


@pytest.mark.parametrize(("kind", "text", "wrong"), REFUSED)
def test_refuses(kind: Kind, text: str, wrong: str) -> None:
    with pytest.raises(WrongValueError, match=f"^{re.escape(wrong)}$"):
        kind.read(text)


@given(st.integers(0, 10**12))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    """Docs and messages tell a duration as it could stand in agent.yaml."""
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds
    assert format_duration(parse_duration(text)) == text


@given(st.integers(0, 0o7777))
def test_a_mode_survives_being_written_or_is_dangerous(mode: int) -> None:
    """Whatever is accepted can be read by the agent, and written and run by nobody else."""
    text = kinds.MODE.write(mode)
    try:
        assert kinds.MODE.read(text) == mode
    except WrongValueError:
        assert mode & 0o400 == 0 or mode & 0o7133
    else:
        assert mode & 0o400
        assert not mode & 0o7133


@given(st.integers(0, 5000))
def test_a_share_survives_being_written(hundredths: int) -> None:
    share = kinds.SHARE.read(f"{hundredths / 100:.2f}%")
    assert share == pytest.approx(hundredths / 10_000)
    assert kinds.SHARE.read(kinds.SHARE.write(share)) == pytest.approx(share)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes a kind fail in a way that its caller does not expect, or becomes part of a message."""
    every = [kind for kind in vars(kinds).values() if isinstance(kind, Kind)]
    told = set()
    for kind in (*every, DURATION, DELAY, LIMIT, COUNT, KV):
        try:
            kind.read(text)
        except WrongValueError as error:
            told.add(str(error))
    assert told <= {wrong for _, _, wrong in REFUSED}
