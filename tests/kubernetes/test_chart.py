# SPDX-License-Identifier: Apache-2.0
"""What the chart renders: valid for every Kubernetes, and what each value is for."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from agent.loading import load
from tests.kubernetes.charts import (
    CHART,
    CUSTOM,
    EVERYTHING,
    EXAMPLES,
    NEWEST,
    PLAIN,
    SUPPORTED,
    VALUES,
    Document,
    containers,
    documents,
    examples,
    helm,
    one,
    pod_of,
    render,
    team_chart,
)

pytestmark = pytest.mark.chart

HELMS = pytest.mark.parametrize("major", [3, 4], ids=["helm 3", "helm 4"])


def everything_for(kubernetes: str) -> Mapping[str, Any]:
    """Return all values that ``kubernetes`` is new enough for."""
    return EVERYTHING if int(kubernetes.split(".")[1]) >= 34 else {**EVERYTHING, "injection": {}}


def check_schema(document: Document, kubernetes: str) -> None:
    """Fail if ``document`` is not what that Kubernetes takes; the operator's kinds have no schema here."""
    if document["kind"] not in CUSTOM:
        kubernetes_validate.validate(document, kubernetes, strict=True)


# Every values branch, for every Kubernetes, by both Helms


@HELMS
@pytest.mark.parametrize("kubernetes", SUPPORTED)
def test_lint_has_no_complaint(kubernetes: str, major: int) -> None:
    """Helm's own linter, with warnings as errors, on the chart and on the team chart that embeds it."""
    strict = ["lint", "--strict", "--kube-version", kubernetes]
    text = helm(*strict, CHART, major=major, values=everything_for(kubernetes))
    text += helm(*strict, team_chart(), "--values", VALUES[0], major=major)
    assert "[WARNING]" not in text
    assert "[ERROR]" not in text


@HELMS
@pytest.mark.parametrize("kubernetes", SUPPORTED)
def test_everything_is_valid(kubernetes: str, major: int) -> None:
    """All that can be switched on, against the schemas of that Kubernetes."""
    found = render(everything_for(kubernetes), kubernetes=kubernetes, major=major)
    for document in found:
        check_schema(document, kubernetes)
    assert {document["kind"] for document in found} >= {
        "ConfigMap",
        "NetworkPolicy",
        "Pod",
        "PodMonitor",
        "PrometheusRule",
        "ServiceAccount",
    }


@pytest.mark.parametrize("kubernetes", ["1.29", NEWEST])
def test_both_helms_render_the_same(kubernetes: str) -> None:
    """Order aside: they sort differently."""
    by_text = [
        sorted(
            json.dumps(d, sort_keys=True)
            for d in render(everything_for(kubernetes), kubernetes=kubernetes, major=m)
        )
        for m in (3, 4)
    ]
    assert by_text[0] == by_text[1]


@pytest.mark.parametrize("kubernetes", SUPPORTED)
def test_every_example_is_valid(kubernetes: str) -> None:
    """Plain manifests, Kustomize, and the team chart with each key store's values."""
    seen = []
    for name, found in examples():
        seen.append(name)
        for document in found:
            check_schema(document, kubernetes)
    assert seen == [
        "cronjob",
        "deployment",
        "job",
        "kustomize",
        *(f"team chart, {path.stem}" for path in VALUES),
    ]


@pytest.mark.parametrize("kubernetes", ["1.25", "1.26", "1.27", "1.28"])
def test_older_clusters_get_what_they_know(kubernetes: str) -> None:
    """An init container and a sidecar: a native one's restartPolicy is no field of theirs."""
    for document in render({}, chart=team_chart(), files=[VALUES[0]], kubernetes=kubernetes):
        check_schema(document, kubernetes)


def test_the_examples_ask_nothing_more_of_a_cluster() -> None:
    """Whoever tries one may have no operator, and an app that others must reach."""
    kinds = {document["kind"] for _, found in examples() for document in found}
    assert kinds == {"ConfigMap", "CronJob", "Deployment", "Job", "Pod", "ServiceAccount"}


# The agent's own code reads what the chart wrote


def agent_yaml(found: list[Document]) -> list[str]:
    maps = [document["data"] for document in found if document["kind"] == "ConfigMap"]
    return [data["agent.yaml"] for data in maps if "agent.yaml" in data]


