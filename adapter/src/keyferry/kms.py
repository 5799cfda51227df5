# SPDX-License-Identifier: Apache-2.0
"""``get_kms_adapter``: the agent's volume where there is one, an environment variable for development.

``KEYFERRY_DIR`` decides, whatever ``KMS_PROVIDER`` says: in a pod that names the agent's provider, to which
the app never talks. Without ``KEYFERRY_DIR`` any other provider than ``env`` is refused, so that a pod whose
volume was forgotten does not quietly encrypt with a development key.
"""

import functools
import os
from typing import Final, NoReturn, Protocol, Self, TypeVar

from keyferry.adapter import FileAdapter
from keyferry.errors import DeploymentError, ReadOnlyKeyError
from keyferry.key import Key, Snapshot
from keyferry.material import ENCODINGS, Encoding, InvalidMaterialError, Material, decode, fingerprint
from keyferry.watch import Callback

C = TypeVar("C", bound=Callback)

VARIABLE: Final = "MASTER_ENCRYPTION_KEY"
_KEY: Final = "master"


class KMSAdapter(Protocol):
    """What an app may use of either adapter. ``FileAdapter`` tells what each does."""

    @property
    def active(self) -> Key:
        """The version to encrypt with."""

    @property
    def keyring(self) -> Snapshot:
        """All versions as of now, as one immutable snapshot."""

    @property
    def generation(self) -> int:
        """The number of the generation in use."""

    @property
    def staleness(self) -> float | None:
        """Seconds since the key store last answered, ``None`` if nobody knows."""

    @property
    def problem(self) -> str | None:
        """Why an older snapshot serves, ``None`` if all is well."""

    def get_master_key(self) -> str:
        """Return the active version's text."""

    def get(self, version_id: str, wait: float = 0.0) -> Key:
        """Return the version that a ciphertext names."""

    def candidates(self) -> tuple[Key, ...]:
        """Return the active version, then the others, newest first."""

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Block until the key is there."""

    def on_change(self, callback: C) -> C:
        """Call ``callback`` with the new snapshot at each change."""

    def close(self, timeout: float = 5.0) -> None:
        """Stop calling back."""

    def rotate_key(self) -> NoReturn:
        """Raise ``ReadOnlyKeyError``."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class EnvAdapter:
    """One key from an environment variable, for development: it has one version, and nothing ever rotates it.

    The variables are read at each use: ``MASTER_ENCRYPTION_KEY``, and as in the agent's environment-only
    start ``KEYFERRY_ENCODING`` (default text) and ``KEYFERRY_LENGTH`` (bytes after decoding, unchecked by
    default). The version's id is its fingerprint, as the agent's ``env`` provider has it.
    """

    def __init__(self, variable: str = VARIABLE) -> None:
        self.variable = variable
        # There is no agent: nothing is published, ages, or can go wrong behind the app's back.
        self.generation = 0
        self.staleness: float | None = None
        self.problem: str | None = None

    @property
    def keyring(self) -> Snapshot:
        """The one version, as a snapshot."""
        encoding, length = _encoding(), _length()
        try:
            return _snapshot(self.variable, encoding, length)
        except InvalidMaterialError as error:
            problem = f"{self.variable}: {error}"
        # A new error, raised out here: the old one's frames hold the value.
        raise InvalidMaterialError(problem)

    @property
    def active(self) -> Key:
        """The one version."""
        return self.keyring.active

    def get_master_key(self) -> str:
        """Return the variable's text, verbatim."""
        return self.active.text

    def get(self, version_id: str, wait: float = 0.0) -> Key:  # noqa: ARG002 -- no other version ever comes
        """Return the one version, if it is the one that the ciphertext names."""
        return self.keyring.get(version_id)

    def candidates(self) -> tuple[Key, ...]:
        """Return the one version."""
        return self.keyring.candidates()

    def wait(self, timeout: float | None = None) -> Snapshot:  # noqa: ARG002 -- it is there or never will be
        """Return the one version, as a snapshot."""
        return self.keyring

    def on_change(self, callback: C) -> C:
        """Return ``callback``, which is never called."""
        return callback

    def close(self, timeout: float = 5.0) -> None:
        """Do nothing: no thread was started."""

    def rotate_key(self) -> NoReturn:
        """Raise ``ReadOnlyKeyError``: whoever sets the variable rotates."""
        raise ReadOnlyKeyError(_KEY, f"set {self.variable} anew and start the app again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get_kms_adapter() -> KMSAdapter:
    """Return the adapter for where this process runs; see the module's docstring for the choice.

    Cheap to call again: one ``FileAdapter`` a directory is made and shared. Raises ``DeploymentError``.
    """
    path = os.environ.get("KEYFERRY_DIR")
    if path:
        return _file_adapter(path)
    provider = os.environ.get("KMS_PROVIDER") or "env"
    if provider != "env":
        message = (
            f"KMS_PROVIDER is {provider!r}, which only the keyferry agent speaks to: set KEYFERRY_DIR to the"
            " directory that its volume is mounted on; or, to develop without it, KMS_PROVIDER=env"
        )
        raise DeploymentError(message)
    return EnvAdapter()


_file_adapter: Final = functools.cache(FileAdapter)


def _snapshot(variable: str, encoding: Encoding, length: int | None) -> Snapshot:
    text = os.environ.get(variable)
    if not text:
        message = (
            f"{variable} is not set: set it for development; where the keyferry agent runs, set KEYFERRY_DIR"
            " to the directory that its volume is mounted on"
        )
        raise DeploymentError(message)
    # os.environ hides bytes that are no text in surrogates; Material says so better than an encoder would.
    material = Material(text.encode(errors="surrogateescape"))
    decoded = decode(material, encoding, length)
    mark = fingerprint(material, len(decoded))
    key = Key(
        id=mark,
        state="active",
        created_at=None,
        activates_at=None,
        fingerprint=mark,
        material=material,
        bytes=decoded,
    )
    return Snapshot(_KEY, 0, (key,))


def _encoding() -> Encoding:
    wanted = os.environ.get("KEYFERRY_ENCODING") or "text"
    for encoding in ENCODINGS:
        if encoding == wanted:
            return encoding
    message = f"KEYFERRY_ENCODING is {wanted!r}; allowed are {', '.join(ENCODINGS)}"
    raise DeploymentError(message)


def _length() -> int | None:
    text = os.environ.get("KEYFERRY_LENGTH")
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        message = f"KEYFERRY_LENGTH is {text!r}; it counts bytes after decoding, such as 32"
        raise DeploymentError(message)
    return int(text)
