# SPDX-License-Identifier: Apache-2.0
"""The stores that the contract suite runs on. A new provider is one more driver, and its line here."""

from collections.abc import Mapping

from tests.providers.aws_drivers import AwsKmsDriver, SecretsManagerDriver
from tests.providers.drivers import (
    Driver,
    EnvDriver,
    FakeDriver,
    JsonFileDriver,
    KeyringFileDriver,
    RawFileDriver,
    VaultDriver,
    VaultV1Driver,
)
from tests.providers.wrapped_drivers import DerivedTransitDriver, GcpKmsDriver, VaultTransitDriver

DRIVERS: Mapping[str, type[Driver]] = {
    "fake": FakeDriver,
    "env": EnvDriver,
    "file-raw": RawFileDriver,
    "file-json": JsonFileDriver,
    "file-keyring": KeyringFileDriver,
    "vault-kv1": VaultV1Driver,
    "vault-kv2": VaultDriver,
    "aws-secrets-manager": SecretsManagerDriver,
    "aws-kms": AwsKmsDriver,
    "vault-transit": VaultTransitDriver,
    "vault-transit-derived": DerivedTransitDriver,
    "gcp-kms": GcpKmsDriver,
}
