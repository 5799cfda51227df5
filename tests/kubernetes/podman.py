# SPDX-License-Identifier: Apache-2.0
"""Containers as tests want them: started by name, looked at, and gone afterwards.

    with Containers() as containers, memory(path, group=2000) as volume:
        agent = containers.start("agent", IMAGE, "run", options=HARDENED)
        agent.logs()

Needs root and podman. Nothing is pulled: the images are those of ``make image``.
"""

import json
import os
import subprocess
import tempfile
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
REPOSITORY = "localhost/keyferry-agent"
IMAGE = f"{REPOSITORY}:{VERSION}"
VAULT_IMAGE = f"{IMAGE}-vault"
PYTHON = "/opt/keyferry/bin/python"

# The restricted Pod Security profile and a read-only root. Podman would add a tmpfs that Kubernetes does not.
HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pull=never",
)


def podman(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman and return what it said; raise with its standard error if it failed and ``check`` is set."""
    environment = {"CONTAINERS_CONF": str(ROOT / ".ci/containers.conf"), **os.environ}
    command = ["podman", *map(str, arguments)]
    # Elsewhere: where memory runs out in a container, its monitor leaves a file called oom.
    elsewhere = tempfile.gettempdir()
    done = subprocess.run(
        command, env=environment, cwd=elsewhere, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        message = f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}"
        raise RuntimeError(message)
    return done


def inspect(name: str) -> dict[str, Any]:
    """Return what podman knows of a container or an image."""
    [found] = json.loads(podman("inspect", name).stdout)
    return dict(found)


class Container(NamedTuple):
    """A container that was started."""

    name: str

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return bool(inspect(self.name)["State"]["Running"])

    @property
    def exit_code(self) -> int:
        """The code that it ended with."""
        return int(inspect(self.name)["State"]["ExitCode"])

    def logs(self) -> str:
        """Return both of its streams so far."""
        done = podman("logs", self.name)
        return done.stdout + done.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in it."""
        return podman("exec", self.name, *command, check=False)

    def signal(self, name: str) -> None:
        """Send a signal to its process 1."""
        podman("kill", "--signal", name, self.name)

    def stop(self, grace_seconds: int = 10) -> None:
        """Stop it as Kubernetes does: SIGTERM, and SIGKILL after ``grace_seconds``."""
        podman("stop", "--time", str(grace_seconds), self.name)


class Containers:
    """Starts containers and removes them at the end."""

    def __init__(self) -> None:
        """Choose a prefix, so that runs side by side do not meet."""
        self.prefix = f"keyferry-{uuid.uuid4().hex[:8]}"
        self._started: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            podman("rm", "--force", "--time", "0", *self._started, check=False)

    def start(self, name: str, image: str, *command: str, options: Sequence[str] = HARDENED) -> Container:
        """Start a container in the background."""
        self._launch(name, image, command, [*options, "--detach"])
        return Container(f"{self.prefix}-{name}")

    def run(
        self, name: str, image: str, *command: str, options: Sequence[str] = HARDENED
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, and return what it said and its exit code."""
        return self._launch(name, image, command, options, check=False)

    def _launch(
        self, name: str, image: str, command: Sequence[str], options: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        full = f"{self.prefix}-{name}"
        self._started.append(full)
        return podman("run", "--name", full, *options, image, *command, check=check)


@contextmanager
def memory(path: Path, *, group: int | None = None, size: int | None = None) -> Iterator[Path]:
    """Mount a tmpfs at ``path`` as the kubelet does for an emptyDir in memory; ``group`` is the fsGroup.

    A host mount, since podman's own tmpfs volumes lose their data with their last container.
    """
    path.mkdir(parents=True)
    # mode: the kubelet's SetVolumeOwnership adds group rights and setgid.
    options = ["mode=0777" if group is None else f"mode=2777,gid={group}"]
    options += [f"size={size}"] if size else []
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
