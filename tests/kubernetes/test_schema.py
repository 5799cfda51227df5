# SPDX-License-Identifier: Apache-2.0
"""Every value that the chart refuses, and what it says. Both Helms have their own words for a schema's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kubernetes.charts import CHART, NEWEST, PLAIN, render, team_chart

pytestmark = pytest.mark.chart


class Refused(NamedTuple):
    """Values, and what Helm 3 and Helm 4 say about them."""

    values: dict[str, Any]
    helm_3: str
    helm_4: str


def unknown(path: str, values: dict[str, Any]) -> Refused:
    """Return a value that nobody reads, most often a misspelt one."""
    place, _, name = path.rpartition(".")
    slashes = "".join(f"/{part}" for part in place.split(".") if part)
    return Refused(
        values,
        f"- {place or '(root)'}: Additional property {name} is not allowed",
        f"- at '{slashes}': additional properties '{name}' not allowed",
    )


def pattern(path: str, value: str, expression: str) -> Refused:
    """Return a text that does not have the form it must have."""
    values: Any = value
    for part in reversed(path.split(".")):
        values = {part: values}
    quoted = expression.replace("\\", "\\\\")
    return Refused(
        values,
        f"- {path}: Does not match pattern '{expression}'",
        f"- at '/{path.replace('.', '/')}': '{value}' does not match pattern '{quoted}'",
    )


def choice(path: str, values: dict[str, Any], *allowed: str) -> Refused:
    """Return a value that is none of those allowed."""
    return Refused(
        values,
        f"- {path}: {path} must be one of the following: {', '.join(allowed)}",
        f"- at '/{path.replace('.', '/')}': value must be one of {', '.join(allowed)}".replace('"', "'"),
    )


def wrong_type(path: str, values: dict[str, Any], wanted: str, given: str) -> Refused:
    """Return a value of another type."""
    slashes = "".join(f"/{part}" for part in path.split("."))
    shown = {"integer": "number", "bool": "boolean"}.get(given, given)
    return Refused(
        values,
        f"- {path}: Invalid type. Expected: {wanted}, given: {given}",
        f"- at '{slashes}': got {shown}, want {wanted}",
    )


def too_small(path: str, values: dict[str, Any], least: str, given: str) -> Refused:
    """Return a number below the least that is allowed."""
    return Refused(
        values,
        f"- {path}: Must be greater than or equal to {least.replace(',', '')}",
        f"- at '/{path}': minimum: got {given}, want {least}",
    )


NAME = "^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"
LABEL = "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"
PATH = "^(/[A-Za-z0-9._-]*[A-Za-z0-9_-])+$"
URL = r"^(https?://[^#\s]+)?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|Ki|Mi|Gi)?$"
VAULT = {"master": {"provider": "vault"}}

REFUSED = {
    "unknown value": unknown("replicas", {"replicas": 2}),
    "unknown image value": unknown("image.name", {"image": {"name": "x"}}),
    "unknown section of the configuration": unknown(
        "config.refesh", {"config": {"keys": VAULT, "refesh": {"interval": "5m"}}}
    ),
    "unknown resource part": unknown("resources.limit", {"resources": {"limit": {"memory": "1Gi"}}}),
    "unknown account value": unknown("serviceAccount.roleArn", {"serviceAccount": {"roleArn": "x"}}),
    "unknown selector": unknown("podSelector.app", {"podSelector": {"app": "x"}}),
    "unknown monitor value": unknown("podMonitor.path", {"podMonitor": {"path": "/x"}}),
    "unknown rule value": unknown("prometheusRule.rules", {"prometheusRule": {"rules": []}}),
    "unknown dashboard value": unknown("dashboard.folder", {"dashboard": {"folder": "x"}}),
    "unknown policy value": unknown("networkPolicy.to", {"networkPolicy": {"to": []}}),
    "unknown injection value": unknown("injection.label", {"injection": {"label": "x"}}),
    "unknown namespace selector": unknown(
        "injection.namespaceSelector.x", {"injection": {"namespaceSelector": {"x": "y"}}}
    ),
    "tag in the repository": pattern(
        "image.repository", "keyferry-agent:0.1.0", r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*$"
    ),
    "tag with a digest": pattern("image.tag", "0.1@sha256", "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"),
    "short digest": pattern("image.digest", "sha256:00", "^(sha256:[0-9a-f]{64})?$"),
    "pull policy": choice(
        "image.pullPolicy", {"image": {"pullPolicy": "Sometimes"}}, '"IfNotPresent"', '"Always"', '"Never"'
    ),
    "configuration without keys": Refused(
        {"config": {"refresh": {"interval": "5m"}}},
        "- config: keys is required",
        "- at '/config': missing property 'keys'",
    ),
    "no keys": Refused(
        {"config": {"keys": {}}},
        "- config.keys: Must have at least 1 properties",
        "- at '/config/keys': minProperties: got 0, want 1",
    ),
    "key without a provider": Refused(
        {"config": {"keys": {"master": {}}}},
        "- config.keys.master: provider is required",
        "- at '/config/keys/master': missing property 'provider'",
    ),
    "mode": choice("mode", {"mode": "daemon"}, '"sidecar"', '"once"'),
    "native sidecar as text": choice("nativeSidecar", {"nativeSidecar": "yes"}, '"auto"', "true", "false"),
    "relative mount path": pattern("mountPath", "run/keyferry", PATH),
    "the root as mount path": pattern("mountPath", "/", PATH),
    "a mount path that leads elsewhere": pattern("mountPath", "/run/../etc/keyferry", PATH),
    "a mount path with an empty part": pattern("mountPath", "//etc/keyferry", PATH),
    "volume without a unit": pattern("volumeSize", "4", "^[1-9][0-9]*(Ki|Mi|Gi)$"),
    "volume as a number": wrong_type("volumeSize", {"volumeSize": 4}, "string", "integer"),
    "privileged port": too_small("port", {"port": 80}, "1,024", "80"),
    "port as text": wrong_type("port", {"port": "8181"}, "integer", "string"),
    "no user": too_small("runAsUser", {"runAsUser": -1}, "0", "-1"),
    "no group": too_small("fsGroup", {"fsGroup": -1}, "0", "-1"),
    "no limits": Refused(
        {"resources": {"limits": None}},
        "- resources: limits is required",
        "- at '/resources': missing property 'limits'",
    ),
    "no resources": Refused(
        {"resources": None}, "- (root): resources is required", "- at '': missing property 'resources'"
    ),
    "no memory limit": Refused(
        {"resources": {"limits": {"memory": None, "cpu": 1}}},
        "- resources.limits: memory is required",
        "- at '/resources/limits': missing property 'memory'",
    ),
    "unit of a request": pattern("resources.requests.memory", "64MB", QUANTITY),
    "name with capitals": pattern("serviceAccount.name", "Fedha", NAME),
    "a ConfigMap's name": pattern("existingConfigMap", "-x", NAME),
    "a full name": pattern("fullnameOverride", "a_b", LABEL),
    "a full name that is too long": pattern("fullnameOverride", "a" * 64, LABEL),
    "another chart's way to a name": unknown("nameOverride", {"nameOverride": "x"}),
    "user in the place of a role": pattern(
        "serviceAccount.awsRoleArn",
        "arn:aws:iam::123456789012:user/fedha",
        "^(arn:aws[a-z-]*:iam::[0-9]{12}:role/.+)?$",
    ),
    "no Google service account": pattern(
        "serviceAccount.gcpServiceAccount",
        "fedha",
        r"^([a-z][a-z0-9-]*@[a-z][a-z0-9.:-]*\.iam\.gserviceaccount\.com)?$",
    ),
    "create as text": wrong_type(
        "serviceAccount.create", {"serviceAccount": {"create": "yes"}}, "boolean", "string"
    ),
    "annotation that is no text": wrong_type(
        "serviceAccount.annotations.x", {"serviceAccount": {"annotations": {"x": True}}}, "string", "boolean"
    ),
    "scrape interval": pattern("podMonitor.interval", "30", "^[1-9][0-9]*(ms|s|m|h)$"),
    "runbook with an anchor": pattern("prometheusRule.runbook", "https://wiki.example/x#y", URL),
    "runbook that nobody can open": pattern("prometheusRule.runbook", "docs/operations.md", URL),
    "files as an object": wrong_type("files", {"files": {"secret": {}}}, "array", "object"),
    "environment without a name": Refused(
        {"env": [{"value": "x"}]}, "- env.0: name is required", "- at '/env/0': missing property 'name'"
    ),
    "port beyond the last": Refused(
        {"port": 70000},
        "- port: Must be less than or equal to 65535",
        "- at '/port': maximum: got 70,000, want 65,535",
    ),
    "peer as text": Refused(
        {"networkPolicy": {"from": ["10.0.0.0/8"]}},
        "- networkPolicy.from.0: Invalid type. Expected: object, given: string",
        "- at '/networkPolicy/from/0': got string, want object",
    ),
    "rules as an object": wrong_type(
        "networkPolicy.egress", {"networkPolicy": {"egress": {}}}, "array", "object"
    ),
    "pull secret without a name": Refused(
        {"serviceAccount": {"imagePullSecrets": [{}]}},
        "- serviceAccount.imagePullSecrets.0: name is required",
        "- at '/serviceAccount/imagePullSecrets/0': missing property 'name'",
    ),
    "environment as an object": wrong_type("env", {"env": {"A": "b"}}, "array", "object"),
    "switch as text": wrong_type(
        "podMonitor.enabled", {"podMonitor": {"enabled": "yes"}}, "boolean", "string"
    ),
    "condition as text": wrong_type("enabled", {"enabled": "no"}, "boolean", "string"),
    "section as text": wrong_type(
        "config.refresh", {"config": {"keys": VAULT, "refresh": "5m"}}, "object", "string"
    ),
    "no audience": Refused(
        {"injection": {"tokenAudience": ""}},
        "- injection.tokenAudience: String length must be greater than or equal to 1",
        "- at '/injection/tokenAudience': minLength: got 0, want 1",
    ),
}

# What a schema cannot say, and what deserves a sentence.
SENTENCES = {
    "a tag that moves": (
        {**PLAIN, "image": {"tag": "latest"}},
        NEWEST,
        "keyferry: image.tag is latest, another image tomorrow; name a version, or none for the chart's",
    ),
    "two configurations": (
        {**PLAIN, "existingConfigMap": "x"},
        NEWEST,
        "keyferry: config and existingConfigMap are both set; the agent reads one of them",
    ),
    "the agent's own port": (
        {"config": {**PLAIN["config"], "http": {"listen": ":9"}}},
        NEWEST,
        "keyferry: config.http and config.volume.path are the chart's; set port and mountPath",
    ),
    "the agent's own path": (
        {"config": {**PLAIN["config"], "volume": {"path": "/x"}}},
        NEWEST,
        "keyferry: config.http and config.volume.path are the chart's; set port and mountPath",
    ),
    "a policy that reaches no store": (
        {**PLAIN, "networkPolicy": {"enabled": True}},
        NEWEST,
        "keyferry: networkPolicy.enabled needs networkPolicy.egress, or no agent could reach its key store",
    ),
    "alerts that lead nowhere": (
        {**PLAIN, "prometheusRule": {"enabled": True}},
        NEWEST,
        (
            "keyferry: prometheusRule.enabled needs prometheusRule.runbook, the address at which whoever is "
            "on call reads docs/operations.md"
        ),
    ),
    "injection before its time": (
        {"injection": {"enabled": True}},
        "1.33.0",
        "keyferry: injection.enabled needs Kubernetes 1.34, and this is v1.33.0; embed the templates instead",
    ),
    **{
        f"the volume at {path}": (
            {**PLAIN, "mountPath": path},
            NEWEST,
            (
                f"keyferry: mountPath {path} and {other}, which is in use, would hide each other; "
                "take a path of its own, such as /run/keyferry"
            ),
        )
        for path, other in {
            "/etc/keyferry": "/etc/keyferry",
            "/etc/keyferry/keys": "/etc/keyferry",
            "/etc": "/etc/keyferry",
            "/etc/keyferry-token": "/etc/keyferry-token",
            "/opt": "/opt/keyferry",
            "/run": "/run/secrets",
            "/var/run/secrets/kubernetes.io/serviceaccount": "/var/run/secrets",
            "/dev/shm": "/dev",
            "/usr/share/keys": "/usr",
        }.items()
    },
}


@pytest.mark.parametrize("major", [3, 4], ids=["helm 3", "helm 4"])
@pytest.mark.parametrize("refused", [pytest.param(case, id=name) for name, case in REFUSED.items()])
def test_the_schema_refuses(refused: Refused, major: int) -> None:
    with pytest.raises(RuntimeError) as caught:
        render(refused.values, major=major)
    wanted = refused.helm_3 if major == 3 else refused.helm_4
    assert wanted in str(caught.value)


@pytest.mark.parametrize("major", [3, 4], ids=["helm 3", "helm 4"])
@pytest.mark.parametrize(
    ("values", "kubernetes", "sentence"), [pytest.param(*case, id=name) for name, case in SENTENCES.items()]
)
def test_the_chart_refuses(values: dict[str, Any], kubernetes: str, sentence: str, major: int) -> None:
    with pytest.raises(RuntimeError) as caught:
        render(values, kubernetes=kubernetes, major=major)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("values", "chart"),
    [
        pytest.param(
            {"injection": {"enabled": True}, "mountPath": "/etc/keyferry"}, lambda: CHART, id="injected"
        ),
        pytest.param({"keyferry": {"mountPath": "/etc/keyferry"}}, team_chart, id="embedded"),
    ],
)
def test_the_volume_is_in_nobodys_way(values: dict[str, Any], chart: Callable[[], Path]) -> None:
    """Whichever way the sidecar comes, its configuration would be hidden, or the key."""
    with pytest.raises(RuntimeError) as caught:
        render(values, chart=chart())
    assert "keyferry: mountPath /etc/keyferry and /etc/keyferry, which is in use" in str(caught.value)


@pytest.mark.parametrize("major", [3, 4], ids=["helm 3", "helm 4"])
@pytest.mark.parametrize(
    "values", [pytest.param({}, id="forgotten"), pytest.param(PLAIN, id="at the wrong level")]
)
def test_no_pod_waits_for_a_configmap_that_nobody_makes(values: dict[str, Any], major: int) -> None:
    """It would hang in ContainerCreating, after Helm had said that all went well."""
    with pytest.raises(RuntimeError) as caught:
        render(values, chart=team_chart(), major=major)
    assert (
        "keyferry: set config.keys or existingConfigMap, or the pod would wait for a ConfigMap that nobody "
        "makes; a chart that embeds this one sets them below keyferry:" in str(caught.value)
    )


@pytest.mark.parametrize(
    "path", ["/run/keyferry", "/keys", "/etc/keyferry-keys", "/etc/fedha/keys", "/home/app/.keys"]
)
def test_other_paths_are_free(path: str) -> None:
    """A name that only begins like one in use is another."""
    assert render({**PLAIN, "mountPath": path})
