# SPDX-License-Identifier: Apache-2.0
"""The kinds of values that a setting can have: how each is read, written, and described to a person.

Rules:

- ``write`` is ``read``'s inverse.
- YAML's own numbers are refused where a unit or a base is meant: it reads ``1:30`` as 90 and ``0440`` as 288.
- What a kind says of itself is part of every message and of docs/configuration.md, once.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from agent import parsing


class Kind(NamedTuple):
    """One kind of value.

    ``allowed`` and ``hint`` complete a problem's message. ``read`` takes text and raises ``WrongValueError``.
    ``bare`` is the type of YAML's own that needs no quotes. ``none`` is the word that stands for ``None``; a
    setting that is ``None`` by default and has no such word may be YAML's null. A value of a ``secret`` kind
    is never shown, not even a wrong one. ``words`` are all that there are to choose from, if it is a choice.
    """

    allowed: str
    hint: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    bare: type[int] | type[bool] | None = None
    none: str | None = None
    secret: bool = False
    words: tuple[str, ...] = ()


def duration(*, zero: bool = False, never: bool = False) -> Kind:
    """Return the kind of a duration: above zero, or also ``zero``, or also the word ``never``."""

    def read(text: str) -> float:
        seconds = parsing.parse_duration(text)
        if not seconds and not zero:
            message = "is no time at all"
            raise parsing.WrongValueError(message)
        return seconds

    least = "a duration" if zero else 'a duration above "0s"'
    return Kind(
        allowed=f'{least}, or "never"' if never else least,
        hint='write it in quotes with its unit (d, h, m, s, ms), such as "1h30m"; YAML reads 1:30 as 90',
        read=read,
        write=parsing.format_duration,
        none="never" if never else None,
    )


def choice(options: Iterable[str], *, bare: type[int] | None = None) -> Kind:
    """Return the kind of a word out of ``options``; with ``bare``, of a whole number out of them."""
    words = tuple(options)

    def read(text: str) -> str | int:
        if text not in words:
            message = "is not a choice"
            raise parsing.WrongValueError(message)
        return text if bare is None else bare(text)

    return Kind(allowed=", ".join(words), hint="choose one", read=read, bare=bare, words=words)


def whole(none: str | None = None) -> Kind:
    """Return the kind of a whole number above zero, or also the word ``none``."""
    allowed = f"a whole number from 1 to {parsing.MAX_COUNT}"
    return Kind(
        allowed=allowed if none is None else f'{allowed}, or "{none}"',
        hint="write it with digits only, such as 32",
        read=parsing.read_count,
        bare=int,
        none=none,
    )


SHARE: Final = Kind(
    allowed=f'"0%" to "{parsing.MAX_JITTER:.0%}"',
    hint='write it in quotes with a percent sign, such as "10%"',
    read=parsing.read_share,
    write=lambda share: f"{share * 100:.4g}%",
)
MODE: Final = Kind(
    allowed="octal digits by which the agent reads and nobody else writes or executes",
    hint='write it in quotes, such as "0440": owner and group read; YAML reads 0440 as 288',
    read=parsing.read_mode,
    write="{:04o}".format,
)
FLAG: Final = Kind(
    allowed="true or false",
    hint="choose one",
    read=parsing.read_flag,
    write=lambda flag: str(flag).lower(),
    bare=bool,
)
TEXT: Final = Kind(
    allowed="text",
    hint="write it in quotes; YAML reads on, yes, no and 12 as other things",
    read=parsing.read_text,
)
SECRET: Final = Kind(
    allowed="text without blanks around it",
    hint='take it from "${VARIABLE}" or "${file:/path}"',
    read=parsing.read_text,
    secret=True,
)
PATH: Final = Kind(
    allowed="an absolute path",
    hint="start it with /, whatever the working directory is",
    read=parsing.read_path,
)
# Not shown: who pastes the key itself instead of its file's path must not find it in the log as well.
KEY_FILE: Final = PATH._replace(
    hint="start it with /, and name the file that holds the key, not the key itself", secret=True
)
STORE_PATH: Final = Kind(
    allowed="parts between single slashes, without . .. ? # or blanks",
    hint="write it as the store's own tool takes it, mount included, such as secret/app/master-key",
    read=parsing.read_store_path,
)
# Not shown, as above: the key itself may stand here instead of its ciphertext.
KEYRING: Final = Kind(
    allowed="an absolute path, or the text of a wrapped keyring or ciphertext",
    hint="name the file, or fill the text in from ${VARIABLE}",
    read=parsing.read_keyring,
    secret=True,
)
# A URL may carry a password before its host, and a variable's name may be mistaken for its value: not shown.
ADDRESS: Final = Kind(
    allowed="http or https, a host and perhaps a port",
    hint="write it like https://vault.example:8200, without user, path or query",
    read=parsing.read_address,
    secret=True,
)
VARIABLE: Final = Kind(
    allowed="letters, digits and _, not a digit first",
    hint="name the variable that holds the key, not the key itself",
    read=parsing.read_variable,
    secret=True,
)
GROUP: Final = Kind(
    allowed="a group's number or name, or null for the volume's own group",
    hint="write the fsGroup's number, such as 2000",
    read=parsing.read_group,
    bare=int,
)
_LISTEN_KIND: Final = partial(
    Kind,
    allowed='host:port with a port from 0 (takes a free one) to 65535, or "off"',
    hint='write it in quotes, such as ":8181", "127.0.0.1:8181", "[::1]:8181" or "off"',
)
LISTEN_HOST: Final = _LISTEN_KIND(read=lambda text: parsing.read_listen(text)[0])
LISTEN_PORT: Final = _LISTEN_KIND(read=lambda text: parsing.read_listen(text)[1], write=":{}".format)
