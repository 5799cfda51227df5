# SPDX-License-Identifier: Apache-2.0
"""docs/providers: the configurations that the pages print are read, and Vault's commands run."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import loading
from agent.keyring_file import parse_keyring, parse_wrapped_keyring
from agent.offer import Offer
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.settings import KeySettings
from agent.sources import SOURCES
from agent.sources.vault import VaultAuth
from keyferry.material import Material, decode
from tests.servers.openbao import OpenBao, bao_binary

PAGES = Path(__file__).parents[2] / "docs/providers"


def blocks(page: str, language: str) -> list[str]:
    """Return the page's fenced blocks in ``language``."""
    text = (PAGES / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def configured(page: str, directory: Path) -> KeySettings:
    """Return the key of the page's agent.yaml."""
    (text,) = blocks(page, "yaml")
    path = directory / "agent.yaml"
    path.write_text(text)
    return loading.load(path, {}).settings.keys["master"]


def shell(bao: OpenBao, directory: Path, page: str, **changes: str) -> None:
    """Run the page's commands as an administrator of ``bao`` would, with its binary as `vault`.

    ``changes`` are made to the page's agent.yaml: what cannot be as a page writes it.
    """
    (text,) = blocks(page, "yaml")
    tree = yaml.safe_load(text)
    tree["keys"]["master"] |= changes
    tree["keys"]["master"].pop("auth", None)  # VAULT_TOKEN, as people use it
    (directory / "admin.yaml").write_text(json.dumps(tree))
    (directory / "vault").symlink_to(bao_binary())
    (directory / "ca.crt").write_bytes(bao.ca_file.read_bytes())
    environment = {
        "HOME": str(directory),
        "PATH": f"{directory}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KEYFERRY_CONFIG": str(directory / "admin.yaml"),
        "VAULT_ADDR": bao.address,
        "VAULT_CACERT": str(bao.ca_file),
        "VAULT_TOKEN": bao.root.token,
    }
    script = "set -euo pipefail\n" + "\n".join(blocks(page, "sh"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def fetched(key: KeySettings, bao: OpenBao, **changes: Any) -> Offer:
    """Return the key's versions, read with a token of the page's policy and no other."""
    policy = {"vault": "fedha", "vault-transit": "fedha-transit"}[key.provider]
    source: Any = key.source
    auth = VaultAuth(token=bao.token(policy))
    source = replace(source, address=bao.address, ca_file=bao.ca_file, auth=auth, **changes)
    provider = open_provider(replace(key, source=source), timeout=5.0)
    offer = fetch(provider, {})
    provider.close()
    assert offer.warnings == ()
    for version in offer.versions:
        assert isinstance(version.material, Material)
        decode(version.material, key.encoding, key.length)
    return offer


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_configuration(page: str, tmp_path: Path) -> None:
    """A page is named after its provider, and its agent.yaml is one, without a warning."""
    assert page in SOURCES
    assert configured(page, tmp_path).provider == page


def test_vault(bao: OpenBao, tmp_path: Path) -> None:
    """The page's commands make a key, rotate it, and give its policy just enough to read it."""
    shell(bao, tmp_path, "vault", address=bao.address, ca_file=str(bao.ca_file))
    versions = fetched(configured("vault", tmp_path), bao).versions
    assert [version.activates_at is not None for version in versions] == [False, False, True]


def test_vault_transit(bao: OpenBao, tmp_path: Path) -> None:
    """The page's commands make a key and rotate it, and move one entry to the transit key's next version."""
    keyring = tmp_path / "keyring.json"
    shell(
        bao,
        tmp_path,
        "vault-transit",
        address=bao.address,
        ca_file=str(bao.ca_file),
        keyring=str(keyring),
    )
    versions = fetched(configured("vault-transit", tmp_path), bao, keyring=keyring).versions
    assert [version.id.partition("-")[0] for version in versions] == ["1", "2"]
    ciphertexts = [entry.ciphertext for entry in parse_wrapped_keyring(keyring.read_bytes(), "master", "")]
    assert [str(ciphertext)[:9] for ciphertext in ciphertexts] == ["vault:v2:", "vault:v1:"]


def test_file(bao: OpenBao, tmp_path: Path) -> None:
    shell(bao, tmp_path, "file", path=str(tmp_path / "master"))
    assert stat.S_IMODE((tmp_path / "master").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("page", "parse"),
    [
        pytest.param("file", parse_keyring, id="file"),
        pytest.param("gcp-kms", parse_wrapped_keyring, id="gcp-kms"),
    ],
)
def test_keyrings(page: str, parse: Callable[..., object]) -> None:
    (text,) = blocks(page, "json")
    parse(text.encode(), "master", page)
