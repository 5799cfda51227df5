# SPDX-License-Identifier: Apache-2.0
"""The MutatingAdmissionPolicy: valid where it exists, and what it makes of a pod."""

import copy
from typing import Any

import kubernetes_validate
import pytest

from tests.kubernetes.charts import EVERYTHING, EXAMPLES, NEWEST, Document, one, pod_of, render, team_chart
from tests.kubernetes.injection import admit

pytestmark = pytest.mark.chart


def policy(**values: Any) -> Document:
    """Return the policy that the chart renders."""
    found = render({"injection": {"enabled": True}, **values})
    return one(found, "MutatingAdmissionPolicy")


def labelled_pod(**spec: Any) -> Document:
    """Return a pod as a team writes it, under the restricted profile, with the label."""
    app = {
        "name": "app",
        "image": "fedha:1.0.0",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "env": [{"name": "MODE", "value": "production"}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "fedha",
            "namespace": "team",
            "labels": {"keyferry.io/inject": "fedha-keyferry"},
        },
        "spec": {
            "containers": [app],
            "volumes": [{"name": "cache", "emptyDir": {}}],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("kubernetes", "version"), [("1.34", "v1beta1"), ("1.35", "v1beta1"), ("1.36", "v1"), ("1.37", "v1")]
)
def test_the_newest_version_of_the_api_is_used(kubernetes: str, version: str) -> None:
    """Stable from 1.36, beta from 1.34; the schema test validates both."""
    found = render(EVERYTHING, kubernetes=kubernetes)
    kinds = {d["kind"]: d["apiVersion"] for d in found if "Mutating" in d["kind"]}
    assert kinds == dict.fromkeys(
        ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"],
        f"admissionregistration.k8s.io/{version}",
    )


def test_the_binding_says_where() -> None:
    binding = one(render(EVERYTHING), "MutatingAdmissionPolicyBinding")["spec"]
    assert binding["matchResources"] == {"namespaceSelector": {"matchLabels": {"keyferry": "on"}}}
    everywhere = one(render({"injection": {"enabled": True}}), "MutatingAdmissionPolicyBinding")["spec"]
    assert everywhere == {"policyName": "fedha-keyferry-inject"}


@pytest.mark.parametrize("kubernetes", ["1.34", NEWEST])
def test_the_mutated_pod_is_valid(kubernetes: str) -> None:
    """Strictly: a misspelt field would be dropped by the API server without a word."""
    kubernetes_validate.validate(admit(policy(), labelled_pod()), kubernetes, strict=True)


def test_the_injected_sidecar_is_the_embedded_one() -> None:
    """One agent, two ways to get it: only the login token's mount differs."""
    found = render({}, chart=team_chart(), files=[EXAMPLES / "values/local.yaml"])
    embedded = pod_of(one(found, "Deployment"))
    assert embedded is not None
    [sidecar] = admit(policy(), labelled_pod())["spec"]["initContainers"]
    token = {"name": "keyferry-token", "mountPath": "/etc/keyferry-token", "readOnly": True}
    assert sidecar["volumeMounts"].pop() == token
    assert sidecar == embedded["initContainers"][0]


def test_it_comes_first_of_all_init_containers() -> None:
    """The app's own may need the key."""
    before = labelled_pod(initContainers=[{"name": "migrate", "image": "fedha:1.0.0"}])
    after = admit(policy(), before)
    assert [container["name"] for container in after["spec"]["initContainers"]] == ["keyferry", "migrate"]


def test_the_app_keeps_what_it_has() -> None:
    [app] = admit(policy(), labelled_pod())["spec"]["containers"]
    assert app == {
        "name": "app",
        "image": "fedha:1.0.0",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "env": [{"name": "MODE", "value": "production"}, {"name": "KEYFERRY_DIR", "value": "/run/keyferry"}],
        "volumeMounts": [
            {"name": "cache", "mountPath": "/cache"},
            {"name": "keyferry", "mountPath": "/run/keyferry", "readOnly": True},
        ],
    }


def test_the_volumes_are_added() -> None:
    """The label names the ConfigMap; the token is the sidecar's own, with Vault's audience."""
    volumes = admit(policy(), labelled_pod())["spec"]["volumes"]
    token = {"serviceAccountToken": {"audience": "vault", "expirationSeconds": 3600, "path": "token"}}
    assert volumes == [
        {"name": "cache", "emptyDir": {}},
        {"name": "keyferry", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
        {"name": "keyferry-config", "configMap": {"name": "fedha-keyferry"}},
        {"name": "keyferry-token", "projected": {"sources": [token]}},
    ]


@pytest.mark.parametrize("value", ["false", "true"])
def test_every_value_is_a_configmaps_name(value: str) -> None:
    """No word turns it off: that is the label's absence."""
    pod = labelled_pod()
    pod["metadata"]["labels"]["keyferry.io/inject"] = value
    [config] = [volume for volume in admit(policy(), pod)["spec"]["volumes"] if "configMap" in volume]
    assert config["configMap"]["name"] == value


def test_a_pod_with_nothing_gets_everything() -> None:
    """A list that is not there is made first: a patch cannot insert into nothing."""
    bare = labelled_pod()
    bare["spec"] = {"containers": [{"name": "app", "image": "fedha:1.0.0"}]}
    after = admit(policy(), bare)["spec"]
    assert [container["name"] for container in after["initContainers"]] == ["keyferry"]
    assert len(after["volumes"]) == 3
    assert after["containers"][0]["volumeMounts"][0]["readOnly"] is True


def test_no_fs_group_is_given() -> None:
    """It would re-own the app's own volumes, however large they are."""
    after = admit(policy(), labelled_pod(securityContext={"runAsNonRoot": True}))
    assert after["spec"]["securityContext"] == {"runAsNonRoot": True}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"metadata": {"name": "fedha", "labels": {"app": "fedha"}}}, id="no label"),
        pytest.param({"metadata": {"name": "fedha"}}, id="no labels"),
        pytest.param(labelled_pod(initContainers=[{"name": "keyferry", "image": "x"}]), id="embedded"),
        pytest.param(
            labelled_pod(initContainers=[{"name": "keyferry-once", "image": "x"}]), id="embedded, once"
        ),
    ],
)
def test_other_pods_stay_as_they_are(changed: Document) -> None:
    before = {**labelled_pod(), **changed}
    assert admit(policy(), copy.deepcopy(before)) == before


