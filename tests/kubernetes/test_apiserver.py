# SPDX-License-Identifier: Apache-2.0
"""A real API server admits what the chart and the examples render, under the restricted Pod Security profile.

It stores, and no more. There are no controllers, so the tests make pods of templates by hand.
"""

import pytest

from tests.kubernetes.charts import (
    CHART,
    CUSTOM,
    EVERYTHING,
    EXAMPLES,
    VALUES,
    Document,
    examples,
    helm,
    pods,
    render,
    team_chart,
)
from tests.kubernetes.test_policies import SHAPES
from tests.kubernetes.tools import HELM
from tests.servers.apiserver import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

# Warnings are errors, so that a Deployment whose pods would be refused does not pass either.
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
# For no namespace here: the server is shared.
INJECTION = "--set=injection.enabled=true,injection.namespaceSelector.matchLabels.keyferry=nowhere"


def a_pod(spec: Document, **labels: str) -> Document:
    """Return the pod that a controller would make of its template."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "labels": labels}, "spec": spec}


def test_everything_is_accepted(cluster: ApiServer) -> None:
    """Every document with every field, and every pod that a controller would make of them."""
    sources = dict(examples())
    sources["chart"] = render(EVERYTHING)
    for name, (values, version) in SHAPES.items():
        sources[name] = render(values, chart=team_chart(), files=[VALUES[0]], kubernetes=version)
    for number, (name, found) in enumerate(sources.items()):
        namespace = f"team-{number}"
        cluster.namespace(namespace, **RESTRICTED)
        # Pods are refused without theirs.
        accounts = [document for document in found if document["kind"] == "ServiceAccount"]
        others = [document for document in found if document["kind"] not in {"ServiceAccount", *CUSTOM}]
        templates = [a_pod(spec) for _, spec in pods(found)]
        assert templates, name
        cluster.create(namespace, accounts)
        cluster.create(namespace, [*others, *templates], "--dry-run=server")


def test_a_pod_that_is_not_restricted_is_refused(cluster: ApiServer) -> None:
    """Or the test above could not fail."""
    cluster.namespace("strict", **RESTRICTED)
    with pytest.raises(RuntimeError, match='violates PodSecurity "restricted:latest"'):
        cluster.try_out("strict", a_pod({"containers": [{"name": "app", "image": "fedha:1.0.0"}]}))


def test_a_misspelt_field_is_refused(cluster: ApiServer) -> None:
    cluster.namespace("exact")
    document = a_pod({"containers": [{"name": "app", "image": "fedha:1.0.0", "imagePulPolicy": "Always"}]})
    with pytest.raises(RuntimeError, match=r'unknown field "spec\.containers\[0\]\.imagePulPolicy"'):
        cluster.try_out("exact", document)


@pytest.mark.parametrize("major", HELM)
def test_helm_installs_and_upgrades(cluster: ApiServer, major: int) -> None:
    """What the pages say that people type; Helm 4 applies on the server's side."""
    namespace = f"helm-{major}"
    cluster.namespace(namespace, **RESTRICTED)
    place = ["--namespace", namespace, "--kubeconfig", str(cluster.home / "kubeconfig")]
    for release, chart, values in (
        ("fedha", team_chart(), f"--values={EXAMPLES / 'values/local.yaml'}"),
        (f"keyferry-{major}", CHART, INJECTION),
    ):
        helm("install", release, chart, values, *place, major=major)
        helm("upgrade", release, chart, values, *place, major=major)
        assert "STATUS: deployed" in helm("status", release, *place, major=major)
        helm("uninstall", release, *place, major=major)
