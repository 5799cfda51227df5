# SPDX-License-Identifier: Apache-2.0
"""A key's life in every store, by real commands: made once, rotated once, and never shown."""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.commands.new_material import new_material
from agent.keyring_file import next_id
from agent.providers import lifecycle
from agent.providers.lifecycle import ChangedError, ExistsError, Rotation
from keyferry.material import Material, decode
from keyferry.times import parse_time
from tests.lifecycle.concurrency import at_once
from tests.lifecycle.stores import (
    STORES,
    KeyringFile,
    RawFile,
    SecretsManager,
    Store,
    VaultKv,
    VaultTransit,
    results,
)


def test_a_whole_life(store: Store) -> None:
    """Missing, made, there, rotated; the id and fingerprint that are told are the agent's own."""
    said = []

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, err = store.run(*arguments, "--json")
        said.append(out + err)
        assert err == ""
        return code, json.loads(out)

    code, told = run("bootstrap")
    assert (code, told["keys"][0]["result"]) == (1, "missing")
    assert told["keys"][0]["reason"].endswith("; --create makes it if there never was one")

    code, told = run("bootstrap", "--create")
    made = told["keys"][0]
    assert (code, made["result"]) == (0, "created")
    first = store.values()
    assert len(decode(Material(first[0].encode()), "base64url")) == 32

    code, told = run("bootstrap", "--create")
    assert (code, told["keys"][0]) == (
        0,
        made | {"result": "ok", "milliseconds": told["keys"][0]["milliseconds"]},
    )
    assert store.values() == first

    code, rotated = run("rotate")
    assert (code, rotated["replaced"]) == (0, made["version"])
    assert (rotated["unstaged"] is None) == store.staged
    assert rotated["at_once"] is False
    values = store.values()
    assert values[:-1] == (first if store.staged else [])
    assert values[-1] not in first
    assert store.offer().versions[-1].id == rotated["version"] != made["version"]
    for secret in first + values:
        assert not any(secret in text for text in said)


@pytest.mark.parametrize("kind", [KeyringFile, RawFile])
def test_people_read_it(kind: type[Store], opened: Callable[[type[Store]], Store]) -> None:
    """The same without --json: a line a key, and when the new version is used."""
    store = opened(kind)
    code, out, err = store.run("bootstrap")
    assert (code, err) == (1, "")
    assert out.startswith("key master (")
    assert ": missing: " in out
    code, created, err = store.run("bootstrap", "--create")
    assert (code, err) == (0, "")
    assert ": created, version " in created
    assert created.endswith(" ms\n")
    code, rotated, err = store.run("rotate")
    assert (code, err) == (0, "")
    assert "follows version " in rotated
    assert ("\n  staged:  yes" in rotated) == store.staged
    assert not any(secret in created + rotated for secret in store.values())


@pytest.mark.parametrize(
    ("kind", "more", "at_once", "window"),
    [
        pytest.param(KeyringFile, [], False, 771, id="staged"),
        pytest.param(KeyringFile, ["--activate", "now"], True, 771, id="at once"),
        pytest.param(RawFile, [], False, 1200 + 771, id="not staged"),
        pytest.param(RawFile, ["--activate", "now"], False, 1200 + 771, id="no place for it"),
    ],
)
def test_when_it_is_active(
    kind: type[Store],
    more: list[str],
    at_once: bool,
    window: float,
    opened: Callable[[type[Store]], Store],
) -> None:
    """Where nothing is staged a running agent waits all the same, whatever the command was told."""
    store = opened(kind)
    store.run("bootstrap", "--create")
    code, out, _ = store.run("rotate", *more, "--json")
    rotated = json.loads(out)
    assert (code, rotated["at_once"]) == (0, at_once)
    after, before = (parse_time(rotated[f"activates_{end}"]) for end in ("after", "before"))
    assert before - after == pytest.approx(window, abs=0.002)
    assert before - time.time() == pytest.approx(771 if at_once else 1200 + 771, abs=60)
    _, said, _ = store.run("rotate", *more)
    assert ("\n  ignored: --activate now" in said) == (bool(more) and not at_once)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("file-raw", "vault", "aws-kms") else pytest.mark.slow)
        for name in STORES
    ],
)
def test_bootstraps_at_once(name: str, opened: Callable[[type[Store]], Store]) -> None:
    """However many processes make it at once, there is one key, and everybody says the same of it."""
    store = opened(STORES[name])
    ended = results([store.start("bootstrap", "--create", "--json") for _ in range(3)])
    assert [code for code, _, _ in ended] == [0] * 3, ended
    told = [json.loads(out)["keys"][0] for _, out, _ in ended]
    assert len({(one["version"], one["fingerprint"]) for one in told}) == 1
    assert [one["result"] for one in told].count("created") == 1
    assert len(store.values()) == 1


