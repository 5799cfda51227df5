# SPDX-License-Identifier: Apache-2.0
"""The settings of provider ``file``."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as setting  # the source has a setting called `field`
from pathlib import Path
from typing import Literal, get_args

from agent.kinds import FLAG, KEY_FILE, TEXT, choice
from agent.problems import Problem
from agent.sources.base import BaseSource, about

Format = Literal["raw", "json", "keyring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource(BaseSource):
    """A file: a mounted Secret or ConfigMap, or what another tool writes."""

    path: Path = setting(
        metadata=about(KEY_FILE, "The file. Its symbolic links are followed.", identity=True)
    )
    format: Format = setting(
        default="raw",
        metadata=about(
            choice(get_args(Format)),
            "`raw`: the file is the key, but for one newline at its end. `json`: an object with the key in "
            "`field`. `keyring`: versions with their times; only its rotations can be staged.",
            why="What a mounted Secret is.",
        ),
    )
    field: str | None = setting(
        default=None,
        metadata=about(TEXT, "The field of a `json` file that holds the key.", identity=True),
    )
    mounted: bool = setting(
        default=True,
        metadata=about(
            FLAG,
            "The file comes from a Kubernetes ConfigMap or Secret volume, whose updates arrive up to 3 "
            "minutes late: the bound grows by that. `false` for a file that is written in place.",
            why="Assuming a delay that is not there costs time, missing one that is there costs decrypts.",
        ),
    )

    @property
    def source_files(self) -> tuple[Path, ...]:
        """The file itself."""
        return (self.path,)

    def problems(self) -> Iterator[Problem]:
        """Yield a field without JSON, and JSON without a field."""
        if self.format == "json" and self.field is None:
            yield Problem("field", "is missing", "the name of a field", "format json needs it")
        elif self.format != "json" and self.field is not None:
            remedy = "remove it, or set format to json"
            yield Problem("field", f"means nothing with format {self.format}", "only format json", remedy)
