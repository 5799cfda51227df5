# SPDX-License-Identifier: Apache-2.0
"""The promises that the repository makes about its own files."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
COMPILED = sorted(REQUIREMENTS.glob("*.txt"))

TAG = "SPDX-License-Identifier: Apache-2.0"
# Formats without comments, what tools write, and the licence itself.
UNTAGGED = re.compile(r"(.*/)?(LICENSE|py\.typed)|requirements/.*\.txt|.*\.sum|.*\.(json|svg|png)")

_PINNED = re.compile(r"([a-z0-9][a-z0-9._-]*)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")
_HOST = re.compile(r"://|\b[a-z0-9-]+\.(?:org|com|net|io|dev|cloud)\b|^-|\s@\s", re.IGNORECASE)


def project(path: str) -> dict[str, Any]:
    """Return the [project] table of a pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / path).read_text())["project"]
    return table


def pins(path: Path) -> dict[str, str]:
    """Return the compiled requirements, name to version; fail at one that is not pinned and hashed."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    found = {}
    for line in lines:
        match = _PINNED.fullmatch(line)
        assert match is not None, f"{path.name}: not pinned and hashed: {line[:60]}"
        found[match[1]] = match[2]
    return found


def test_every_file_is_tagged() -> None:
    """A file that is copied out of here still says under which licence."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [ROOT / name for name in listed if not UNTAGGED.fullmatch(name) and (ROOT / name).is_file()]
    assert files
    # The first line, or the second where the first belongs to an interpreter.
    untagged = [path for path in files if not any(TAG in line for line in path.read_text().splitlines()[:2])]
    assert [str(path.relative_to(ROOT)) for path in untagged] == []


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_requirements_are_pinned_and_hashed(path: Path) -> None:
    """What was tested is what is installed, byte for byte."""
    assert pins(path)


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_requirements_name_no_host(path: Path) -> None:
    """Where packages come from is the installing machine's choice; a URL here would override it."""
    lines = path.read_text().splitlines()
    allowed = re.compile(r"-[rc] [a-z-]+\.(in|txt)")
    assert [line for line in lines if _HOST.search(line) and not allowed.fullmatch(line)] == []


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_requirements_agree(path: Path) -> None:
    """An image with one provider runs the versions that were tested with all of them."""
    everything = pins(REQUIREMENTS / "agent.txt")
    other = {name: pin for name, pin in pins(path).items() if everything.get(name, pin) != pin}
    assert other == {}


def test_declared_dependencies_are_the_compiled_ones() -> None:
    """pyproject.toml says what the agent needs; requirements/*.in must not know better."""
    agent = project("pyproject.toml")
    extras = agent["optional-dependencies"]
    # Vault needs no SDK; its file is there for the image of one provider.
    declared = {"agent-core": agent["dependencies"], "agent-vault": []}
    declared |= {f"agent-{name}": extras[name] for name in extras}
    for name in ("agent-core", "agent-vault", "agent-aws", "agent-gcp"):
        wanted = {re.split(r"[=<>]", dependency)[0] for dependency in declared[name]} - {"keyferry"}
        lines = (REQUIREMENTS / f"{name}.in").read_text().splitlines()
        assert {line for line in lines if line and not line.startswith(("#", "-r"))} == wanted, name


def test_versions_move_in_lockstep() -> None:
    """The volume's contract lives in keyferry, so an agent runs with its own version of it and no other."""
    agent, adapter = project("pyproject.toml"), project("adapter/pyproject.toml")
    assert agent["version"] == adapter["version"]
    own = [dependency for dependency in agent["dependencies"] if dependency.startswith("keyferry")]
    assert own == [f"keyferry=={adapter['version']}"]


def test_the_adapter_depends_on_nothing() -> None:
    """`pip install keyferry` brings one package."""
    assert project("adapter/pyproject.toml")["dependencies"] == []


def test_both_distributions_carry_the_licence() -> None:
    """Each wheel is built from its own folder, so each has its own copy."""
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "adapter/LICENSE").read_bytes()
