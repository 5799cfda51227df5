# SPDX-License-Identifier: Apache-2.0
"""Fills ``${VARIABLE}`` and ``${file:/path}`` into the texts of agent.yaml.

Rules:

- ``$${`` stands for ``${`` itself. What was filled in is not looked at again.
- What came from outside the file may be a secret, wherever it stands: it is ``Expanded``, and never shown.
- A file loses one newline at its end, as every tool that writes a token adds one.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.problems import shown_value

_REFERENCE: Final = r"\$?\$\{(?:([^{}]*)\})?"
_FILE: Final = "file:"

# No credential and no agent.yaml is this large; a device or a log file by mistake is.
MAX_FILE_BYTES: Final = 1 << 20


class Expanded(str):
    """A text that holds something from outside agent.yaml, and must not be shown."""

    __slots__ = ()


class ExpansionError(ValueError):
    """A reference cannot be filled in. The message completes a sentence; ``remedy`` says what to do."""

    def __init__(self, wrong: str, remedy: str) -> None:
        """Keep both parts; neither holds a value."""
        super().__init__(wrong)
        self.remedy = remedy


class Expander:
    """Fills in from ``environ`` and from files; ``files`` are those that it was to read."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Remember where to look; nothing is read yet."""
        self.files: list[Path] = []
        self._environ = environ

    def expand(self, text: str) -> str:
        """Return ``text`` filled in; raise ``ExpansionError`` at the first reference that cannot be."""
        if "${" not in text:
            return text
        expanded = re.sub(_REFERENCE, self._replacement, text)
        return Expanded(expanded)

    def _replacement(self, match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        name = match[1] or ""
        if name.startswith(_FILE):
            return self._file(Path(name.removeprefix(_FILE)))
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
            # Not quoted: an unlucky password may look like a reference.
            message = "has a ${ that starts no reference"
            raise ExpansionError(message, "write $${ where ${ itself is meant")
        try:
            return self._environ[name]
        except KeyError:
            message = f"names ${{{name}}}, which is not set"
            raise ExpansionError(message, "set it in the agent's environment") from None

    def _file(self, path: Path) -> str:
        if not path.is_absolute():
            message = "names a file by a relative path"
            raise ExpansionError(message, "start the path with /")
        # Before it is read: who waits for the file that is not there yet must know of it.
        self.files.append(path)
        try:
            data = read_file(path)
            text = data.decode()
        except OSError as error:
            message = f"names the file {shown_value(str(path))}, which cannot be read: {error.strerror}"
            raise ExpansionError(message, "let the agent read it, or correct the path") from None
        except ValueError:
            message = f"names the file {shown_value(str(path))}, which is not UTF-8 text"
            raise ExpansionError(message, "correct the path") from None
        return text.removesuffix("\n").removesuffix("\r")


def read_file(path: Path) -> bytes:
    """Return what the file holds; ``OSError`` if it cannot be read or is larger than ``MAX_FILE_BYTES``."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        from errno import EFBIG

        raise OSError(EFBIG, f"larger than {MAX_FILE_BYTES} bytes")
    return data
