# SPDX-License-Identifier: Apache-2.0
"""Reads typed fields out of a parsed JSON object, with the place in each error and never a value.

Unknown fields are ignored; what is asked for must be there and of its type.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from keyferry.times import parse_time

T = TypeVar("T")
C = TypeVar("C", bound=str)


class DocumentError(ValueError):
    """A JSON document lacks a field or has one of the wrong type. The message never holds a value."""


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
        return self._typed(name, str, "a string")

    def integer(self, name: str) -> int:
        """Return a whole number."""
        return self._typed(name, int, "a whole number")

    def number(self, name: str) -> float:
        """Return a number."""
        value = self._typed(name, (int, float), "a number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.document.get(name)
        if not isinstance(value, bool):
            self.fail(name, "is not true or false")
        return value

    def time(self, name: str) -> float:
        """Return an RFC 3339 time as Unix seconds."""
        try:
            return parse_time(self.text(name))
        except ValueError as error:
            if isinstance(error, DocumentError):
                raise
            self.fail(name, "is not an RFC 3339 time such as 2026-01-31T08:15:00.000Z")

    def choice(self, name: str, allowed: Sequence[C]) -> C:
        """Return a string that is one of ``allowed``."""
        value = self.text(name)
        for choice in allowed:
            if choice == value:
                return choice
        self.fail(name, f"is not one of {', '.join(allowed)}")

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """Return what ``read`` makes of the field, or ``None`` where it is absent or null."""
        return None if self.document.get(name) is None else read(name)

    def texts(self, name: str) -> Iterator[str]:
        """Return the strings of the list in this field."""
        for index, item in enumerate(self._typed(name, list, "a list")):
            if not isinstance(item, str):
                self.fail(f"{name}[{index}]", "is not a string")
            yield item

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

    def _typed(self, name: str, kind: type[Any] | tuple[type[Any], ...], noun: str) -> Any:
        value = self.document.get(name)
        # JSON's true is an int to Python, but no number to anybody else.
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(name, "is missing" if value is None else f"is not {noun}")
        return value
