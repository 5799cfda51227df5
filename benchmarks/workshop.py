# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the agent share: a real OpenBao server, a tmpfs, and an agent on it."""

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

from tests.servers.openbao import OpenBao

_TMPFS: Final = Path("/dev/shm")  # noqa: S108 - a tmpfs is what is measured


class Workshop:
    """A server with a key in it, a token that may read it, and a directory on a tmpfs for each run.

    ``python`` is the interpreter of an environment in which the agent is installed as it is shipped: compiled
    and without the development tools, some of which its libraries would load if they found them.
    """

    def __init__(self, python: Path) -> None:
        """Keep which interpreter runs the agent."""
        self.python = str(python)

    def __enter__(self) -> Self:
        self.home = Path(tempfile.mkdtemp(prefix="keyferry-bench-", dir=_TMPFS))
        try:
            self.bao = OpenBao(self.home / "bao").__enter__()
            self.bao.mount_kv("secret")
            self.rotate()
            self.token_file = self.home / "token"
            self.bao.policy("bench", "secret/data/fedha/master-key", "secret/metadata/fedha/master-key")
            self.token_file.write_text(self.bao.token("bench"))
            self.token_file.chmod(0o400)
        except BaseException:
            shutil.rmtree(self.home)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.bao.__exit__()
        shutil.rmtree(self.home)

    def rotate(self) -> None:
        """Write a new version of the key."""
        self.bao.write("secret", "fedha/master-key", key=secrets.token_urlsafe(32))

    def volume(self) -> Path:
        """Return a new directory on the tmpfs."""
        return Path(tempfile.mkdtemp(prefix="volume-", dir=self.home))

    def agent(self, volume: Path) -> "subprocess.Popen[bytes]":
        """Start the agent on ``volume``; nothing is waited for."""
        config = volume.with_suffix(".yaml")
        config.write_text(self._configuration(volume))
        command = [self.python, "-m", "agent", "run", "--config", str(config)]
        # From its own directory: the source tree must not stand in front of what is installed.
        return subprocess.Popen(command, cwd=self.home, stderr=subprocess.DEVNULL)

    def _configuration(self, volume: Path) -> str:
        return f"""
volume: {{path: {volume}}}
http: {{listen: ":0"}}
rotation: {{activation_delay: 0s}}
keys:
  master:
    provider: vault
    address: {self.bao.address}
    path: secret/fedha/master-key
    ca_file: {self.bao.ca_file}
    encoding: base64url
    length: 32
    auth: {{method: token, token_file: {self.token_file}}}
"""
