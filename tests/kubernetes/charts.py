# SPDX-License-Identifier: Apache-2.0
"""Renders the chart, the team chart that embeds it, and the plain examples, into documents.

A document is what the API server would get. Everything is rendered by the real programs, without a cluster.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.tools import HELM, KUBECTL

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/keyferry"
EXAMPLES = ROOT / "examples/kubernetes"
VALUES = sorted((EXAMPLES / "values").glob("*.yaml"))
NEWEST = "1.37"
# All that kubernetes-validate and native sidecars have in common.
SUPPORTED = tuple(f"1.{minor}" for minor in range(29, 38))
# Of the Prometheus operator: no schema here knows them.
CUSTOM = ("PodMonitor", "PrometheusRule")

Document = dict[str, Any]

KEY = {"provider": "file", "path": "/etc/keyferry/source/master", "encoding": "base64url", "length": 32}
# The least that makes a release.
PLAIN: Mapping[str, Any] = {"config": {"keys": {"master": KEY}}}
# The alerts, which need to know where they are explained.
ALERTS: Mapping[str, Any] = {"prometheusRule": {"enabled": True, "runbook": "https://wiki.example/keyferry"}}
# All that can be switched on.
EVERYTHING: Mapping[str, Any] = {
    **PLAIN,
    "files": [{"secret": {"name": "fedha-master", "items": [{"key": "master", "path": "source/master"}]}}],
    "env": [{"name": "AWS_USE_FIPS_ENDPOINT", "value": "true"}],
    "serviceAccount": {
        "awsRoleArn": "arn:aws:iam::123456789012:role/fedha",
        "gcpServiceAccount": "fedha@fedha-prod.iam.gserviceaccount.com",
        "annotations": {"team": "fedha"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {**ALERTS["prometheusRule"], "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "egress": [
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 8200, "protocol": "TCP"}]}
        ],
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "injection": {"enabled": True, "namespaceSelector": {"matchLabels": {"keyferry": "on"}}},
}


def helm(*arguments: str | Path, major: int = 4, values: Mapping[str, Any] | None = None) -> str:
    """Run Helm with ``values`` and return its output; raise ``RuntimeError`` with its complaint."""
    command = [str(HELM[major]), *map(str, arguments)]
    if values is not None:
        command += ["--values", "-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout


def render(
    values: Mapping[str, Any] = PLAIN,
    *,
    kubernetes: str = NEWEST,
    major: int = 4,
    chart: Path = CHART,
    release: str = "fedha",
    files: Sequence[Path] = (),
) -> list[Document]:
    """Return what the chart makes of its defaults, ``files`` of values and ``values``."""
    arguments = ["--kube-version", kubernetes, "--namespace", "team"]
    for file in files:
        arguments += ["--values", str(file)]
    return documents(helm("template", release, chart, *arguments, major=major, values=values))


def documents(text: str) -> list[Document]:
    """Return the documents of a YAML text, without the empty ones."""
    return [document for document in yaml.safe_load_all(text) if document]


@cache
def team_chart() -> Path:
    """Return a copy of the team chart that has its dependency, as `helm dependency update` brings it."""
    # Laid out as here, since the dependency is a relative path. It lives as long as the tests' process.
    root = Path(_home().name)
    shutil.copytree(ROOT / "charts", root / "charts")
    chart = root / "examples/kubernetes/team-chart"
    shutil.copytree(EXAMPLES / "team-chart", chart)
    helm("dependency", "update", chart)
    return chart


@cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="keyferry-charts-")


@cache
def kustomized() -> str:
    """Return the text that the Kustomize example renders."""
    command = [str(KUBECTL), "kustomize", str(EXAMPLES / "kustomize")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def examples() -> Iterator[tuple[str, list[Document]]]:
    """Yield each example's name and documents."""
    for path in sorted(EXAMPLES.glob("*.yaml")):
        yield path.stem, documents(path.read_text())
    yield "kustomize", documents(kustomized())
    for path in VALUES:
        yield f"team chart, {path.stem}", render({}, chart=team_chart(), files=[path])


def one(found: Iterable[Document], kind: str, name: str | None = None) -> Document:
    """Return the one document of ``kind`` (and ``name``)."""
    [document] = [d for d in found if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    return document


def pod_of(document: Document) -> Document | None:
    """Return the pod's spec in a document that makes pods, else ``None``."""
    spec: Document = document.get("spec", {})
    match document["kind"]:
        case "Pod":
            return spec
        case "CronJob":
            spec = spec["jobTemplate"]["spec"]
        case "Deployment" | "Job":
            pass
        case _:
            return None
    pod: Document = spec["template"]["spec"]
    return pod


def pods(found: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """Yield the name and the spec of every pod that ``found`` makes."""
    for document in found:
        if (pod := pod_of(document)) is not None:
            yield f"{document['kind']}/{document['metadata']['name']}", pod


def containers(pod: Document) -> list[Document]:
    """Return all containers of a pod, init containers first."""
    return [*pod.get("initContainers", []), *pod["containers"]]
