# SPDX-License-Identifier: Apache-2.0
"""What Vault's KV engine says, read without I/O: where a secret is, and what an answer means for the key.

- A path is taken as people write it: with the mount, and with or without KV v2's ``data/`` after it. A secret
  that is really called ``data/...`` below a v2 mount needs the ``data/`` twice.
- The class of a refusal follows from the status alone.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.providers.vault_http import Answer
from agent.sources.vault import VaultSource
from keyferry.document import Fields
from keyferry.times import parse_time

# Written by `rotate --activate`: the source's own word on when a version activates (RFC 3339).
ACTIVATES_PREFIX: Final = "keyferry-activates-"

KvVersion = Literal[1, 2]

# What KV v2 keeps where neither secret nor mount say (https://developer.hashicorp.com/vault/docs/secrets/kv).
_DEFAULT_MAX_VERSIONS: Final = 10


class Place(NamedTuple):
    """Where a secret is: the KV engine's version, its mount and the path below it.

    ``guessed``: neither the server nor the configuration says where the engine is mounted. ``within`` are the
    words for the namespace.
    """

    kv_version: KvVersion
    mount: str
    path: str
    guessed: bool = False
    within: str = ""

    def __str__(self) -> str:
        return f"{self.mount}/{self.path}"

    def api(self, kind: Literal["data", "metadata"]) -> str:
        """Return the API's path of the value or the metadata; KV v1 has only the value."""
        return f"{self.mount}/{kind}/{self.path}" if self.kv_version == 2 else str(self)  # noqa: PLR2004

    def grant(self, kind: Literal["data", "metadata"]) -> str:
        """Return the policy line that allows to read it."""
        return f'path "{self.api(kind)}" {{ capabilities = ["read"] }}'


def configured_place(source: VaultSource, kv_version: KvVersion) -> Place:
    """Return where the secret is, as far as the configuration alone tells."""
    if source.mount is not None:
        return _place_below(source.mount, source, kv_version)
    # Most mounts have no slash in their name.
    place = _place_below(source.path.partition("/")[0], source, kv_version)
    return place._replace(guessed="/" in place.path)


def place_of_mount(mounts: Fields, source: VaultSource) -> Place:
    """Return the place by the server's answer about the path."""
    mount = mounts.text("path").strip("/")
    engine = mounts.text("type")
    if engine not in ("kv", "generic"):
        message = f"{mount}/ is a {engine} engine, not KV; check the key's path"
        raise MalformedError(message)
    if source.mount not in (None, mount):
        message = f"secret {source.path} is in the engine at {mount}/; correct or remove the key's mount"
        raise MalformedError(message)
    # An engine of version 1 may say nothing of versions.
    told: KvVersion = 2 if (mounts.document.get("options") or {}).get("version") == "2" else 1
    if source.kv_version not in (None, told):
        message = f"{mount}/ is a KV version {told} engine; correct or remove the key's kv_version"
        raise MalformedError(message)
    return _place_below(mount, source, told)


def _place_below(mount: str, source: VaultSource, kv_version: KvVersion) -> Place:
    below = source.path.removeprefix(mount).strip("/")
    if kv_version == 2:  # noqa: PLR2004 - KV's own number
        below = below.removeprefix("data/")
    if not below:
        message = f"path {source.path!r} names only the mount; add the secret's path below it"
        raise MalformedError(message)
    return Place(kv_version, mount, below, within=source.in_namespace)


def refusal(place: Place, answer: Answer) -> RefreshError:
    """Return what an answer that is no success means for the value at ``place``."""
    # Vault tells who may read nothing in an engine neither where it is nor that it is there.
    hint = f"; if its engine is not mounted at {place.mount}/, set mount" if place.guessed else ""
    if answer.refused:
        needed = f"the token's policy needs: {place.grant('data')}"
        return DeniedError(f"Vault refuses to read secret {place}; {needed}{hint}")
    if answer.status == 404:  # noqa: PLR2004 - Not Found
        engine = f"a KV version {place.kv_version} engine{place.within}"
        missing = f"Vault has no secret {place} in {engine}; check the key's path, or create it"
        return MissingError(missing + hint)
    return UnavailableError(f"Vault answers {answer.status} to a read of secret {place}")


def gone(place: Place, number: str, metadata: Fields) -> MissingError | None:
    """Return why version ``number`` can no longer be read, ``None`` if it can."""
    if metadata.flag("destroyed"):
        return MissingError(f"version {number} of secret {place} was destroyed")
    # A time to come is delete_version_after's: until then the version is as good as any.
    if metadata.document.get("deletion_time") and metadata.time("deletion_time") <= time.time():
        return MissingError(f"version {number} of secret {place} was deleted; `kv undelete` brings it back")
    return None


def stated_activations(custom_metadata: Mapping[str, str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return when versions activate by the secret's custom metadata, and warnings about what is no time."""
    times: dict[str, float] = {}
    warnings: list[str] = []
    for name, text in custom_metadata.items():
        if not name.startswith(ACTIVATES_PREFIX):
            continue
        try:
            times[name.removeprefix(ACTIVATES_PREFIX)] = parse_time(text)
        except ValueError:
            warnings.append(f"custom metadata {name} is ignored: not a time such as 2026-01-31T08:15:00Z")
    return times, tuple(warnings)


def kept(secret_max: int, mount_max: int = 0) -> int:
    """Return how many versions KV v2 keeps: the larger of the two settings, where 0 is not set."""
    return max(secret_max, mount_max) or _DEFAULT_MAX_VERSIONS


def room_warning(numbers: Sequence[str], secret_max: int) -> str | None:
    """Return the warning that a version will soon be pushed out, from two rotations before.

    The mount's own setting is not known, since few may read it: more versions than Vault's default tell of
    it. More than the secret's own may also have been there before that was lowered.
    """
    limit = kept(secret_max)
    left = limit - len(numbers)
    if not numbers or left > 1 or (left < 0 and not secret_max):
        return None
    if left < 0:
        return (
            f"the secret has {len(numbers)} versions, and its max_versions keeps {limit}: if the engine's "
            f"own is not larger, the next rotation destroys versions {numbers[0]} to {numbers[-left]}, and "
            "what only they decrypt is lost; raise max_versions"
        )
    when = "the next rotation" if left == 0 else "the one after the next rotation"
    return (
        f"the secret has {len(numbers)} of the {limit} versions that its max_versions or Vault's default "
        f"keeps: {when} destroys version {numbers[0]}, and what only it decrypts is lost; raise max_versions"
    )