def test_the_agent_takes_every_configuration(tmp_path: Path) -> None:
    """The settings' own code: types, allowed values, and the bound against the activation delay."""
    checked = 0
    for name, found in [*examples(), ("everything", render(EVERYTHING))]:
        for text in agent_yaml(found):
            path = tmp_path / "agent.yaml"
            path.write_text(text)
            loaded = load(path, {})
            assert loaded.warnings == (), name
            assert str(loaded.settings.volume.path) == "/run/keyferry", name
            assert loaded.settings.http.port == 8181, name
            checked += 1
    assert checked == 5 + len(VALUES)


def test_port_and_path_reach_the_agent_and_the_pod(tmp_path: Path) -> None:
    """One value each for what two sides must agree on."""
    values = {"port": 9999, "mountPath": "/keys", **PLAIN}
    [text] = agent_yaml(render(values))
    (tmp_path / "agent.yaml").write_text(text)
    settings = load(tmp_path / "agent.yaml", {}).settings
    assert (settings.http.port, str(settings.volume.path)) == (9999, "/keys")
    pod = team_pod({"keyferry": values})
    [sidecar] = pod["initContainers"]
    assert sidecar["ports"] == [{"name": "keyferry", "containerPort": 9999}]
    assert {
        sidecar[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    } == {9999}
    [app] = pod["containers"]
    assert app["env"] == [{"name": "KEYFERRY_DIR", "value": "/keys"}]
    assert app["volumeMounts"] == [{"name": "keyferry", "mountPath": "/keys", "readOnly": True}]


# The shapes of the pod


def team_pod(values: Mapping[str, Any], **options: Any) -> Document:
    """Return the pod of the team chart, with the local cluster's values and ``values``."""
    options = {"chart": team_chart(), **options}
    found = render(values, files=[EXAMPLES / "values/local.yaml"], **options)
    pod = pod_of(one(found, "Deployment"))
    assert pod is not None
    return pod


@HELMS
@pytest.mark.parametrize(
    ("kubernetes", "wanted", "shape"),
    [
        pytest.param("1.28", "auto", "classic", id="auto, old"),
        pytest.param("1.29", "auto", "native", id="auto, new"),
        pytest.param("v1.29.4-gke.1043002", "auto", "native", id="auto, a vendor's build"),
        pytest.param("1.37", False, "classic", id="false, new"),
        pytest.param("1.28", False, "classic", id="false, old"),
        pytest.param("1.37", True, "native", id="true, new"),
    ],
)
def test_the_sidecar_is_native_where_it_can_be(
    kubernetes: str, wanted: str | bool, shape: str, major: int
) -> None:
    """A native one starts before the app and ends after it; else an init container fetches the first key."""
    pod = team_pod({"keyferry": {"nativeSidecar": wanted}}, kubernetes=kubernetes, major=major)
    names = [[c["name"] for c in pod[part]] for part in ("initContainers", "containers")]
    [first] = pod["initContainers"]
    if shape == "native":
        assert names == [["keyferry"], ["app"]]
        assert (first["restartPolicy"], first["args"]) == ("Always", ["run"])
        # The agent's own startup.timeout decides: a month is no decision.
        assert (
            first["startupProbe"]["periodSeconds"] * first["startupProbe"]["failureThreshold"] >= 30 * 86400
        )
    else:
        assert names == [["keyferry-once"], ["app", "keyferry"]]
        assert (first["args"], "restartPolicy" in first) == (["once"], False)
        assert "startupProbe" not in pod["containers"][1]


@HELMS
def test_a_native_sidecar_is_refused_where_there_is_none(major: int) -> None:
    """Rendered anyway it would be an init container that never ends."""
    with pytest.raises(RuntimeError) as caught:
        team_pod({"keyferry": {"nativeSidecar": True}}, kubernetes="1.28.0", major=major)
    assert (
        "keyferry: nativeSidecar is true, but Kubernetes v1.28.0 has no native sidecars "
        "(1.29 and newer do); set it to auto" in str(caught.value)
    )


def test_once_leaves_nothing_behind() -> None:
    """For pods that live shorter than the activation delay."""
    pod = team_pod({"keyferry": {"mode": "once"}})
    assert [(c["name"], c["args"]) for c in pod["initContainers"]] == [("keyferry-once", ["once"])]
    assert [c["name"] for c in pod["containers"]] == ["app"]


def parent(directory: Path, values: Mapping[str, Any]) -> Path:
    """Return a copy of the team chart whose own values.yaml has ``values`` for the agent."""
    chart = shutil.copytree(team_chart(), directory / "chart")
    with (chart / "values.yaml").open("a") as file:
        yaml.safe_dump({"keyferry": values}, file)
    return chart


def assert_no_ids(pod: Document) -> None:
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["initContainers"][0]["securityContext"].keys().isdisjoint({"runAsUser", "runAsGroup"})


@HELMS
@pytest.mark.parametrize("nobody", [0, None], ids=["0", "null"])
def test_openshift_chooses_the_ids(nobody: int | None, major: int) -> None:
    """No id is rendered, as its security context constraints want it."""
    assert_no_ids(team_pod({"keyferry": {"fsGroup": nobody, "runAsUser": nobody}}, major=major))


@HELMS
def test_a_team_leaves_the_ids_to_openshift_in_its_own_chart(tmp_path: Path, major: int) -> None:
    """By 0: Helm 4 takes no null from there."""
    chart = parent(tmp_path, {"fsGroup": 0, "runAsUser": 0})
    assert_no_ids(team_pod({}, chart=chart, major=major))


@HELMS
def test_no_id_is_a_float(major: int) -> None:
    """Helm reads numbers as floats, and writes those from a million up as 1e+06."""
    large = 1_000_660_000
    values = {"fsGroup": large, "runAsUser": large, "injection": {"enabled": True}, **PLAIN}
    found = render(values, major=major)
    pod, policy = one(found, "Pod")["spec"], one(found, "MutatingAdmissionPolicy")["spec"]
    ids = [
        pod["securityContext"]["fsGroup"],
        *(pod["containers"][0]["securityContext"][name] for name in ("runAsUser", "runAsGroup")),
    ]
    assert list(map(repr, ids)) == [f"{large}"] * 3
    expression = policy["mutations"][0]["jsonPatch"]["expression"]
    assert re.findall(r"runAs(?:User|Group): (.+),", expression) == [f"{large}"] * 2


@pytest.mark.parametrize(
    ("user", "group"),
    [pytest.param(1_000_660_000, "1000660000", id="large"), pytest.param(0, "GROUP", id="0")],
)
def test_the_notes_say_what_an_injected_agent_must_know(user: int, group: str) -> None:
    values = {"injection": {"enabled": True}, "runAsUser": user}
    text = helm("install", "keyferry", CHART, "--dry-run=client", values=values).partition("\nNOTES:\n")[2]
    assert f'volume: {{mode: "0444", group: {group}}}' in text


@HELMS
@pytest.mark.parametrize(("enabled", "agents"), [(True, ["keyferry"]), (False, [])], ids=["on", "off"])
def test_a_condition_switches_the_agent(tmp_path: Path, enabled: bool, agents: list[str], major: int) -> None:
    """The README's way: a dependency that is off brings no templates."""
    chart = shutil.copytree(team_chart(), tmp_path / "chart")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    about["dependencies"][0]["condition"] = "keyferry.enabled"
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    template = chart / "templates/deployment.yaml"
    guarded = r"{{ with .Subcharts.keyferry }}{{\1.\2}}{{ end }}"
    template.write_text(re.sub(r"{{(.+)\.Subcharts\.keyferry(.+)}}", guarded, template.read_text()))
    pod = team_pod({"keyferry": {"enabled": enabled}}, chart=chart, major=major)
    assert [container["name"] for container in pod["initContainers"] or []] == agents
    assert [container["name"] for container in pod["containers"]] == ["app"]


@pytest.mark.parametrize(
    ("image", "rendered"),
    [
        pytest.param({}, "keyferry-agent:0.1.0", id="the chart's version"),
        pytest.param({"tag": "0.1.0-vault"}, "keyferry-agent:0.1.0-vault", id="tag"),
        pytest.param(
            {"repository": "registry.example:5000/team/keyferry"},
            "registry.example:5000/team/keyferry:0.1.0",
            id="repository",
        ),
        pytest.param(
            {"tag": "x", "digest": f"sha256:{'0' * 64}"},
            f"keyferry-agent@sha256:{'0' * 64}",
            id="digest wins",
        ),
    ],
)
def test_the_image_is_what_was_asked_for(image: Mapping[str, str], rendered: str) -> None:
    assert team_pod({"keyferry": {"image": image}})["initContainers"][0]["image"] == rendered


# Everything else, value by value


@pytest.mark.parametrize(
    ("values", "place", "rendered"),
    [
        pytest.param({"image": {"pullPolicy": "Always"}}, "imagePullPolicy", "Always", id="pull policy"),
        pytest.param(
            {"env": [{"name": "A", "value": "b"}]}, "env", [{"name": "A", "value": "b"}], id="environment"
        ),
        pytest.param(
            {"resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "256Mi", "cpu": 1}}},
            "resources",
            {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi", "cpu": 1}},
            id="resources, merged",
        ),
    ],
)
def test_values_reach_the_agent(values: Mapping[str, Any], place: str, rendered: object) -> None:
    assert team_pod({"keyferry": values})["initContainers"][0][place] == rendered


def test_values_reach_the_volumes() -> None:
    files = [{"secret": {"name": "other", "items": [{"key": "k", "path": "source/k"}]}}]
    key, config = team_pod({"keyferry": {"volumeSize": "16Mi", "files": files}})["volumes"]
    assert key["emptyDir"]["sizeLimit"] == "16Mi"
    assert config["projected"]["sources"][1:] == files
    # 0440: for the fsGroup, and nobody else.
    assert config["projected"]["defaultMode"] == 0o440


def test_values_reach_prometheus() -> None:
    """Labels by which each is selected, the interval, and where the runbook is."""
    found = render(
        {
            "podMonitor": {"enabled": True, "labels": {"release": "a"}, "interval": "15s"},
            "prometheusRule": {
                "enabled": True,
                "labels": {"release": "b"},
                "runbook": "https://wiki.example/keyferry",
            },
        }
    )
    monitor, rule = one(found, "PodMonitor"), one(found, "PrometheusRule")
    assert (monitor["metadata"]["labels"]["release"], rule["metadata"]["labels"]["release"]) == ("a", "b")
    assert monitor["spec"]["podMetricsEndpoints"][0]["interval"] == "15s"
    links = {
        alert["annotations"]["runbook_url"].partition("#")[0] for alert in rule["spec"]["groups"][0]["rules"]
    }
    assert links == {"https://wiki.example/keyferry"}


def test_the_service_account_says_who_it_is_to_each_cloud() -> None:
    account = one(render(EVERYTHING), "ServiceAccount")
    assert account["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/fedha",
        "iam.gke.io/gcp-service-account": "fedha@fedha-prod.iam.gserviceaccount.com",
        "team": "fedha",
    }
    assert account["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("account", "name", "made"),
    [
        pytest.param({}, "fedha-keyferry", True, id="made"),
        pytest.param({"name": "app"}, "app", True, id="made, named"),
        pytest.param({"create": False, "name": "app"}, "app", False, id="there already"),
        pytest.param({"create": False}, "default", False, id="the namespace's own"),
    ],
)
def test_the_pod_runs_as_the_service_account(account: Mapping[str, Any], name: str, made: bool) -> None:
    found = render({**PLAIN, "serviceAccount": account})
    accounts = [d["metadata"]["name"] for d in found if d["kind"] == "ServiceAccount"]
    assert accounts == ([name] if made else [])
    assert team_pod({"keyferry": {"serviceAccount": account}})["serviceAccountName"] == name


def test_a_configmap_of_somebody_else() -> None:
    """Nothing is made, and the pod mounts it."""
    found = render({"existingConfigMap": "theirs"})
    assert [d for d in found if d["kind"] == "ConfigMap"] == []
    pod = pod_of(one(found, "Pod"))
    assert pod is not None
    assert pod["volumes"][1]["projected"]["sources"][0]["configMap"]["name"] == "theirs"


def test_nothing_to_configure_makes_nothing_to_test() -> None:
    """A release for the injection alone: a service account and the policy."""
    found = render({"injection": {"enabled": True}, "serviceAccount": {"create": False}})
    assert sorted(d["kind"] for d in found) == ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]


def test_names_never_collide_with_the_app() -> None:
    """In a team's chart the release's own name is the app's."""
    names = {d["metadata"]["name"] for d in render(EVERYTHING)}
    assert all(name.startswith("fedha-keyferry") for name in names), names
    assert {d["metadata"]["name"] for d in render(PLAIN, release="keyferry")} == {
        "keyferry",
        "keyferry-check",
    }
    assert {d["metadata"]["name"] for d in render({**PLAIN, "fullnameOverride": "x"})} == {"x", "x-check"}
    embedded = render({}, chart=team_chart(), files=[VALUES[0]], release="keyferry-demo")
    assert [d["metadata"]["name"] for d in embedded if d["kind"] == "ServiceAccount"] == [
        "keyferry-demo-keyferry"
    ]


def test_no_name_is_cut() -> None:
    """Two long ones that differ at their ends stay two; Helm takes no release's name above 53 characters."""
    release = "a" * 52 + "b"
    names = {d["metadata"]["name"] for d in render(EVERYTHING, release=release)}
    assert all(name.startswith(f"{release}-keyferry") for name in names), names


def test_two_releases_in_one_namespace_share_nothing() -> None:
    """Whatever one makes, the other makes under another name."""
    first, second = (
        {(d["kind"], d["metadata"]["name"]) for d in render(EVERYTHING, release=release)}
        for release in ("fedha", "fedha-2")
    )
    assert first.isdisjoint(second)


@HELMS
def test_two_aliases_in_one_chart_share_nothing(tmp_path: Path, major: int) -> None:
    """Each has its ConfigMap and service account, and names them in its templates."""
    chart = shutil.copytree(team_chart(), tmp_path / "chart")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    [dependency] = about["dependencies"]
    about["dependencies"] = [{**dependency, "alias": alias} for alias in ("web", "Night_Worker")]
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    template = chart / "templates/deployment.yaml"
    web = template.read_text().replace(".Subcharts.keyferry", ".Subcharts.web")
    template.write_text(f"{web}---\n{web.replace('.web', '.Night_Worker')}")
    found = render({"web": PLAIN, "Night_Worker": PLAIN}, chart=chart, major=major)
    both = ["fedha-night-worker", "fedha-web"]
    for kind in ("ConfigMap", "ServiceAccount"):
        assert sorted(d["metadata"]["name"] for d in found if d["kind"] == kind) == both
    specs = [pod for document in found if document["kind"] == "Deployment" and (pod := pod_of(document))]
    assert sorted(pod["serviceAccountName"] for pod in specs) == both
    sources = [pod["volumes"][1]["projected"]["sources"][0] for pod in specs]
    assert sorted(source["configMap"]["name"] for source in sources) == both


def test_a_build_of_ones_own_may_have_build_metadata(tmp_path: Path) -> None:
    """SemVer has a plus in it, and a label may not."""
    helm("package", CHART, "--version", "0.1.0+7", "--destination", tmp_path)
    account = one(render(chart=tmp_path / "keyferry-0.1.0+7.tgz"), "ServiceAccount")
    assert account["metadata"]["labels"]["helm.sh/chart"] == "keyferry-0.1.0_7"


def test_the_network_policy_lets_through_what_is_needed() -> None:
    policy = one(render(EVERYTHING), "NetworkPolicy")["spec"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/instance": "fedha"}}
    assert policy["policyTypes"] == ["Egress", "Ingress"]
    dns, store = policy["egress"]
    assert dns == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert store == {
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "ports": [{"port": 8200, "protocol": "TCP"}],
    }
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": 8181, "protocol": "TCP"}]]


@pytest.mark.parametrize("store", ["eks", "gke", "vault"])
@pytest.mark.parametrize("kubernetes", ["1.29", NEWEST])
def test_each_key_stores_values_bring_its_way_out(store: str, kubernetes: str) -> None:
    """To switch the policy on is all that a namespace needs that denies by default."""
    found = render(
        {"keyferry": {"networkPolicy": {"enabled": True}}},
        chart=team_chart(),
        files=[EXAMPLES / f"values/{store}.yaml"],
        kubernetes=kubernetes,
    )
    policy = one(found, "NetworkPolicy")
    check_schema(policy, kubernetes)
    assert all(rule["ports"] for rule in policy["spec"]["egress"])
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    [key] = yaml.safe_load(agent_yaml(found)[0])["keys"].values()
    assert ports >= {53, int(key.get("address", "https://:443").rpartition(":")[2])}


def test_without_scrapers_the_network_policy_is_about_egress_alone() -> None:
    """Ingress without a rule would cut the app off."""
    enabled = {"enabled": True, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}
    policy = one(render({**PLAIN, "networkPolicy": enabled}), "NetworkPolicy")["spec"]
    assert (policy["policyTypes"], "ingress" in policy) == (["Egress"], False)


def test_pods_are_selected_as_asked() -> None:
    values = {**EVERYTHING, "podSelector": {"matchLabels": {"app": "x"}}}
    found = render(values)
    monitor, policy = one(found, "PodMonitor")["spec"], one(found, "NetworkPolicy")["spec"]
    assert monitor["selector"] == policy["podSelector"] == {"matchLabels": {"app": "x"}}
    assert monitor.keys() == {"selector", "podMetricsEndpoints"}


def test_the_monitor_of_a_platform_finds_what_is_injected() -> None:
    """In all namespaces, and as one job for each configuration: the alerts compare replicas within a job."""
    found = render({"injection": {"enabled": True}, "podMonitor": {"enabled": True}})
    monitor, policy = one(found, "PodMonitor")["spec"], one(found, "MutatingAdmissionPolicy")["spec"]
    assert monitor["selector"] == {"matchExpressions": [{"key": monitor["jobLabel"], "operator": "Exists"}]}
    assert monitor["namespaceSelector"] == {"any": True}
    asked = policy["matchConstraints"]["objectSelector"]["matchExpressions"]
    assert {expression["key"] for expression in asked} == {monitor["jobLabel"]}


def test_the_monitor_finds_the_sidecar() -> None:
    """By the name of its port, and by a label that the team chart's pods have."""
    found = render({"keyferry": {"podMonitor": {"enabled": True}}}, chart=team_chart(), files=[VALUES[0]])
    monitor = one(found, "PodMonitor")["spec"]
    deployment = one(found, "Deployment")["spec"]["template"]
    [endpoint] = monitor["podMetricsEndpoints"]
    ports = [port["name"] for c in containers(deployment["spec"]) for port in c.get("ports", [])]
    assert ports == [endpoint["port"]]
    assert monitor["selector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()


def test_the_notes_say_what_vault_must_know() -> None:
    """Shown by `helm install`, for which Helm 3 wants a cluster."""
    values = yaml.safe_load((EXAMPLES / "values/vault.yaml").read_text())["keyferry"]
    dry = ["--dry-run=client", "--namespace", "team"]
    text = helm("install", "fedha", CHART, *dry, values=values)
    assert "helm test fedha --namespace team --logs" in text
    assert "vault write auth/kubernetes/role/fedha" in text
    assert "bound_service_account_names=fedha-keyferry" in text
    assert "bound_service_account_namespaces=team policies=fedha ttl=1h audience=vault\n" in text
    # The cluster's own token is for the cluster: a role that asks for more would refuse it.
    values["files"] = [source for source in values["files"] if "serviceAccountToken" not in source]
    assert "audience" not in helm("install", "fedha", CHART, *dry, values=values)


def test_the_notes_of_an_app_are_about_the_app() -> None:
    """Helm shows those of a dependency when asked; that the chart must be embedded is no news there."""
    values = yaml.safe_load((EXAMPLES / "values/vault.yaml").read_text())
    dry = ["--dry-run=client", "--render-subchart-notes"]
    text = helm("install", "fedha", team_chart(), *dry, values=values).partition("\nNOTES:\n")[2]
    assert "bound_service_account_names=fedha-keyferry" in text
    assert "-- keyferry-agent status" in text
    assert "embeds" not in text
    values["keyferry"]["mode"] = "once"
    assert "-- keyferry-agent status" not in helm("install", "fedha", team_chart(), *dry, values=values)


def test_the_test_pod_stays_until_its_log_is_read() -> None:
    """`helm test --logs` asks for the log after it has deleted whatever is to be deleted."""
    annotations = one(render(), "Pod")["metadata"]["annotations"]
    assert annotations == {"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation"}


# The plain examples are the chart's own output, written out


@pytest.mark.parametrize("name", ["deployment", "job", "kustomize"])
def test_the_plain_sidecar_is_the_charts(name: str) -> None:
    """They must not drift apart: whoever copies the example gets what the chart gives."""
    [pod] = [pod for pod in map(pod_of, dict(examples())[name]) if pod is not None]
    rendered = team_pod({})
    assert pod["initContainers"] == rendered["initContainers"]
    assert pod["volumes"] == rendered["volumes"]
    assert pod["securityContext"] == rendered["securityContext"]
    assert pod["serviceAccountName"] == rendered["serviceAccountName"]
    if name != "job":
        assert pod["containers"][0]["volumeMounts"] == rendered["containers"][0]["volumeMounts"]


def test_the_cron_job_fetches_as_the_chart_does() -> None:
    [pod] = [
        pod for pod in map(pod_of, documents((EXAMPLES / "cronjob.yaml").read_text())) if pod is not None
    ]
    rendered = team_pod({"keyferry": {"mode": "once"}})
    assert pod["initContainers"] == rendered["initContainers"]
    assert pod["volumes"] == rendered["volumes"]