def test_values_reach_the_sidecar() -> None:
    """The same values as for embedding, so that a platform team sets them once."""
    values = {
        "image": {"repository": "registry.example/keyferry", "tag": "0.1.0-vault", "pullPolicy": "Always"},
        "port": 9999,
        "mountPath": "/keys",
        "volumeSize": "8Mi",
        "runAsUser": None,
        "resources": {"requests": {"cpu": 1, "memory": "96Mi"}, "limits": {"memory": "96Mi"}},
    }
    mutated = admit(policy(**values), labelled_pod())["spec"]
    [sidecar] = mutated["initContainers"]
    assert (sidecar["image"], sidecar["imagePullPolicy"]) == (
        "registry.example/keyferry:0.1.0-vault",
        "Always",
    )
    assert sidecar["resources"] == {"requests": {"cpu": "1", "memory": "96Mi"}, "limits": {"memory": "96Mi"}}
    assert {sidecar[p]["httpGet"]["port"] for p in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        9999
    }
    assert "runAsUser" not in sidecar["securityContext"]
    assert mutated["volumes"][1]["emptyDir"]["sizeLimit"] == "8Mi"
    assert mutated["containers"][0]["volumeMounts"][1]["mountPath"] == "/keys"
    assert mutated["containers"][0]["env"][1]["value"] == "/keys"
