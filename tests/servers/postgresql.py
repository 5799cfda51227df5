# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL on a socket of its own.

    with PostgreSQL(installed()) as server:
        environ = os.environ | server.create_schema("one")

Rules:

- Its programs are the distribution's; ``installed`` tells where. A server that runs there is left alone.
- It refuses to run as root: then it runs as nobody. It listens on no port, and whoever may enter its
  directory may do everything.
- It lives in a temporary directory on the disk, and dies with the process that started it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg

from tests.servers.process import DIES_WITH_PARENT

_START_TIMEOUT_SECONDS = 60.0
_USER = "fedha"
# setpriv(1) is of util-linux. In one call with the rest: a change of the uid would forget whose death to die.
_AS_NOBODY = ("--reuid=nobody", "--regid=nogroup", "--clear-groups")
# Nothing here outlives a crash of the machine.
_SETTINGS = ("listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off")


def installed() -> Path | None:
    """Return the directory of the newest server's programs, ``None`` if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    elsewhere = shutil.which("postgres")
    program = found[-1] if found else elsewhere and Path(elsewhere)
    return program.parent if program else None


class PostgreSQL:
    """One server process with a cluster of its own."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._home = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="keyferry-test-"))
        try:
            if os.geteuid() == 0:
                shutil.chown(self._home, "nobody", "nogroup")
            options = ["--no-locale", "--encoding=UTF8", "--auth=trust", "--no-sync", f"--username={_USER}"]
            made = subprocess.run(
                self._command("initdb", "--pgdata=data", *options),
                cwd=self._home,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert made.returncode == 0, made.stdout
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def create_schema(self, name: str) -> dict[str, str]:
        """Create an empty schema, and return the variables by which libpq finds it.

        It does what a database would, which are thousands of pages on the disk.
        """
        with self._connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        options = f"-c search_path={name}"
        return {"PGHOST": str(self._home), "PGUSER": _USER, "PGDATABASE": "postgres", "PGOPTIONS": options}

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self._home), user=_USER, dbname="postgres", autocommit=True)

    def _command(self, program: str, *arguments: str) -> list[str]:
        *setpriv, end = DIES_WITH_PARENT
        who = _AS_NOBODY if os.geteuid() == 0 else ()
        return [*setpriv, *who, end, str(self._programs / program), *arguments]

    def _start(self) -> None:
        settings = [argument for setting in _SETTINGS for argument in ("-c", setting)]
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", "data", "-k", str(self._home), *settings),
                cwd=self._home,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while True:
            with suppress(psycopg.OperationalError), self._connect():
                return
            told = (self._home / "log").read_text()
            assert self._process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.02)

    def _stop(self) -> None:
        if self._process is not None:
            # An immediate shutdown: nothing is written, and whoever is connected is thrown out.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_START_TIMEOUT_SECONDS)
            self._process = None
        shutil.rmtree(self._home)
