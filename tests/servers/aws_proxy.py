# SPDX-License-Identifier: Apache-2.0
"""What stands between a client and moto: it answers as AWS does where moto does not, and faults on request.

    with AwsProxy(moto.port) as aws:
        aws.faults["GetSecretValue"] = refusal("AccessDeniedException")

Rules:

- Errors have AWS's own shape: status 400, ``__type`` and a request id; STS's are XML.
- DescribeSecret shows only versions with a label. A version's time stays as it was first seen, and has
  milliseconds.
- Lists come in pages.
- KMS tells a ciphertext of another key than the one asked for.
- Calls are counted by operation, with the access key of who called and the last answer. Keys in ``revoked``
  are not accepted.
- Delays, resets and refusals at the TCP level are tests.servers.tcp_proxy's.
"""

import base64
import http.client
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from tests.servers.scripted import Request, Response, ScriptedServer

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


def refusal(code: str, status: int = 400, *, retry_after: int | None = None) -> Response:
    """Return an error as Secrets Manager and KMS answer it."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = json.dumps({"__type": code, "message": "the message, which may quote anything"}).encode()
    return Response(status, body, _headers("application/x-amz-json-1.1") | headers)


def sts_refusal(code: str, status: int = 403) -> Response:
    """Return an error as STS answers it."""
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>the message</Message></Error><RequestId>{uuid4()}</RequestId>"
        "</ErrorResponse>"
    )
    return Response(status, body.encode(), _headers("text/xml"))


class AwsProxy(ScriptedServer):
    """Forwards to moto at ``upstream``; ``faults`` holds the answers that operations give instead."""

    def __init__(self, upstream: int) -> None:
        """Keep moto's port."""
        super().__init__(self._answer)
        self.faults: dict[str, Response] = {}
        self.calls: Counter[str] = Counter()
        self.callers: list[str] = []
        self.revoked: set[str] = set()
        self.last_bodies: dict[str, bytes] = {}
        self._upstream = upstream
        self._milliseconds = itertools.count()
        self._times: dict[tuple[str, str], float] = {}

    def forget_times(self) -> None:
        """Take every version for a new one: moto gives a secret that is made anew its old ARN."""
        self._times.clear()

    def _answer(self, request: Request) -> Response:
        name = operation(request)
        caller = _access_key(request)
        self.calls[name] += 1
        self.callers.append(caller)
        if caller in self.revoked:
            return refusal("UnrecognizedClientException")
        if name in self.faults:
            return self.faults[name]
        answer = self._forward(request)
        if answer.headers["Content-Type"] == "text/xml":
            return answer
        document = json.loads(answer.body)
        if answer.status >= 400:
            return refusal(_code(name, request, document["__type"].rpartition("#")[2]))
        body = self.last_bodies[name] = json.dumps(self._mended(name, request, document)).encode()
        return Response(200, body, answer.headers)

    def _forward(self, request: Request) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=30)
        try:
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP
            }
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            kind = response.getheader("Content-Type", "").partition(";")[0]
            return Response(response.status, response.read(), _headers(kind))
        finally:
            connection.close()

    def _mended(self, operation: str, request: Request, document: dict[str, Any]) -> dict[str, Any]:
        arn = document.get("ARN", "")
        if operation == "DescribeSecret":
            stages = document.get("VersionIdsToStages", {})
            document["VersionIdsToStages"] = {id_: labels for id_, labels in stages.items() if labels}
        elif operation == "ListSecretVersionIds":
            for version in document["Versions"]:
                version["CreatedDate"] = self._time(arn, version)
            _page(document, json.loads(request.body))
        elif operation == "GetSecretValue":
            document["CreatedDate"] = self._time(arn, document)
        return document

    def _time(self, arn: str, version: Mapping[str, Any]) -> float:
        # What moto lists is the time of listing.
        seconds = int(version["CreatedDate"]) + next(self._milliseconds) % 1000 / 1000
        return self._times.setdefault((arn, version["VersionId"]), seconds)


def operation(request: Request) -> str:
    """Return which operation is called."""
    target = request.headers.get("X-Amz-Target")
    if target is not None:
        return target.rpartition(".")[2]
    return parse_qs(request.body.decode()).get("Action", ["?"])[0]


def _access_key(request: Request) -> str:
    match = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
    return match[1] if match else ""


def _code(operation: str, request: Request, code: str) -> str:
    """Return AWS's code where moto has another one."""
    if operation != "Decrypt" or code != "AccessDeniedException":
        return code
    # moto's ciphertexts begin with the id of their key, and one that it does not have is refused.
    parameters = json.loads(request.body)
    made_by = base64.b64decode(parameters["CiphertextBlob"])[:36].decode(errors="replace")
    return (
        "IncorrectKeyException" if re.fullmatch(r"[0-9a-f-]{36}", made_by) else "InvalidCiphertextException"
    )


def _page(document: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    start = int(parameters.get("NextToken", 0))
    end = start + parameters["MaxResults"]
    del document["NextToken"]
    if end < len(document["Versions"]):
        document["NextToken"] = str(end)
    document["Versions"] = document["Versions"][start:end]


def _headers(kind: str) -> dict[str, str]:
    return {"Content-Type": kind, "x-amzn-RequestId": str(uuid4())}
