# SPDX-License-Identifier: Apache-2.0
"""Pods as the chart and the examples render them, really run."""

import json
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.agent_process import eventually
from tests.kubernetes.charts import EXAMPLES, Document, documents, kustomized, one, render, team_chart
from tests.kubernetes.injection import admit
from tests.kubernetes.pod import Pod
from tests.kubernetes.podman import IMAGE, PYTHON, VAULT_IMAGE, VERSION, inspect, podman
from tests.servers.kubernetes import Cluster
from tests.servers.openbao import OpenBao
from tests.servers.process import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

IMAGES = {f"keyferry-agent:{VERSION}": IMAGE}
LOCAL = EXAMPLES / "values/local.yaml"
# A rotation is used at once: nobody here has twenty minutes.
AT_ONCE = {"rotation": {"activation_delay": "0s"}}
PATIENCE_SECONDS = 60.0


def new_key() -> str:
    return secrets.token_urlsafe(32)


def master(key: str) -> Document:
    """Return the Secret that the examples mount."""
    return {"kind": "Secret", "metadata": {"name": "fedha-master"}, "stringData": {"master": key}}


def team(key: str, **values: Any) -> list[Document]:
    """Return the team chart with the local cluster's values, and the Secret with ``key``."""
    merged = {"config": AT_ONCE, **values}
    found = render({"keyferry": merged}, chart=team_chart(), files=[LOCAL])
    # Without the pod that only `helm test` makes.
    return [*(document for document in found if document["kind"] != "Pod"), master(key)]


def run(found: list[Document], name: str = "") -> Pod:
    """Return the pod that ``found`` makes, on this machine."""
    return Pod(found, name=name, images=IMAGES)


def reaches(pod: Pod, phase: str) -> None:
    """Wait until the pod is in ``phase``."""
    eventually(lambda: pod.sync() == phase, within=PATIENCE_SECONDS, what=phase)


def status(pod: Pod) -> Mapping[str, Any]:
    """Return what a person would see."""
    done = pod.containers["keyferry"].run("keyferry-agent", "status", "--json")
    assert done.returncode in (0, 3), done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def test_the_app_starts_with_the_first_key_and_not_before() -> None:
    """The native sidecar's startup probe is the gate; a key that is too short is no key."""
    with run(team("too-short")) as pod:
        agent = eventually(
            lambda: pod.sync() == "Pending" and pod.containers.get("keyferry"), what="the agent"
        )
        assert agent is not False
        eventually(lambda: "malformed" in pod.containers["keyferry"].logs(), within=PATIENCE_SECONDS)
        for _ in range(5):
            assert (pod.sync(), set(pod.containers)) == ("Pending", {"keyferry"})

        pod.update("Secret", "fedha-master", {"master": new_key()})
        reaches(pod, "Running")
        eventually(lambda: "encrypting with version" in pod.containers["app"].logs(), within=PATIENCE_SECONDS)
        assert pod.ready("keyferry")


def test_a_rotation_reaches_the_app() -> None:
    """The kubelet renames ``..data``, the agent sees it, publishes, and the app looks."""
    with run(team(new_key())) as pod:
        reaches(pod, "Running")
        app = pod.containers["app"]
        eventually(lambda: app.logs().count("encrypting with version") == 1, within=PATIENCE_SECONDS)
        pod.update("Secret", "fedha-master", {"master": new_key()})
        eventually(lambda: app.logs().count("encrypting with version") == 2, within=PATIENCE_SECONDS)
        first, second = (line.rpartition(" ")[2] for line in app.logs().splitlines())
        versions = status(pod)["keys"]["master"]["versions"]
        assert [(v["id"], v["state"]) for v in versions] == [(first, "deactivated"), (second, "active")]


