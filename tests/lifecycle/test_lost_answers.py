# SPDX-License-Identifier: Apache-2.0
"""A write that Vault did, and whose answer never came: a proxy fails between the two."""

import http.client
import ssl

from tests.lifecycle.stores import VaultKv
from tests.servers.openbao import OpenBao
from tests.servers.scripted import Request, Response, ScriptedServer


class Lossy(ScriptedServer):
    """Forwards to a real OpenBao, and loses the answers to a method."""

    def __init__(self, bao: OpenBao, method: str) -> None:
        super().__init__(self._answer)
        self._bao = bao
        self._method = method

    def _answer(self, request: Request) -> Response:
        context = ssl.create_default_context(cafile=str(self._bao.ca_file))
        connection = http.client.HTTPSConnection("127.0.0.1", self._bao.port, context=context, timeout=30)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if request.method == self._method:
            return Response(502, b"<html>Bad Gateway</html>")
        return Response(response.status, body, {"Content-Type": "application/json"})


def test_a_write_whose_answer_is_lost(vault: VaultKv) -> None:
    """The version is there, and whoever rotates is told to look before doing it again."""
    vault.run("bootstrap", "--create")
    with Lossy(vault.bao, "POST") as lossy:
        vault.configure(vault.section() | {"address": lossy.address})
        code, out, err = vault.run("rotate")
    # Not 1, which says that nothing was rotated: scripts repeat that.
    assert (code, out) == (3, "")
    assert err.startswith(f"keyferry-agent: unavailable: Vault at {lossy.address} ")
    assert err.endswith("; the store may have made a version: look with `check` before rotating again\n")
    vault.configure(vault.section())
    assert len(vault.values()) == 2


def test_a_mark_whose_answer_is_lost(vault: VaultKv) -> None:
    vault.run("bootstrap", "--create")
    with Lossy(vault.bao, "PATCH") as lossy:
        vault.configure(vault.section() | {"address": lossy.address})
        code, out, err = vault.run("rotate", "--activate", "now")
    assert (code, out) == (3, "")
    assert err.startswith(
        f"keyferry-agent: version 2 of secret {vault.mount}/{vault.path} was made, but not recorded to "
        f"activate at once, so it activates after the delay: unavailable: Vault at {lossy.address} "
    )
