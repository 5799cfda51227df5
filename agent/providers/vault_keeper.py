# SPDX-License-Identifier: Apache-2.0
"""Makes and rotates a key in the KV engine, version 2, of HashiCorp Vault or OpenBao.

Rules:

- Every write is a check-and-set on the version that was read. A version that was deleted still counts: where
  versions ever were, nothing is created.
- The other fields are those of the newest version that can be read: an app that had them before a deletion
  has them again.
- Vault answers 400 to a check that failed as to anything else that it does not like; what it was, the
  metadata tells.
- ``at_once`` is custom metadata, merged into what is there after the version was written: written before, it
  could speed up somebody else's version that takes the number.
- KV version 1 has no check-and-set, and a write there destroys what was there: nothing is written at all.
"""

from collections.abc import Mapping

from agent.errors import ConfigError, DeniedError, MadeError, MissingError, RefreshError, UnavailableError
from agent.providers.lifecycle import ChangedError, ExistsError, FullError, Rotation, writing
from agent.providers.vault import possible_places
from agent.providers.vault_http import Answer
from agent.providers.vault_kv import ACTIVATES_PREFIX, Place, gone, kept, refusal
from agent.providers.vault_session import VaultSession
from agent.settings import KeySettings
from agent.sources.vault import VaultSource
from keyferry.document import Fields
from keyferry.material import Material


