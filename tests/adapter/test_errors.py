# SPDX-License-Identifier: Apache-2.0
"""The texts that an operator reads at night, pinned. Here they are broken into lines, there they are one."""

import pickle

import pytest

from keyferry.errors import (
    ContractError,
    DeploymentError,
    KeyferryError,
    KeyWithdrawnError,
    NotPublishedError,
    ReadOnlyKeyError,
    SubPathError,
    UnknownKeyError,
    UnknownVersionError,
    VolumeAccessError,
    VolumeMissingError,
)

V = "/run/keyferry"

TEXTS: list[tuple[KeyferryError, type[Exception], str]] = [
    (
        NotPublishedError(V),
        NotPublishedError,
        """nothing is published in /run/keyferry yet: wait for it (FileAdapter.wait), start the app after the
        agent (a native sidecar with a startup probe), or see in the agent's log why it has no key""",
    ),
    (
        UnknownKeyError(V, "db", ("master", "spare")),
        NotPublishedError,
        """/run/keyferry has no key 'db', only: master, spare. Use one of these, add the key to the agent's
        configuration, or wait if the agent still fetches it (FileAdapter.wait)""",
    ),
    (
        UnknownKeyError(V, "db", ()),
        NotPublishedError,
        """/run/keyferry has no key 'db', only: none. Use one of these, add the key to the agent's
        configuration, or wait if the agent still fetches it (FileAdapter.wait)""",
    ),
    (
        KeyWithdrawnError("master", "denied by the key store"),
        KeyferryError,
        """key 'master' was withdrawn (denied by the key store): stop using it and drop what was derived from
        it. It comes back by itself once the key store grants it again""",
    ),
    (
        UnknownVersionError("master", "9", ("1", "2")),
        LookupError,
        """key 'master' has no version '9', only: 1, 2. One that another replica has just got arrives within
        the agent's bound: get(id, wait=seconds). An old one is gone from the key store, or left out by the
        agent's rotation.keep_versions""",
    ),
    (
        UnknownVersionError("master", "9", tuple(map(str, range(101, 301)))),
        LookupError,
        """key 'master' has no version '9', only: 291, 292, 293, 294, 295, 296, 297, 298, 299, 300 and 190
        older. One that another replica has just got arrives within the agent's bound: get(id, wait=seconds).
        An old one is gone from the key store, or left out by the agent's rotation.keep_versions""",
    ),
    (
        ReadOnlyKeyError("master", "rotate elsewhere"),
        KeyferryError,
        "key 'master' is a read-only copy here: rotate elsewhere",
    ),
    (
        VolumeMissingError(V),
        DeploymentError,
        """/run/keyferry does not exist: mount the volume that the keyferry agent publishes on there, as a
        directory, or name its directory by KEYFERRY_DIR or FileAdapter(path)""",
    ),
    (
        VolumeMissingError(V, "is not a directory"),
        DeploymentError,
        """/run/keyferry is not a directory: mount the volume that the keyferry agent publishes on there, as a
        directory, or name its directory by KEYFERRY_DIR or FileAdapter(path)""",
    ),
    (
        VolumeAccessError(V, "permission denied"),
        DeploymentError,
        "cannot read /run/keyferry: permission denied",
    ),
    (
        SubPathError(f"{V}/master"),
        DeploymentError,
        """/run/keyferry/master is a subPath mount: it stays at one generation for ever and never sees a
        rotation. Mount the whole volume as a directory, without subPath""",
    ),
    (
        ContractError(V, "keyring.json is not JSON"),
        DeploymentError,
        """the volume /run/keyferry breaks the contract: keyring.json is not JSON. Only the keyferry agent may
        write there, and both sides need the same major version of keyferry""",
    ),
]


IDS = [f"{number} {type(row[0]).__name__}" for number, row in enumerate(TEXTS, 1)]


@pytest.mark.parametrize(("error", "branch", "text"), TEXTS, ids=IDS)
def test_text_and_branch(error: KeyferryError, branch: type[Exception], text: str) -> None:
    assert str(error) == " ".join(text.split())
    assert isinstance(error, branch)
    assert isinstance(error, KeyferryError)


@pytest.mark.parametrize("error", [row[0] for row in TEXTS], ids=IDS)
def test_errors_survive_pickling(error: KeyferryError) -> None:
    """A worker process sends its errors home pickled; one that cannot be unpickled hangs a pool."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_an_id_from_a_ciphertext_is_not_shown_without_end() -> None:
    """It may be anything: it came with the data."""
    assert f"no version {'x' * 80!r}, only: 1." in str(UnknownVersionError("master", "x" * 1000, ("1",)))
    assert "no version '\\x1b[2J', only: 1." in str(UnknownVersionError("master", "\x1b[2J", ("1",)))
