# SPDX-License-Identifier: Apache-2.0
"""The settings of the providers ``aws-secrets-manager`` and ``aws-kms``.

The login is the SDK's own chain: environment, profile, web identity (IRSA), EKS Pod Identity, instance
metadata. Nothing of it is a setting here but what the chain itself cannot know.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as setting  # a source has a setting called `field`
from typing import Final, Self

from agent.kinds import ADDRESS, TEXT, Kind
from agent.parsing import WrongValueError
from agent.problems import Problem
from agent.sources.base import BaseSource, about
from agent.sources.wrapped import WrappedSource

DEFAULT_REGION: Final = "us-east-1"
# Written by the agent itself, so that an entry of a keyring cannot be relabelled.
RESERVED_CONTEXT: Final = "keyferry:"

_REGION: Final = r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}"
_ROLE: Final = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+"
# The region in arn:partition:service:region:account:resource.
_ARN: Final = r"arn:aws[a-z-]*:[a-z]+:([a-z0-9-]+):[0-9]{12}:.+"


def _matching(pattern: str, wrong: str, *, allowed: str, hint: str) -> Kind:
    def read(text: str) -> str:
        if re.fullmatch(pattern, text, re.ASCII) is None:
            raise WrongValueError(wrong)
        return text

    return Kind(allowed=allowed, hint=hint, read=read)


REGION: Final = _matching(
    _REGION, "is not the name of a region", allowed="a region's name", hint="write it like eu-west-1"
)
ROLE: Final = _matching(
    _ROLE,
    "is not the ARN of a role",
    allowed="the ARN of an IAM role",
    hint="write it like arn:aws:iam::123456789012:role/keyferry",
)


def _read_context(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    names = [name for name, _, _ in pairs]
    if not all(name and value for name, _, value in pairs) or len(set(names)) != len(names):
        message = "is not a list of different names with values"
        raise WrongValueError(message)
    if any(name.startswith(RESERVED_CONTEXT) for name in names):
        message = f"has a name that begins with {RESERVED_CONTEXT}, which the agent itself sets"
        raise WrongValueError(message)
    return tuple(sorted((name, value) for name, _, value in pairs))


CONTEXT: Final = Kind(
    allowed="name=value pairs with commas between them",
    hint="write it as the AWS CLI takes it, such as app=fedha,stage=prod",
    read=_read_context,
    write=lambda pairs: ",".join(map("=".join, pairs)),
)


# Without slots, since a class with two bases can inherit slots from one of them only.
@dataclass(frozen=True, kw_only=True)
class AwsSource(BaseSource):
    """Where AWS is, and as whom to ask it."""

    region: str | None = setting(
        default=None,
        metadata=about(
            REGION,
            "The region.",
            why=f"The ARN's own, else `AWS_REGION`, `AWS_DEFAULT_REGION`, else {DEFAULT_REGION}.",
            identity=True,
        ),
    )
    endpoint: str | None = setting(
        default=None,
        metadata=about(
            ADDRESS,
            "The service's address, such as a VPC endpoint's.",
            why="`AWS_ENDPOINT_URL` and its like, which the SDK reads itself, else the region's own.",
        ),
    )
    role_arn: str | None = setting(
        default=None,
        metadata=about(
            ROLE,
            "A role to assume with the credentials that the SDK finds.",
            why="None: the credentials are used as they are.",
        ),
    )
    external_id: str | None = setting(
        default=None, metadata=about(TEXT, "The external id that the role's trust policy asks for.")
    )
    profile: str | None = setting(
        default=None,
        metadata=about(
            TEXT, "A profile in the SDK's configuration files.", why="`AWS_PROFILE`, else `default`."
        ),
    )

    def place(self) -> tuple[str, str]:
        """Return the name of the setting that names the resource, and its value, perhaps an ARN."""
        raise NotImplementedError

    def completed(self, environ: Mapping[str, str], /) -> Self:
        """Return it with a region."""
        if self.region is not None:
            return self
        variables = (environ.get("AWS_REGION"), environ.get("AWS_DEFAULT_REGION"))
        region = self._arn_region() or next(filter(None, variables), DEFAULT_REGION)
        return replace(self, region=region)

    def problems(self) -> Iterator[Problem]:
        """Yield a region that is not the ARN's, and an external id without a role."""
        region = self._arn_region()
        if region is not None and region != self.region:
            name = self.place()[0]
            wrong = f"is {self.region}, but {name} is an ARN in {region}"
            yield Problem("region", wrong, "the ARN's own region", "correct one of them, or remove region")
        if self.external_id is not None and self.role_arn is None:
            wrong = "means nothing without role_arn"
            yield Problem("external_id", wrong, "only beside role_arn", "remove it, or name the role")

    def _arn_region(self) -> str | None:
        match = re.fullmatch(_ARN, self.place()[1], re.ASCII)
        return match[1] if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsManagerSource(AwsSource):
    """A secret in AWS Secrets Manager."""

    secret: str = setting(
        metadata=about(
            TEXT,
            "The secret's name or ARN. Choose one and keep it: the other one counts as another key.",
            identity=True,
        )
    )
    field: str | None = setting(
        default=None,
        metadata=about(
            TEXT,
            "The field of the secret's JSON object that holds the key.",
            why="None: the whole value is the key.",
            identity=True,
        ),
    )

    def place(self) -> tuple[str, str]:
        """Return the secret."""
        return "secret", self.secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKmsSource(AwsSource, WrappedSource):
    """A keyring that AWS KMS unwraps."""

    key_id: str = setting(
        metadata=about(
            TEXT,
            "The KMS key: its id, its ARN, `alias/` and its alias, or the alias' ARN. No other key is ever "
            "used. Choose one spelling and keep it: another one counts as another key.",
            identity=True,
        )
    )
    encryption_context: tuple[tuple[str, str], ...] | None = setting(
        default=None,
        metadata=about(
            CONTEXT,
            "The encryption context that the ciphertexts have beside key name and version id.",
            why="None: those two are enough to tell ciphertexts apart.",
        ),
    )

    def place(self) -> tuple[str, str]:
        """Return the KMS key."""
        return "key_id", self.key_id