class VaultKeeper:
    """One field of one KV v2 secret."""

    states_times = False

    def __init__(self, key: KeySettings, source: VaultSource, timeout: float) -> None:
        """Keep where ``key`` is; nothing is contacted yet."""
        if key.encoding == "binary":
            message = (
                f"keys.{key.name}.encoding: binary does not fit into Vault's KV, which holds text; use base64"
            )
            raise ConfigError(message)
        self._key = key
        self._source = source
        self._session = VaultSession(source, timeout)

    def create(self, material: Material) -> str:
        """Write the secret's first version, with the field alone in it."""
        with self._session.fetching():
            place = self._place()
            answer = self._put(place, {self._source.field: material.text}, expected=0)
            if answer.ok:
                return str(answer.data.integer("version"))
            if answer.status == 400:  # noqa: PLR2004 - Bad Request
                versions = self._metadata(place).integer("current_version")
                message = f"secret {place} exists, at version {versions}; nothing was written"
                raise ExistsError(message)
            raise _write_refusal(place, answer)

    def rotate(self, material: Material, rotation: Rotation) -> str:
        """Write another version, with the other fields as they are."""
        with self._session.fetching():
            place = self._place()
            metadata = self._metadata(place)
            self._check_newest(place, metadata, rotation)
            if not rotation.drop_oldest:
                self._check_room(place, metadata)
            fields = {**self._fields(place, metadata), self._source.field: material.text}
            with writing():
                answer = self._put(place, fields, expected=int(rotation.expected))
                number = str(answer.data.integer("version")) if answer.ok else ""
                created_time = answer.data.text("created_time") if answer.ok else ""
            if answer.status == 400:  # noqa: PLR2004 - Bad Request
                self._check_newest(place, self._metadata(place), rotation)
            if not answer.ok:
                raise _write_refusal(place, answer)
            if rotation.at_once:
                marks = {f"{ACTIVATES_PREFIX}{number}": created_time}
                self._mark(place, number, {**_outlived_marks(metadata), **marks})
            return number

    def close(self) -> None:
        """Drop the connection."""
        self._session.close()

    def _place(self) -> Place:
        places = possible_places(self._session, self._source)
        if len(places) > 1:
            # On a version 1 engine, a write to version 2's address makes a secret of another name.
            message = (
                f"keys.{self._key.name}.kv_version: is needed, since Vault does not tell this token which "
                f"engine {self._source.path} is in; set it to 2 if that is so"
            )
            raise ConfigError(message)
        if places[0].kv_version == 1:
            message = (
                f"keys.{self._key.name}: secret {places[0]} is in a KV version 1 engine, where a write "
                f"destroys what was there; enable versions: vault kv enable-versioning {places[0].mount}"
            )
            raise ConfigError(message)
        return places[0]

    def _metadata(self, place: Place) -> Fields:
        answer = self._session.read(place.api("metadata"))
        if answer.refused:
            message = (
                f"Vault refuses to read the metadata of secret {place}; needed: {place.grant('metadata')}"
            )
            raise DeniedError(message)
        if not answer.ok:
            raise refusal(place, answer)
        return answer.data

    def _check_newest(self, place: Place, metadata: Fields, rotation: Rotation) -> None:
        newest = metadata.integer("current_version")
        if str(newest) != rotation.expected:
            message = f"secret {place} has a newer version by now, {newest}; nothing was written"
            raise ChangedError(message)

    def _check_room(self, place: Place, metadata: Fields) -> None:
        # Who may not read the mount's settings gets the stricter answer.
        config = self._session.read(f"{place.mount}/config")
        mount_max = config.data.document.get("max_versions") or 0 if config.ok else 0
        limit = kept(metadata.document.get("max_versions") or 0, mount_max)
        numbers = sorted(map(int, metadata.object("versions").document))
        if len(numbers) < limit:
            return
        versions = "1 version" if len(numbers) == 1 else f"{len(numbers)} versions"
        # More than one where the limit was lowered: the next write takes all that are beyond it.
        *_, last = numbers[: len(numbers) + 1 - limit]
        going = f"version {last}" if last == numbers[0] else f"versions {numbers[0]} to {last}"
        message = (
            f"secret {place} has {versions}, and Vault keeps {limit}: another one would destroy {going}, and "
            "what nothing else decrypts; raise max_versions, or rotate with --drop-oldest"
        )
        raise FullError(message)

    def _fields(self, place: Place, metadata: Fields) -> Mapping[str, object]:
        """Return the fields of the newest version that can be read; none where none can."""
        versions = metadata.object("versions")
        for number in sorted(versions.document, key=int, reverse=True):
            if gone(place, number, versions.object(number)) is not None:
                continue
            answer = self._session.read(place.api("data"), {"version": number})
            if not answer.ok:
                raise refusal(place, answer)
            return answer.data.object("data").document
        return {}

    def _put(self, place: Place, fields: Mapping[str, object], *, expected: int) -> Answer:
        return self._session.write(place.api("data"), {"options": {"cas": expected}, "data": fields})

    def _mark(self, place: Place, number: str, marks: Mapping[str, str | None]) -> None:
        try:
            answer = self._session.patch(place.api("metadata"), {"custom_metadata": marks})
        except UnavailableError as error:
            raise self._unmarked(place, number, f"{error.outcome}: {error.reason}") from error
        if not answer.ok:
            needed = f'path "{place.api("metadata")}" {{ capabilities = ["patch"] }}'
            raise self._unmarked(place, number, f"Vault answers {answer.status}; needed: {needed}")

    def _unmarked(self, place: Place, number: str, why: str) -> MadeError:
        return MadeError(
            f"version {number} of secret {place} was made, but not recorded to activate at once, so it "
            f"activates after the delay: {why}"
        )


def _outlived_marks(metadata: Fields) -> Mapping[str, None]:
    """Return the marks of versions that Vault no longer has, to be removed: there is room for 64 only."""
    marks = metadata.document.get("custom_metadata") or {}
    numbers = metadata.object("versions").document
    return {
        name: None
        for name in marks
        if name.startswith(ACTIVATES_PREFIX) and name.removeprefix(ACTIVATES_PREFIX) not in numbers
    }


def _write_refusal(place: Place, answer: Answer) -> RefreshError:
    if answer.refused:
        grant = f'path "{place.api("data")}" {{ capabilities = ["create", "update"] }}'
        return DeniedError(f"Vault refuses to write secret {place}; the token's policy needs: {grant}")
    if answer.status == 404:  # noqa: PLR2004 - Not Found
        return MissingError(
            f"Vault has no engine at {place.mount}/; check the key's path, or enable the engine"
        )
    return UnavailableError(f"Vault answers {answer.status} to a write of secret {place}")
