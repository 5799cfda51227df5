# SPDX-License-Identifier: Apache-2.0
"""The sums of ``plan``, for a configuration whose numbers fit into one's head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import main
from agent.prices import TRAFFIC
from agent.sources import SOURCES
from keyferry.times import parse_time

KEYS: dict[str, dict[str, Any]] = {
    "secret": {"provider": "aws-secrets-manager", "secret": "app/key", "region": "eu-west-1"},
    "wrapped": {"provider": "aws-kms", "key_id": "1234", "keyring": "/keyring.json"},
    "local": {"provider": "file", "path": "/key", "mounted": False},
}

Plan = Callable[..., tuple[str, Any]]


@pytest.fixture
def plan(home: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Return what plans for keys of that name: the text and the document."""

    def run(*names: str, pods: int = 1, **sections: Any) -> tuple[str, Any]:
        config = home / "agent.yaml"
        config.write_text(
            json.dumps({"volume": {"path": str(home)}, "keys": {n: KEYS[n] for n in names}, **sections})
        )
        assert main(["plan", "-c", str(config), "--pods", str(pods)]) == 0
        text = capsys.readouterr().out
        assert main(["plan", "-c", str(config), "--pods", str(pods), "--json"]) == 0
        return text, json.loads(capsys.readouterr().out)

    return run


def test_calls_and_costs(plan: Plan) -> None:
    """1000 pods, 12 calls an hour each, 730 hours a month, 5 cents for 10000 calls."""
    text, document = plan("secret", pods=1000)
    (one,) = document["keys"]
    assert (document["pods"], one["calls_an_hour"], one["calls_a_month"]) == (1000, 12_000, 8_760_000)
    assert (one["dollars_a_month_for_calls"], one["dollars_a_month_to_keep"]) == (43.80, 0.40)
    assert one["share_of_quota"] == pytest.approx(0.025)
    charged = {"per_10000_calls", "per_month", "kept", "calls_per_second", "quota"}
    assert one["tariff"].keys() == charged | {"as_of", "source"}
    assert text.startswith(
        "key secret (aws-secrets-manager), 1000 pods\n"
        "  calls:    12000 an hour, 8760000 a month\n"
        "            every 5m: DescribeSecret\n"
        "            at a new version besides: ListSecretVersionIds, GetSecretValue\n"
    )
    assert (
        "\n  cost:     $43.80 a month for calls, and $0.40 for a secret\n            list prices of 20"
        in text
    )
    assert "\n  quota:    2.50% of 40000 calls a second, if all pods ask at once (" in text


def test_times(plan: Plan) -> None:
    """The bound is the sum of its terms; a rotation is active a delay later, or a bound after that."""
    _, document = plan("wrapped")
    (one,) = document["keys"]
    terms = dict(one["bound_terms"])
    assert terms["a mounted ConfigMap's or Secret's delay"] == 180
    assert one["bound_seconds"] == sum(terms.values()) == 951
    after, before = (parse_time(one[f"rotated_now_activates_{end}"]) for end in ("after", "before"))
    assert before - after == pytest.approx(951, abs=0.002)


def test_no_delay(plan: Plan) -> None:
    text, _ = plan("local", rotation={"activation_delay": "0s"})
    assert text.startswith("key local (file), 1 pod\n  calls:    none: it is read where the agent runs\n")
    assert text.endswith(
        "  delay:    0 s: a new version is used where it is seen, before others can decrypt with it\n"
    )


BARE = {"provider": "aws-kms", "key_id": "1234", "keyring": "AQIC"}
KV1 = {"provider": "vault", "address": "https://v.example", "path": "a/b", "kv_version": 1}


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"provider": "env"}, "an environment variable has no history: rotating replaces the key at once"),
        (
            KEYS["local"],
            "a raw file has no history; format: keyring can show the next version before it is used",
        ),
        (KV1, "KV version 1 keeps no earlier version; enable versioning (KV version 2)"),
        (
            BARE,
            "a bare ciphertext has no history; a wrapped keyring shows the next version before it is used",
        ),
        (KEYS["local"] | {"format": "keyring"}, None),
        (KEYS["wrapped"], None),
        (KEYS["secret"], None),
    ],
    ids=["env", "raw", "KV v1", "bare", "keyring", "wrapped", "secret"],
)
def test_what_is_not_staged(
    section: dict[str, Any], sentence: str | None, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pods that start see the new version alone, nobody is promised that all can decrypt."""
    monkeypatch.setenv("VAULT_TOKEN", "none")
    monkeypatch.setitem(KEYS, "key", section)
    text, document = plan("key")
    (one,) = document["keys"]
    assert one["unstaged"] == sentence
    assert (f"\n  staged:   no: {sentence}\n" in text) == (sentence is not None)
    assert ("every pod can decrypt before any encrypts" in text) == (sentence is None)
    after, before = (parse_time(one[f"rotated_now_activates_{end}"]) for end in ("after", "before"))
    waits = one["activation_delay_seconds"] if sentence else 0
    assert before - after == pytest.approx(one["bound_seconds"] + waits, abs=0.002)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (
            {name: value for name, value in KV1.items() if name != "kv_version"},
            "KV version 2, for staging and policies; set kv_version where it is 1",
        ),
        (KV1, None),
        (KV1 | {"kv_version": 2}, None),
        (KEYS["secret"], None),
    ],
    ids=["not told", "version 1", "version 2", "secret"],
)
def test_what_is_assumed(
    section: dict[str, Any], sentence: str | None, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked, so the plan says what it took for granted."""
    monkeypatch.setenv("VAULT_TOKEN", "none")
    monkeypatch.setitem(KEYS, "key", section)
    text, document = plan("key")
    assert document["keys"][0]["assumed"] == sentence
    assert (f"\n  assumed:  {sentence}\n" in text) == (sentence is not None)


def test_all_keys_in_turn(plan: Plan) -> None:
    text, document = plan("secret", "wrapped", "local")
    assert [one["key"] for one in document["keys"]] == ["secret", "wrapped", "local"]
    assert [line for line in text.splitlines() if line.startswith("key ")] == [
        "key secret (aws-secrets-manager), 1 pod",
        "key wrapped (aws-kms), 1 pod",
        "key local (file), 1 pod",
    ]


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_no_number_of_pods(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["plan", "--pods", number])
    assert raised.value.code == 2
    assert f"argument --pods: {number!r} is not a number of at least 1" in capsys.readouterr().err


def test_every_provider_has_its_traffic() -> None:
    assert TRAFFIC.keys() == SOURCES.keys()
