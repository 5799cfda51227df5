# SPDX-License-Identifier: Apache-2.0
"""moto, a double of AWS, as a real HTTP server process on loopback.

    with Moto() as moto:
        moto.client("secretsmanager").create_secret(Name="app/key", SecretString=secrets.token_urlsafe(32))

Rules:

- It gets no AWS_ variables, and dies with the process that started it.
- Its errors, and the versions without a label that it shows, are not AWS's: tests.servers.aws_proxy stands in
  front of it and mends that.
- Credentials are not checked. What a login brings is seen in the proxy's record of who called.
"""

import os
import socket
import subprocess
import sys
import time
from typing import Any, Self

import botocore.session

from tests.servers.process import DIES_WITH_PARENT, free_port

REGION = "eu-west-1"
ACCOUNT = "123456789012"

_START_TIMEOUT_SECONDS = 30.0


class Moto:
    """One server process at ``address``."""

    def __init__(self) -> None:
        """Choose a port; the context starts the process."""
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._process = subprocess.Popen(
            [*DIES_WITH_PARENT, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        until = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "moto ended before it answered"
            assert time.monotonic() < until, "moto did not answer in time"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self, service: str) -> Any:
        """Return an administrator's client of ``service``, one for all: making one takes long."""
        if service not in self._clients:
            self._clients[service] = botocore.session.Session().create_client(
                service,
                region_name=REGION,
                endpoint_url=self.address,
                aws_access_key_id="administrator",
                aws_secret_access_key="irrelevant",
            )
        return self._clients[service]

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True
