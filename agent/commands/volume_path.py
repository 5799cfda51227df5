# SPDX-License-Identifier: Apache-2.0
"""Which volume a command looks at."""

import os
from pathlib import Path

from agent.loading import load


def volume_path(config: Path | None, directory: Path | None) -> Path:
    """Return ``directory`` if it was given, else the volume of the configuration; raises ``ConfigError``."""
    return directory if directory is not None else load(config, os.environ).settings.volume.path
