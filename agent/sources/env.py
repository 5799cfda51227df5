# SPDX-License-Identifier: Apache-2.0
"""The settings of provider ``env``."""

from dataclasses import dataclass
from dataclasses import field as setting

from agent.kinds import VARIABLE
from agent.sources.base import BaseSource, about


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSource(BaseSource):
    """An environment variable of the agent: for development, and to move to a real store step by step."""

    variable: str = setting(
        default="MASTER_ENCRYPTION_KEY",
        metadata=about(
            VARIABLE,
            "The variable that holds the key. It is read at start and cannot change in a running process.",
            why="The name that existing apps use.",
            identity=True,
        ),
    )