def test_creates_at_once(store: Store) -> None:
    """Without a look before it: one makes the key, the others are told that it exists."""
    keepers = [store.keeper() for _ in range(3)]
    answers = at_once(*(partial(lifecycle.create, k, new_material(store.key())) for k in keepers))
    assert len([answer for answer in answers if isinstance(answer, str)]) == 1, answers
    assert len([answer for answer in answers if isinstance(answer, ExistsError)]) == 2, answers
    assert len(store.values()) == 1


def test_rotations_at_once(store: Store) -> None:
    """All expect the same version: one rotates, the others are told and have changed nothing."""
    keepers = [store.keeper() for _ in range(3)]
    lifecycle.create(keepers[0], new_material(store.key()))
    for _ in range(3):
        before = store.offer().versions
        rotation = Rotation(before[-1].id)
        answers = at_once(
            *(partial(lifecycle.rotate, k, new_material(store.key()), rotation) for k in keepers)
        )
        made = [answer for answer in answers if isinstance(answer, str)]
        assert len(made) == 1, answers
        assert len([answer for answer in answers if isinstance(answer, ChangedError)]) == 2, answers
        after = store.offer().versions
        assert after[-1].id == made[0]
        assert len(after) == (len(before) + 1 if store.staged else 1)


@pytest.mark.parametrize("kind", [KeyringFile, VaultTransit])
def test_an_id_never_comes_again(kind: type[Store], opened: Callable[[type[Store]], Store]) -> None:
    """Nor after the file was reverted, or removed: an agent may hold the version that had it."""
    store = opened(kind)
    path = Path(store.section().get("keyring") or store.section()["path"])
    seen = []
    for _ in range(2):
        store.run("bootstrap", "--create")
        before = path.read_bytes()
        for _ in range(2):
            path.write_bytes(before)
            lifecycle.rotate(
                store.keeper(), new_material(store.key()), Rotation(store.offer().versions[-1].id)
            )
            seen.append([version.id for version in store.offer().versions])
        path.unlink()
    assert all(re.fullmatch("1-[0-9a-f]{8}", first) for first, _ in seen)
    assert all(re.fullmatch("2-[0-9a-f]{8}", second) for _, second in seen)
    assert len({first for first, _ in seen}) == 2
    assert len({second for _, second in seen}) == 4


@pytest.mark.parametrize(
    ("ids", "number"),
    [
        (["1", "2", "3"], 4),
        (["3-9f2c41d7", "12-00000000", "4"], 13),
        (["2026-04", "spring"], 2027),
        (["spring"], 1),
        ([], 1),
    ],
)
def test_the_number_goes_on(ids: list[str], number: int) -> None:
    """Also after ids that were given by hand, or before chance was part of them."""
    assert next_id(ids).partition("-")[0] == str(number)


@pytest.mark.parametrize("kind", [KeyringFile, VaultKv])
def test_rotate_commands_at_once(kind: type[Store], opened: Callable[[type[Store]], Store]) -> None:
    """As many versions are made as commands say so; the others say that nothing was written."""
    store = opened(kind)
    store.run("bootstrap", "--create")
    ended = results([store.start("rotate", "--json") for _ in range(3)])
    made = [json.loads(out)["version"] for code, out, _ in ended if code == 0]
    assert made
    assert len(store.values()) == 1 + len(made)
    for code, _, err in ended:
        assert code in (0, 1)
        assert code == 0 or "nothing was written" in err


def test_at_once(store: Store) -> None:
    """The store itself says that a version activates when it was created; the next one is staged again."""
    keeper = store.keeper()
    lifecycle.create(keeper, new_material(store.key()))
    expected = store.offer().versions[-1].id
    second = lifecycle.rotate(keeper, new_material(store.key()), Rotation(expected, at_once=True))
    version = store.offer().versions[-1]
    assert version.id == second
    if store.staged:
        assert version.created_at is not None
        assert version.activates_at == pytest.approx(version.created_at, abs=0.002)
    third = lifecycle.rotate(keeper, new_material(store.key()), Rotation(second))
    versions = store.offer().versions
    assert (versions[-1].id, versions[-1].activates_at) == (third, None)
    # moto takes every label off a version that is no longer current.
    if store.staged and not isinstance(store, SecretsManager):
        assert versions[-2].activates_at == version.activates_at
