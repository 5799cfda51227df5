# SPDX-License-Identifier: Apache-2.0
"""The settings of provider ``gcp-kms``."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as setting
from pathlib import Path
from typing import Final, Self

from agent.kinds import ADDRESS, PATH, Kind
from agent.parsing import WrongValueError
from agent.problems import Problem
from agent.sources.base import about
from agent.sources.wrapped import WrappedSource

CREDENTIALS_VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"

_KEY_NAME: Final = r"projects/[^/\s]+/locations/[a-z0-9-]+/keyRings/[\w-]{1,63}/cryptoKeys/[\w-]{1,63}"


def _read_key_name(text: str) -> str:
    if re.fullmatch(_KEY_NAME, text, re.ASCII) is None:
        message = "is not the resource name of a key"
        raise WrongValueError(message)
    return text


KEY_NAME: Final = Kind(
    allowed="projects/P/locations/L/keyRings/R/cryptoKeys/K, without a version",
    hint="copy it from `gcloud kms keys list --location L --keyring R`",
    read=_read_key_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpKmsSource(WrappedSource):
    """A keyring that Google Cloud KMS unwraps."""

    key_name: str = setting(
        metadata=about(
            KEY_NAME,
            "The KMS key's resource name. No other key is ever used; which of its versions wrapped an entry, "
            "the ciphertext tells.",
            identity=True,
        )
    )
    credentials_file: Path | None = setting(
        default=None,
        metadata=about(
            PATH,
            "A service account's key, or the configuration of a workload identity federation (JSON). It is "
            "read again at every login, so it can rotate.",
            why=f"`{CREDENTIALS_VARIABLE}`, else the metadata server: GKE's Workload Identity, or the node.",
        ),
    )
    endpoint: str = setting(
        default="https://cloudkms.googleapis.com",
        metadata=about(
            ADDRESS, "The service's address, such as a Private Service Connect endpoint's.", why="Google's."
        ),
    )
    ca_file: Path | None = setting(
        default=None,
        metadata=about(
            PATH,
            "PEM certificates of the authorities to trust, where a proxy inspects TLS.",
            why="Those that the Google libraries come with.",
        ),
    )

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files that a login reads."""
        return tuple(file for file in (self.credentials_file, self.ca_file) if file is not None)

    def completed(self, environ: Mapping[str, str], /) -> Self:
        """Return it with the credentials that the environment names."""
        named = environ.get(CREDENTIALS_VARIABLE)
        if self.credentials_file is not None or not named:
            return self
        return replace(self, credentials_file=Path(named))

    def problems(self) -> Iterator[Problem]:
        """Yield an endpoint without TLS."""
        if self.endpoint.startswith("http:"):
            yield Problem("endpoint", "is not encrypted, and the key would cross it", "https", "use https")
