# SPDX-License-Identifier: Apache-2.0
"""Loads agent.yaml from a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from agent import loading
from agent.errors import ConfigError
from agent.loading import Loaded


class Load(Protocol):
    def __call__(self, text: str, environ: Mapping[str, str] | None = None) -> Loaded: ...


class Problems(Protocol):
    def __call__(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]: ...


@pytest.fixture(autouse=True)
def _no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has in /etc is not part of a test."""
    monkeypatch.setattr(loading, "DEFAULT_CONFIG", tmp_path / "etc/agent.yaml")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that loads a text."""
    path = tmp_path / "agent.yaml"

    def load_text(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
        path.write_text(text)
        return loading.load(path, environ or {})

    return load_text


@pytest.fixture
def problems(load: Load) -> Problems:
    """Return a function that tells what is wrong with a text."""

    def problems_of(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ)
        return list(caught.value.problems)

    return problems_of
