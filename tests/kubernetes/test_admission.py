# SPDX-License-Identifier: Apache-2.0
"""The MutatingAdmissionPolicy in a real API server: what it makes of pods, and what it leaves alone."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from tests.daemon.agent_process import eventually
from tests.kubernetes.charts import VALUES, Document, documents, one, pods, render, team_chart
from tests.kubernetes.injection import admit
from tests.kubernetes.test_apiserver import RESTRICTED, a_pod
from tests.kubernetes.test_injection import labelled_pod
from tests.kubernetes.test_policies import SHAPES
from tests.servers.apiserver import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 120.0
CHOSEN = {"keyferry": "on"}
POLICY = "MutatingAdmissionPolicy"
LABEL = {"keyferry.io/inject": "fedha-keyferry"}
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
APP = {"name": "app", "image": "fedha:1.0.0", "securityContext": SAFE}
OWN_MOUNT = {"name": "cache", "mountPath": "/run/keyferry", "subPath": "x"}
# What pods may look like, beside the one that a team writes.
PODS: Mapping[str, Document] = {
    "as a team writes it": {},
    "with init containers": {"initContainers": [{**APP, "name": "migrate"}, {**APP, "name": "warm-up"}]},
    "with an empty list of them": {"initContainers": []},
    "with nothing": {"containers": [APP], "volumes": []},
    "with two containers": {"containers": [APP, {**APP, "name": "nginx"}], "volumes": []},
    "with dozens of containers": {
        "containers": [{**APP, "name": f"app-{number}"} for number in range(50)],
        "volumes": [],
    },
    "with a mount of another": {
        "containers": [APP, {**APP, "name": "nginx", "volumeMounts": [{**OWN_MOUNT, "mountPath": "/x"}]}],
        "volumes": [{"name": "cache", "emptyDir": {}}],
    },
    "with the variable": {
        "containers": [{**APP, "env": [{"name": "KEYFERRY_DIR", "value": "/keys"}]}],
        "volumes": [],
    },
    "with a port twice": {
        "containers": [
            {
                **APP,
                "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
            }
        ],
        "volumes": [],
    },
}

# Another platform's policy, which adds a container and is content with being asked again.
MESH = """
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: mesh}
spec:
  reinvocationPolicy: IfNeeded
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  matchConditions:
    - {name: first, expression: 'object.spec.containers.all(c, c.name != "mesh")'}
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: |-
          [JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
            name: "mesh", image: "mesh:1.0.0", securityContext: Object.spec.containers.securityContext{
              allowPrivilegeEscalation: false,
              capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}
            }
          }}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: mesh}
spec:
  policyName: mesh
  matchResources: {namespaceSelector: {matchLabels: {mesh: "on"}}}
"""


@pytest.fixture(scope="module")
def policy(cluster: ApiServer) -> Document:
    """Return the policy, which works in the namespace ``team`` and not in ``elsewhere``."""
    injection = {"enabled": True, "namespaceSelector": {"matchLabels": CHOSEN}}
    found = render({"injection": injection}, release="platform")
    cluster.namespace("team", **RESTRICTED, **CHOSEN)
    cluster.namespace("elsewhere", **RESTRICTED)
    cluster.create("team", [document for document in found if document["kind"].startswith(POLICY)])
    # The server watches its own policies, so one works a moment after it was made.
    eventually(
        lambda: agents(cluster.try_out("team", team_pod())), within=PATIENCE_SECONDS, what="the policy"
    )
    return one(found, POLICY)


def team_pod(**spec: Any) -> Document:
    """Return a labelled pod for whichever namespace, without the token's mount, whose name is random."""
    pod = labelled_pod(automountServiceAccountToken=False, **spec)
    del pod["metadata"]["namespace"]
    return pod


def agents(pod: Document) -> list[str]:
    """Return the names of the pod's containers that are agents."""
    spec = pod["spec"]
    every = [*spec.get("initContainers", []), *spec["containers"]]
    return [container["name"] for container in every if container["name"].startswith("keyferry")]


def embedded(name: str) -> Document:
    """Return the team chart's pod in one of its shapes, with the label on top."""
    values, kubernetes = SHAPES.get(name, ({}, "1.37"))
    found = render(values, chart=team_chart(), files=[VALUES[0]], kubernetes=kubernetes)
    [(_, spec)] = [(kind, pod) for kind, pod in pods(found) if kind.startswith("Deployment")]
    del spec["serviceAccountName"]
    return a_pod({**spec, "automountServiceAccountToken": False}, **LABEL)


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in PODS.items()])
def test_the_policy_mutates(cluster: ApiServer, policy: Document, spec: Document) -> None:
    """As the evaluator of the other tests does, to which the API server adds its defaults only."""
    pod = team_pod(**spec)
    admitted = cluster.try_out("team", pod)
    assert agents(admitted) == ["keyferry"]
    assert admitted["spec"] == cluster.try_out("elsewhere", admit(policy, pod))["spec"]


