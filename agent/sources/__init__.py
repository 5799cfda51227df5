# SPDX-License-Identifier: Apache-2.0
"""Where a key can come from: one frozen dataclass a provider, and the table of them.

Adding a provider is one dataclass and one line in ``SOURCES``: reading, the reference and the digest of a
source follow from its fields' ``about``. No file is read and no server asked here.
"""

from collections.abc import Mapping
from typing import Final

from agent.sources.aws import AwsKmsSource, SecretsManagerSource
from agent.sources.env import EnvSource
from agent.sources.file import FileSource
from agent.sources.gcp import GcpKmsSource
from agent.sources.vault import VaultSource, VaultTransitSource

Source = (
    EnvSource
    | FileSource
    | SecretsManagerSource
    | AwsKmsSource
    | VaultSource
    | VaultTransitSource
    | GcpKmsSource
)

SOURCES: Final[Mapping[str, type[Source]]] = {
    "env": EnvSource,
    "file": FileSource,
    "aws-secrets-manager": SecretsManagerSource,
    "aws-kms": AwsKmsSource,
    "vault": VaultSource,
    "vault-transit": VaultTransitSource,
    "gcp-kms": GcpKmsSource,
}
