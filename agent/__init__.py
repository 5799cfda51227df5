# SPDX-License-Identifier: Apache-2.0
"""The keyferry agent: carries keys from their provider to the volume that an application reads."""

from typing import Final

__version__: Final = "0.1.0"
