# SPDX-License-Identifier: Apache-2.0
"""A key in an environment variable: for development, and for apps that are moving off one.

The environment of a process is set when it starts, so a new value needs a new pod.
"""

import os
from typing import Final

from agent.errors import MissingError
from agent.offer import Known, Offer
from agent.providers.values import raw_material, unversioned
from agent.settings import KeySettings
from agent.sources.env import EnvSource

UNSTAGED: Final = "an environment variable has no history: rotating replaces the key at once"


class EnvProvider:
    """The value of one environment variable, verbatim."""

    def __init__(self, key: KeySettings, source: EnvSource) -> None:
        """Keep which variable holds ``key``; it is read at each fetch."""
        self._key = key
        self._variable = source.variable

    def fetch(self, known: Known) -> Offer:  # noqa: ARG002 - reading is as cheap as comparing
        """Return the variable's value as the only version."""
        place = f"environment variable {self._variable}"
        # As bytes: the str view hides what is not UTF-8 behind surrogates.
        value = os.environb.get(os.fsencode(self._variable))
        if not value:
            message = f"{place} is {'not set' if value is None else 'empty'}; set it in the agent's container"
            raise MissingError(message)
        material = raw_material(value, place, binary=self._key.encoding == "binary")
        return unversioned(
            material,
            self._key,
            place,
            unstaged=UNSTAGED,
        )

    def close(self) -> None:
        """Nothing is held open."""
