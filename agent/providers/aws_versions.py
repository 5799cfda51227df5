# SPDX-License-Identifier: Apache-2.0
"""What the labels of a secret in AWS Secrets Manager mean for the key. Pure.

Rules:

- Versions are in order of creation, but for two. The one labelled AWSCURRENT stands last of those that were
  ever released, so that moving the label back moves the older version to the end. AWSPREVIOUS stands before
  it: that one is in use while the current one waits for its time, not one that was rolled back from, or made
  by a rotation that failed, in between.
- AWSPENDING stands at the end, so that every replica has it before it is promoted; it is not used before that
  (docs/adr/0009-unreleased-versions.md).
- A label of ours says that a version activates when it was created (docs/adr/0008-activation-at-once.md).
- Secrets Manager keeps the newest 100 versions: the oldest of a shorter list is the first that ever was.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from agent.errors import MissingError
from agent.offer import UNRELEASED

CURRENT: Final = "AWSCURRENT"
PENDING: Final = "AWSPENDING"
PREVIOUS: Final = "AWSPREVIOUS"
# The source's own word that a version activates when it was created; `rotate --activate now` sets it.
AT_ONCE: Final = "keyferry-activates-at-once"

# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
VERSIONS_KEPT: Final = 100
_PAGE_SIZE: Final = 100


class Listed(NamedTuple):
    """A version as AWS lists it. ``created_at`` is ``None`` where only labels may be seen."""

    id: str
    created_at: float | None
    labels: frozenset[str]


class Listing(NamedTuple):
    """The secret's versions when it looked like ``seen``; ``complete`` if older ones are in it."""

    seen: object
    versions: tuple[Listed, ...]
    complete: bool


def listed(ask: Callable[[Mapping[str, object]], Mapping[str, Any]]) -> tuple[Listed, ...]:
    """Return all versions, also those without a label; ``ask`` makes one call of ListSecretVersionIds."""
    versions: list[Listed] = []
    page: dict[str, object] = {"IncludeDeprecated": True, "MaxResults": _PAGE_SIZE}
    while True:
        answer = ask(page)
        for version in answer.get("Versions", ()):
            labels = frozenset(version.get("VersionStages", ()))
            versions.append(Listed(version["VersionId"], seconds(version["CreatedDate"]), labels))
        if not answer.get("NextToken"):
            return tuple(versions)
        page["NextToken"] = answer["NextToken"]


def labels_of(described: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Return the labels of each version that has one, as DescribeSecret shows them."""
    return {
        id_: frozenset(labels) for id_, labels in described.get("VersionIdsToStages", {}).items() if labels
    }


def refuse_deleted(described: Mapping[str, Any], thing: str) -> None:
    """Raise ``MissingError`` for a secret that waits for its deletion, as DescribeSecret shows it."""
    if "DeletedDate" in described:
        message = f"{thing} is scheduled for deletion; `restore-secret` brings it back"
        raise MissingError(message)


def is_pending(version: Listed) -> bool:
    """Return whether the version was made and not yet released."""
    # A rotation may leave AWSPENDING on the version that it has promoted.
    return PENDING in version.labels and version.labels.isdisjoint({CURRENT, PREVIOUS})


def stated(version: Listed, created_at: float | None) -> float | None:
    """Return when the version activates, where the secret says it itself."""
    if is_pending(version):
        return UNRELEASED
    return created_at if AT_ONCE in version.labels else None


def in_order(versions: Iterable[Listed]) -> list[Listed]:
    """Return the versions in order of activation."""

    def position(version: Listed) -> tuple[bool, bool, bool, float]:
        labels = version.labels
        return is_pending(version), CURRENT in labels, PREVIOUS in labels, version.created_at or 0.0

    return sorted(versions, key=position)


def first_of(listing: Listing) -> str | None:
    """Return the id of the version that no other came before, ``None`` if the list does not tell."""
    if not listing.complete or not 0 < len(listing.versions) < VERSIONS_KEPT:
        return None
    oldest = min(version.created_at or 0.0 for version in listing.versions)
    # Of several in one second the first in order: the current one is the last of them.
    return next(version.id for version in in_order(listing.versions) if version.created_at == oldest)


def room_warning(listing: Listing) -> str | None:
    """Return the warning that a version will soon be pushed out, from two rotations before."""
    count = len(listing.versions)
    if not listing.complete or count < VERSIONS_KEPT - 1:
        return None
    when = "the one after the next rotation" if count < VERSIONS_KEPT else "the next rotation"
    return (
        f"the secret has {count} of the {VERSIONS_KEPT} versions that AWS keeps: {when} drops the oldest "
        "one, and what only that decrypts is lost; go on in a new secret before that"
    )


def seconds(moment: datetime) -> float:
    """Return Unix seconds, to the millisecond."""
    return round(moment.timestamp(), 3)
