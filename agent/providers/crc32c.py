# SPDX-License-Identifier: Apache-2.0
"""CRC32C, the Castagnoli checksum of RFC 3720 (appendix B.4), which Google's services ask for.

In Python: what is summed are ciphertexts of a few hundred bytes, and no compiled package has to be there.
"""

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # reflected


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """Return the checksum of ``data``."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
