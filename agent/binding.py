# SPDX-License-Identifier: Apache-2.0
"""Reads a tree of mappings and scalars, as YAML gives it, into the settings' dataclasses.

Rules:

- It goes on after a problem, so that all are told at once, each as
  ``place: what is wrong; allowed: what is; what to do``.
- The dataclasses' fields lead, and the tree is looked at where they say: nothing else in it is ever visited.
- A wrong value is shown only if its kind is no secret and it stands in the file itself. Whatever stands where
  no setting is, is never shown; its name only if it can be a setting's.
- No file is read here but those that the expansion is asked for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, Final, TypeVar

from agent.expansion import Expanded, ExpansionError
from agent.kinds import Kind
from agent.parsing import WrongValueError
from agent.problems import Problem, join, shown_name, shown_value
from agent.settings import KeySettings, Settings
from agent.sources import SOURCES
from agent.sources.base import Checked, about_of, name_of, section_of
from keyferry.layout import is_key_name

_KEYS: Final = "keys"
_PROVIDER: Final = "provider"

# No setting is as large, and Python refuses to print the largest ones that YAML can write.
_TOO_LARGE: Final = 10**12

C = TypeVar("C", bound=Checked)


class Binder:
    """Reads settings and collects what is wrong with them.

    ``expand`` is applied to every text. ``names`` gives the places a name that the reader knows: the variable
    that a setting came from.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        expand: Callable[[str], str] = str,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Start without problems."""
        self._environ = environ
        self._expand = expand
        self._names = names or {}
        # A dict for its order: two fields that read one setting have one problem.
        self._problems: dict[str, None] = {}
        self.warnings: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems so far."""
        return tuple(self._problems)

    def complain(self, problem: Problem) -> None:
        """Add a problem."""
        self._problems[self._sentence(problem)] = None

    def warn(self, problem: Problem) -> None:
        """Add a warning."""
        self.warnings.append(self._sentence(problem))

    def _sentence(self, problem: Problem) -> str:
        return str(problem._replace(place=self._names.get(problem.place, problem.place)))

    def bind(self, tree: object) -> dict[str, Any]:
        """Return the sections that are right by themselves, and under ``keys`` the keys that are."""
        given = self._mapping(tree, "")
        self._refuse_unknown(given, (*_names(Settings), _KEYS), "")
        sections = self._values(Settings, given, "")
        sections[_KEYS] = self._keys(given.get(_KEYS))
        return sections

    def _keys(self, tree: object) -> dict[str, KeySettings]:
        given = self._mapping(tree, _KEYS)
        if not given:
            remedy = "name the first one, such as master"
            self.complain(Problem(_KEYS, "holds no key", "one key or more, each under its name", remedy))
        keys = {}
        for name, key_tree in given.items():
            if not is_key_name(name):
                allowed = "1 to 63 letters, digits and . _ -, a letter, digit or _ first; not keyring.json"
                self.complain(Problem(_KEYS, f"{shown_value(name)} cannot name a key", allowed, "rename it"))
            elif (key := self._key(name, key_tree)) is not None:
                keys[name] = key
        return keys

    def _key(self, name: str, tree: object) -> KeySettings | None:
        place = f"{_KEYS}.{name}"
        before = len(self._problems)
        given = self._mapping(tree, place)
        values = self._values(KeySettings, given, place)
        source_class = SOURCES.get(values.get(_PROVIDER, ""))
        if source_class is None:
            return None
        self._refuse_unknown(given, (*_names(KeySettings), *_names(source_class)), place, values[_PROVIDER])
        source_values = self._values(source_class, given, place)
        if len(self._problems) > before:
            return None
        source = self._checked(source_class(**source_values), place)
        return KeySettings(name=name, source=source, **values) if len(self._problems) == before else None

    def _section(self, cls: type[Any], tree: object, place: str) -> object | None:
        before = len(self._problems)
        given = self._mapping(tree, place)
        self._refuse_unknown(given, _names(cls), place)
        values = self._values(cls, given, place)
        if len(self._problems) > before:
            return None
        section = cls(**values)
        return self._checked(section, place) if isinstance(section, Checked) else section

    def _checked(self, settings: C, place: str) -> C:
        """Return the settings completed, after telling what is wrong between them."""
        settings = settings.completed(self._environ)
        for problem in settings.problems():
            self.complain(problem.below(place))
        for warning in settings.warnings():
            self.warn(warning.below(place))
        return settings

    def _values(self, cls: type[Any], given: Mapping[str, object], place: str) -> dict[str, Any]:
        values = {}
        for field in fields(cls):
            name = name_of(field)
            inside = join(place, name)
            if section_class := section_of(field):
                if (section := self._section(section_class, given.get(name), inside)) is not None:
                    values[field.name] = section
            elif about := about_of(field):
                if name in given:
                    try:
                        values[field.name] = self._value(about.kind, field.default, given[name], inside)
                    except _ProblemError as error:
                        self.complain(error.problem)
                elif field.default is MISSING:
                    self.complain(Problem(inside, "is missing", about.kind.allowed, about.kind.hint))
        return values

    def _value(self, kind: Kind, default: object, value: object, place: str) -> object:
        if value is None and default is None and kind.none is None:
            return None
        text = self._text(kind, value, place)
        if text == kind.none:
            return None
        try:
            return kind.read(text)
        except WrongValueError as error:
            wrong = f"{_shown(value, text, kind)} {error}"
            remedy = _guess(text, kind.words, kind.hint)
            raise _ProblemError(Problem(place, wrong, kind.allowed, remedy)) from None

    def _text(self, kind: Kind, value: object, place: str) -> str:
        if isinstance(value, str):
            try:
                return self._expand(value)
            except ExpansionError as error:
                raise _ProblemError(Problem(place, str(error), kind.allowed, error.remedy)) from None
        # Not isinstance: to Python a bool is an int.
        if type(value) is kind.bare and abs(value) < _TOO_LARGE:
            return str(value).lower()
        raise _ProblemError(Problem(place, _describe(value, kind), kind.allowed, kind.hint))

    def _mapping(self, tree: object, place: str) -> Mapping[str, object]:
        """Return the mapping at ``place``; an empty one for a heading with nothing below it."""
        if isinstance(tree, dict):
            odd = [name for name in tree if not isinstance(name, str)]
            if odd:
                wrong = f"has a name that {_describe(odd[0], None)}"
                remedy = "write it in quotes; YAML reads on, yes, no and 12 as other things"
                self.complain(Problem(place or "agent.yaml", wrong, "names", remedy))
            return {name: value for name, value in tree.items() if isinstance(name, str)}
        if tree is not None:
            wrong = _describe(tree, None)
            remedy = "write settings below it, indented, each as name: value"
            self.complain(Problem(place or "agent.yaml", wrong, "a mapping", remedy))
        return {}

    def _refuse_unknown(
        self, given: Iterable[str], known: Iterable[str], place: str, provider: str | None = None
    ) -> None:
        known = tuple(known)
        for name in given:
            if name in known:
                continue
            owners = [other for other, source in SOURCES.items() if provider and name in _names(source)]
            if owners:
                wrong = f"is a setting of provider {', '.join(owners)}, not of {provider}"
                remedy = "remove it, or choose another provider"
            else:
                wrong, remedy = "is not a setting", _guess(name, known, "remove it, or correct its name")
            self.complain(Problem(join(place, shown_name(name)), wrong, ", ".join(known), remedy))


class _ProblemError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


def _names(cls: type[Any]) -> tuple[str, ...]:
    """Return the names that settings of ``cls`` have in agent.yaml."""
    return tuple(
        dict.fromkeys(name_of(field) for field in fields(cls) if about_of(field) or section_of(field))
    )


def _guess(word: str, known: tuple[str, ...], otherwise: str) -> str:
    # Imported for a mistake only.
    from difflib import get_close_matches

    matches = get_close_matches(word.lower(), known, n=1)
    return f"did you mean {matches[0]}?" if matches else otherwise


def _shown(value: object, text: str, kind: Kind) -> str:
    if kind.secret or isinstance(text, Expanded):
        return "the value (not shown)"
    return shown_value(value)


def _describe(value: object, kind: Kind | None) -> str:
    """Say what YAML made of a value that should be something else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown = kind is not None and not kind.secret and abs(value) < _TOO_LARGE
        return f"{value} is a bare number" if shown else "is a number"
    nouns = {NoneType: "empty", dict: "a mapping", list: "a list", str: "text", bool: "true or false to YAML"}
    return f"is {nouns.get(type(value), f'a {type(value).__name__} to YAML')}"
