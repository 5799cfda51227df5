# SPDX-License-Identifier: Apache-2.0
"""Reads the texts that settings are written as: durations, modes, addresses, paths.

Rules:

- Pure: text in, value out; the same for agent.yaml and the environment.
- ``WrongValueError`` says what is wrong and never what the text is: that is for whoever knows whether it may
  be shown.
- Durations and shares are floats in memory (seconds, 0 to 1) and text with a unit outside.
"""

import re
from pathlib import Path
from typing import Final

# Patterns are compiled when they are first used: at start-up most of them never are.
_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION: Final = "".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS)
_SHARE: Final = r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%"
_MODE: Final = r"0?[0-7]{3}"
_WHOLE: Final = r"[0-9]{1,9}"
_VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_GROUP_NAME: Final = r"[a-z_][a-z0-9_-]{0,31}"
_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]"
_LISTEN: Final = rf"({_HOST}|):([0-9]{{1,5}})"
_ADDRESS: Final = rf"(https?)://({_HOST})(?::([0-9]{{1,5}}))?/?"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_MAX_PORT: Final = 65_535
MAX_JITTER: Final = 0.5
MAX_COUNT: Final = 65_536


class WrongValueError(ValueError):
    """A text is not of its kind. The message completes a sentence, such as ``is not a duration``."""


def parse_duration(text: str) -> float:
    """Return seconds from text such as ``1h30m``, ``5m``, ``250ms`` or ``0s``: largest unit first."""
    match = re.fullmatch(_DURATION, text)
    if not text or match is None:
        message = "is not a duration"
        raise WrongValueError(message)
    counts = (int(count or 0) for count in match.groups())
    return sum(count * unit for count, unit in zip(counts, _UNITS.values(), strict=True)) / 1000


def format_duration(seconds: float) -> str:
    """Return the shortest text for ``seconds``, to the millisecond; ``parse_duration`` reads it."""
    rest = round(seconds * 1000)
    parts = []
    for unit, milliseconds in _UNITS.items():
        count, rest = divmod(rest, milliseconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def read_share(text: str) -> float:
    """Return 0 to ``MAX_JITTER`` from a percentage such as ``10%`` or ``2.5%``."""
    match = re.fullmatch(_SHARE, text)
    if match is None:
        message = "is not a percentage"
        raise WrongValueError(message)
    share = float(match[1]) / 100
    if share > MAX_JITTER:
        message = "is too much"
        raise WrongValueError(message)
    return share


def read_mode(text: str) -> int:
    """Return a file's mode from octal digits such as ``0440``."""
    if re.fullmatch(_MODE, text) is None:
        message = "is not a file mode"
        raise WrongValueError(message)
    mode = int(text, 8)
    if mode & 0o022:
        message = "lets others than the agent write"
        raise WrongValueError(message)
    if not mode & 0o400:
        message = "does not let the agent itself read"
        raise WrongValueError(message)
    if mode & 0o111:
        message = "makes the key a program"
        raise WrongValueError(message)
    return mode


def read_listen(text: str) -> tuple[str, int | None]:
    """Return host and port from ``host:port``; no host is all addresses, and ``off`` has no port."""
    if text == "off":
        return "", None
    match = re.fullmatch(_LISTEN, text)
    if match is None or int(match[2]) > _MAX_PORT:
        message = "is not an address to listen on"
        raise WrongValueError(message)
    return match[1].strip("[]"), int(match[2])


def read_address(text: str) -> str:
    """Return a server's URL in its one normal form: lower case, no default port, no slash at the end."""
    match = re.fullmatch(_ADDRESS, text, re.IGNORECASE)
    port = int(match[3]) if match is not None and match[3] else None
    if match is None or (port is not None and not 0 < port <= _MAX_PORT):
        message = "is not a server's address"
        raise WrongValueError(message)
    scheme, host = match[1].lower(), match[2].lower()
    return f"{scheme}://{host}" if port in {None, _DEFAULT_PORTS[scheme]} else f"{scheme}://{host}:{port}"


def read_text(text: str) -> str:
    """Return a text of one line."""
    if not text:
        message = "is empty"
        raise WrongValueError(message)
    # A stray newline in a token would end a header; a stray blank makes another role of it.
    if text != text.strip() or not text.isprintable():
        message = "has blanks around it or control characters in it"
        raise WrongValueError(message)
    return text


def read_path(text: str) -> Path:
    """Return an absolute path."""
    if not text.startswith("/") or "\0" in text:
        message = "is not an absolute path"
        raise WrongValueError(message)
    return Path(text)


def read_keyring(text: str) -> Path | str:
    """Return the path of a keyring's file, or its text: no ciphertext begins with a slash."""
    if text.startswith("/"):
        return read_path(text)
    if not text.strip():
        message = "is empty"
        raise WrongValueError(message)
    return text


def read_store_path(text: str) -> str:
    """Return a path inside a key store, without slashes around it."""
    path = text.strip("/")
    parts = path.split("/")
    if (
        not path.isprintable()
        or not {"", ".", ".."}.isdisjoint(parts)
        or not {" ", "?", "#"}.isdisjoint(path)
    ):
        message = "is not the path of a secret"
        raise WrongValueError(message)
    return path


def read_flag(text: str) -> bool:
    """Return whether it is ``true``, and not ``false``."""
    if text not in {"true", "false"}:
        message = "is not a choice"
        raise WrongValueError(message)
    return text == "true"


def read_group(text: str) -> str | int:
    """Return a group's number, or its name."""
    if re.fullmatch(_WHOLE, text):
        return int(text)
    if re.fullmatch(_GROUP_NAME, text) is None:
        message = "is not a group"
        raise WrongValueError(message)
    return text


def read_variable(text: str) -> str:
    """Return the name of an environment variable."""
    if re.fullmatch(_VARIABLE, text) is None:
        message = "is not the name of an environment variable"
        raise WrongValueError(message)
    return text


def read_count(text: str) -> int:
    """Return a whole number from 1 to ``MAX_COUNT``."""
    if re.fullmatch(_WHOLE, text) is None or not 0 < int(text) <= MAX_COUNT:
        message = "is not a whole number in the range"
        raise WrongValueError(message)
    return int(text)
