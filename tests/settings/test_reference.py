# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md is what the settings say, and everything is said."""

from dataclasses import MISSING, fields
from typing import Any

import pytest

from agent.environment import OF_PROVIDER
from agent.settings import KeySettings, Settings
from agent.sources import SOURCES
from agent.sources.base import about_of, section_of
from docs.reference import PAGE, reference


def test_it_is_current() -> None:
    assert reference() == PAGE.read_text(), "run `make docs`"


def _classes(cls: type[Any]) -> list[type[Any]]:
    return [cls, *(section for field in fields(cls) if (section := section_of(field)))]


@pytest.mark.parametrize("cls", {c: None for root in (Settings, *SOURCES.values()) for c in _classes(root)})
def test_every_setting_is_told(cls: type[Any]) -> None:
    """Each field is a setting with a meaning, holds settings, or is the mapping of keys itself."""
    for field in fields(cls):
        about = about_of(field)
        assert about or section_of(field) or (cls, field.name) == (Settings, "keys")
        if about:
            assert about.meaning.endswith(".")
            # None and a required setting have nothing to justify; any other default says why it is one.
            assert about.why.endswith(".") or field.default in (None, MISSING) or about.name


@pytest.mark.parametrize("cls", [*SOURCES.values(), KeySettings])
def test_no_two_settings_of_a_key_have_one_name(cls: type[Any]) -> None:
    """A source's settings stand beside the key's own."""
    names = {field.name for field in fields(cls)}
    assert cls is KeySettings or not names & {"provider", "encoding", "length", "name", "source"}


def test_defaults_can_be_written_and_read() -> None:
    """The reference's default column is what agent.yaml could say."""
    for root in (Settings, KeySettings, *SOURCES.values()):
        for cls in _classes(root):
            for field in fields(cls):
                about = about_of(field)
                if about and field.default not in (None, MISSING, ""):
                    assert about.kind.read(about.kind.write(field.default)) == field.default


def test_the_environment_knows_every_provider() -> None:
    assert OF_PROVIDER.keys() == SOURCES.keys()
