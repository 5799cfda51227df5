# SPDX-License-Identifier: Apache-2.0
"""Makes and rotates a key in a secret of AWS Secrets Manager.

Rules:

- AWS has no check-and-set. The id of the version to be made is worked out from all that are there, so two
  rotations at once ask for the same id with two values, and AWS takes the first and refuses the second.
  Not from the current version's id alone: after the label was moved back, that would name a version which is
  there already, for ever.
- A secret that is there without a value, as infrastructure tools make it, gets its first version likewise.
- ``at_once`` is a staging label that comes with the version: DescribeSecret and the list show it, so reading
  it costs no call and no permission. It means: active since its creation. Its next use moves it.
- A rotation that somebody else has under way (AWSPENDING) is not overtaken.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from agent.errors import AgentError, ConfigError, MissingError
from agent.providers.aws import AwsSession
from agent.providers.aws_errors import TakenError
from agent.providers.aws_versions import (
    AT_ONCE,
    CURRENT,
    PENDING,
    PREVIOUS,
    VERSIONS_KEPT,
    listed,
    refuse_deleted,
)
from agent.providers.lifecycle import ChangedError, ExistsError, FullError, Rotation, writing
from agent.providers.values import replaced_field
from agent.settings import KeySettings
from agent.sources.aws import SecretsManagerSource
from keyferry.material import Material

_VERSION_IDS: Final = uuid.UUID("b0c7b5d4-7a53-4c0e-9f0b-6f1a1c1f6d0e")


class SecretsManagerKeeper:
    """One field, or the whole, of one secret."""

    states_times = False

    def __init__(self, key: KeySettings, source: SecretsManagerSource, timeout: float) -> None:
        """Keep where ``key`` is; nothing is contacted yet."""
        if key.encoding == "binary" and source.field is not None:
            message = (
                f"keys.{key.name}.encoding: binary does not fit into a JSON field; use base64, or no field"
            )
            raise ConfigError(message)
        self._key = key
        self._source = source
        self._thing = f"secret {source.secret} in {source.region}"
        self._session = AwsSession(source, "secretsmanager", timeout)

    def create(self, material: Material) -> str:
        """Make the secret, with the field alone in it, or give a secret without a value its first one."""
        self._session.begin()
        try:
            described = self._ask("DescribeSecret")
        except MissingError:
            return self._create(material)
        refuse_deleted(described, self._thing)
        if self._version_ids():
            message = f"{self._thing} exists, and has a value; nothing was written"
            raise ExistsError(message)
        try:
            return self._put(self._first(material), token=_token([]), stages=[CURRENT])
        except ChangedError as error:
            raise ExistsError(str(error)) from error

    def rotate(self, material: Material, rotation: Rotation) -> str:
        """Put another value, with the other fields as they are."""
        self._session.begin()
        # In this order: a list from after the check could have a version of somebody who came in between,
        # and lead to another id than theirs.
        ids = self._version_ids()
        self._check(self._ask("DescribeSecret").get("VersionIdsToStages", {}), rotation)
        if len(ids) >= VERSIONS_KEPT and not rotation.drop_oldest:
            message = (
                f"{self._thing} has {len(ids)} versions, and AWS keeps {VERSIONS_KEPT}: another one makes it "
                "drop the oldest, and what only that decrypts; rotate with --drop-oldest if nothing needs it"
            )
            raise FullError(message)
        value = self._changed(rotation.expected, material)
        stages = [CURRENT, AT_ONCE] if rotation.at_once else [CURRENT]
        token = _token([rotation.expected, *sorted(ids)])
        with writing():
            return self._put(value, token=token, stages=stages)

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()

    def _check(self, labels: Mapping[str, list[str]], rotation: Rotation) -> None:
        for id_, stages in labels.items():
            if PENDING in stages and not {CURRENT, PREVIOUS}.intersection(stages):
                message = (
                    f"{self._thing} has a rotation under way already (AWSPENDING, version {id_}); let it "
                    "end, or remove the label"
                )
                raise AgentError(message)
            if CURRENT in stages and id_ != rotation.expected:
                message = f"{self._thing} has another current version by now, {id_}; nothing was written"
                raise ChangedError(message)

    def _create(self, material: Material) -> str:
        if self._source.secret.startswith("arn:"):
            message = (
                f"keys.{self._key.name}.secret: is an ARN, and AWS chooses those when it makes a secret; "
                "give a name to make one"
            )
            raise ConfigError(message)
        try:
            answer = self._session.call(
                "CreateSecret", self._thing, {"Name": self._source.secret, **self._first(material)}
            )
        except TakenError as error:
            message = f"{self._thing} was made by somebody else meanwhile; nothing was written"
            raise ExistsError(message) from error
        return str(answer["VersionId"])

    def _put(self, value: Mapping[str, object], *, token: str, stages: list[str]) -> str:
        try:
            answer = self._ask("PutSecretValue", ClientRequestToken=token, VersionStages=stages, **value)
        except TakenError as error:
            message = (
                f"{self._thing} was given another version by somebody else meanwhile; nothing was written"
            )
            raise ChangedError(message) from error
        return str(answer["VersionId"])

    def _version_ids(self) -> list[str]:
        return [version.id for version in listed(lambda page: self._ask("ListSecretVersionIds", **page))]

    def _first(self, material: Material) -> Mapping[str, object]:
        if self._source.field is not None:
            return {"SecretString": json.dumps({self._source.field: material.text})}
        return {"SecretBinary": material.raw} if material.binary else {"SecretString": material.text}

    def _changed(self, expected: str, material: Material) -> Mapping[str, object]:
        """Return the value to follow version ``expected``."""
        field = self._source.field
        if field is None:
            return self._first(material)
        answer = self._ask("GetSecretValue", VersionId=expected)
        data = str(answer.get("SecretString", "")).encode()
        place = f"version {expected} of {self._thing}"
        return {"SecretString": replaced_field(data, field, material.text, place).decode()}

    def _ask(self, operation: str, **parameters: object) -> Mapping[str, Any]:
        return self._session.call(operation, self._thing, {"SecretId": self._source.secret, **parameters})


def _token(ids: list[str]) -> str:
    """Return the id of the version that is to follow ``ids``."""
    return str(uuid.uuid5(_VERSION_IDS, " ".join(ids)))
