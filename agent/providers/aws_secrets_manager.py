# SPDX-License-Identifier: Apache-2.0
"""A key in a secret of AWS Secrets Manager: one field of its JSON, or its whole value.

Rules:

- Versions are the secret's own; what their labels mean, agent.providers.aws_versions says. A pending one
  without a value yet is not shown.
- DescribeSecret is the probe: the versions are listed again only when it shows a change. It tells nothing of
  versions without a label; only ListSecretVersionIds does.
- Where the policy forbids the list, the labelled versions are all there is; where it forbids the probe, the
  list is read each time; where it forbids both, the labelled values. A warning names the missing action.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from agent.errors import DeniedError, MalformedError, MissingError
from agent.offer import UNRELEASED, Known, Offer, Offered
from agent.providers.aws import AwsSession
from agent.providers.aws_versions import (
    CURRENT,
    PENDING,
    PREVIOUS,
    Listed,
    Listing,
    first_of,
    in_order,
    is_pending,
    labels_of,
    listed,
    refuse_deleted,
    room_warning,
    seconds,
    stated,
)
from agent.providers.values import field_material, json_object, raw_material
from agent.settings import KeySettings
from agent.sources.aws import SecretsManagerSource
from keyferry.material import Material

_NO_LIST: Final = (
    "the policy forbids to list the secret's versions: only those with a label are read, none older than "
    "AWSPREVIOUS; allow secretsmanager:ListSecretVersionIds"
)
_NO_PROBE: Final = (
    "the policy forbids to describe the secret: each refresh lists its versions, and the secret's deletion "
    "goes unseen; allow secretsmanager:DescribeSecret"
)
_VALUES_ONLY: Final = (
    "the policy forbids to describe the secret and to list its versions: each refresh reads the values, and "
    "only of versions with a label; allow secretsmanager:DescribeSecret and "
    "secretsmanager:ListSecretVersionIds"
)
_LOOKS_LIKE_JSON: Final = (
    "the whole value is the key, but it looks like a JSON object; set field to take one of its fields"
)


class SecretsManagerProvider:
    """One field, or the whole, of one secret."""

    def __init__(self, key: KeySettings, source: SecretsManagerSource, timeout: float) -> None:
        """Keep where ``key`` is; nothing is contacted yet."""
        self._key = key
        self._source = source
        self._thing = f"secret {source.secret} in {source.region}"
        self._session = AwsSession(source, "secretsmanager", timeout)
        self._listing: Listing | None = None

    def fetch(self, known: Known) -> Offer:
        """Return the secret's versions."""
        self._session.begin()
        # After a failure everything is looked at again.
        remembered, self._listing = self._listing, None
        described = self._described()
        if described is not None:
            refuse_deleted(described, self._thing)
        listing = self._listing = self._look(described, remembered)
        if listing is None:
            return self._offer(list(self._values_by_label()), [_VALUES_ONLY])
        warnings = [] if listing.complete else [_NO_LIST]
        if described is None:
            warnings.append(_NO_PROBE)
        if (room := room_warning(listing)) is not None:
            warnings.append(room)
        first = first_of(listing)
        offered = (self._offered(version, known, first) for version in in_order(listing.versions))
        return self._offer([version for version in offered if version is not None], warnings)

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()

    def _offer(self, versions: list[Offered], warnings: list[str]) -> Offer:
        if all(version.activates_at == UNRELEASED for version in versions):
            message = f"{self._thing} has no current version yet; put a value into it"
            raise MissingError(message)
        if any(map(self._looks_like_json, versions)):
            warnings.append(_LOOKS_LIKE_JSON)
        return Offer(tuple(versions), warnings=tuple(warnings))

    def _described(self) -> Mapping[str, Any] | None:
        """Return what AWS says of the secret, ``None`` if the policy forbids to ask."""
        try:
            return self._ask("DescribeSecret", self._thing, {}, probe=True)
        except DeniedError:
            return None

    def _look(self, described: Mapping[str, Any] | None, remembered: Listing | None) -> Listing | None:
        """Return the versions; ``None`` if neither they nor the labels may be seen."""
        labels = None if described is None else labels_of(described)
        # With the ARN, in which a secret that is made anew differs.
        seen = None if described is None else (described["ARN"], described.get("LastChangedDate"), labels)
        if seen is not None and remembered is not None and remembered.seen == seen:
            return remembered
        versions = self._versions()
        if versions is None:
            if labels is None:
                return None
            return Listing(
                seen, tuple(Listed(id_, None, found) for id_, found in labels.items()), complete=False
            )
        # The list may lag behind: it is only remembered if it shows the same labels.
        if labels != {version.id: version.labels for version in versions if version.labels}:
            seen = None
        return Listing(seen, versions, complete=True)

    def _versions(self) -> tuple[Listed, ...] | None:
        """Return all versions, ``None`` if the policy forbids to list them."""
        try:
            return listed(lambda page: self._ask("ListSecretVersionIds", self._thing, page, probe=True))
        except DeniedError:
            return None

    def _offered(self, version: Listed, known: Known, first: str | None) -> Offered | None:
        """Return what is offered of ``version``; ``None`` if it is pending and has no value yet."""
        held = version.id in known and version.created_at in (None, known[version.id])
        pending = is_pending(version)
        created_at = known[version.id] if held else version.created_at
        offered = Offered(
            id=version.id,
            created_at=created_at,
            material=None,
            first=version.id == first,
            activates_at=stated(version, created_at),
        )
        if held:
            return offered
        try:
            answer = self._value(VersionId=version.id)
        except MissingError as error:
            return None if pending else offered._replace(material=error)
        except DeniedError as error:
            return offered._replace(material=error)
        # The list's own word, where there is one: it is what the next list is compared with.
        created_at = version.created_at or seconds(answer["CreatedDate"])
        return offered._replace(
            created_at=created_at,
            activates_at=stated(version, created_at),
            material=self._material(answer),
        )

    def _values_by_label(self) -> Iterator[Offered]:
        """Yield what has a label, one value each, in order; raise what the current one fails of."""
        current = self._value(VersionStage=CURRENT)
        answers = {current["VersionId"]: current}
        for label in (PREVIOUS, PENDING):
            with suppress(MissingError):
                answer = self._value(VersionStage=label)
                answers.setdefault(answer["VersionId"], answer)
        found = [
            Listed(id_, seconds(answer["CreatedDate"]), frozenset(answer["VersionStages"]))
            for id_, answer in answers.items()
        ]
        for version in in_order(found):
            material = self._material(answers[version.id])
            activates_at = stated(version, version.created_at)
            yield Offered(version.id, version.created_at, material, activates_at=activates_at)

    def _value(self, **which: str) -> Mapping[str, Any]:
        name, value = next(iter(which.items()))
        thing = f"{'version' if name == 'VersionId' else 'label'} {value} of {self._thing}"
        return self._ask("GetSecretValue", thing, which)

    def _ask(
        self, operation: str, thing: str, parameters: Mapping[str, object], *, probe: bool = False
    ) -> Mapping[str, Any]:
        secret = {"SecretId": self._source.secret}
        return self._session.call(operation, thing, secret | dict(parameters), probe=probe)

    def _material(self, answer: Mapping[str, Any]) -> Material | MalformedError:
        place = f"version {answer['VersionId']} of {self._thing}"
        field = self._source.field
        try:
            if "SecretString" not in answer:
                if field is not None:
                    message = f"{place} is binary and has no field {field!r}; remove the key's field setting"
                    return MalformedError(message)
                return raw_material(answer["SecretBinary"], place, binary=self._key.encoding == "binary")
            text = field_material(answer, "SecretString", place)
            return text if field is None else field_material(json_object(text.raw, place), field, place)
        except MalformedError as error:
            return error

    def _looks_like_json(self, offered: Offered) -> bool:
        # Other encodings than text refuse such a value anyway.
        if self._source.field is not None or self._key.encoding != "text":
            return False
        material = offered.material
        return (
            isinstance(material, Material) and not material.binary and material.raw.lstrip().startswith(b"{")
        )
