# SPDX-License-Identifier: Apache-2.0
"""Writes configuration.md from the settings themselves: `make docs`.

What a setting means stands once, beside its field; this module only lays it out.
"""

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Final

from agent.environment import COMMON, DEFAULTS, OF_PROVIDER
from agent.kinds import Kind
from agent.loading import CONFIG_VARIABLE, DEFAULT_CONFIG
from agent.settings import KeySettings, Settings
from agent.sources import SOURCES
from agent.sources.base import About, about_of, name_of, section_of

PAGE: Final = Path(__file__).with_name("configuration.md")
_INTRODUCTION: Final = f"""\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Written by `make docs` from agent/settings.py and agent/sources/; changes belong there. -->

# Configuration

The agent reads the file that `--config` or `{CONFIG_VARIABLE}` names, else `{DEFAULT_CONFIG}`, else, where
there is no file, [a few environment variables](#without-a-file). [agent.yaml](../agent.yaml) shows every
setting in its place.

- Only keys and their providers must be configured; everything else has a default.
- A setting that is not known, is of the wrong type or cannot work is an error, and all errors are told at
  once, each with its place, what is allowed and what to do. `keyferry-agent check` tells them without
  publishing anything.
- **Durations** are text with units, the largest first: `"1h30m"`, `"5m"`, `"10s"`, `"250ms"`, `"7d"`.
  Durations, percentages and modes belong in quotes: YAML reads `0440` as 288 and `1:30` as 90, so bare
  numbers are refused.
- **`${{VARIABLE}}`** and **`${{file:/path}}`** are filled into any text; one newline at the file's end is
  dropped, and `$${{` stands for a plain `${{`. What was filled in is never shown in a message.
- A change of the file, or of one that it fills in, is checked and applied while the agent runs. `volume` and
  `http` need a restart, and another source for the same key a new pod; such a change is refused, and so is
  one with an error: the running configuration stays.
"""


def reference() -> str:
    """Return the whole page as the settings have it now."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for name, section in _sections(Settings):
        yield from _section(f"## {name}", section)
    yield from _section("## keys", KeySettings)
    yield "A key's name is the file that the app finds: 1 to 63 letters, digits and `.` `_` `-`, and not"
    yield "`keyring.json`. The settings of its provider stand beside these.\n"
    told: dict[type[Any], str] = {}
    for provider, source in SOURCES.items():
        yield from _section(f"### provider: {provider}", source)
        for name, section in _sections(source):
            if section in told:
                yield f"#### {name}\n\nThe same as [{told[section]}'s](#{name}).\n"
            else:
                told[section] = provider
                yield from _section(f"#### {name}", section)
    yield from _environment()


def _sections(cls: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    for field in fields(cls):
        if section := section_of(field):
            yield field.name, section


def _section(heading: str, cls: type[Any]) -> Iterator[str]:
    yield f"{heading}\n\n{cls.__doc__}\n"
    yield "| setting | default | allowed | meaning |"
    yield "| --- | --- | --- | --- |"
    told = set()
    for field in fields(cls):
        about, name = about_of(field), name_of(field)
        # The first of two fields that read one setting tells it.
        if about and name not in told:
            told.add(name)
            default, meaning = _default(field, about.kind), _meaning(field, about)
            yield f"| `{name}` | {default} | {about.kind.allowed} | {meaning} |"
    yield ""


def _default(field: Field[Any], kind: Kind) -> str:
    if field.default is MISSING:
        return "required"
    if field.default is None:
        return f"`{kind.none}`" if kind.none else "-"
    return f"`{kind.write(field.default)}`"


def _meaning(field: Field[Any], about: About) -> str:
    if not about.why:
        return about.meaning
    label = "Default" if field.default is None and about.kind.none is None else "Why"
    return f"{about.meaning} *{label}: {about.why}*"


def _environment() -> Iterator[str]:
    yield "## Without a file\n"
    yield "One key, `master`, and the variables that existing apps use. An empty one counts as not set.\n"
    yield "| variable | for | setting | default |"
    yield "| --- | --- | --- | --- |"
    yield f"| `{CONFIG_VARIABLE}` | all | names the file instead | `{DEFAULT_CONFIG}` |"
    for variable, setting in COMMON.items():
        yield _variable(variable, "all", setting)
    yield "| `MASTER_ENCRYPTION_KEY` | `env` | the key itself | - |"
    for provider, variables in OF_PROVIDER.items():
        for variable, setting in variables.items():
            yield _variable(variable, f"`{provider}`", setting)


def _variable(variable: str, provider: str, setting: str) -> str:
    default = f"`{DEFAULTS[variable]}`" if variable in DEFAULTS else "that of the setting"
    return f"| `{variable}` | {provider} | `{setting}` | {default} |"


if __name__ == "__main__":
    PAGE.write_text(reference())
