# SPDX-License-Identifier: Apache-2.0
"""Alerts, dashboard and runbook talk about the same things, and about metrics that the agent has."""

import json
import re
from collections.abc import Callable
from typing import get_args

import pytest

from keyferry.status import Outcome
from tests.kubernetes.charts import ALERTS, CHART, ROOT, Document, one, render
from tests.unit.test_metrics import NAMES

pytestmark = pytest.mark.chart

RUNBOOK = (ROOT / "docs/operations.md").read_text()
DASHBOARD: Document = json.loads((CHART / "dashboards/keyferry.json").read_text())
# The client library's own, of which one is shown.
KNOWN = NAMES | {"process_resident_memory_bytes"}
_METRIC = re.compile(r"\b(?:keyferry|process)_[a-z_]+\b")


def rules() -> list[Document]:
    """Return the alerts that the chart renders."""
    [group] = one(render(ALERTS), "PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


def expressions() -> list[str]:
    """Return every query of the dashboard, those of its variables included."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    found += [
        variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable
    ]
    return found + [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]


def named(text: str) -> set[str]:
    """Return the metrics that ``text`` names, by the names that their series have."""
    return set(_METRIC.findall(text))


def anchor(heading: str) -> str:
    """Return the anchor that Markdown renderers give a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_every_alert_has_its_section() -> None:
    """The link in a page at night must lead to what it means and what to do."""
    sections = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]
    told = {section.partition("\n")[0]: section for section in sections}
    alerts = [rule["alert"] for rule in rules()]
    assert sorted(told) == sorted(alerts)
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/keyferry#{anchor(rule['alert'])}"
        assert "**Means**" in told[rule["alert"]]
        assert "**Do**" in told[rule["alert"]]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        pytest.param("alerts", lambda: "\n".join(rule["expr"] for rule in rules()), id="alerts"),
        pytest.param("dashboard", lambda: "\n".join(expressions()), id="dashboard"),
    ],
)
def test_every_metric_exists(place: str, text: Callable[[], str]) -> None:
    """A misspelt one is an alert that never fires and a panel that stays empty."""
    found = named(text())
    assert found
    assert found - KNOWN == set(), place


def test_the_runbook_lists_every_metric() -> None:
    """By the name that people look for: a histogram has one, not three."""
    listed = named(RUNBOOK)
    missing = {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAMES} - listed
    assert missing == set()
    assert listed - {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAMES} == set()


def test_alerts_know_every_failure() -> None:
    """Each way to fail has an alert of its own; what is merely unavailable counts as failures in a row."""
    outcomes = set(re.findall(r'keyferry_last_refresh_info\{outcome="([a-z]+)"\}', str(rules())))
    assert outcomes == set(get_args(Outcome)) - {"none", "changed", "unchanged", "unavailable"}


def test_alerts_are_of_two_kinds() -> None:
    assert {rule["labels"]["severity"] for rule in rules()} == {"critical", "warning"}


def test_the_dashboard_is_whole() -> None:
    """One data source, which the viewer chooses; panels with a title, a sentence and their own number."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_dashboard_is_shipped_as_it_is() -> None:
    """The ConfigMap holds the very file, and the label by which Grafana's sidecar finds it."""
    shipped = one(render({"dashboard": {"enabled": True}}), "ConfigMap")
    assert json.loads(shipped["data"]["keyferry.json"]) == DASHBOARD
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_dashboard_needs_no_label() -> None:
    """Null takes the default away, where something else finds the ConfigMap."""
    shipped = one(
        render({"dashboard": {"enabled": True, "labels": {"grafana_dashboard": None}}}), "ConfigMap"
    )
    assert "grafana_dashboard" not in shipped["metadata"]["labels"]


def test_replicas_are_counted_once() -> None:
    """An agent has a series for each of its keys; and one for a key that it never got, too."""
    [panel] = [panel for panel in DASHBOARD["panels"] if panel["title"] == "Replicas"]
    [target] = panel["targets"]
    assert target["expr"].startswith("count(count by (namespace, pod) (keyferry_refresh_failures{")


def test_no_panels_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
