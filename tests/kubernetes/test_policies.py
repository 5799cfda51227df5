# SPDX-License-Identifier: Apache-2.0
"""What a security reviewer asks of every pod: of the chart's, the team chart's, and the examples'.

The restricted Pod Security profile, and our own rules: keys in memory, read-only for the app, limits.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from tests.kubernetes.charts import (
    EVERYTHING,
    VALUES,
    Document,
    containers,
    examples,
    pods,
    render,
    team_chart,
)

pytestmark = pytest.mark.chart

# Beside the examples: the chart's own test pod, and the shapes that no example has.
SHAPES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "classic": ({"keyferry": {"nativeSidecar": False}}, "1.28"),
    "once": ({"keyferry": {"mode": "once"}}, "1.37"),
}


@cache
def reviewed() -> Mapping[str, Document]:
    """Return every pod that this repository makes, by name; what tests do with it is reading."""
    sources = list(examples())
    sources.append(("chart", render(EVERYTHING)))
    for name, (values, kubernetes) in SHAPES.items():
        found = render(values, chart=team_chart(), files=[VALUES[0]], kubernetes=kubernetes)
        sources.append((name, found))
    every = {}
    for name, found in sources:
        for pod_name, pod in pods(found):
            every[f"{name}: {pod_name}"] = pod
    return every


def agents(pod: Document) -> list[Document]:
    """Return the pod's containers that are agents."""
    return [container for container in containers(pod) if container["name"].startswith("keyferry")]


def others(pod: Document) -> list[Document]:
    """Return the pod's other containers."""
    return [container for container in containers(pod) if not container["name"].startswith("keyferry")]


def mounts(container: Document, volume: str) -> list[Document]:
    """Return where ``container`` mounts ``volume``."""
    return [mount for mount in container.get("volumeMounts", []) if mount["name"] == volume]


def test_there_is_something_to_review() -> None:
    """Each pod but the bare app of Kustomize has an agent; an empty list would pass everything below."""
    found = reviewed()
    assert len(found) == 3 + 1 + 2 * len(VALUES) + 1 + 2 * len(SHAPES)
    assert all(agents(pod) for pod in found.values())


def test_every_pod_meets_the_restricted_profile() -> None:
    """Pod Security Standards, restricted: nothing of the host, no root, no privilege, seccomp."""
    allowed = {"configMap", "emptyDir", "projected", "secret", "name"}
    for name, pod in reviewed().items():
        assert pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"}), name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert all(volume.keys() <= allowed for volume in pod["volumes"]), name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context.keys().isdisjoint({"privileged", "procMount"}), name
            assert context.get("runAsUser", 1) != 0, name
            assert all("hostPort" not in port for port in container.get("ports", [])), name


def test_no_start_gives_large_volumes_to_the_group_again() -> None:
    """Without the policy the kubelet walks through all files of the app's own volumes at each start."""
    for name, pod in reviewed().items():
        assert pod["securityContext"]["fsGroup"] == 65532, name
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", name


def test_every_root_file_system_is_read_only() -> None:
    for name, pod in reviewed().items():
        assert all(c["securityContext"]["readOnlyRootFilesystem"] is True for c in containers(pod)), name


def test_every_container_is_bounded() -> None:
    """The volume is memory and counts as the agent's, so both together must fit."""
    for name, pod in reviewed().items():
        for container in containers(pod):
            assert "memory" in container["resources"]["limits"], name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name


def test_no_image_moves() -> None:
    for name, pod in reviewed().items():
        for container in containers(pod):
            _, _, tag = container["image"].rpartition(":")
            assert tag not in ("", "latest"), name


def test_keys_lie_in_memory() -> None:
    for name, pod in reviewed().items():
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == "keyferry"]
        assert volume["emptyDir"].keys() == {"medium", "sizeLimit"}, name
        assert volume["emptyDir"]["medium"] == "Memory", name


def test_no_app_can_write_its_key() -> None:
    """Read-only, as another user than the agent, and never by subPath, which would miss every rotation."""
    for name, pod in reviewed().items():
        users = {container["securityContext"]["runAsUser"] for container in agents(pod)}
        for container in others(pod):
            [mount] = mounts(container, "keyferry")
            assert mount == {"name": "keyferry", "mountPath": "/run/keyferry", "readOnly": True}, name
            assert container["securityContext"]["runAsUser"] not in users, name


def test_no_app_sees_where_the_key_comes_from() -> None:
    """Sources, tokens and authorities are mounted by the agent alone."""
    for name, pod in reviewed().items():
        for container in others(pod):
            assert mounts(container, "keyferry-config") == [], name
        for container in agents(pod):
            assert [mount["readOnly"] for mount in mounts(container, "keyferry-config")] == [True], name


def test_no_secret_is_in_an_environment_or_an_argument() -> None:
    for name, pod in reviewed().items():
        for container in containers(pod):
            assert "envFrom" not in container, name
            assert all("valueFrom" not in variable for variable in container.get("env", [])), name


def test_every_agent_that_stays_is_probed_over_http() -> None:
    """An exec probe starts a process each time, which costs more CPU than the agent itself."""
    for name, pod in reviewed().items():
        for agent in agents(pod):
            if agent["args"] != ["run"]:
                continue
            probes = {key: value for key, value in agent.items() if key.endswith("Probe")}
            assert probes.keys() >= {"livenessProbe", "readinessProbe"}, name
            assert all(
                set(probe) & {"httpGet", "exec", "tcpSocket"} == {"httpGet"} for probe in probes.values()
            )
