# SPDX-License-Identifier: Apache-2.0
"""Each provider's start and weight, beside its bare SDK making the same calls in a script of a few lines.

The stores are those of the lifecycle tests: a real OpenBao, moto over HTTP, a double of Cloud KMS over gRPC
and TLS. Agent and script take turns; what counts is the ratio of their medians in one run.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import rss_mib, stop, wait_until
from tests.lifecycle.stores import STORES, Store
from tests.servers.moto_server import Moto
from tests.servers.openbao import OpenBao

_TMPFS: Final = Path("/dev/shm")  # noqa: S108 - a tmpfs is what is measured

_GOAL_RATIO: Final = 1.35
_GOAL_MORE_MIB: Final = 14

_BEGIN: Final = """
import base64, json, os, sys
key = json.load(open(sys.argv[1]))["keys"]["master"]
def entry():
    return json.load(open(key["keyring"]))["versions"][-1]
def binding(version):
    return {"keyferry:key": "master", "keyferry:version": version["id"]}
def aad(version):
    return json.dumps(binding(version), separators=(",", ":"), sort_keys=True).encode()
"""

_END: Final = """
with open(sys.argv[2] + ".new", "w") as file:
    file.write(value)
os.rename(sys.argv[2] + ".new", sys.argv[2])
sys.stdin.read()
"""

_AWS: Final = """
import boto3
client = boto3.client(SERVICE, region_name=key["region"], endpoint_url=key["endpoint"])
"""

_SCRIPTS: Final = {
    "vault": """
import hvac
mount, path = key["path"].split("/", 1)
client = hvac.Client(url=key["address"], verify=key["ca_file"], token=open(key["auth"]["token_file"]).read())
client.secrets.kv.v2.read_secret_metadata(path, mount_point=mount)
answer = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
value = answer["data"]["data"]["key"]
""",
    "vault-transit": """
import hvac
client = hvac.Client(url=key["address"], verify=key["ca_file"], token=open(key["auth"]["token_file"]).read())
bound = base64.b64encode(aad(entry())).decode()
answer = client.secrets.transit.decrypt_data(key["key_name"], entry()["ciphertext"],
    context=bound, associated_data=bound, mount_point=key["mount"])
value = base64.b64decode(answer["data"]["plaintext"]).decode()
""",
    "aws-secrets-manager": _AWS.replace("SERVICE", '"secretsmanager"')
    + """
client.describe_secret(SecretId=key["secret"])
client.list_secret_version_ids(SecretId=key["secret"], IncludeDeprecated=True, MaxResults=100)
value = json.loads(client.get_secret_value(SecretId=key["secret"])["SecretString"])["key"]
""",
    "aws-kms": _AWS.replace("SERVICE", '"kms"')
    + """
answer = client.decrypt(CiphertextBlob=base64.b64decode(entry()["ciphertext"]), KeyId=key["key_id"],
    EncryptionContext=binding(entry()))
value = answer["Plaintext"].decode()
""",
    "gcp-kms": """
import grpc
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.oauth2 import service_account
import google.auth.transport.grpc, google.auth.transport.requests
login = service_account.Credentials.from_service_account_file(key["credentials_file"],
    scopes=["https://www.googleapis.com/auth/cloudkms"])
login = login.with_always_use_jwt_access(True)
host = key["endpoint"].removeprefix("https://")
channel = google.auth.transport.grpc.secure_authorized_channel(login,
    google.auth.transport.requests.Request(), host,
    ssl_credentials=grpc.ssl_channel_credentials(open(key["ca_file"], "rb").read()))
client = kms_v1.KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))
answer = client.decrypt({"name": key["key_name"], "ciphertext": base64.b64decode(entry()["ciphertext"]),
    "additional_authenticated_data": aad(entry())})
value = answer.plaintext.decode()
""",
}


def report(python: Path, rounds: int) -> dict[str, object]:
    """Measure every provider with the agent of ``python``, print a table, and return the figures."""
    figures: dict[str, object] = {}
    print(f"start to key visible and resident memory, agent beside bare SDK, median of {rounds} in turn")
    print(
        f"  goal: at most {_GOAL_RATIO} times the SDK's time, and {_GOAL_MORE_MIB} MiB more than its memory"
    )
    print(f"  {'provider':<20} {'agent':>10} {'SDK':>10} {'ratio':>6}   {'agent':>9} {'SDK':>9} {'more':>10}")
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="keyferry-bench-", dir=_TMPFS) as home:
        servers = {
            "bao": stack.enter_context(OpenBao(Path(home) / "bao")),
            "moto": stack.enter_context(Moto()),
        }
        for name, script in _SCRIPTS.items():
            directory = Path(home) / name
            directory.mkdir()
            server = servers.get(getattr(STORES[name], "server", ""))
            store = STORES[name](stack, directory, partial(_same, server))
            figures[name] = _measure(name, store, script, python, rounds)
    return {"providers": figures}


def _measure(name: str, store: Store, script: str, python: Path, rounds: int) -> Mapping[str, float]:
    code, _, complaints = store.run("bootstrap", "--create")
    if code != 0:
        message = f"{name}: bootstrap failed: {complaints}"
        raise RuntimeError(message)
    store.configure(store.section(), http={"listen": ":0"}, rotation={"activation_delay": "0s"})
    agent = [str(python), "-m", "agent", "run", "--config", str(store.config)]
    target = store.home / "value"
    bare = [sys.executable, "-c", _BEGIN + script + _END, str(store.config), str(target)]
    agents, bares = [], []
    for _ in range(rounds):
        for path in store.volume.iterdir():
            _remove(path)
        target.unlink(missing_ok=True)
        agents.append(_one(agent, store, store.volume / "master", settle=1.0))
        bares.append(_one(bare, store, target, settle=0.0))
    seconds = [statistics.median(sample[0] for sample in samples) for samples in (agents, bares)]
    memory = [statistics.median(sample[1] for sample in samples) for samples in (agents, bares)]
    print(
        f"  {name:<20} {seconds[0] * 1000:7.1f} ms {seconds[1] * 1000:7.1f} ms"
        f" {seconds[0] / seconds[1]:5.2f}x"
        f"   {memory[0]:5.1f} MiB {memory[1]:5.1f} MiB {memory[0] - memory[1]:+6.1f} MiB"
    )
    return {
        "agent_ms": seconds[0] * 1000,
        "sdk_ms": seconds[1] * 1000,
        "agent_rss_mib": memory[0],
        "sdk_rss_mib": memory[1],
    }


def _one(command: list[str], store: Store, target: Path, *, settle: float) -> tuple[float, float]:
    """Return the seconds until ``target`` is there, and the resident MiB ``settle`` seconds later."""
    environment: dict[str, Any] = {**os.environ, **store.environment}
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd=store.home
    )
    try:
        seconds = wait_until(target.exists, f"{target}") - begun
        # Log, metrics, HTTP and watcher are loaded after the first key; they are part of a warm agent.
        time.sleep(settle)
        return seconds, rss_mib(process.pid)[0]
    finally:
        stop(process)


def _same(server: object) -> object:
    return server


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        path.unlink()
