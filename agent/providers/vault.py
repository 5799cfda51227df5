# SPDX-License-Identifier: Apache-2.0
"""A key in the KV engine, version 1 or 2, of HashiCorp Vault or OpenBao.

Rules:

- Versions are KV v2's own numbers, in their order. The metadata is read first; values only of versions that
  the agent does not hold, or whose creation time shows that the secret was deleted and made anew.
- Where the policy forbids the metadata, values are read instead: the current one, then earlier ones down to
  the first that the agent holds. A warning names the policy line that is missing.
- A refused read leads to one fresh login and one more try; then it is denied, unless the token may be dead.
- The mount and the KV version are asked for, else found by trying, and remembered once a read worked.
"""

from collections.abc import Iterator
from typing import Final

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer, Offered
from agent.providers.values import field_material, unversioned
from agent.providers.vault_kv import (
    Place,
    configured_place,
    gone,
    place_of_mount,
    refusal,
    room_warning,
    stated_activations,
)
from agent.providers.vault_session import VaultSession
from agent.settings import KeySettings
from agent.sources.vault import VaultSource
from keyferry.document import Fields

V1_UNSTAGED: Final = "KV version 1 keeps no earlier version; enable versioning (KV version 2)"
_V2_UNSTAGED: Final = "the secret's max_versions is 1, so Vault keeps no earlier version; raise it"


class VaultProvider:
    """One field of one KV secret."""

    def __init__(self, key: KeySettings, source: VaultSource, timeout: float) -> None:
        """Keep where ``key`` is; nothing is contacted yet."""
        self._key = key
        self._source = source
        self._session = VaultSession(source, timeout)
        self._place: Place | None = None

    def fetch(self, known: Known) -> Offer:
        """Return the secret's versions; log in once more if the first try is refused."""
        with self._session.fetching():
            try:
                offer = self._read(known)
            except DeniedError:
                if self._session.fresh:
                    raise
                self._session.log_in()
                offer = self._read(known)
        return self._session.told(offer)

    def close(self) -> None:
        """Drop the connection."""
        self._session.close()

    def _read(self, known: Known) -> Offer:
        """Read at the known place, or else at each possible one; the first one's error is the telling one."""
        failure: RefreshError | None = None
        places = [self._place] if self._place else possible_places(self._session, self._source)
        self._place = None  # an engine can be moved or upgraded: after a failure it is looked for again
        for place in places:
            try:
                offer = self._read_v1(place) if place.kv_version == 1 else self._read_v2(place, known)
            except (DeniedError, MissingError) as error:
                failure = failure or error
            else:
                self._place = place
                return offer
        if isinstance(failure, DeniedError):
            failure = self._session.refusal(failure.reason)
        raise failure or AssertionError

    def _read_v1(self, place: Place) -> Offer:
        answer = self._session.read(place.api("data"))
        if not answer.ok:
            raise refusal(place, answer)
        secret = f"secret {place}"
        data = answer.data.document
        material = field_material(data, self._source.field, secret)
        # Without a ttl of its own, lease_duration is the mount's default and says nothing of the key.
        ttl = Fields(answer.document, "Vault's answer").number("lease_duration") if "ttl" in data else 0.0
        return unversioned(
            material, self._key, secret, unstaged=V1_UNSTAGED, ttl_seconds=ttl if ttl > 0 else None
        )

    def _read_v2(self, place: Place, known: Known) -> Offer:
        answer = self._session.read(place.api("metadata"))
        if answer.refused:
            return self._read_v2_values(place, known)
        if not answer.ok:
            raise refusal(place, answer)
        metadata = answer.data
        activations, warnings = stated_activations(metadata.document.get("custom_metadata") or {})
        versions = metadata.object("versions")
        numbers = sorted(versions.document, key=int)
        offered = [self._offered(place, number, versions.object(number), known) for number in numbers]
        # The larger of the secret's and the mount's settings rules, and few may read that: the history tells.
        secret_max = metadata.document.get("max_versions") or 0
        keeps_one = len(numbers) == 1 and (secret_max == 1 or numbers != ["1"])
        room = None if keeps_one else room_warning(numbers, secret_max)
        return Offer(
            tuple(version._replace(activates_at=activations.get(version.id)) for version in offered),
            unstaged=_V2_UNSTAGED if keeps_one else None,
            warnings=warnings if room is None else (*warnings, room),
        )

    def _offered(self, place: Place, number: str, metadata: Fields, known: Known) -> Offered:
        offered = Offered(number, metadata.time("created_time"), gone(place, number, metadata), number == "1")
        if offered.material is not None or _is_held(offered, known):
            return offered
        try:
            read = self._value(place, number)
        except MissingError as error:  # it left between the two reads
            return offered._replace(material=error)
        if read.created_at != offered.created_at:
            message = f"secret {place} was made anew while it was being read; the next refresh sees it whole"
            raise UnavailableError(message)
        return read

    def _read_v2_values(self, place: Place, known: Known) -> Offer:
        warning = (
            "the policy forbids to read the secret's metadata: each refresh reads the value, and an earlier "
            f"version's deletion goes unseen; add: {place.grant('metadata')}"
        )
        return Offer(tuple(self._values_downwards(place, known))[::-1], warnings=(warning,))

    def _values_downwards(self, place: Place, known: Known) -> Iterator[Offered]:
        newest = self._value(place)
        yield newest
        # A held version that is the same still proves that the secret was not made anew: so are those before.
        same = _is_held(newest, known)
        for number in map(str, range(int(newest.id) - 1, 0, -1)):
            if same and number in known:
                yield Offered(number, known[number], None, number == "1")
                continue
            try:
                earlier = self._value(place, number)
            except MissingError:
                return  # beyond max_versions, as is everything before it
            yield earlier
            same = same or _is_held(earlier, known)

    def _value(self, place: Place, number: str = "0") -> Offered:
        """Return a version (0: the newest) and its value or why it has none; raise if there is none such."""
        answer = self._session.read(place.api("data"), {"version": number})
        # A deleted version answers 404 as well, but with its metadata.
        if not answer.ok and answer.document.get("data") is None:
            raise refusal(place, answer)
        metadata = answer.data.object("metadata")
        number = str(metadata.integer("version"))
        offered = Offered(number, metadata.time("created_time"), gone(place, number, metadata), number == "1")
        if offered.material is not None:
            return offered
        try:
            data = answer.data.object("data").document
            material = field_material(data, self._source.field, f"version {number} of secret {place}")
        except MalformedError as error:
            return offered._replace(material=error)
        return offered._replace(material=material)


def possible_places(session: VaultSession, source: VaultSource) -> list[Place]:
    """Return where the secret may be: the one place, where the server tells."""
    answer = session.read(f"sys/internal/ui/mounts/{source.path}")
    if answer.ok:
        return [place_of_mount(answer.data, source)]
    # Not everybody may ask. Most engines are version 2.
    if source.kv_version:
        return [configured_place(source, source.kv_version)]
    return [configured_place(source, 2), configured_place(source, 1)]


def _is_held(offered: Offered, known: Known) -> bool:
    return offered.id in known and known[offered.id] == offered.created_at
