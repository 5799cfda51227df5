# SPDX-License-Identifier: Apache-2.0
"""A real kube-apiserver and its etcd on loopback: admission as a cluster has it, and nothing behind it.

    with ApiServer(directory) as cluster:
        cluster.namespace("team", **{"pod-security.kubernetes.io/enforce": "restricted"})
        [pod] = cluster.create("team", [document])

Rules:

- The programs are those that ``make cluster`` builds, and kubectl is the client.
- A warning of the server is an error: it is about what we wrote.
- No controllers, no scheduler, no kubelet: what is created stays as it was admitted. A namespace gets the
  service account ``default`` by hand, since admission asks for it.
- Both processes die with the one that started them, and their data with the directory.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import trustme
import yaml

from tests.kubernetes.tools import APISERVER, ETCD, KUBECTL
from tests.servers.process import DIES_WITH_PARENT, free_port

Document = dict[str, Any]

# Many times what it takes on two idle cores.
_START_TIMEOUT_SECONDS = 180.0


class ApiServer:
    """One API server whose administrator is kubectl."""

    def __init__(self, home: Path) -> None:
        """Keep where files and data go."""
        self.home = home
        self.port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Run kubectl with ``given`` as its standard input and return what it prints.

        Raise ``RuntimeError`` with its complaint, which may be a warning.
        """
        command = [str(KUBECTL), "--warnings-as-errors", *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self.home / "kubeconfig"), "HOME": str(self.home)}
        done = subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout

    def namespace(self, name: str, **labels: str) -> None:
        """Make a namespace with ``labels``, in which pods can be created."""
        metadata = {"name": name, "labels": labels}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        self.create("", [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
        self.create(name, [account])

    def create(self, namespace: str, documents: Iterable[Document], *options: str) -> list[Document]:
        """Create ``documents``, with every field known, and return them as they are stored."""
        given = yaml.safe_dump_all(documents)
        arguments = ["create", "--namespace", namespace, "--validate=strict", "--output=yaml", "-f", "-"]
        return list(yaml.safe_load_all(self.kubectl(*arguments, *options, given=given)))

    def try_out(self, namespace: str, document: Document) -> Document:
        """Return ``document`` as it would be stored."""
        [admitted] = self.create(namespace, [document], "--dry-run=server")
        return admitted

    def _start(self) -> None:
        etcd, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._run(
            "etcd",
            ETCD,
            f"--data-dir={self.home / 'data'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )
        self._prove_identities()
        self._run(
            "apiserver",
            APISERVER,
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.home / 'server.pem'}",
            f"--tls-private-key-file={self.home / 'server.key'}",
            f"--token-auth-file={self.home / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            # The server's own key will do: its tokens are for nobody.
            f"--service-account-key-file={self.home / 'server.pem'}",
            f"--service-account-signing-key-file={self.home / 'server.key'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # There is one server, so nobody has to find it.
            "--endpoint-reconciler-type=none",
            # For the beta of MutatingAdmissionPolicy: the chart renders it for clusters before 1.36.
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        )
        self._wait()

    def _prove_identities(self) -> None:
        """Write the server's certificate, and a kubeconfig whose token may do everything."""
        ca, token = trustme.CA(), secrets.token_urlsafe(32)
        certificate = ca.issue_cert("127.0.0.1")
        ca.cert_pem.write_to_path(str(self.home / "ca.pem"))
        certificate.private_key_pem.write_to_path(str(self.home / "server.key"))
        (self.home / "server.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        (self.home / "tokens.csv").write_text(f'{token},tester,tester,"system:masters"\n')
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": "ca.pem"}
        config = {
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "tester", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "tester"}}],
            "current-context": "test",
        }
        (self.home / "kubeconfig").write_text(json.dumps(config))

    def _run(self, name: str, program: Path, *options: str) -> None:
        with (self.home / f"{name}.log").open("wb") as log:
            command = [*DIES_WITH_PARENT, str(program), *options]
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._ready():
            ended = any(process.poll() is not None for process in self._processes)
            if ended or time.monotonic() > deadline:
                logs = "\n".join(log.read_text()[-2000:] for log in sorted(self.home.glob("*.log")))
                message = f"the API server did not come up; the ends of both logs:\n{logs}"
                raise RuntimeError(message)
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        except RuntimeError:
            return False

    def _stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