def test_a_change_of_the_configmap_is_applied_while_it_runs() -> None:
    with run(team(new_key())) as pod:
        reaches(pod, "Running")
        agent = pod.containers["keyferry"]
        text = one(team(""), "ConfigMap")["data"]["agent.yaml"]
        pod.update("ConfigMap", "fedha-keyferry", {"agent.yaml": text + "log: {level: debug}\n"})
        eventually(lambda: "config.reloaded" in agent.logs(), within=PATIENCE_SECONDS)


def test_the_memory_limit_holds_and_is_enough() -> None:
    """With the volume in it; whoever takes more is killed, and the agent is not."""
    with run(team(new_key())) as pod:
        reaches(pod, "Running")
        agent = pod.containers["keyferry"]
        limit = inspect(agent.name)["HostConfig"]["Memory"]
        assert limit == 128 << 20
        [usage] = json.loads(podman("stats", "--no-stream", "--format", "json", agent.name).stdout)
        assert usage["mem_usage"].endswith(f"/ {limit / 1e6:.1f}MB"), usage
        assert float(usage["mem_percent"].rstrip("%")) < 50

        hog = agent.run(PYTHON, "-c", "bytearray(200 << 20)")
        assert hog.returncode == 137
        assert agent.running
        assert status(pod)["keys"]["master"]["versions"][0]["state"] == "active"


def test_it_ends_after_the_app_and_leaves_the_key_until_then() -> None:
    """An app that still encrypts while it shuts down has its key."""
    with run(team(new_key())) as pod:
        reaches(pod, "Running")
        key = pod.volume("keyferry") / "master"
        assert key.read_text()
        started = time.monotonic()
        pod.containers["app"].stop()
        assert pod.containers["keyferry"].running
        assert key.read_text()
        pod.stop()
        assert (pod.containers["keyferry"].exit_code, time.monotonic() - started < 20) == (0, True)


@pytest.mark.parametrize("example", ["job", "cronjob"])
def test_a_job_completes(example: str) -> None:
    """The sidecar ends when the job does; where it fetches once, it has ended before."""
    found = [*documents((EXAMPLES / f"{example}.yaml").read_text()), master(new_key())]
    with run(found) as pod:
        reaches(pod, "Succeeded")
        assert "done with version sha256:" in pod.containers["app"].logs()
        assert {name: c.exit_code for name, c in pod.containers.items()} == dict.fromkeys(pod.containers, 0)


@pytest.mark.parametrize("example", ["deployment", "kustomize"])
def test_the_plain_examples_run(example: str) -> None:
    text = kustomized() if example == "kustomize" else (EXAMPLES / f"{example}.yaml").read_text()
    with run([*documents(text), master(new_key())]) as pod:
        reaches(pod, "Running")
        eventually(lambda: "encrypting with version" in pod.containers["app"].logs(), within=PATIENCE_SECONDS)


def test_an_older_cluster_gets_the_key_before_the_app_too() -> None:
    """An init container fetches it, and the sidecar takes over what it finds."""
    with run(team(new_key(), nativeSidecar=False)) as pod:
        reaches(pod, "Running")
        assert pod.containers["keyferry-once"].exit_code == 0
        app = pod.containers["app"]
        eventually(lambda: app.logs().count("encrypting with version") == 1, within=PATIENCE_SECONDS)
        eventually(lambda: pod.ready("keyferry"), within=PATIENCE_SECONDS)
        pod.update("Secret", "fedha-master", {"master": new_key()})
        eventually(lambda: app.logs().count("encrypting with version") == 2, within=PATIENCE_SECONDS)


