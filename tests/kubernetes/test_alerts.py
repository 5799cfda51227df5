# SPDX-License-Identifier: Apache-2.0
"""The alerts as Prometheus evaluates them: for each, what it fires at and what it must not."""

import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.kubernetes.charts import ALERTS, Document, one, render
from tests.kubernetes.tools import PROMTOOL

pytestmark = pytest.mark.cluster

JOB = {"namespace": "team", "job": "team/fedha"}
KEY = {**JOB, "key": "master"}
POD = {**JOB, "pod": "fedha-1"}
HOURS = ("20m", "1h", "1h59m", "3h", "5h")


class Story(NamedTuple):
    """What is scraped each minute, in promtool's notation, and what the alert does at all of some moments."""

    alert: str
    series: Mapping[str, str]
    at: Sequence[str]
    labels: Mapping[str, str] = {}
    summary: str = ""

    @property
    def fires(self) -> bool:
        return self.summary != ""


def sample(metric: str, labels: Mapping[str, str], **more: str) -> str:
    """Return the name of a series."""
    chosen = ", ".join(f'{name}="{value}"' for name, value in {**labels, **more}.items())
    return f"{metric}{{{chosen}}}"


def answered(outcome: str) -> str:
    """Return the series that tells of a last refresh that came to ``outcome``."""
    return sample("keyferry_last_refresh_info", {**KEY, **POD}, outcome=outcome)


def version(pod: str, name: str, state: str = "active", job: str = JOB["job"]) -> str:
    """Return the series that tells what ``pod`` does with a version."""
    labels = {**KEY, "job": job, "pod": pod, "version": name}
    return sample("keyferry_key_version_info", labels, state=state)


def of_the_store(alert: str, outcome: str, summary: str) -> dict[str, Story]:
    """Return the stories of an alert about what a key store answers."""
    quiet = Story(alert, {answered("unavailable"): "1x300", answered("unchanged"): "1x300"}, HOURS)
    return {
        f"{outcome}, however seldom it is asked": Story(
            alert, {answered(outcome): "_x5 1x600"}, HOURS, KEY, summary
        ),
        f"{outcome}, by a pod that starts again and again": Story(
            alert,
            {answered(outcome): "1 1 stale _x7 1 1 stale _x7 1 1 stale _x7 1 1"},
            ("5m", "9m", "15m", "31m"),
            KEY,
            summary,
        ),
        f"{outcome} no longer": Story(alert, {answered(outcome): "1x10 _x300"}, ("26m", "1h")),
        f"other than {outcome}": quiet,
    }


WITHDRAWN = sample("keyferry_withdrawn", {**KEY, **POD})
BEYOND = sample("keyferry_beyond_bound", {**KEY, **POD})
FAILURES = sample("keyferry_refresh_failures", {**KEY, **POD})
FAILED = sample("keyferry_publish_total", POD, outcome="failed")
PUBLISHED = sample("keyferry_publish_total", POD, outcome="published")
UP = sample("up", POD)
GENERATION = sample("keyferry_generation", POD)

