# SPDX-License-Identifier: Apache-2.0
"""Finds the configuration and turns it into checked settings, or into everything that is wrong with it.

Rules:

- agent.yaml, or the environment alone; never a mixture, so that one place tells everything.
- All problems come at once, as one ``ConfigError``; none shows a secret, nor anything that was filled in.
- Files that settings name are not opened here: the provider reads them at each login or refresh.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final, NamedTuple

from agent import checks
from agent.binding import Binder
from agent.configfile import NotYamlError, parse
from agent.environment import PROVIDER_VARIABLE, names_of, tree_of
from agent.errors import ConfigError
from agent.expansion import Expander, read_file
from agent.settings import Settings
from agent.sources import SOURCES
from agent.sources.base import name_of

DEFAULT_CONFIG: Final = Path("/etc/keyferry/agent.yaml")
CONFIG_VARIABLE: Final = "KEYFERRY_CONFIG"


class Loaded(NamedTuple):
    """The settings and what they were read from.

    ``files`` are agent.yaml and all that it fills in: a change of one is a change of the configuration.
    ``warnings`` are sentences for the operator.
    """

    settings: Settings
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def watched(self) -> set[Path]:
        """All files whose change means something: of the configuration, of sources and of logins."""
        keys = self.settings.keys.values()
        return {*self.files, *(file for key in keys for file in (*key.source_files, *key.credential_files))}


def load(config_path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Return the settings of ``config_path`` or what else there is; raise ``ConfigError`` with all problems.

    Without a path: the file that KEYFERRY_CONFIG names, else the default file, else the environment alone.
    """
    path = _find(config_path, environ)
    return _from_environment(environ) if path is None else _from_file(path, environ)


def restart_reasons(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return why ``new`` cannot replace ``old`` in a running agent: a sentence each, none if it can."""
    return tuple(_restart_reasons(old, new))


def _find(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config_path is not None:
        return config_path
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    try:
        DEFAULT_CONFIG.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        # Not passed over in silence: reading it tells what is wrong.
        return DEFAULT_CONFIG
    return DEFAULT_CONFIG


def _from_environment(environ: Mapping[str, str]) -> Loaded:
    if not environ.get(PROVIDER_VARIABLE):
        message = (
            f"{PROVIDER_VARIABLE}: is not set, and there is no {DEFAULT_CONFIG}; allowed: "
            f"{', '.join(SOURCES)}; set it, or write agent.yaml and name it by --config or {CONFIG_VARIABLE}"
        )
        raise ConfigError(message)
    binder = Binder(environ, names=names_of(environ))
    settings = _settings(binder, tree_of(environ))
    return Loaded(settings, tuple(binder.warnings))


def _from_file(path: Path, environ: Mapping[str, str]) -> Loaded:
    expander = Expander(environ)
    binder = Binder(environ, expand=expander.expand)
    try:
        text = read_file(path)
        tree, duplicates = parse(text)
    except OSError as error:
        message = (
            f"{path}: cannot be read: {error.strerror}; allowed: a YAML file; let the agent read it, or name "
            f"another one by --config or {CONFIG_VARIABLE}"
        )
        raise ConfigError(message) from None
    except NotYamlError as error:
        place = path if error.line is None else f"{path} line {error.line}"
        message = (
            f"{place}: is not valid YAML; allowed: one YAML document; check the indentation, and put texts "
            "with special characters in quotes"
        )
        raise ConfigError(message) from None
    for problem in duplicates:
        binder.complain(problem)
    settings = _settings(binder, tree, expander.files)
    return Loaded(settings, tuple(binder.warnings), (path, *dict.fromkeys(expander.files)))


def _settings(binder: Binder, tree: object, files: Sequence[Path] = ()) -> Settings:
    sections = binder.bind(tree)
    for problem in checks.problems(**sections):
        binder.complain(problem)
    if binder.problems:
        raise ConfigError(*binder.problems, files=map(str, files))
    for warning in checks.warnings(**sections):
        binder.warn(warning)
    return Settings(**sections)


def _restart_reasons(old: Settings, new: Settings) -> Iterator[str]:
    for section in ("volume", "http"):
        before, after = getattr(old, section), getattr(new, section)
        changed = dict.fromkeys(
            name_of(setting)
            for setting in fields(before)
            if getattr(before, setting.name) != getattr(after, setting.name)
        )
        for name in changed:
            yield f"{section}.{name} changed, and a running agent cannot follow; restart the pod, or undo it"
    for name, key in old.keys.items():
        if name in new.keys and new.keys[name].source_digest != key.source_digest:
            yield (
                f"keys.{name} names another source now, and that is another key, which never replaces a "
                "published one; use a new key name or a new pod, or undo it"
            )
