# SPDX-License-Identifier: Apache-2.0
"""Parses agent.yaml into plain mappings, lists and scalars.

Rules:

- A name that stands twice in a mapping is a problem; YAML itself would let the last one win in silence.
- The YAML library's own texts are never told, only its line: they quote what they stumbled over, and a
  password that starts with ``*`` is an undefined alias to it.
- What the names mean is ``agent.binding``'s.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from agent.problems import Problem, join, shown_name

if TYPE_CHECKING:
    from yaml import Node

# agent.yaml needs 4. libyaml recurses in C, and too deep a file would take the process with it.
_MAX_DEPTH: Final = 32


class NotYamlError(ValueError):
    """The text is not YAML; ``line`` counts from 1, where it is known."""

    def __init__(self, line: int | None) -> None:
        """Keep the place and nothing of the text."""
        super().__init__()
        self.line = line


def parse(text: bytes) -> tuple[object, tuple[Problem, ...]]:
    """Return the document's tree, and its names that stand twice; raise ``NotYamlError``."""
    # Imported here: an agent that is configured by its environment needs no YAML.
    import yaml

    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(yaml.parse(text, loader_class))
        loader = loader_class(text)
        try:
            node = loader.get_single_node()
            problems = tuple(_duplicates(node, "", set()))
            return (None if node is None else loader.construct_document(node)), problems
        finally:
            loader.dispose()
    # Beside its own, what the library lets out for nonsense behind an explicit tag, such as `!!int ""`.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise NotYamlError(None if mark is None else mark.line + 1) from None


def _check_depth(events: Iterator[Any]) -> None:
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem_mark=event.start_mark)


def _duplicates(node: "Node | None", place: str, seen: set[int]) -> Iterator[Problem]:
    # An alias leads to the same node again, or even into itself.
    if node is None or isinstance(node.value, str) or id(node) in seen:
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for item in node.value:
        if not isinstance(item, tuple):
            yield from _duplicates(item, place, seen)
            continue
        name, line = item[0].value, item[0].start_mark.line + 1
        if not isinstance(name, str):
            continue
        inside = join(place, shown_name(name))
        if name in lines:
            wrong = f"stands on line {lines[name]} and again on line {line}"
            yield Problem(inside, wrong, "each name once", "remove one of them")
        lines[name] = line
        yield from _duplicates(item[1], inside, seen)