def test_an_injected_pod_runs() -> None:
    """As the policy leaves it: without an fsGroup, with a key that is readable for all and mounted by few."""
    # Whatever needs no further volume; the ConfigMap of a real team names a key store.
    settings = {
        "volume": {"mode": "0444", "group": 65532},
        "keys": {"master": {"provider": "file", "path": "/etc/keyferry/master"}},
    }
    data = {"agent.yaml": json.dumps(settings), "master": new_key()}
    config = {"kind": "ConfigMap", "metadata": {"name": "fedha"}, "data": data}
    found = render({"injection": {"enabled": True}})
    app = one(team(""), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    bare = {
        "kind": "Pod",
        "metadata": {"name": "fedha", "labels": {"keyferry.io/inject": "fedha"}},
        "spec": {"containers": [{k: v for k, v in app.items() if k not in ("env", "volumeMounts")}]},
    }
    with run([admit(one(found, "MutatingAdmissionPolicy"), bare), config]) as pod:
        reaches(pod, "Running")
        eventually(lambda: "encrypting with version" in pod.containers["app"].logs(), within=PATIENCE_SECONDS)


def test_helm_test_passes(tmp_path: Path) -> None:
    """The chart's own test pod: asks the key store, publishes nothing."""
    found = [*render({}, chart=team_chart(), files=[LOCAL]), master(new_key())]
    with run(found, name="Pod/fedha-keyferry-check") as pod:
        reaches(pod, "Succeeded")
        assert "key master (file): ok" in pod.containers["keyferry-check"].logs()
        assert list(pod.volume("keyferry").iterdir()) == []


@pytest.fixture
def bao(tmp_path: Path) -> Iterator[OpenBao]:
    """Start a key store with the key and a policy for it."""
    with OpenBao(tmp_path / "bao") as server:
        server.mount_kv("secret")
        server.write("secret", "fedha/encryption/master-key", key=new_key())
        path = "fedha/encryption/master-key"
        server.policy("fedha", f"secret/data/{path}", f"secret/metadata/{path}")
        yield server


def trust(bao: OpenBao, cluster: Cluster) -> None:
    """Let the service account of the team chart log in, as the values' comment and the chart's notes say."""
    bao.root.sys.enable_auth_method("kubernetes")
    bao.root.auth.kubernetes.configure(
        kubernetes_host=cluster.address,
        kubernetes_ca_cert=bao.ca_file.read_text(),
        token_reviewer_jwt=cluster.token("reviewer"),
        disable_local_ca_jwt=True,
    )
    bao.root.auth.kubernetes.create_role(
        "fedha",
        bound_service_account_names=["fedha-keyferry"],
        bound_service_account_namespaces=["team"],
        policies=["fedha"],
        audience="vault",
        ttl="1h",
    )


def test_a_pod_gets_its_key_from_vault_as_its_service_account(bao: OpenBao) -> None:
    """The values for Vault but for its address: a projected token, a private authority, the slim image."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bao.ca.issue_cert("127.0.0.1").configure_cert(tls)
    with Cluster(tls) as cluster:
        trust(bao, cluster)
        # The node's network, since OpenBao listens on its loopback, and there 8181 may be somebody else's.
        changed = {
            "port": free_port(),
            "config": {**AT_ONCE, "keys": {"master": {"address": bao.address}}},
        }
        found = render({"keyferry": changed}, chart=team_chart(), files=[EXAMPLES / "values/vault.yaml"])
        authority = {
            "kind": "ConfigMap",
            "metadata": {"name": "vault-ca"},
            "data": {"ca.crt": bao.ca_file.read_text()},
        }
        pod = Pod(
            [*found, authority],
            name="Deployment/",
            images={**IMAGES, f"keyferry-agent:{VERSION}-vault": VAULT_IMAGE},
            token=cluster.token("fedha-keyferry"),
            network="host",
        )
        with pod:
            reaches(pod, "Running")
            app = pod.containers["app"]
            eventually(lambda: app.logs() == "encrypting with version 1\n", within=PATIENCE_SECONDS)
            bao.write("secret", "fedha/encryption/master-key", key=new_key())
            refreshed = pod.containers["keyferry"].run("keyferry-agent", "refresh")
            assert refreshed.returncode == 0, refreshed.stderr
            eventually(lambda: app.logs().endswith("encrypting with version 2\n"), within=PATIENCE_SECONDS)
