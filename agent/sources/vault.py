# SPDX-License-Identifier: Apache-2.0
"""The settings of the providers ``vault`` and ``vault-transit``, and of their login."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from dataclasses import field as setting  # the source has a setting called `field`
from pathlib import Path
from typing import Final, Literal, Self, get_args

from agent.kinds import ADDRESS, FLAG, PATH, SECRET, STORE_PATH, TEXT, choice
from agent.problems import Problem
from agent.sources.base import BaseSource, Checked, about
from agent.sources.wrapped import WrappedSource

SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

AuthMethod = Literal["token", "approle", "kubernetes", "jwt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAuth(Checked):
    """How the agent logs in. Credentials in files are read again at every login, so they can rotate."""

    method: AuthMethod = setting(
        default="token",
        metadata=about(
            choice(get_args(AuthMethod)), "How to log in.", why="It needs no configuration on the server."
        ),
    )
    mount: str | None = setting(
        default=None,
        metadata=about(STORE_PATH, "Where the auth method is mounted.", why="The method's own name."),
    )
    role: str | None = setting(
        default=None, metadata=about(TEXT, "The role to log in as, for `kubernetes` and `jwt`.")
    )
    token: str | None = setting(
        default=None,
        repr=False,
        metadata=about(SECRET, "The token, for `token`.", why="`VAULT_TOKEN` of the environment."),
    )
    token_file: Path | None = setting(
        default=None,
        metadata=about(PATH, "A file with the token, for `token`, such as another agent's sink."),
    )
    role_id: str | None = setting(default=None, metadata=about(TEXT, "The role id, for `approle`."))
    role_id_file: Path | None = setting(
        default=None, metadata=about(PATH, "A file with the role id, for `approle`.")
    )
    secret_id: str | None = setting(
        default=None, repr=False, metadata=about(SECRET, "The secret id, for `approle`.")
    )
    secret_id_file: Path | None = setting(
        default=None, metadata=about(PATH, "A file with the secret id, for `approle`.")
    )
    secret_id_wrapped: bool = setting(
        default=False,
        metadata=about(
            FLAG,
            "The secret id is a response-wrapping token, to be unwrapped once.",
            why="Wrapping is the issuer's decision.",
        ),
    )
    jwt_file: Path | None = setting(
        default=None,
        metadata=about(
            PATH,
            "A file with the JWT, for `kubernetes` and `jwt`.",
            why=f"For `kubernetes` `{SERVICE_ACCOUNT_TOKEN}`, where the kubelet puts the pod's token.",
        ),
    )

    def completed(self, environ: Mapping[str, str], /) -> Self:
        """Return it with VAULT_TOKEN or the pod's own token where nothing else is said."""
        if self.method == "token" and self.token is None and self.token_file is None:
            return replace(self, token=environ.get("VAULT_TOKEN") or None)
        if self.method == "kubernetes" and self.jwt_file is None:
            return replace(self, jwt_file=SERVICE_ACCOUNT_TOKEN)
        return self

    def problems(self) -> Iterator[Problem]:
        """Yield credentials that are missing, given twice, or another method's."""
        required = _CREDENTIALS[self.method]
        for names in required:
            given = [name for name in names if getattr(self, name) is not None]
            one_of = " or ".join(names)
            if len(given) > 1:
                yield Problem(
                    given[1], f"is given besides {given[0]}", f"either {one_of}", "remove one of them"
                )
            elif not given:
                if self.method == "token":
                    one_of += ", or VAULT_TOKEN in the environment"
                yield Problem(names[0], "is missing", one_of, f"method {self.method} needs it")
        known = ("method", *_OPTIONAL[self.method], *(name for names in required for name in names))
        for field in fields(self):
            if field.name not in known and getattr(self, field.name) != field.default:
                wrong = f"means nothing to method {self.method}"
                yield Problem(field.name, wrong, ", ".join(known), "remove it, or choose another method")


