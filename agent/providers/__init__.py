# SPDX-License-Identifier: Apache-2.0
"""The key stores, one module each. Only the configured one is imported: an SDK costs up to 280 ms."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, assert_never

from agent.errors import ConfigError
from agent.providers.base import Provider
from agent.settings import KeySettings
from agent.sources.aws import AwsKmsSource, SecretsManagerSource
from agent.sources.env import EnvSource
from agent.sources.file import FileSource
from agent.sources.gcp import GcpKmsSource
from agent.sources.vault import VaultSource, VaultTransitSource

if TYPE_CHECKING:
    # Only what makes and rotates keys needs it, and the agent does neither.
    from agent.providers.lifecycle import Keeper


def open_provider(key: KeySettings, *, timeout: float) -> Provider:  # noqa: PLR0911 - one a provider
    """Return the provider of ``key``, whose every ``fetch`` ends within about ``timeout`` seconds.

    Nothing is contacted yet. Raises ``ConfigError`` where this installation lacks the store's SDK.
    """
    with _installed(key):
        match key.source:
            case EnvSource() as source:
                from agent.providers.env import EnvProvider

                return EnvProvider(key, source)
            case FileSource() as source:
                from agent.providers.file import FileProvider

                return FileProvider(key, source)
            case SecretsManagerSource() as source:
                from agent.providers.aws_secrets_manager import SecretsManagerProvider

                return SecretsManagerProvider(key, source, timeout)
            case AwsKmsSource() as source:
                from agent.providers.aws_kms import AwsKmsProvider

                return AwsKmsProvider(key, source, timeout)
            case VaultSource() as source:
                from agent.providers.vault import VaultProvider

                return VaultProvider(key, source, timeout)
            case VaultTransitSource() as source:
                from agent.providers.vault_transit import VaultTransitProvider

                return VaultTransitProvider(key, source, timeout)
            case GcpKmsSource() as source:
                from agent.providers.gcp_kms import GcpKmsProvider

                return GcpKmsProvider(key, source, timeout)
            case _:
                assert_never(key.source)


def open_keeper(key: KeySettings, *, timeout: float) -> "Keeper":
    """Return what makes and rotates ``key`` at its store. Nothing is contacted yet.

    Raises ``ConfigError`` where that store cannot, or where this installation lacks its SDK.
    """
    with _installed(key):
        match key.source:
            case EnvSource() as source:
                message = (
                    f"keys.{key.name}: an environment variable is set from outside, so no command can make "
                    f"or rotate it; set {source.variable} where the pod is defined"
                )
                raise ConfigError(message)
            case FileSource() as source:
                from agent.providers.file_keeper import FileKeeper

                return FileKeeper(key, source)
            case SecretsManagerSource() as source:
                from agent.providers.aws_secrets_manager_keeper import SecretsManagerKeeper

                return SecretsManagerKeeper(key, source, timeout)
            case VaultSource() as source:
                from agent.providers.vault_keeper import VaultKeeper

                return VaultKeeper(key, source, timeout)
            case AwsKmsSource() as source:
                from agent.providers.aws_kms import AwsKmsProvider
                from agent.providers.wrapped_keeper import WrappedKeeper

                return WrappedKeeper(key, source, AwsKmsProvider(key, source, timeout))
            case VaultTransitSource() as source:
                from agent.providers.vault_transit import VaultTransitProvider
                from agent.providers.wrapped_keeper import WrappedKeeper

                return WrappedKeeper(key, source, VaultTransitProvider(key, source, timeout))
            case GcpKmsSource() as source:
                from agent.providers.gcp_kms import GcpKmsProvider
                from agent.providers.wrapped_keeper import WrappedKeeper

                return WrappedKeeper(key, source, GcpKmsProvider(key, source, timeout))
            case _:
                assert_never(key.source)


@contextmanager
def _installed(key: KeySettings) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        message = (
            f"keys.{key.name}.provider: {key.provider} needs the Python package {error.name!r}, which is not "
            f"installed here; install keyferry-agent[{key.provider.partition('-')[0]}] or use the full image"
        )
        raise ConfigError(message) from error
