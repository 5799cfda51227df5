# SPDX-License-Identifier: Apache-2.0
"""Writes the table of values in the chart's README from the comments in values.yaml: `make docs`.

A value's comment stands right above it, or above the section that it is part of, which then is one row.
A value without a comment is an error.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import yaml

CHART: Final = Path(__file__).parent / "keyferry"
_HEADING: Final = "## Values\n"
_INTRODUCTION: Final = """\
<!-- Written by `make docs` from values.yaml; changes belong there. -->

| value | default | meaning |
| --- | --- | --- |
"""


def readme() -> str:
    """Return the README with its table as values.yaml has it now."""
    text, heading, _ = (CHART / "README.md").read_text().partition(_HEADING)
    if not heading:
        message = f"README.md has no heading {_HEADING.strip()!r} to write the table under"
        raise ValueError(message)
    source = (CHART / "values.yaml").read_text()
    root = cast("yaml.MappingNode", yaml.compose(source))
    rows = _rows(root, source.splitlines(), "")
    return text + heading + _INTRODUCTION + "".join(rows)


def _rows(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[str]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        meaning = _comment(lines, key.start_mark.line)
        # A mapping in the flow style ({}) is a value; in the block style it is a section.
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if meaning:
                default = json.dumps(yaml.safe_load(yaml.serialize(value))).replace('"', "")
                yield f"| `{name}` | `{default}` | {meaning} |\n"
            else:
                yield from _rows(value, lines, f"{name}.")
        elif meaning:
            default = json.dumps(yaml.safe_load(yaml.serialize(value)))
            yield f"| `{name}` | `{default}` | {meaning} |\n"
        else:
            message = f"values.yaml: {name} has no comment"
            raise ValueError(message)


def _comment(lines: list[str], line: int) -> str:
    found: list[str] = []
    while line and (text := lines[line - 1].strip()).startswith("#"):
        found.insert(0, text.removeprefix("#").strip())
        line -= 1
    return " ".join(found).replace("|", "\\|")


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
