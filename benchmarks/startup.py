# SPDX-License-Identifier: Apache-2.0
"""From the start of a process to a key that can be read, next to other ways to get it from the same server.

Each contender starts from nothing, fetches one field of a KV v2 secret from a real OpenBao server on loopback
(TLS, a token), and writes it to a tmpfs. They take turns, so that the machine's noise meets all of them; what
counts is the ratio of their medians in one run.

- ``keyferry-agent``: this agent, until ``master`` can be read on the volume.
- ``bao agent``: the vendor's own agent with a template.
- ``hvac script`` and ``http.client script``: 15 lines that do nothing else, without any of the promises.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.processes import median_ms, stop, wait_until
from benchmarks.workshop import Workshop
from tests.servers.openbao import bao_binary

_HVAC_SCRIPT: Final = """
import os, sys, hvac
address, ca, token_file, target = sys.argv[1:]
client = hvac.Client(url=address, verify=ca, token=open(token_file).read())
answer = client.secrets.kv.v2.read_secret_version("fedha/master-key", raise_on_deleted_version=True)
with open(target + ".new", "w") as file:
    file.write(answer["data"]["data"]["key"])
os.rename(target + ".new", target)
"""

_HTTP_SCRIPT: Final = """
import http.client, json, os, ssl, sys
address, ca, token_file, target = sys.argv[1:]
host = address.removeprefix("https://")
connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=ca))
headers = {"X-Vault-Token": open(token_file).read()}
connection.request("GET", "/v1/secret/data/fedha/master-key", headers=headers)
answer = json.load(connection.getresponse())
with open(target + ".new", "w") as file:
    file.write(answer["data"]["data"]["key"])
os.rename(target + ".new", target)
"""

_BAO_AGENT: Final = """
vault {{ address = "{address}" ca_cert = "{ca}" }}
auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{token}" }} }} }}
template {{
  destination = "{target}"
  contents = "{{{{ with secret \\"secret/data/fedha/master-key\\" }}}}{{{{ .Data.data.key }}}}{{{{ end }}}}"
}}
"""


def measure(workshop: Workshop, rounds: int) -> Mapping[str, list[float]]:
    """Return the seconds that each contender needed, ``rounds`` times, in turn."""
    contenders: dict[str, Callable[[Workshop], float]] = {
        "keyferry-agent": _keyferry,
        "bao agent": _bao_agent,
        "hvac script": lambda shop: _script(shop, _HVAC_SCRIPT),
        "http.client script": lambda shop: _script(shop, _HTTP_SCRIPT),
        "bare python": lambda shop: _script(shop, "import sys; open(sys.argv[4], 'w').write('x')"),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(contender(workshop))
    return times


def report(workshop: Workshop, rounds: int) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    medians = {name: median_ms(times) for name, times in measure(workshop, rounds).items()}
    reference = medians["bao agent"]
    print(f"start to key visible, OpenBao on loopback, median of {rounds} in turn")
    for name, milliseconds in medians.items():
        print(f"  {name:<20} {milliseconds:7.1f} ms   {milliseconds / reference:5.2f} x bao agent")
    return {"startup_ms": medians}


def _keyferry(workshop: Workshop) -> float:
    volume = workshop.volume()
    begun = time.perf_counter()
    process = workshop.agent(volume)
    try:
        return wait_until((volume / "master").exists, "the agent's key") - begun
    finally:
        stop(process)


def _bao_agent(workshop: Workshop) -> float:
    target = workshop.volume() / "key"
    config = target.with_suffix(".hcl")
    config.write_text(
        _BAO_AGENT.format(
            address=workshop.bao.address, ca=workshop.bao.ca_file, token=workshop.token_file, target=target
        )
    )
    begun = time.perf_counter()
    process = subprocess.Popen(
        [bao_binary(), "agent", "-config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return wait_until(target.exists, "bao agent's key") - begun
    finally:
        stop(process)


def _script(workshop: Workshop, code: str) -> float:
    target = workshop.volume() / "key"
    arguments = [workshop.bao.address, str(workshop.bao.ca_file), str(workshop.token_file), str(target)]
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        return wait_until(target.exists, "the script's key") - begun
    finally:
        process.wait()
