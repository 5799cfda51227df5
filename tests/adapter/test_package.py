# SPDX-License-Identifier: Apache-2.0
"""What `import keyferry` brings, and where it works."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keyferry
from keyferry import FileAdapter, KMSAdapter
from keyferry.kms import EnvAdapter


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]} | environment,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.strip()


def test_every_public_name_is_there() -> None:
    for name in keyferry.__all__:
        assert getattr(keyferry, name).__name__ == name
    assert set(keyferry.__all__) <= set(dir(keyferry))
    assert list(keyferry.__all__) == sorted(keyferry.__all__)


def test_the_names_for_the_type_checker_are_the_same() -> None:
    """The package imports lazily, so its names are written down twice."""
    source = Path(str(keyferry.__file__)).read_text()
    block = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {f"{getattr(keyferry, name).__module__}.{name}" for name in keyferry.__all__}


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError) as caught:
        keyferry.VaultAdapter  # noqa: B018 -- the look-up is what is tested
    assert str(caught.value) == "module 'keyferry' has no attribute 'VaultAdapter'"


def test_errors_live_under_their_old_names_too() -> None:
    """They are raised by pure modules, which other code imports on their own."""
    for module, name in (("material", "InvalidMaterialError"), ("document", "DocumentError")):
        error = getattr(importlib.import_module(f"keyferry.{module}"), name)
        assert issubclass(error, keyferry.KeyferryError)
        assert issubclass(error, ValueError)


def test_the_package_imports_nothing_before_it_is_used() -> None:
    """The agent wants the layout alone, and every app starts faster."""
    script = (
        "import sys; before = set(sys.modules); import keyferry; print(sorted(set(sys.modules) - before))"
    )
    assert run(script) == "['keyferry']"


def test_the_layout_brings_no_input_or_output() -> None:
    script = (
        "import sys; import keyferry.layout, keyferry.status;"
        "print(sorted(name for name in sys.modules if name.startswith('keyferry') or name == 'threading'))"
    )
    expected = ["document", "errors", "layout", "material", "status", "times"]
    assert run(script) == str(["keyferry", *(f"keyferry.{name}" for name in expected)])


ELSEWHERE = """
import os, sys, time
for name in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[name] = None
for module, name in ((os, "O_DIRECTORY"), (os, "O_NOFOLLOW"), (os, "O_NONBLOCK"), (os, "O_CLOEXEC"),
                     (os, "getegid"), (os, "geteuid"), (os, "getgroups"), (os, "register_at_fork"),
                     (time, "CLOCK_BOOTTIME"), (time, "clock_gettime")):
    delattr(module, name)
sys.platform = {platform!r}
import keyferry
"""


def test_windows() -> None:
    """Everything imports, the environment serves, and FileAdapter says what it needs."""
    script = f"""{ELSEWHERE.format(platform="win32")}
for name in keyferry.__all__:
    getattr(keyferry, name)
print(len(keyferry.get_kms_adapter().get_master_key()))
try:
    keyferry.FileAdapter()
except keyferry.DeploymentError as error:
    print(error)
"""
    length, problem = run(script, MASTER_ENCRYPTION_KEY="x" * 20).splitlines()
    assert length == "20"
    assert problem == (
        "FileAdapter needs Linux, where the keyferry agent runs, or another POSIX system. To develop here,"
        " unset KEYFERRY_DIR, set MASTER_ENCRYPTION_KEY and use keyferry.get_kms_adapter()"
    )


def test_macos(tmp_path: Path) -> None:
    """No boot clock and no /proc there: everything imports, and a missing volume is said to be missing."""
    script = f"""
import sys, time
del time.CLOCK_BOOTTIME
sys.platform = "darwin"
import keyferry
print(len(keyferry.get_kms_adapter().get_master_key()))
keys = keyferry.FileAdapter({str(tmp_path / "nowhere")!r})
print(keys.staleness)
try:
    keys.active
except keyferry.VolumeMissingError as error:
    print(error.problem)
"""
    assert run(script, MASTER_ENCRYPTION_KEY="x" * 20).split("\n") == ["20", "None", "does not exist"]


def test_both_adapters_have_the_same_surface() -> None:
    def surface(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    promised = surface(KMSAdapter)
    assert promised == surface(FileAdapter)
    assert promised == surface(EnvAdapter) | {"generation", "staleness", "problem"}
