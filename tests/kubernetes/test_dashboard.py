# SPDX-License-Identifier: Apache-2.0
"""The dashboard's queries and legends, held against the labels that an agent's metrics really have.

Nothing here draws it. A query of a label that is not there is an empty panel, and a legend of one an empty
name.
"""

import re
from collections.abc import Mapping
from functools import cache

import pytest

from tests.kubernetes.test_eyes import DASHBOARD, expressions
from tests.unit.scenes import key_status, keyring, overview, version
from tests.unit.test_metrics import event, scrape

pytestmark = pytest.mark.chart

# Given to each series by Prometheus, as the PodMonitor has it scrape.
TARGET = frozenset({"namespace", "job", "pod", "instance"})
QUERIES = [
    pytest.param(target["expr"], target["legendFormat"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


@cache
def exported() -> Mapping[str, frozenset[str]]:
    """Return the labels of each metric that an agent exports."""
    samples = scrape(
        overview({"master": key_status(30.0)}, {"master": keyring(version("5", 0.0))}),
        event("refresh.started"),
        event("refresh.succeeded", outcome="changed", duration=0.02),
    ).samples
    return {sample.name: TARGET | sample.labels.keys() for sample in samples}


def names(text: str) -> set[str]:
    """Return the names in a list such as ``a, b``."""
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("query", expressions())
def test_every_metric_is_selected_by_labels_that_it_has(query: str) -> None:
    selections = re.findall(r"\b((?:keyferry|process)_\w+)(?:\{([^}]*)\})?", query)
    assert selections
    for metric, selector in selections:
        assert set(re.findall(r"(\w+)=", selector)) <= exported()[metric], metric


@pytest.mark.parametrize(("query", "legend"), QUERIES)
def test_every_legend_tells_its_series_apart(query: str, legend: str) -> None:
    """Grouped by what is there, and named by all that the groups differ in."""
    there = {
        label for metric in re.findall(r"\b(?:keyferry|process)_\w+", query) for label in exported()[metric]
    }
    groupings = [names(found) for found in re.findall(r"\b(?:by|on) \(([^)]*)\)", query)]
    assert all(grouping <= there for grouping in groupings)
    # The outermost comes first. A quantile takes the buckets' label away; one number has no legend.
    if legend:
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == groupings[0] - {"le"}


def test_the_panels_of_two_namespaces_do_not_mix() -> None:
    """Pods, jobs and keys may be called the same in each of them."""
    for query in expressions():
        for grouping in map(names, re.findall(r"\bby \(([^)]*)\)", query)):
            assert "namespace" in grouping or not grouping & {"pod", "job", "version"}, query


@pytest.mark.parametrize(
    ("title", "counted"),
    [("Withdrawn", "namespace, job, key"), ("Beyond the bound", "namespace, pod")],
    ids=["keys", "replicas"],
)
def test_what_is_wrong_is_counted_once(title: str, counted: str) -> None:
    """A key has a series in each replica, and a replica one for each key."""
    [panel] = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
    [target] = panel["targets"]
    assert target["expr"].startswith(f"count(max by ({counted}) (keyferry_")
    assert target["expr"].endswith(" == 1) or vector(0)")


def test_the_agents_memory_is_not_the_apps() -> None:
    """Both are of one pod, and both may export it: only an agent's target has a generation."""
    [query] = [query for query in expressions() if "process_resident_memory_bytes" in query]
    assert query.endswith("and on (job, instance) keyferry_generation)")


def test_grafana_knows_the_rest() -> None:
    """Panels and units that current versions have, and variables that are declared before they are used."""
    panels = DASHBOARD["panels"]
    assert {panel["type"] for panel in panels} == {"stat", "timeseries"}
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in panels} == {"short", "s", "bytes"}
    variables = DASHBOARD["templating"]["list"]
    assert (variables[0]["name"], variables[0]["type"], variables[0]["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    declared = {variable["name"] for variable in variables}
    used = set(re.findall(r"\$\{?(\w+)", "\n".join(expressions())))
    assert used == declared - {"datasource"} | {"__rate_interval"}
