# SPDX-License-Identifier: Apache-2.0
"""Parses JSON and reads typed fields out of it, with the place in each error and never a value.

Rules:

- Only JSON as RFC 8259 has it: no NaN, no name twice in one object, no half of a surrogate pair.
- Unknown fields are ignored; what is asked for must be there and of its type.
- Whatever the bytes are, nothing but ``DocumentError`` comes out.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar

from keyferry.errors import KeyferryError
from keyferry.times import parse_time

T = TypeVar("T")
C = TypeVar("C", bound=str)

_NOT_JSON: Final = object()
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class DocumentError(KeyferryError, ValueError):
    """A JSON document lacks a field or has one of the wrong type. The message never holds a value."""


def parse_object(data: bytes, place: str) -> "Fields":
    """Return the fields of the JSON object that ``data`` holds; ``place`` names it in errors."""
    try:
        document = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    # RecursionError: brackets can be nested deeper than the parser goes.
    except (ValueError, RecursionError):
        document = _NOT_JSON
    # Raised out here, since a JSONDecodeError carries the whole document.
    if document is _NOT_JSON:
        message = f"{place} is not JSON"
        raise DocumentError(message)
    return Fields(document, place)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        message = "a name appears twice, and readers would disagree about which counts"
        raise ValueError(message)
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


class Fields:
    """The fields of one JSON object at ``place``, e.g. ``keyring.json: keys.master``."""

    __slots__ = ("document", "place")

    def __init__(self, document: object, place: str) -> None:
        """Wrap ``document``; raise ``DocumentError`` if it is not an object."""
        if not isinstance(document, dict):
            message = f"{place} is not a JSON object"
            raise DocumentError(message)
        self.document: dict[str, Any] = document
        self.place = place

    def text(self, name: str) -> str:
        """Return a string."""
        return self._unicode(name, self._typed(name, str, "a string"))

    def integer(self, name: str) -> int:
        """Return a whole number."""
        return self._typed(name, int, "a whole number")

    def number(self, name: str) -> float:
        """Return a number."""
        kind = int if isinstance(self.document.get(name), int) else float
        value = self._typed(name, kind, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail(name, "is too large a number")
        return number

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.document.get(name)
        if not isinstance(value, bool):
            self.fail(name, "is not true or false")
        return value

    def time(self, name: str) -> float:
        """Return an RFC 3339 time as Unix seconds."""
        text = self.text(name)
        try:
            return parse_time(text)
        except ValueError:
            self.fail(name, "is not an RFC 3339 time such as 2026-01-31T08:15:00.000Z")

    def choice(self, name: str, allowed: Sequence[C]) -> C:
        """Return a string that is one of ``allowed``."""
        value = self.text(name)
        if value not in allowed:
            self.fail(name, f"is not one of {', '.join(allowed)}")
        return next(choice for choice in allowed if choice == value)

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """Return what ``read`` makes of the field, or ``None`` where it is absent or null."""
        return None if self.document.get(name) is None else read(name)

    def texts(self, name: str) -> Iterator[str]:
        """Return the strings of the list in this field."""
        for index, item in enumerate(self._typed(name, list, "a list")):
            if not isinstance(item, str):
                self.fail(f"{name}[{index}]", "is not a string")
            yield self._unicode(f"{name}[{index}]", item)

    def object(self, name: str) -> "Fields":
        """Return the object in this field."""
        return Fields(self.document.get(name), self._place(name))

    def objects(self, name: str) -> Iterator["Fields"]:
        """Return the objects of the list in this field."""
        items = self._typed(name, list, "a list")
        for index, item in enumerate(items):
            yield Fields(item, self._place(f"{name}[{index}]"))

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise ``DocumentError``: this field ``problem``."""
        message = f"{self._place(name)} {problem}"
        raise DocumentError(message)

    def _place(self, name: str) -> str:
        return f"{self.place}.{name}" if ": " in self.place else f"{self.place}: {name}"

    def _unicode(self, name: str, text: str) -> str:
        # JSON can escape half of a surrogate pair, which no encoder accepts later on.
        if _SURROGATE.search(text):
            self.fail(name, "is not Unicode text: it has half of a surrogate pair")
        return text

    def _typed(self, name: str, kind: type[T], noun: str) -> T:
        value = self.document.get(name)
        # JSON's true is an int to Python, but no number to anybody else.
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(name, "is missing" if value is None else f"is not {noun}")
        return value
