# SPDX-License-Identifier: Apache-2.0
"""The contract suite's drivers for AWS: moto behind a proxy that answers as AWS does, behind one of TCP."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from agent.providers import open_provider
from agent.providers.base import Provider
from agent.sources.aws import AwsKmsSource, SecretsManagerSource
from tests.providers.drivers import Driver, key, unique_name
from tests.providers.wrapped_drivers import WrappedDriver
from tests.servers.aws_proxy import AwsProxy, refusal
from tests.servers.moto_server import REGION, Moto
from tests.servers.tcp_proxy import TcpProxy


@contextmanager
def only_these_variables(**variables: str) -> Iterator[None]:
    """Leave of the SDK's environment only ``variables``, and no instance metadata."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update({"AWS_EC2_METADATA_DISABLED": "true"} | variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Aws:
    """moto and both proxies, and credentials in a file that the SDK finds."""

    def __init__(self, stack: ExitStack, directory: Path, moto: Moto) -> None:
        """Start the proxies; ``stack`` ends them."""
        self.proxy = stack.enter_context(AwsProxy(moto.port))
        self.tcp = stack.enter_context(TcpProxy(self.proxy.port))
        self.endpoint = f"http://127.0.0.1:{self.tcp.port}"
        self.administrator = moto.client
        self._credentials_file = directory / "credentials"
        self._access_key = "none yet"
        self.rotate_credentials()
        stack.enter_context(
            only_these_variables(
                AWS_SHARED_CREDENTIALS_FILE=str(self._credentials_file),
                AWS_CONFIG_FILE=str(directory / "no-config"),
            )
        )

    def rotate_credentials(self) -> None:
        """Write new credentials to the file; the old ones are no longer accepted."""
        self.revoke_credentials()
        self._access_key = unique_name("AKIA").upper()
        self._credentials_file.write_text(
            f"[default]\naws_access_key_id = {self._access_key}\naws_secret_access_key = secret\n"
        )

    def revoke_credentials(self) -> None:
        """Accept the credentials in the file no longer."""
        self.proxy.revoked.add(self._access_key)


class SecretsManagerDriver(Driver):
    """A secret with the key in one field of its JSON."""

    server: ClassVar = "moto"
    absent: ClassVar = {"removed_version": "a version cannot be removed by itself"}

    def __init__(self, stack: ExitStack, directory: Path, moto: Callable[[], Moto]) -> None:
        super().__init__(stack, directory, moto)
        self.stack = stack
        self.aws = Aws(stack, directory, moto())
        self.name = unique_name("fedha/master-key")
        self.admin = self.aws.administrator("secretsmanager")
        self.put_count = 0
        self.rotate_credentials = self.aws.rotate_credentials  # type: ignore[method-assign]
        self.revoke_credentials = self.aws.revoke_credentials  # type: ignore[method-assign]

    def version_id(self, number: int) -> str:
        """Return the id that the version gets: AWS lets its maker choose."""
        return f"{number:032}"

    def source(self, **settings: Any) -> SecretsManagerSource:
        settings = {"field": "key", "region": REGION, **settings}
        return SecretsManagerSource(secret=self.name, endpoint=self.aws.endpoint, **settings)

    def open(self, timeout: float) -> Provider:
        return open_provider(key(self.source(), "aws-secrets-manager"), timeout=timeout)

    def put(self, value: str) -> None:
        self.put_string(json.dumps({"key": value, "owner": "tests"}))

    def put_unusable(self) -> None:
        self.put_string(json.dumps({"kee": "misspelt"}))

    def put_pending(self, value: str) -> None:
        self.put_string(json.dumps({"key": value}), VersionStages=["AWSPENDING"])

    def point_back(self) -> None:
        self.admin.update_secret_version_stage(
            SecretId=self.name,
            VersionStage="AWSCURRENT",
            MoveToVersionId=self.version_id(1),
            RemoveFromVersionId=self.version_id(2),
        )

    def put_string(self, text: str, **parameters: Any) -> str:
        """Make a version with this value, and return its id."""
        self.put_count += 1
        token = self.version_id(self.put_count)
        parameters |= {"SecretString": text, "ClientRequestToken": token}
        if self.put_count == 1:
            self.admin.create_secret(Name=self.name, **parameters)
        else:
            self.admin.put_secret_value(SecretId=self.name, **parameters)
        return token

    def forget(self) -> None:
        self.admin.delete_secret(SecretId=self.name, ForceDeleteWithoutRecovery=True)
        self.aws.proxy.forget_times()
        self.put_count = 0

    def refuse(self, *operations: str) -> None:
        """Let the policy forbid the operations."""
        self.aws.proxy.faults |= dict.fromkeys(operations, refusal("AccessDeniedException"))

    def refuse_probe(self) -> None:
        self.refuse("DescribeSecret")

    def deny(self) -> None:
        self.refuse("DescribeSecret", "ListSecretVersionIds", "GetSecretValue")

    def allow(self) -> None:
        self.aws.proxy.faults.clear()

    def go_away(self) -> None:
        self.aws.tcp.behave("reset")

    def stall(self) -> None:
        self.aws.tcp.behave("stall")

    def come_back(self) -> None:
        self.aws.tcp.behave("pass")

    def throttle(self) -> None:
        self.aws.proxy.faults["DescribeSecret"] = refusal("ThrottlingException")

    def value_reads(self) -> int:
        return self.aws.proxy.calls["GetSecretValue"]


class AwsKmsDriver(WrappedDriver):
    """A KMS key that unwraps the keyring."""

    server: ClassVar = "moto"
    provider_name: ClassVar = "aws-kms"

    def __init__(self, stack: ExitStack, directory: Path, moto: Callable[[], Moto]) -> None:
        super().__init__(stack, directory, moto)
        self.stack = stack
        self.aws = Aws(stack, directory, moto())
        self.proxy = self.aws.tcp
        self.admin = self.aws.administrator("kms")
        self.key_id: str = self.admin.create_key()["KeyMetadata"]["KeyId"]
        self.rotate_credentials = self.aws.rotate_credentials  # type: ignore[method-assign]
        self.revoke_credentials = self.aws.revoke_credentials  # type: ignore[method-assign]

    def source(self, **settings: Any) -> AwsKmsSource:
        settings = {"key_id": self.key_id, "keyring": self.keyring.path, **settings}
        return AwsKmsSource(region=REGION, endpoint=self.aws.endpoint, **settings)

    def wrap(self, plaintext: bytes, aad: bytes) -> str:
        return self.encrypt(plaintext, json.loads(aad))

    def encrypt(self, plaintext: bytes, context: dict[str, str], key_id: str | None = None) -> str:
        """Return what the AWS CLI prints."""
        blob: bytes = self.admin.encrypt(
            KeyId=key_id or self.key_id, Plaintext=plaintext, EncryptionContext=context
        )["CiphertextBlob"]
        return base64.b64encode(blob).decode()

    def deny(self) -> None:
        self.aws.proxy.faults["Decrypt"] = refusal("AccessDeniedException")

    def allow(self) -> None:
        self.aws.proxy.faults.clear()

    def throttle(self) -> None:
        self.aws.proxy.faults["Decrypt"] = refusal("ThrottlingException", retry_after=7)
