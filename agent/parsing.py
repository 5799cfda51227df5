# SPDX-License-Identifier: Apache-2.0
"""The kinds of values that a setting can have: how each is read, written, and described to a person.

Rules:

- Pure, and the same for agent.yaml and the environment: text in, value out. ``write`` is ``read``'s inverse.
- ``WrongValueError`` says what is wrong and never what the text is: that is for whoever knows whether it may
  be shown.
- Durations and shares are floats in memory (seconds, 0 to 1) and text with a unit outside. YAML's own numbers
  are refused for them: it reads ``1:30`` as 90 and ``0440`` as 288.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

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
_MAX_LENGTH: Final = 65_536
_MAX_JITTER: Final = 0.5


class WrongValueError(ValueError):
    """A text is not of its kind. The message completes a sentence, such as ``is not a duration``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of value.

    ``allowed`` and ``hint`` complete a problem's message. ``read`` takes text and raises ``WrongValueError``.
    ``bare`` is the type of YAML's own that needs no quotes. ``none`` is the word that stands for ``None``; a
    setting that is ``None`` by default and has no such word may be YAML's null. A value of a ``secret`` kind
    is never shown, not even a wrong one.
    """

    allowed: str
    hint: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    bare: type[int] | type[bool] | None = None
    none: str | None = None
    secret: bool = False


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


def _read_share(text: str) -> float:
    match = re.fullmatch(_SHARE, text)
    if match is None:
        message = "is not a percentage"
        raise WrongValueError(message)
    share = float(match[1]) / 100
    if share > _MAX_JITTER:
        message = "is too much"
        raise WrongValueError(message)
    return share


def _read_mode(text: str) -> int:
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


def _read_listen(text: str) -> tuple[str, int | None]:
    if text == "off":
        return "", None
    match = re.fullmatch(_LISTEN, text)
    if match is None or int(match[2]) > _MAX_PORT:
        message = "is not an address to listen on"
        raise WrongValueError(message)
    return match[1].strip("[]"), int(match[2])


def _read_address(text: str) -> str:
    match = re.fullmatch(_ADDRESS, text, re.IGNORECASE)
    port = int(match[3]) if match is not None and match[3] else None
    if match is None or (port is not None and not 0 < port <= _MAX_PORT):
        message = "is not a server's address"
        raise WrongValueError(message)
    scheme, host = match[1].lower(), match[2].lower()
    return f"{scheme}://{host}" if port in {None, _DEFAULT_PORTS[scheme]} else f"{scheme}://{host}:{port}"


def _read_text(text: str) -> str:
    if not text:
        message = "is empty"
        raise WrongValueError(message)
    # A stray newline in a token would end a header; a stray blank makes another role of it.
    if text != text.strip() or not text.isprintable():
        message = "has blanks around it or control characters in it"
        raise WrongValueError(message)
    return text


def _read_path(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        message = "is not an absolute path"
        raise WrongValueError(message)
    return Path(text)


def _read_store_path(text: str) -> str:
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


def _read_flag(text: str) -> bool:
    if text not in {"true", "false"}:
        message = "is not a choice"
        raise WrongValueError(message)
    return text == "true"


def _read_group(text: str) -> str | int:
    if re.fullmatch(_WHOLE, text):
        return int(text)
    if re.fullmatch(_GROUP_NAME, text) is None:
        message = "is not a group"
        raise WrongValueError(message)
    return text


def _read_variable(text: str) -> str:
    if re.fullmatch(_VARIABLE, text) is None:
        message = "is not the name of an environment variable"
        raise WrongValueError(message)
    return text


def duration(*, zero: bool = False, never: bool = False) -> Kind:
    """Return the kind of a duration: above zero, or also ``zero``, or also the word ``never``."""

    def read(text: str) -> float:
        seconds = parse_duration(text)
        if not seconds and not zero:
            message = "is no time at all"
            raise WrongValueError(message)
        return seconds

    least = "a duration" if zero else 'a duration above "0s"'
    return Kind(
        allowed=f'{least}, or "never"' if never else least,
        hint='write it in quotes with its unit (d, h, m, s, ms), such as "1h30m"; YAML reads 1:30 as 90',
        read=read,
        write=format_duration,
        none="never" if never else None,
    )


def choice(options: Iterable[str], *, bare: type[int] | None = None) -> Kind:
    """Return the kind of a word out of ``options``; with ``bare``, of a whole number out of them."""
    words = tuple(options)

    def read(text: str) -> str | int:
        if text not in words:
            message = "is not a choice"
            raise WrongValueError(message)
        return text if bare is None else bare(text)

    return Kind(allowed=", ".join(words), hint="choose one", read=read, bare=bare)


def whole(none: str | None = None) -> Kind:
    """Return the kind of a whole number above zero, or also the word ``none``."""

    def read(text: str) -> int:
        if re.fullmatch(_WHOLE, text) is None or not 0 < int(text) <= _MAX_LENGTH:
            message = "is not a whole number in the range"
            raise WrongValueError(message)
        return int(text)

    allowed = f"a whole number from 1 to {_MAX_LENGTH}"
    return Kind(
        allowed=allowed if none is None else f'{allowed}, or "{none}"',
        hint="write it with digits only, such as 32",
        read=read,
        bare=int,
        none=none,
    )


SHARE: Final = Kind(
    allowed=f'"0%" to "{_MAX_JITTER:.0%}"',
    hint='write it in quotes with a percent sign, such as "10%"',
    read=_read_share,
    write=lambda share: f"{share * 100:.4g}%",
)
MODE: Final = Kind(
    allowed="octal digits by which the agent reads and nobody else writes or executes",
    hint='write it in quotes, such as "0440": owner and group read; YAML reads 0440 as 288',
    read=_read_mode,
    write="{:04o}".format,
)
FLAG: Final = Kind(
    allowed="true or false",
    hint="choose one",
    read=_read_flag,
    write=lambda flag: str(flag).lower(),
    bare=bool,
)
TEXT: Final = Kind(
    allowed="text", hint="write it in quotes; YAML reads on, yes, no and 12 as other things", read=_read_text
)
SECRET: Final = Kind(
    allowed="text without blanks around it",
    hint='take it from "${VARIABLE}" or "${file:/path}"',
    read=_read_text,
    secret=True,
)
PATH: Final = Kind(
    allowed="an absolute path", hint="start it with /, whatever the working directory is", read=_read_path
)
STORE_PATH: Final = Kind(
    allowed="parts between single slashes, without . .. ? # or blanks",
    hint="write it as the store's own tool takes it, mount included, such as secret/app/master-key",
    read=_read_store_path,
)
# A URL may carry a password before its host, and a variable's name may be mistaken for its value: not shown.
ADDRESS: Final = Kind(
    allowed="http or https, a host and perhaps a port",
    hint="write it like https://vault.example:8200, without user, path or query",
    read=_read_address,
    secret=True,
)
VARIABLE: Final = Kind(
    allowed="letters, digits and _, not a digit first",
    hint="name the variable that holds the key, not the key itself",
    read=_read_variable,
    secret=True,
)
GROUP: Final = Kind(
    allowed="a group's number or name, or null for the volume's own group",
    hint="write the fsGroup's number, such as 2000",
    read=_read_group,
    bare=int,
)
_LISTEN_KIND: Final = partial(
    Kind,
    allowed='host:port with a port from 0 (takes a free one) to 65535, or "off"',
    hint='write it in quotes, such as ":8181", "127.0.0.1:8181", "[::1]:8181" or "off"',
)
LISTEN_HOST: Final = _LISTEN_KIND(read=lambda text: _read_listen(text)[0])
LISTEN_PORT: Final = _LISTEN_KIND(read=lambda text: _read_listen(text)[1], write=":{}".format)