@pytest.mark.parametrize(
    ("pod", "embeds"),
    [
        pytest.param(lambda: a_pod(team_pod()["spec"]), [], id="no label"),
        pytest.param(lambda: embedded("native"), ["keyferry"], id="embedded"),
        pytest.param(lambda: embedded("classic"), ["keyferry-once", "keyferry"], id="embedded, twice"),
        pytest.param(lambda: embedded("once"), ["keyferry-once"], id="embedded, once"),
    ],
)
def test_the_policy_leaves_alone(
    cluster: ApiServer, policy: Document, pod: Callable[[], Document], embeds: list[str]
) -> None:
    before = pod()
    admitted = cluster.try_out("team", before)
    assert agents(admitted) == embeds
    assert admitted["spec"] == cluster.try_out("elsewhere", before)["spec"]


def test_a_namespace_that_is_not_chosen_is_left_alone(cluster: ApiServer, policy: Document) -> None:
    assert agents(cluster.try_out("elsewhere", a_pod(team_pod()["spec"], **LABEL))) == []


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        pytest.param(
            lambda: a_pod(team_pod()["spec"], **{"keyferry.io/inject": ""}),
            "Required value",
            id="empty label",
        ),
        pytest.param(
            lambda: team_pod(
                volumes=[{"name": "cache", "emptyDir": {}}, {"name": "keyferry", "emptyDir": {}}]
            ),
            'Duplicate value: "keyferry"',
            id="a volume of the same name",
        ),
        pytest.param(
            lambda: team_pod(containers=[APP, {**APP, "name": "nginx", "volumeMounts": [OWN_MOUNT]}]),
            r'\[1\]\.volumeMounts\[1\]\.mountPath: Invalid value: "/run/keyferry": must be unique',
            id="a mount at the same path",
        ),
    ],
)
def test_what_cannot_be_injected_is_refused(
    cluster: ApiServer, policy: Document, pod: Callable[[], Document], message: str
) -> None:
    """Rather than let an app start without its key."""
    with pytest.raises(RuntimeError, match=message):
        cluster.try_out("team", pod())


def test_the_sidecar_gets_the_pods_token_too(cluster: ApiServer, policy: Document) -> None:
    """The API server looks anew at a pod that a policy has changed, and mounts what it mounts everywhere."""
    pod = team_pod()
    del pod["spec"]["automountServiceAccountToken"]
    [sidecar] = cluster.try_out("team", pod)["spec"]["initContainers"]
    paths = [mount["mountPath"] for mount in sidecar["volumeMounts"]]
    assert paths[-2:] == ["/etc/keyferry-token", "/var/run/secrets/kubernetes.io/serviceaccount"]


def test_another_policy_brings_no_second_agent(cluster: ApiServer, policy: Document) -> None:
    """Whatever changes a pod, such as a mesh, may have other policies asked again."""
    cluster.namespace("mesh", **RESTRICTED, **CHOSEN, mesh="on")
    cluster.create("mesh", documents(MESH))
    admitted = eventually(
        lambda: (pod := cluster.try_out("mesh", team_pod()))["spec"]["containers"][1:] and pod,
        within=PATIENCE_SECONDS,
        what="the mesh",
    )
    assert agents(admitted) == ["keyferry"]


def test_updates_change_nothing(cluster: ApiServer, policy: Document) -> None:
    """A label that comes later is too late, and a debugger is no container of the app."""
    cluster.create("team", [a_pod(team_pod()["spec"])])
    cluster.kubectl("label", "pod", "pod", "--namespace=team", "keyferry.io/inject=fedha-keyferry")
    debugger = ["--image=fedha:1.0.0", "--profile=restricted", "--container=debugger", "--quiet"]
    cluster.kubectl("debug", "pod/pod", "--namespace=team", "--attach=false", *debugger)
    found = yaml.safe_load(cluster.kubectl("get", "pod", "pod", "--namespace=team", "--output=yaml"))
    assert agents(found) == []
    [container] = found["spec"]["ephemeralContainers"]
    assert "volumeMounts" not in container


def test_the_beta_is_still_taken(cluster: ApiServer) -> None:
    """As the chart renders it for 1.34 and 1.35, where the stable version is not there yet."""
    found = render({"injection": {"enabled": True}}, kubernetes="1.35", release="beta")
    for kind in (POLICY, f"{POLICY}Binding"):
        with pytest.raises(RuntimeError) as caught:
            cluster.try_out("default", one(found, kind))
        warning, error = str(caught.value).splitlines()
        assert f"v1beta1 {kind} is deprecated in v1.37+" in warning
        assert error == "error: 1 warning received"
