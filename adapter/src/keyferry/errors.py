# SPDX-License-Identifier: Apache-2.0
"""Everything that the package raises on purpose, split by what the caller does about it.

- ``NotPublishedError``: wait, the key is not there yet.
- ``KeyWithdrawnError``: stop using the key.
- ``UnknownVersionError``: this ciphertext cannot be decrypted here, or not yet.
- ``DeploymentError``: give up, a person must change a mount, a mode or a setting.
- ``InvalidMaterialError`` and ``DocumentError``, in the modules that raise them: a value or a file is broken.

Arguments are kept in ``args`` and the text is made when asked for, so that every error survives pickling.
No text ever holds key material.
"""

from typing import Final

_IDS_SHOWN: Final = 10


class KeyferryError(Exception):
    """The root of what keyferry raises."""


class NotPublishedError(KeyferryError):
    """The volume is there, but the agent has published nothing on it yet."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"nothing is published in {self.path} yet: wait for it (FileAdapter.wait), start the app after"
            " the agent (a native sidecar with a startup probe), or see in the agent's log why it has no key"
        )


class UnknownKeyError(NotPublishedError):
    """The volume holds other keys, but not this one, or not yet."""

    def __init__(self, path: str, key: str, names: tuple[str, ...]) -> None:
        super().__init__(path)
        self.args = (path, key, names)
        self.key = key
        self.names = names

    def __str__(self) -> str:
        return (
            f"{self.path} has no key {self.key!r}, only: {', '.join(self.names) or 'none'}. Use one of"
            " these, add the key to the agent's configuration, or wait if the agent still fetches it"
            " (FileAdapter.wait)"
        )


class KeyWithdrawnError(KeyferryError):
    """The key may no longer be used. The adapter has dropped it from memory."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"key {self.key!r} was withdrawn ({self.reason}): stop using it and drop what was derived from"
            " it. It comes back by itself once the key store grants it again"
        )


class UnknownVersionError(KeyferryError, LookupError):
    """The keyring has no version of this id."""

    def __init__(self, key: str, version_id: str, known: tuple[str, ...]) -> None:
        super().__init__(key, version_id, known)
        self.key = key
        self.version_id = version_id
        self.known = known

    def __str__(self) -> str:
        shown = ", ".join(self.known[-_IDS_SHOWN:])
        older = len(self.known) - _IDS_SHOWN
        more = f" and {older} older" if older > 0 else ""
        return (
            f"key {self.key!r} has no version {self.version_id[:80]!r}, only: {shown}{more}. One that"
            " another replica has just got arrives within the agent's bound: get(id, wait=seconds). An old"
            " one is gone from the key store, or left out by the agent's rotation.keep_versions"
        )


class ReadOnlyKeyError(KeyferryError):
    """The app's copy of a key cannot be rotated from here."""

    def __init__(self, key: str, advice: str) -> None:
        super().__init__(key, advice)
        self.key = key
        self.advice = advice

    def __str__(self) -> str:
        return f"key {self.key!r} is a read-only copy here: {self.advice}"


class DeploymentError(KeyferryError):
    """Something about the deployment must be changed by a person; trying again does not help."""


class VolumeMissingError(DeploymentError):
    """There is no directory where the volume should be."""

    def __init__(self, path: str, problem: str = "does not exist") -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"{self.path} {self.problem}: mount the volume that the keyferry agent publishes on there, as a"
            " directory, or name its directory by KEYFERRY_DIR or FileAdapter(path)"
        )


class VolumeAccessError(DeploymentError):
    """The volume is there, but this process may not read it, or the system cannot."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.problem}"


class SubPathError(DeploymentError):
    """A file or directory of one generation was mounted on its own, so it never sees another one."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} is a subPath mount: it stays at one generation for ever and never sees a rotation."
            " Mount the whole volume as a directory, without subPath"
        )


class ContractError(DeploymentError):
    """What lies on the volume is not what the volume contract says."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"the volume {self.path} breaks the contract: {self.problem}. Only the keyferry agent may write"
            " there, and both sides need the same major version of keyferry"
        )
