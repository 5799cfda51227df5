# SPDX-License-Identifier: Apache-2.0
"""docs/providers: the configurations that the pages print are read, and Vault's commands run."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import loading
from agent.keyring_file import parse_keyring, parse_wrapped_keyring
from agent.offer import Offer
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.settings import KeySettings, VaultAuth
from agent.sources import SOURCES
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


def shell(bao: OpenBao, directory: Path, commands: list[str]) -> None:
    """Run the commands as an administrator of ``bao`` would, with its binary as `vault`."""
    (directory / "vault").symlink_to(bao_binary())
    (directory / "ca.crt").write_bytes(bao.ca_file.read_bytes())
    environment = {
        "HOME": str(directory),
        "PATH": f"{directory}:{os.environ['PATH']}",
        "VAULT_ADDR": bao.address,
        "VAULT_CACERT": str(bao.ca_file),
        "VAULT_TOKEN": bao.root.token,
    }
    script = "set -euo pipefail\n" + "\n".join(commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


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
    shell(bao, tmp_path, blocks("vault", "sh"))
    first, second = fetched(configured("vault", tmp_path), bao).versions
    assert first.material != second.material
    assert first.activates_at is None
    assert second.activates_at is not None


def test_vault_transit(bao: OpenBao, tmp_path: Path) -> None:
    shell(bao, tmp_path, blocks("vault-transit", "sh"))
    key = configured("vault-transit", tmp_path)
    first, second = fetched(key, bao, keyring=tmp_path / "keyring.json").versions
    assert first.material != second.material


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
