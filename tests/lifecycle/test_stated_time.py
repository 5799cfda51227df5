# SPDX-License-Identifier: Apache-2.0
"""``rotate --activate TIME``: a keyring that Git or a ConfigMap brings says itself when a version is used."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from keyferry.times import format_time, parse_time
from tests.lifecycle.stores import STORES, KeyringFile, Store, VaultTransit

# What three minutes of a mounted file add to the default bound.
MOUNTED_BOUND = 771 + 180


@pytest.mark.parametrize("kind", [KeyringFile, VaultTransit])
@pytest.mark.parametrize("as_time", [False, True], ids=["a duration", "a time"])
def test_the_entry_states_it(
    kind: type[Store], as_time: bool, opened: Callable[[type[Store]], Store]
) -> None:
    store = opened(kind)
    store.configure(store.section() | {"mounted": True})
    store.run("bootstrap", "--create")
    wanted = (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds")
    code, out, err = store.run("rotate", "--activate", wanted if as_time else "2h", "--json")
    assert (code, err) == (0, "")
    rotated = json.loads(out)
    newest = store.offer().versions[-1]
    assert newest.id == rotated["version"]
    assert newest.activates_at == pytest.approx(parse_time(wanted), abs=0 if as_time else 60)
    assert rotated["activates_after"] == rotated["activates_before"] == format_time(newest.activates_at or 0)
    assert rotated["at_once"] is False
    delivered = parse_time(rotated["deliver_before"])
    assert delivered == pytest.approx((newest.activates_at or 0) - MOUNTED_BOUND, abs=0.002)


def test_a_pod_that_starts_late_waits_for_it(opened: Callable[[type[Store]], Store]) -> None:
    """Long after the delay: it goes on with the version before, as the pods do that have not seen it."""
    store = opened(KeyringFile)
    quick = {"rotation": {"activation_delay": "0s"}}
    store.configure(store.section(), **quick)
    store.run("bootstrap", "--create")
    (first,) = store.offer().versions
    assert store.run("rotate", "--activate", "2h")[0] == 0
    _, out, _ = store.run("check", "--json")
    assert json.loads(out)["keys"][0]["active"] == first.id


@pytest.mark.parametrize("kind", [KeyringFile, VaultTransit])
def test_what_is_told_of_a_file_that_is_delivered(
    kind: type[Store], opened: Callable[[type[Store]], Store]
) -> None:
    store = opened(kind)
    store.configure(store.section() | {"mounted": True})
    store.run("bootstrap", "--create")
    now = time.time()
    _, out, _ = store.run("rotate")
    assert "times count from now, not from the roll-out; --activate TIME states a later one" in out
    _, _, rest = out.partition("deliver: to where the pods get it, before ")
    assert parse_time(rest.split()[0]) == pytest.approx(now + 1200 - MOUNTED_BOUND, abs=60)
    _, out, _ = store.run("rotate", "--activate", "2h")
    assert "deliver: to where the pods get it, before " in out
    assert "count from now" not in out
    _, out, _ = store.run("rotate", "--activate", "now")
    assert "deliver" not in out
    store.configure(store.section() | {"mounted": True}, rotation={"activation_delay": "0s"})
    assert "deliver" not in store.run("rotate")[1]
    store.configure(store.section())
    assert "deliver" not in store.run("rotate")[1]


@pytest.mark.parametrize("name", ["file-raw", "file-json", "vault", "aws-secrets-manager"])
def test_stores_that_cannot(name: str, opened: Callable[[type[Store]], Store]) -> None:
    """Nothing is made that would be used at another time than the one that was asked for."""
    store = opened(STORES[name])
    store.run("bootstrap", "--create")
    before = store.values()
    sentence = "keyferry-agent: --activate: only a keyring file can state a time; leave it out, or say now\n"
    assert store.run("rotate", "--activate", "2h") == (2, "", sentence)
    assert store.values() == before


def test_too_soon(opened: Callable[[type[Store]], Store]) -> None:
    """Within the bound some replicas would not have it yet."""
    store = opened(KeyringFile)
    store.run("bootstrap", "--create")
    before = store.values()
    code, out, err = store.run("rotate", "--activate", "12m")
    assert (code, out) == (2, "")
    assert err.startswith("keyferry-agent: --activate: is sooner than 20")
    assert err.endswith(
        "Z, and until then not every healthy replica needs to have it; state a later time, or say now\n"
    )
    assert store.values() == before
    assert store.run("rotate", "--activate", "13m")[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "",
        "2h30",
        "0s",
        "366d",
        "2020-01-31T08:15:00Z",
        "9999-12-31T00:00:00Z",
        "2999-01-31T08:15",
    ],
)
def test_what_is_no_time(text: str, opened: Callable[[type[Store]], Store]) -> None:
    code, out, err = opened(KeyringFile).run("rotate", "--activate", text)
    assert (code, out) == (2, "")
    assert (
        f"argument --activate: {text!r} is neither now nor a time within the next year: RFC 3339, such as "
        "2026-01-31T08:15:00Z, or a duration from now, such as 2h"
    ) in err