# What each method needs, one of each group, and what else it knows.
_CREDENTIALS: Final[Mapping[AuthMethod, tuple[tuple[str, ...], ...]]] = {
    "token": (("token", "token_file"),),
    "approle": (("role_id", "role_id_file"), ("secret_id", "secret_id_file")),
    "kubernetes": (("role",), ("jwt_file",)),
    "jwt": (("role",), ("jwt_file",)),
}
_OPTIONAL: Final[Mapping[AuthMethod, tuple[str, ...]]] = {
    "token": (),
    "approle": ("mount", "secret_id_wrapped"),
    "kubernetes": ("mount",),
    "jwt": ("mount",),
}


# Without slots, since a class with two bases can inherit slots from one of them only.
@dataclass(frozen=True, kw_only=True)
class VaultServer(BaseSource):
    """Where HashiCorp Vault or OpenBao is, and as whom to ask it."""

    address: str = setting(metadata=about(ADDRESS, "The server.", identity=True))
    namespace: str | None = setting(
        default=None, metadata=about(STORE_PATH, "The namespace.", why="The root namespace.", identity=True)
    )
    ca_file: Path | None = setting(
        default=None,
        metadata=about(
            PATH, "PEM certificates of the authorities to trust.", why="Those that the image comes with."
        ),
    )
    tls_server_name: str | None = setting(
        default=None,
        metadata=about(TEXT, "The name that the server's certificate must have.", why="The address's host."),
    )
    auth: VaultAuth = setting(default_factory=VaultAuth)

    @property
    def in_namespace(self) -> str:
        """Words to end a place with: nothing for the root namespace."""
        return "" if self.namespace is None else f" in namespace {self.namespace}"

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files that a login reads."""
        auth = self.auth
        files = (auth.token_file, auth.role_id_file, auth.secret_id_file, auth.jwt_file, self.ca_file)
        return tuple(file for file in files if file is not None)

    def warnings(self) -> Iterator[Problem]:
        """Yield an address that sends tokens and keys in the clear."""
        host = self.address.removeprefix("http://")
        if host != self.address and not host.startswith(("localhost", "127.", "[::1]")):
            yield Problem("address", "sends tokens and keys in the clear", "https", "use https")


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSource(VaultServer):
    """A field of a secret in the KV engine, version 1 or 2, of HashiCorp Vault or OpenBao."""

    path: str = setting(
        metadata=about(
            STORE_PATH,
            "The secret as people write it, mount included: `secret/app/key` or `secret/data/app/key`. "
            "Choose one spelling and keep it: another one counts as another key.",
            identity=True,
        )
    )
    mount: str | None = setting(
        default=None,
        metadata=about(
            STORE_PATH,
            "Where the KV engine is mounted. Set it where that has a slash, such as `team/kv`; `path` still "
            "begins with it.",
            why="The server is asked; where it may not be, and for `plan`, it is the path's first word.",
        ),
    )
    field: str = setting(
        default="key",
        metadata=about(
            TEXT,
            "The field of the secret that holds the key.",
            why="A secret that is one key has one field, and that is the plainest name for it.",
            identity=True,
        ),
    )
    kv_version: Literal[1, 2] | None = setting(
        default=None,
        metadata=about(
            choice(("1", "2"), bare=int),
            "The KV engine's version.",
            why="The server is asked, and where it may not be asked its answers tell.",
        ),
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a path without a mount, or with another one than ``mount``."""
        if "/" not in self.path:
            remedy = "write the mount before it, such as secret/app/master-key"
            yield Problem("path", "names no secret below a mount", "a mount and a path", remedy)
        elif self.mount is not None and not self.path.startswith(f"{self.mount}/"):
            remedy = "write the mount before it, such as team/kv/app/master-key"
            yield Problem("path", "names no secret below mount", "the mount and a path", remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultTransitSource(VaultServer, WrappedSource):
    """A keyring that the transit engine of HashiCorp Vault or OpenBao unwraps."""

    mount: str = setting(
        default="transit",
        metadata=about(
            STORE_PATH, "Where the transit engine is mounted.", why="The engine's own name.", identity=True
        ),
    )
    key_name: str = setting(
        metadata=about(TEXT, "The transit key. No other key is ever used.", identity=True)
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a key name that is a path."""
        if "/" in self.key_name:
            remedy = "write the key's name alone, and the engine's place as mount"
            yield Problem("key_name", "is a path", "a transit key's name", remedy)
