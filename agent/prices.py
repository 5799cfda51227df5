# SPDX-License-Identifier: Apache-2.0
"""What the key stores charge and allow, and what an agent asks of them. Pure tables; ``plan`` does the sums.

Rules:

- List prices in US dollars, without free tiers, taxes and discounts. ``as_of`` is when the vendor's pages
  that ``source`` names were last known to say so. An order of magnitude to plan with, not an offer.
- Calls are those of a healthy agent: what each refresh asks while nothing changes, and what a new version
  costs on top. Logins are left out: they depend on the credentials' life, not on the agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HOURS_A_MONTH: Final = 730  # as the vendors count


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a store charges for calls and for keeping the key, and how many calls a second it takes."""

    per_10000_calls: float
    per_month: float
    kept: str
    calls_per_second: float
    quota: str
    as_of: str
    source: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """The operations an agent asks for one key, by the vendor's own names."""

    at_refresh: tuple[str, ...] = ()
    at_new_version: tuple[str, ...] = ()
    tariff: Tariff | None = None


_SECRETS_MANAGER: Final = Tariff(
    per_10000_calls=0.05,
    per_month=0.40,
    kept="a secret",
    calls_per_second=40_000,
    quota="DescribeSecret, an account and region; GetSecretValue 10000, other calls far fewer",
    as_of="2026-09",
    source='AWS, "AWS Secrets Manager Pricing" and "increases API requests per second" of 2025-03',
)
_AWS_KMS: Final = Tariff(
    per_10000_calls=0.03,
    per_month=1.00,
    kept="a symmetric KMS key",
    calls_per_second=10_000,
    quota="symmetric cryptographic operations, an account and region; some regions allow more",
    as_of="2026-03",
    source='AWS, "AWS Key Management Service Pricing" and "Request quotas"',
)
_GCP_KMS: Final = Tariff(
    per_10000_calls=0.03,
    per_month=0.06,
    kept="an active key version in software",
    calls_per_second=1_000,
    quota="60000 requests a minute, a project; since 2026-02 Google adjusts it, region by region",
    as_of="2025-03",
    source='Google, "Cloud Key Management Service pricing" and "Quotas"',
)

# Envelope providers unwrap the newest version and the active one: twice only while a rotation is staged.
TRAFFIC: Final[Mapping[str, Traffic]] = {
    "env": Traffic(),
    "file": Traffic(),
    "vault": Traffic(("read metadata",), ("read data",)),
    "aws-secrets-manager": Traffic(
        ("DescribeSecret",), ("ListSecretVersionIds", "GetSecretValue"), _SECRETS_MANAGER
    ),
    "aws-kms": Traffic(("Decrypt",), ("Decrypt",), _AWS_KMS),
    "vault-transit": Traffic(("update decrypt",), ("update decrypt",)),
    "gcp-kms": Traffic(("Decrypt",), ("Decrypt",), _GCP_KMS),
}
