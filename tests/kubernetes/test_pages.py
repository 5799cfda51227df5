# SPDX-License-Identifier: Apache-2.0
"""The pages about Kubernetes: what can be run of them is run, and what can be compared is compared."""

import base64
import importlib.util
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.kubernetes.charts import CHART, EXAMPLES, ROOT, helm, one, render, team_chart
from tests.kubernetes.podman import VERSION
from tests.kubernetes.tools import KUBECTL

PAGE = (ROOT / "docs/kubernetes.md").read_text()
PAGES = [ROOT / "docs/kubernetes.md", ROOT / "docs/operations.md", CHART / "README.md"]


def shell_blocks(text: str) -> list[list[str]]:
    """Return the lines of each shell block."""
    return [
        block.strip().splitlines()
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "charts/readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_charts_readme_is_up_to_date() -> None:
    """`make docs` writes its table from the comments in values.yaml."""
    assert (CHART / "README.md").read_text() == generator().readme()


def test_the_chart_has_the_agents_version() -> None:
    """One number for image, chart and both distributions."""
    for path in (CHART / "Chart.yaml", EXAMPLES / "team-chart/Chart.yaml", CHART / "README.md"):
        assert f"version: {VERSION}\n" in path.read_text(), path
    text = (CHART / "Chart.yaml").read_text()
    assert f'appVersion: "{VERSION}"\n' in text
    images = set()
    for path in EXAMPLES.rglob("*.yaml"):
        images.update(re.findall(r"keyferry-agent:(\S+)", path.read_text()))
    assert images == {VERSION}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Files that are there, and headings that are there."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


@pytest.mark.chart
def test_what_the_charts_readme_embeds_is_what_the_team_chart_embeds(tmp_path: Path) -> None:
    """Pasted into a Deployment: the agent, the key's mount, and the account that it logs in as."""
    _, embedded, values = re.findall(
        r"^```yaml\n(.*?)^```", (CHART / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    pasted = shutil.copytree(team_chart(), tmp_path / "chart")
    start = "kind: Deployment\nmetadata: {name: fedha}\nspec:\n  template:\n    spec:\n"
    (pasted / "templates/deployment.yaml").write_text(start + textwrap.indent(embedded, 6 * " "))
    whole, shown = (
        one(render(yaml.safe_load(values), chart=chart), "Deployment")["spec"]["template"]["spec"]
        for chart in (team_chart(), pasted)
    )
    assert shown["containers"][0]["volumeMounts"] == whole["containers"][0]["volumeMounts"]
    for part in ("serviceAccountName", "securityContext", "initContainers", "volumes"):
        assert shown[part] == whole[part], part


def test_the_image_that_is_built_is_the_one_that_is_loaded() -> None:
    """And the one that the team chart runs when nobody names another."""
    everything, _ = re.findall(r"^docker build .*-t (\S+)", PAGE, re.MULTILINE)
    loaded = re.findall(r"`(?:kind load docker-image|minikube image load) (\S+)`", PAGE)
    app = yaml.safe_load((EXAMPLES / "team-chart/values.yaml").read_text())["image"]
    assert {everything, app} == set(loaded)
    assert f"docker tag {everything} registry.example/{everything} " in PAGE


def test_from_zero_to_a_key_is_five_commands() -> None:
    assert len(shell_blocks(PAGE)[0]) == 5


@pytest.mark.chart
def test_the_five_commands_say_what_they_should() -> None:
    """A cluster is all that is missing here: the rest of each command is run."""
    namespace, secret, dependency, install, status = shell_blocks(PAGE)[0]

    # kubectl without a cluster: what it would create.
    dry = ["--dry-run=client", "--output=name"]
    done = subprocess.run(
        [KUBECTL, *shlex.split(namespace)[1:], *dry], capture_output=True, text=True, check=True
    )
    assert done.stdout == "namespace/fedha\n"

    made = secret.replace("kubectl", str(KUBECTL)) + " --dry-run=client --output=jsonpath={.data.master}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", made], capture_output=True, text=True, check=True
    )
    text = base64.b64decode(done.stdout).decode()
    assert len(base64.urlsafe_b64decode(text + "=")) == 32

    assert shlex.split(dependency)[1:] == ["dependency", "update", "examples/kubernetes/team-chart"]
    words = shlex.split(install)
    assert words[:4] == ["helm", "install", "fedha", "examples/kubernetes/team-chart"]
    values = ROOT / words[words.index("--values") + 1]
    options = words[4 : words.index("--values")]
    notes = helm(*words[1:3], team_chart(), *options, "--values", values, "--dry-run=client")
    assert "helm test fedha --namespace fedha --logs" in notes

    found = render({}, chart=team_chart(), files=[values])
    pod = one(found, "Deployment")["spec"]["template"]["spec"]
    words = shlex.split(status)
    assert words[words.index("exec") + 1] == f"deploy/{one(found, 'Deployment')['metadata']['name']}"
    assert words[words.index("--container") + 1] in [c["name"] for c in pod["initContainers"]]
    # The secret that was made is the one that the pod mounts.
    assert f"secret generic {pod['volumes'][1]['projected']['sources'][1]['secret']['name']} " in secret
