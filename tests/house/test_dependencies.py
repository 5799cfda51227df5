# SPDX-License-Identifier: Apache-2.0
"""The adapter lives on the standard library, and the agent loads no SDK that nobody chose."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.house.imports import Import, find_imports

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "adapter/src/keyferry"


def foreign(path: Path) -> list[Import]:
    """Return what ``path`` imports from outside the standard library and its own package."""
    own = sys.stdlib_module_names | {"keyferry"}
    return [found for found in find_imports(path.read_text()) if found.name not in own]


def test_the_adapter_is_stdlib_only() -> None:
    """An app installs keyferry and nothing else; watchdog is used where the app has it."""
    sources = sorted(ADAPTER.rglob("*.py"))
    assert sources
    found = {path.relative_to(ADAPTER): foreign(path) for path in sources}
    never = {str(path): names for path, names in found.items() if any(i.name != "watchdog" for i in names)}
    assert never == {}


def test_watchdog_is_an_afterthought() -> None:
    """One module of the adapter knows watchdog, and only while a function runs: it may not be installed."""
    found = {path: foreign(path) for path in sorted(ADAPTER.rglob("*.py"))}
    users = {path.name: imports for path, imports in found.items() if imports}
    assert len(users) <= 1, f"watchdog is imported in {sorted(users)}; one module is enough"
    eager = [(name, found) for name, imports in users.items() for found in imports if not found.lazy]
    assert eager == []


def test_the_agent_loads_no_sdk_that_nobody_chose() -> None:
    """Each vendor SDK costs 9 to 44 MiB and up to 0.4 s: it comes with its provider, at the first use."""
    program = """
import importlib, pkgutil, sys
import agent
for module in pkgutil.walk_packages(agent.__path__, "agent."):
    if not module.name.startswith("agent.providers."):
        importlib.import_module(module.name)
print(*sorted({"boto3", "botocore", "google", "grpc", "hvac", "requests"} & sys.modules.keys()))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == []


def declared() -> dict[str, set[str]]:
    """Return what pyproject.toml asks for: the core, and the extra of each cloud."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    parts = {"core": project["dependencies"], "aws": extras["aws"], "gcp": extras["gcp"]}
    names = {part: {re.split(r"[=>]", text)[0] for text in texts} for part, texts in parts.items()}
    return {part: found - {"keyferry"} for part, found in names.items()}


def test_the_agent_asks_for_what_it_imports_and_nothing_else() -> None:
    """What only comes along with another package can go with it, and what nobody imports is only weight."""
    own = sys.stdlib_module_names | {"agent", "keyferry"}
    sources = [found for path in (ROOT / "agent").rglob("*.py") for found in find_imports(path.read_text())]
    # Spelt as PyPI compares names: PyYAML is pyyaml, prometheus_client is prometheus-client.
    origins = {
        name: {re.sub(r"[-_.]+", "-", origin).lower() for origin in origins}
        for name, origins in packages_distributions().items()
    }
    imported = {found.name for found in sources if found.name not in own}
    asked = set().union(*declared().values())
    assert {name for name in imported if asked.isdisjoint(origins[name])} == set()
    assert asked - set().union(*(origins[name] for name in imported)) == set()


@pytest.mark.parametrize("part", ["core", "aws", "gcp"])
def test_the_image_installs_what_the_package_asks_for(part: str) -> None:
    """The locked files are compiled from lists of their own."""
    lines = (ROOT / f"requirements/agent-{part}.in").read_text().splitlines()
    assert {line for line in lines if line[:1].isalpha()} == declared()[part]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("import os.path, hvac", [("os", False), ("hvac", False)], id="top"),
        pytest.param("from boto3.session import Session", [("boto3", False)], id="from"),
        pytest.param("def f():\n    import hvac", [("hvac", True)], id="function"),
        pytest.param("class A:\n    import hvac", [("hvac", False)], id="class body runs at import"),
        pytest.param("if TYPE_CHECKING:\n    import hvac", [("hvac", True)], id="type checking"),
        pytest.param("try:\n    import hvac\nexcept ImportError:\n    pass", [("hvac", False)], id="try"),
        pytest.param("importlib.import_module('hvac.api')", [("hvac", False)], id="by name"),
        pytest.param("f = lambda: __import__('hvac')", [("hvac", True)], id="dunder"),
        pytest.param("import_module(name)", [("<computed>", False)], id="computed"),
        pytest.param("from . import layout", [], id="relative"),
        pytest.param("import_module(f'{__name__}.{part}')", [], id="own package"),
        pytest.param("import_module(f'{__name__}x')", [("<computed>", False)], id="beside the own package"),
    ],
)
def test_no_import_hides(source: str, expected: list[tuple[str, bool]]) -> None:
    """The finder itself is tested, or the tests above could pass by seeing nothing."""
    assert [(found.name, found.lazy) for found in find_imports(source)] == expected
