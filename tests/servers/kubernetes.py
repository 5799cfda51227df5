# SPDX-License-Identifier: Apache-2.0
"""As much of a Kubernetes cluster as Vault's kubernetes and jwt logins need: service account tokens."""

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers.scripted import Request, Response, ScriptedServer

_AUDIENCE = "vault"


class Cluster(ScriptedServer):
    """An API server that answers TokenReview, and the issuer of the tokens that it takes for good."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        """Make a signing key; ``tls`` is the API server's certificate."""
        super().__init__(self._review, tls)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.broken = False

    @property
    def public_key(self) -> str:
        """The tokens' verification key as PEM."""
        encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(encoding, kind).decode()

    def token(self, service_account: str, *, namespace: str = "team", lifetime_seconds: int = 600) -> str:
        """Return what the kubelet would put into a pod of ``service_account``."""
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:{namespace}:{service_account}",
            "aud": [_AUDIENCE],
            "iat": now - 10,
            "nbf": now - 10,
            "exp": now + lifetime_seconds,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": service_account, "uid": f"uid-of-{service_account}"},
            },
        }
        return jwt.encode(claims, self._key, "RS256")

    def _review(self, request: Request) -> Response:
        if self.broken:
            return Response(500)
        spec = json.loads(request.body)["spec"]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": self._status(spec)}
        return Response(201, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _status(self, spec: Mapping[str, Any]) -> dict[str, object]:
        try:
            claims = jwt.decode(spec["token"], self._key.public_key(), ["RS256"], audience=_AUDIENCE)
        except jwt.InvalidTokenError as error:
            return {"authenticated": False, "error": str(error)}
        account = claims["kubernetes.io"]["serviceaccount"]
        user = {"username": claims["sub"], "uid": account["uid"], "groups": ["system:serviceaccounts"]}
        return {"authenticated": True, "user": user, "audiences": claims["aud"]}
