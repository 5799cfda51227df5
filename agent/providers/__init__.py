# SPDX-License-Identifier: Apache-2.0
"""The key stores, one module each. Only the configured one is imported: an SDK costs up to 280 ms."""

from typing import assert_never

from agent.errors import ConfigError
from agent.providers.base import Provider
from agent.settings import (
    AwsKmsSource,
    EnvSource,
    FileSource,
    GcpKmsSource,
    KeySettings,
    SecretsManagerSource,
    VaultSource,
    VaultTransitSource,
)


def open_provider(key: KeySettings, *, timeout: float) -> Provider:  # noqa: PLR0911 - one a provider
    """Return the provider of ``key``, whose every ``fetch`` ends within about ``timeout`` seconds.

    Nothing is contacted yet. Raises ``ConfigError`` where this installation lacks the store's SDK.
    """
    try:
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
    except ModuleNotFoundError as error:
        message = (
            f"keys.{key.name}.provider: {key.provider} needs the Python package {error.name!r}, which is not "
            f"installed here; install keyferry-agent[{key.provider.partition('-')[0]}] or use the full image"
        )
        raise ConfigError(message) from error
