# SPDX-License-Identifier: Apache-2.0
"""Where a key can come from: one frozen dataclass a provider, and the table of them.

Rules:

- Adding a provider is one dataclass and one line in ``SOURCES``; binding, the reference and the digest of a
  source follow from its fields' ``about``.
- ``identity`` marks the settings that say which secret it is. Credentials are never among them: they change,
  and the key stays the same key.
- What one field cannot know alone, ``problems`` tells: pure, all at once, and never a value.
- No file is read and no server asked here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from dataclasses import field as setting  # a source's own setting is called `field`
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, get_args

from agent.parsing import (
    ADDRESS,
    FLAG,
    PATH,
    SECRET,
    STORE_PATH,
    TEXT,
    VARIABLE,
    Kind,
    choice,
)

SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

Format = Literal["raw", "json", "keyring"]
AuthMethod = Literal["token", "approle", "kubernetes", "jwt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is told of a setting: its kind, its meaning, and why its default is what it is.

    ``name`` is the one in agent.yaml where it differs from the field's; two fields may read one setting.
    """

    kind: Kind
    meaning: str
    why: str = ""
    name: str | None = None
    identity: bool = False


class Problem(NamedTuple):
    """One thing wrong with the settings at ``place``, which is relative to whoever tells it."""

    place: str
    wrong: str
    allowed: str
    remedy: str


def about(
    kind: Kind, meaning: str, *, why: str = "", name: str | None = None, identity: bool = False
) -> dict[str, About]:
    """Return a field's metadata."""
    return {"about": About(kind=kind, meaning=meaning, why=why, name=name, identity=identity)}


class Checked:
    """Settings that know what must hold between them."""

    __slots__ = ()

    def completed(self, _environ: Mapping[str, str], /) -> Self:
        """Return them with the defaults that depend on other settings or the environment."""
        return self

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between them."""
        yield from ()

    def warnings(self) -> Iterator[Problem]:
        """Yield what is allowed but seldom meant."""
        yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSource(Checked):
    """What every source can tell."""

    @property
    def source_files(self) -> tuple[Path, ...]:
        """The files whose change means a new value."""
        return ()

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files whose change means another login."""
        return ()

    def digest(self, provider: str) -> str:
        """Return ``sha256:`` and 16 hex digits that name the secret this source points at, no credential."""
        # Imported when asked: `check` of a file has no use for it.
        from hashlib import sha256

        # What is not set is left out, so that a setting that a later version adds moves no digest.
        identity = {
            field.name: str(value)
            for field in fields(self)
            if "about" in field.metadata
            and field.metadata["about"].identity
            and (value := getattr(self, field.name)) is not None
        }
        canonical = json.dumps({"provider": provider, **identity}, sort_keys=True)
        return "sha256:" + sha256(b"keyferry-source-v1\0" + canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSource(BaseSource):
    """An environment variable of the agent: for development, and to move to a real store step by step."""

    variable: str = setting(
        default="MASTER_ENCRYPTION_KEY",
        metadata=about(
            VARIABLE,
            "The variable that holds the key. It is read at start and cannot change in a running process.",
            why="The name that existing apps use.",
            identity=True,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource(BaseSource):
    """A file: a mounted Secret or ConfigMap, or what another tool writes."""

    path: Path = setting(metadata=about(PATH, "The file. Its symbolic links are followed.", identity=True))
    format: Format = setting(
        default="raw",
        metadata=about(
            choice(get_args(Format)),
            "`raw`: the file is the key, but for one newline at its end. `json`: an object with the key in "
            "`field`. `keyring`: versions with their times; only its rotations can be staged.",
            why="What a mounted Secret is.",
        ),
    )
    field: str | None = setting(
        default=None,
        metadata=about(TEXT, "The field of a `json` file that holds the key.", identity=True),
    )
    mounted: bool = setting(
        default=True,
        metadata=about(
            FLAG,
            "The file comes from a Kubernetes ConfigMap or Secret volume, whose updates arrive up to 3 "
            "minutes late: the bound grows by that. `false` for a file that is written in place.",
            why="Assuming a delay that is not there costs time, missing one that is there costs decrypts.",
        ),
    )

    @property
    def source_files(self) -> tuple[Path, ...]:
        """The file itself."""
        return (self.path,)

    def problems(self) -> Iterator[Problem]:
        """Yield a field without JSON, and JSON without a field."""
        if self.format == "json" and self.field is None:
            yield Problem("field", "is missing", "the name of a field", "format json needs it")
        elif self.format != "json" and self.field is not None:
            remedy = "remove it, or set format to json"
            yield Problem("field", f"means nothing with format {self.format}", "only format json", remedy)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSource(BaseSource):
    """A field of a secret in the KV engine, version 1 or 2, of HashiCorp Vault or OpenBao."""

    address: str = setting(metadata=about(ADDRESS, "The server.", identity=True))
    path: str = setting(
        metadata=about(
            STORE_PATH,
            "The secret as people write it, mount included: `secret/app/key` or `secret/data/app/key`. "
            "Choose one spelling and keep it: another one counts as another key.",
            identity=True,
        )
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
    kv_version: Literal[1, 2] | None = setting(
        default=None,
        metadata=about(
            choice(("1", "2"), bare=int),
            "The KV engine's version.",
            why="The server is asked, and where it may not be asked its answers tell.",
        ),
    )
    auth: VaultAuth = setting(default_factory=VaultAuth)

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files that a login reads."""
        auth = self.auth
        files = (auth.token_file, auth.role_id_file, auth.secret_id_file, auth.jwt_file, self.ca_file)
        return tuple(file for file in files if file is not None)

    def problems(self) -> Iterator[Problem]:
        """Yield a path without a mount."""
        if "/" not in self.path:
            remedy = "write the mount before it, such as secret/app/master-key"
            yield Problem("path", "names no secret below a mount", "a mount and a path", remedy)

    def warnings(self) -> Iterator[Problem]:
        """Yield an address that sends tokens and keys in the clear."""
        host = self.address.removeprefix("http://")
        if host != self.address and not host.startswith(("localhost", "127.", "[::1]")):
            yield Problem("address", "sends tokens and keys in the clear", "https", "use https")


SOURCES: Final[Mapping[str, type[EnvSource | FileSource | VaultSource]]] = {
    "env": EnvSource,
    "file": FileSource,
    "vault": VaultSource,
}
Source = EnvSource | FileSource | VaultSource
