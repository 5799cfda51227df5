# SPDX-License-Identifier: Apache-2.0
"""What is told of a setting, and what every source of a key can tell.

Rules:

- ``identity`` marks the settings that say which secret it is. Credentials are never among them: they change,
  and the key stays the same key.
- What one field cannot know alone, ``problems`` tells: pure, all at once, and never a value.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

from agent.kinds import Kind
from agent.problems import Problem


class About(NamedTuple):
    """What is told of a setting: its kind, its meaning, and why its default is what it is.

    ``name`` is the one in agent.yaml where it differs from the field's; two fields may read one setting.
    """

    kind: Kind
    meaning: str
    why: str = ""
    name: str | None = None
    identity: bool = False


def about(
    kind: Kind, meaning: str, *, why: str = "", name: str | None = None, identity: bool = False
) -> dict[str, About]:
    """Return a field's metadata."""
    return {"about": About(kind=kind, meaning=meaning, why=why, name=name, identity=identity)}


def about_of(field: Field[Any]) -> About | None:
    """Return what is told of the field, ``None`` where it is no setting by itself."""
    return field.metadata.get("about")


def name_of(field: Field[Any]) -> str:
    """Return the name that the field has in agent.yaml."""
    about = about_of(field)
    return (about.name if about else None) or field.name


def section_of(field: Field[Any]) -> type[Any] | None:
    """Return the dataclass of a field that holds settings of its own."""
    return field.type if isinstance(field.type, type) and is_dataclass(field.type) else None


class Checked:
    """Settings that know what must hold between them."""

    __slots__ = ()

    def completed(self, _environ: Mapping[str, str], /) -> Self:
        """Return them with the defaults that depend on other settings or the environment."""
        return self

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between them."""
        yield from ()

    def warnings(self) -> Iterator[Problem]:
        """Yield what is allowed but seldom meant."""
        yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSource(Checked):
    """What every source can tell."""

    @property
    def source_files(self) -> tuple[Path, ...]:
        """The files whose change means a new value."""
        return ()

    @property
    def mounted(self) -> bool:
        """Whether these files come from a ConfigMap's or Secret's volume."""
        return False

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files whose change means another login."""
        return ()

    def digest(self, provider: str) -> str:
        """Return ``sha256:`` and 16 hex digits that name the secret this source points at, no credential."""
        # What is not set is left out, so that a setting that a later version adds moves no digest.
        identity = {
            field.name: str(value)
            for field in fields(self)
            if (about := about_of(field))
            and about.identity
            and (value := getattr(self, field.name)) is not None
        }
        canonical = json.dumps({"provider": provider, **identity}, sort_keys=True)
        return "sha256:" + sha256(b"keyferry-source-v1\0" + canonical.encode()).hexdigest()[:16]
