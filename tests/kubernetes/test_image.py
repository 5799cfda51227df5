# SPDX-License-Identifier: Apache-2.0
"""The image: what is in it, and how it runs under the restricted profile against a real OpenBao."""

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.agent_process import eventually
from tests.kubernetes.podman import (
    HARDENED,
    IMAGE,
    PYTHON,
    ROOT,
    VAULT_IMAGE,
    VERSION,
    Containers,
    inspect,
    memory,
)
from tests.servers.openbao import OpenBao

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GROUP = 2000
AGENT = (*HARDENED, "--user", "65532:65532", "--group-add", str(GROUP))
APP = (*HARDENED, "--user", "1000:1000", "--group-add", str(GROUP), "--network", "none")

BOTH = pytest.mark.parametrize(
    ("image", "requirements"),
    [pytest.param(IMAGE, "agent", id="all"), pytest.param(VAULT_IMAGE, "agent-vault", id="vault")],
)


@pytest.fixture
def containers() -> Iterator[Containers]:
    with Containers() as found:
        yield found


def look(containers: Containers, image: str, program: str) -> str:
    """Return what ``program`` prints inside ``image``, hardened and without a network."""
    done = containers.run(
        f"look-{secrets.token_hex(4)}",
        image,
        "-c",
        program,
        options=(*HARDENED, "--network=none", "--entrypoint", PYTHON),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@BOTH
def test_the_image_says_what_it_is(image: str, requirements: str) -> None:
    """Kubernetes must be able to tell that it is not root, and people which providers are in it."""
    config = inspect(image)["Config"]
    labels = config["Labels"]
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["keyferry-agent"], ["run"])
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    # Which one is .ci/image's to say; that it is kept tells scanners whose fixes to look for.
    assert re.fullmatch(r"\S+[:@]\S+", labels["org.opencontainers.image.base.name"])
    assert labels["io.keyferry.providers"] == {"agent": "all", "agent-vault": "vault"}[requirements]


@BOTH
def test_nothing_is_in_it_that_only_attackers_use(
    containers: Containers, image: str, requirements: str
) -> None:
    """Neither shell nor package manager: who gets in finds Python and the agent."""
    program = """
import shutil
print([name for name in "sh bash busybox apt dpkg perl pip pip3 gcc tar".split() if shutil.which(name)])
"""
    assert look(containers, image, program) == "[]\n"


@BOTH
def test_all_bytecode_is_there(containers: Containers, image: str, requirements: str) -> None:
    """A read-only root caches none: what is missing would be compiled at each start."""
    program = """
from importlib.util import cache_from_source
from pathlib import Path
from sysconfig import get_path
UNCHECKED_HASH = b"\\1\\0\\0\\0"  # PEP 552
skipped = {"ensurepip", "idlelib", "lib2to3", "test"}
for root, checked in (get_path("purelib"), True), (get_path("stdlib"), False):
    sources = [path for path in Path(root).rglob("*.py") if skipped.isdisjoint(path.parts)]
    assert sources, root
    for source in sources:
        cached = Path(cache_from_source(source))
        if not cached.exists() or (checked and cached.read_bytes()[4:8] != UNCHECKED_HASH):
            print(source)
"""
    assert look(containers, image, program) == ""


