# SPDX-License-Identifier: Apache-2.0
"""As much of Google's identity as a login needs: service accounts, the metadata server, token exchange."""

import json
import secrets
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers.scripted import Request, Response, ScriptedServer

_EMAIL = "keyferry@project.iam.gserviceaccount.com"
_AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/p"
_METADATA = "/computeMetadata/v1/instance/service-accounts/"


class GoogleIdentity(ScriptedServer):
    """Judges tokens (``accepts``), and gives them to who shows a good ``subject_token`` or is the machine."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Start without tokens; ``tls`` makes it https."""
        super().__init__(self._answer, tls)
        self.tokens: set[str] = set()
        self.subject_token = secrets.token_urlsafe(32)
        self.lifetime_seconds = 3600
        self.status = 200
        self._keys: dict[str, rsa.RSAPublicKey] = {}

    def accepts(self, token: str) -> bool:
        """Say whether ``token`` was issued here, or is signed by a service account's key."""
        if token in self.tokens:
            return True
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(token, key, ["RS256"])
        except (jwt.InvalidTokenError, KeyError):
            return False
        return (
            claims["iss"] == _EMAIL and "https://www.googleapis.com/auth/cloudkms" in claims["scope"].split()
        )

    def new_key(self) -> dict[str, str]:
        """Return a new service account key as Google makes the file; the earlier ones stop working."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key_id = secrets.token_hex(20)
        self._keys = {key_id: key.public_key()}
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": key_id,
            "private_key": pem.decode(),
            "client_email": _EMAIL,
            # Never asked: the key signs the tokens themselves.
            "token_uri": f"{self.address}/never",
        }

    def federation(self, subject_token_file: str) -> dict[str, object]:
        """Return the configuration of a workload identity federation whose subject token is in a file."""
        return {
            "type": "external_account",
            "audience": _AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.address}/v1/token",
            "credential_source": {"file": subject_token_file},
        }

    def _answer(self, request: Request) -> Response:
        if self.status != 200:
            return Response(
                self.status, b'{"error": "made up by a test"}', {"Content-Type": "application/json"}
            )
        path = urlsplit(request.path).path
        if path == "/v1/token":
            return self._exchange(parse_qs(request.body.decode()))
        if path.startswith(_METADATA) and request.headers.get("metadata-flavor") == "Google":
            return _json(self._token()) if path.endswith("/token") else _json({"email": _EMAIL, "scopes": []})
        return Response(404)

    def _exchange(self, form: Mapping[str, list[str]]) -> Response:
        if form["subject_token"] != [self.subject_token]:
            return _json(
                {"error": "invalid_grant", "error_description": "The subject token is expired."}, 400
            )
        issued = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
        return _json(self._token() | issued)

    def _token(self) -> dict[str, Any]:
        token = secrets.token_urlsafe(32)
        self.tokens.add(token)
        return {"access_token": token, "expires_in": self.lifetime_seconds, "token_type": "Bearer"}


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json"})