STORIES: Mapping[str, Story] = {
    "withdrawn": Story(
        "KeyferryKeyWithdrawn",
        {WITHDRAWN: "0x5 1x300"},
        ("6m", "5h"),
        KEY,
        "Key master was withdrawn: apps cannot use it",
    ),
    "not withdrawn": Story("KeyferryKeyWithdrawn", {WITHDRAWN: "0x300"}, HOURS),
    "beyond the bound": Story(
        "KeyferryBeyondBound",
        {BEYOND: "0x5 1x300"},
        ("8m", "5h"),
        {**KEY, **POD},
        "fedha-1 may lack a version of master that other replicas already encrypt with",
    ),
    "beyond the bound for a moment": Story(
        "KeyferryBeyondBound", {BEYOND: "0x5 1 0x300"}, ("6m", "7m", "8m")
    ),
    "full volume": Story(
        "KeyferryPublishFailing",
        # Once a minute is as seldom as the agent tries (agent/publication.py).
        {FAILED: "0 0 0+1x400", PUBLISHED: "1x400"},
        HOURS,
        POD,
        "fedha-1 cannot write its volume",
    ),
    "volume that was full": Story("KeyferryPublishFailing", {FAILED: "0 1x400"}, ("20m", "5h")),
    "volume that is written": Story("KeyferryPublishFailing", {FAILED: "0x400", PUBLISHED: "0+1x400"}, HOURS),
    **of_the_store(
        "KeyferryAccessDenied", "denied", "The key store refuses to give master: new pods will not start"
    ),
    **of_the_store(
        "KeyferryKeyMissing", "missing", "The key store has nothing left of master: new pods will not start"
    ),
    **of_the_store(
        "KeyferryKeyMalformed", "malformed", "What the key store gives for master cannot be a key"
    ),
    **of_the_store(
        "KeyferryKeyConflict",
        "conflict",
        "The key store has another value under a known version of master",
    ),
    "no answer": Story(
        "KeyferryRefreshFailing",
        {FAILURES: "0 1 2 3+1x300"},
        ("9m", "5h"),
        {**KEY, **POD},
        "fedha-1 gets no answer about master; it serves what it has",
    ),
    "two failures": Story("KeyferryRefreshFailing", {FAILURES: "0 1 2x300"}, HOURS),
    "replicas that differ": Story(
        "KeyferryReplicasDiffer",
        {version("fedha-1", "4"): "1x300", version("fedha-2", "5"): "1x300"},
        ("61m", "5h"),
        KEY,
        "Replicas encrypt with different versions of master",
    ),
    "rotation under way": Story(
        "KeyferryReplicasDiffer",
        {
            version("fedha-1", "4"): "1x50 _x300",
            version("fedha-1", "5"): "_x51 1x300",
            version("fedha-2", "4"): "1x10 _x300",
            version("fedha-2", "5"): "_x11 1x300",
        },
        ("45m", "2h", "5h"),
    ),
    "versions that only decrypt": Story(
        "KeyferryReplicasDiffer",
        {
            version("fedha-1", "3", "deactivated"): "1x300",
            version("fedha-1", "4"): "1x300",
            version("fedha-2", "4"): "1x300",
            version("fedha-2", "5", "pre-active"): "1x300",
        },
        HOURS,
    ),
    "two apps": Story(
        "KeyferryReplicasDiffer",
        {version("fedha-1", "4"): "1x300", version("other-1", "5", job="team/other"): "1x300"},
        HOURS,
    ),
    "down": Story(
        "KeyferryAgentDown",
        {UP: "1x10 0x900", GENERATION: "7x10 _x900"},
        ("20m", "2h", "15h"),
        POD,
        "The agent in fedha-1 does not answer",
    ),
    "down for a moment": Story(
        "KeyferryAgentDown", {UP: "1x10 0x3 1x300", GENERATION: "7x300"}, ("13m", "1h")
    ),
    "something else that is down": Story(
        "KeyferryAgentDown",
        {sample("up", POD, job="team/other"): "0x300", UP: "1x300", GENERATION: "7x300"},
        HOURS,
    ),
}


@cache
def rules() -> Mapping[str, Document]:
    """Return the rules that the chart renders, by the names of their alerts."""
    [group] = one(render(ALERTS), "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    """Return the rules' file, as Prometheus's operator writes it."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "keyferry", "rules": list(rules().values())}]}))
    return path


def promtool(*arguments: str | Path) -> None:
    """Run promtool; fail with what it says, which it does on either output."""
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules(rule_file: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", rule_file)


def test_each_alert_has_both_kinds_of_story() -> None:
    told = {(story.alert, story.fires) for story in STORIES.values()}
    assert told == {(alert, fires) for alert in rules() for fires in (True, False)}


@pytest.mark.parametrize("story", [pytest.param(story, id=name) for name, story in STORIES.items()])
def test_an_alert(story: Story, rule_file: Path) -> None:
    rule = rules()[story.alert]
    fired = {
        "exp_labels": {**story.labels, **rule["labels"]},
        "exp_annotations": {**rule["annotations"], "summary": story.summary},
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in story.series.items()],
        "alert_rule_test": [
            {"eval_time": moment, "alertname": story.alert, "exp_alerts": [fired] if story.fires else []}
            for moment in story.at
        ],
    }
    path = rule_file.with_name("test.yaml")
    path.write_text(yaml.safe_dump({"rule_files": [rule_file.name], "tests": [test]}))
    promtool("test", "rules", path)