@BOTH
def test_the_bill_of_materials_names_what_is_locked(
    containers: Containers, image: str, requirements: str
) -> None:
    """Every package with its version, and nothing that only builds."""
    program = "print(open('/opt/keyferry/share/sbom/keyferry-agent.cdx.json').read())"
    bill = json.loads(look(containers, image, program))
    text = (ROOT / f"requirements/{requirements}.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))
    named = {re.sub(r"[-_.]+", "-", part["name"]).lower(): part["version"] for part in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert named == locked | {"keyferry": VERSION, "keyferry-agent": VERSION}


def test_the_slim_image_tells_what_it_lacks(containers: Containers, tmp_path: Path) -> None:
    """Whoever chose the small image for another store learns it from the first line."""
    done = containers.run(
        "check",
        VAULT_IMAGE,
        "check",
        options=(*AGENT, "--network=none", "--env=KMS_PROVIDER=aws-secrets-manager", "--tmpfs=/run/keyferry"),
    )
    assert done.returncode != 0
    assert re.search(
        r"aws-secrets-manager needs the Python package 'boto[a-z0-9]+', which is not installed here; "
        r"install keyferry-agent\[aws\] or use the full image",
        done.stdout + done.stderr,
    )


@pytest.fixture
def bao(tmp_path: Path) -> Iterator[OpenBao]:
    """Start a key store that has the key's first version."""
    with OpenBao(tmp_path / "bao") as server:
        server.mount_kv("secret")
        rotate(server)
        yield server


def rotate(bao: OpenBao) -> None:
    bao.write("secret", "fedha/key", key=secrets.token_urlsafe(32))


def configure(directory: Path, bao: OpenBao) -> None:
    """Write agent.yaml, the authority and a token into ``directory``, as mounts would bring them."""
    bao.policy("fedha", "secret/data/fedha/key", "secret/metadata/fedha/key")
    token = directory / "token"
    token.write_text(bao.token("fedha"))
    token.chmod(0o440)
    os.chown(token, 0, GROUP)
    (directory / "ca.pem").write_bytes(bao.ca_file.read_bytes())
    key = {
        "provider": "vault",
        "address": bao.address,
        "ca_file": "/etc/keyferry/ca.pem",
        "path": "secret/fedha/key",
        "encoding": "base64url",
        "length": 32,
        "auth": {"method": "token", "token_file": "/etc/keyferry/token"},
    }
    settings = {
        "rotation": {"activation_delay": "0s"},
        "http": {"listen": "127.0.0.1:0"},
        "keys": {"master": key},
    }
    (directory / "agent.yaml").write_text(json.dumps(settings))


# What an app does: it reads, meets a version that it does not know yet, and cannot write.
READER = """
from keyferry import FileAdapter
keys = FileAdapter(check_interval=0.05)
keys.wait(timeout=30)
print("first", keys.active.id, flush=True)
keys.get("2", wait=30)
print("second", keys.active.id, flush=True)
try:
    open("/run/keyferry/x", "w")
except OSError as error:
    print(error.strerror, flush=True)
"""


@pytest.mark.parametrize("image", [pytest.param(IMAGE, id="all"), pytest.param(VAULT_IMAGE, id="vault")])
def test_a_rotation_reaches_an_app_under_another_uid(
    containers: Containers, bao: OpenBao, tmp_path: Path, image: str
) -> None:
    """The whole way: OpenBao, the hardened agent as process 1, a tmpfs, an app with another user."""
    config = tmp_path / "config"
    config.mkdir()
    configure(config, bao)
    with memory(tmp_path / "volume", group=GROUP, size=1 << 20) as volume:
        # The host's network: OpenBao listens on its loopback.
        agent = containers.start(
            "agent",
            image,
            options=(*AGENT, "--network=host", f"-v={volume}:/run/keyferry", f"-v={config}:/etc/keyferry:ro"),
        )
        app = containers.start(
            "app",
            image,
            "-c",
            READER,
            options=(*APP, "--entrypoint", PYTHON, f"-v={volume}:/run/keyferry:ro"),
        )
        eventually(lambda: "first" in app.logs() or not app.running, within=60, what="a key")
        rotate(bao)
        agent.signal("HUP")
        eventually(lambda: not app.running, within=60, what="the second key")
        assert app.logs() == "first 1\nsecond 2\nRead-only file system\n"
        assert agent.run("keyferry-agent", "status", "--ready").returncode == 0

        started = time.monotonic()
        agent.stop()
        assert (agent.exit_code, time.monotonic() - started < 5) == (0, True)
    told = [json.loads(line) for line in agent.logs().splitlines()]
    assert [event for event in told if event["level"] in ("warning", "error")] == []
