# SPDX-License-Identifier: Apache-2.0
"""What the key store shows of a key when a command asks, judged as the agent would judge it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from agent import keyring
from agent.clock import moment
from agent.errors import ConfigError, MissingError
from agent.offer import UNRELEASED, Offer, Offered
from agent.providers import open_provider
from agent.providers.base import Provider, fetch
from agent.settings import KeySettings, Settings
from agent.sources.vault import VaultServer
from keyferry.layout import Version, active_index

__all__ = ["Look", "active", "chosen", "judged", "look", "newest", "opened", "require_lasting_login"]


@dataclass(frozen=True, slots=True)
class Look:
    """One fetch without anything known; ``milliseconds`` with connection and login, where there was none."""

    offer: Offer
    milliseconds: float


@contextmanager
def opened(key: KeySettings, settings: Settings) -> Iterator[Provider]:
    """Lend the provider of ``key`` to a command; raises ``ConfigError`` where its login works once."""
    require_lasting_login(key)
    provider = open_provider(key, timeout=settings.refresh.timeout)
    try:
        yield provider
    finally:
        provider.close()


def require_lasting_login(key: KeySettings) -> None:
    """Raise ``ConfigError`` where a command would use up what the agent logs in with."""
    if isinstance(key.source, VaultServer) and key.source.auth.secret_id_wrapped:
        message = (
            f"keys.{key.name}.auth.secret_id_wrapped: is true, and such a secret id works once: this command "
            "would use up what the agent needs; give it a configuration of its own, whose secret id is not "
            "wrapped"
        )
        raise ConfigError(message)


def look(provider: Provider) -> Look:
    """Ask the store; raises ``RefreshError``."""
    begun = perf_counter()
    offer = fetch(provider, {})
    return Look(offer, round((perf_counter() - begun) * 1000, 1))


def active(offer: Offer, key: KeySettings, settings: Settings) -> Version:
    """Return the version that a new pod would use; raises ``RefreshError`` if it could use none."""
    now = moment().now
    rules = keyring.Rules(activation_delay=settings.rotation.activation_delay)
    versions = keyring.merge(None, offer, key=key, rules=rules, now=now).keyring.versions
    return versions[active_index(versions, now)]


def newest(offer: Offer, key: KeySettings) -> tuple[Offered, Version | None]:
    """Return the store's newest version, and what the agent makes of it: nothing if its value was deleted.

    Raises ``RefreshError`` where it is there and cannot be used: then the configuration does not fit it.
    """
    released = [version for version in offer.versions if version.activates_at != UNRELEASED]
    if not released:
        message = f"the store shows no version of key {key.name!r} that was released"
        raise MissingError(message)
    last = released[-1]
    try:
        return last, judged(last, offer, key)
    except MissingError:
        return last, None


def judged(offered: Offered, offer: Offer, key: KeySettings) -> Version:
    """Return what the agent makes of one version of ``offer``; raises ``RefreshError`` if it is no key."""
    rules = keyring.Rules(activation_delay=0)
    alone = Offer((offered,), unstaged=offer.unstaged)
    return keyring.merge(None, alone, key=key, rules=rules, now=moment().now).keyring.versions[-1]


def chosen(settings: Settings, name: str | None) -> list[KeySettings]:
    """Return the key called ``name``, or all; raises ``ConfigError`` if there is none such."""
    if name is None:
        return list(settings.keys.values())
    if name not in settings.keys:
        message = f"--key {name}: there is no such key; allowed: {', '.join(settings.keys)}"
        raise ConfigError(message)
    return [settings.keys[name]]
