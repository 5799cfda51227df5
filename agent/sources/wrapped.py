# SPDX-License-Identifier: Apache-2.0
"""The settings that all envelope providers share: where the wrapped keyring is."""

from dataclasses import dataclass
from dataclasses import field as setting
from pathlib import Path

from agent.kinds import FLAG, KEYRING
from agent.sources.base import BaseSource, about


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedSource(BaseSource):
    """A keyring whose versions are wrapped by a key that never leaves its key store."""

    # No part of the identity: a new version in an inline keyring must not make another key of it. The key
    # that unwraps says which secret it is, and a version id with another value is refused in any case.
    keyring: Path | str = setting(
        metadata=about(
            KEYRING,
            "The wrapped keyring (docs/wrapped-keyring.md): the path of its file, or its text. A bare "
            "ciphertext in its place is a key with one version, whose rotations cannot be staged.",
        )
    )
    mounted: bool = setting(
        default=True,
        metadata=about(
            FLAG,
            "The keyring's file comes from a Kubernetes ConfigMap or Secret volume, whose updates arrive up "
            "to 3 minutes late: the bound grows by that. `false` for a file that is written in place.",
            why="Assuming a delay that is not there costs time, missing one that is there costs decrypts.",
        ),
    )

    @property
    def source_files(self) -> tuple[Path, ...]:
        """The keyring's file, where it is one."""
        return (self.keyring,) if isinstance(self.keyring, Path) else ()
