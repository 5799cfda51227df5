# SPDX-License-Identifier: Apache-2.0
"""``FileAdapter``: the app's side of the volume.

Rules:

- Looking is rare and cheap: one clock read and nothing else until ``check_interval`` is over or an activation
  is due, then one readlink; the keyring is parsed only when the link moved.
- The last snapshot is kept through whatever happens to the volume, and ``problem`` tells. Only a withdrawal
  takes it away.
- An activation that was seen stays, whatever the clock does. A clock that was ahead for a while brings none
  forward: only what was acted upon counts, not the latest time that was read.
- Threads share one adapter. Whoever finds a look due takes it, the others go on with what there is. Nothing
  blocks longer than one look, except ``wait`` and ``get`` with ``wait``.
- A forked child looks for itself, and its callbacks are called in it.

No thread is started before the first ``on_change``.
"""

import contextlib
import logging
import math
import os
import sys
import time
import weakref
from collections.abc import Callable
from threading import TIMEOUT_MAX, RLock
from typing import Final, NoReturn, Self, TypeVar

from keyferry.errors import (
    DeploymentError,
    KeyferryError,
    KeyWithdrawnError,
    NotPublishedError,
    ReadOnlyKeyError,
    UnknownKeyError,
    UnknownVersionError,
)
from keyferry.key import Key, Snapshot
from keyferry.layout import CHECK_INTERVAL_SECONDS, DEFAULT_PATH
from keyferry.reader import read_link, read_status, read_volume, staleness
from keyferry.view import NOTHING, Held, View, view_at
from keyferry.watch import Callback, Watch

T = TypeVar("T")
C = TypeVar("C", bound=Callback)

# How often the waiting calls look: far below what a person notices, and a look is microseconds.
_POLL_SECONDS: Final = 0.01
_logger: Final = logging.getLogger("keyferry")


class FileAdapter:
    """The versions of one key, live from the volume that the keyferry agent publishes on.

    ``path`` is the volume's directory (default: ``KEYFERRY_DIR``, else /run/keyferry), ``key`` the key's name
    there, ``check_interval`` the seconds that a look at the volume is trusted. The default of 1 is in the
    agent's bound; more comes on top of it, and ``rotation.activation_delay`` must have room for that. What is
    no number of seconds is a ``ValueError``. Nothing is read before the first use. Make one and share it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        key: str = "master",
        check_interval: float = CHECK_INTERVAL_SECONDS,
    ) -> None:
        if sys.platform == "win32":
            message = (
                "FileAdapter needs Linux, where the keyferry agent runs, or another POSIX system. To develop"
                " here, unset KEYFERRY_DIR, set MASTER_ENCRYPTION_KEY and use keyferry.get_kms_adapter()"
            )
            raise DeploymentError(message)
        # NaN would be trusted for ever, no thread can wait longer than the limit, and no type checker sees a
        # "5" that comes from the environment.
        number = isinstance(check_interval, int | float)
        if not number or not 0 <= check_interval <= TIMEOUT_MAX:
            message = (
                f"check_interval {check_interval!r} cannot be used; allowed: seconds as a number, from 0"
                f" (which looks at every use) to {TIMEOUT_MAX:.0f}"
            )
            raise ValueError(message)
        self.path = os.fspath(path or os.environ.get("KEYFERRY_DIR") or DEFAULT_PATH)
        self.key = key
        self.check_interval = check_interval
        self._view = NOTHING
        self._lock = RLock()
        self._activated = -math.inf
        self._problem: str | None = None
        self._watch = Watch(self.path, key, self._observe)
        _adapters.add(self)

    @property
    def active(self) -> Key:
        """The version to encrypt with. Store its ``id`` with the ciphertext."""
        view = self._view
        # The hot path, here and below: written out, since a call would cost as much as all the rest.
        if time.monotonic() >= view.deadline:
            view = self._look()
        return view.active

    def get_master_key(self) -> str:
        """Return the active version's text.

        For apps that know one key only. Without the version's id a ciphertext does not outlive a rotation:
        use ``active`` and ``get``, or ``candidates``.
        """
        view = self._view
        if time.monotonic() >= view.deadline:
            view = self._look()
        return view.text or view.active.text

    @property
    def keyring(self) -> Snapshot:
        """All versions as of now, as one immutable snapshot."""
        view = self._view
        if time.monotonic() >= view.deadline:
            view = self._look()
        return view.snapshot

    @property
    def generation(self) -> int:
        """The number of the generation that this process uses, for the app's own metrics."""
        return self.keyring.generation

    def get(self, version_id: str, wait: float = 0.0) -> Key:
        """Return the version that a ciphertext names.

        A version that is not there is looked for at once, whatever ``check_interval`` says, and for ``wait``
        seconds more (which blocks). Raises ``UnknownVersionError`` with the ids that there are.
        """
        view = self._view
        if time.monotonic() >= view.deadline:
            view = self._look()
        key = view.by_id.get(version_id)
        if key is not None:
            return key
        return self._poll(lambda: self._look(force=True).snapshot.get(version_id), UnknownVersionError, wait)

    def candidates(self) -> tuple[Key, ...]:
        """Return the active version, then the others, newest first: for ciphertexts that name none.

        Only for authenticated encryption (AES-GCM, Fernet), where a wrong key is noticed.
        """
        return self.keyring.candidates()

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Block until the key is published, at most ``timeout`` seconds (``None``: for ever).

        Raises ``NotPublishedError`` when time is up, and at once whatever waiting does not cure.
        """
        seconds = math.inf if timeout is None else timeout
        return self._poll(lambda: self._look(force=True).snapshot, NotPublishedError, seconds)

    @property
    def staleness(self) -> float | None:
        """Seconds since the key store last answered the agent, ``None`` if nobody knows."""
        status = read_status(self.path)
        return None if status is None else staleness(status, self.key)

    @property
    def problem(self) -> str | None:
        """Why the last look could not be used and an older snapshot serves, ``None`` if all is well."""
        return self._problem

    def on_change(self, callback: C) -> C:
        """Call ``callback`` with the new snapshot whenever a version comes, goes or changes its state.

        A withdrawal is a change too: the snapshot has ``withdrawn`` set and no versions. Calls come from one
        daemon thread, which the first registration starts. Returns ``callback``, so it serves as a decorator.
        """
        self._watch.add(callback)
        return callback

    def close(self, timeout: float = 5.0) -> None:
        """Stop calling back and wait for a running callback, ``timeout`` seconds at most. Reading goes on."""
        self._watch.close(timeout)

    def rotate_key(self) -> NoReturn:
        """Raise ``ReadOnlyKeyError``: the key store rotates, not the app."""
        raise ReadOnlyKeyError(
            self.key,
            "rotate it at the key store, or with keyferry-agent rotate, and the agent brings the new version",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FileAdapter(path={self.path!r}, key={self.key!r})"

    def _look(self, *, force: bool = False) -> View:
        """Look at the volume and return a view whose key may be used; raise if there is none."""
        # A thread that has a key does not wait for the one that is looking: nobody pays for another's look.
        if self._lock.acquire(blocking=force or self._view.snapshot.withdrawn is not None):
            try:
                problem = self._refresh()
                news = problem != self._problem
                self._problem = problem
            finally:
                self._lock.release()
            # Not under the lock: a log handler may use the key.
            if news and problem is not None:
                _logger.warning("key %s: the last generation stays in use: %s", self.key, problem)
        view = self._view
        if view.snapshot.withdrawn is not None:
            raise KeyWithdrawnError(self.key, view.snapshot.withdrawn)
        return view

    def _refresh(self) -> str | None:
        """Take in what is on the volume by now; return why an older snapshot has to serve."""
        seen = self._view
        started = time.monotonic()
        problem = None
        try:
            view = self._read(seen)
        except KeyferryError as error:
            if seen is NOTHING:
                raise
            view, problem = seen, str(error)
        now = self._now(view.held)
        if now >= view.next_activation:
            view = view_at(self.path, view.held, now)
        if view.snapshot.withdrawn is None:
            view.deadline = started + min(self.check_interval, view.next_activation - now)
        # A signal handler may have taken a look in the middle of this one, and a later one at that.
        if self._view is seen:
            self._view = view
            self._activated = max(self._activated, view.activated)
        return problem

    def _read(self, seen: View) -> View:
        if seen is not NOTHING and read_link(self.path) == seen.held.link:
            return seen
        published = read_volume(self.path)
        keys = published.generation.keys
        if self.key not in keys:
            raise UnknownKeyError(self.path, self.key, tuple(keys))
        number, published_at = published.generation.number, published.generation.published_at
        held = Held(self.key, published.link, number, published_at, keys[self.key])
        return view_at(self.path, held, self._now(held))

    def _now(self, held: Held) -> float:
        return max(time.time(), held.published_at, self._activated)

    def _poll(self, attempt: Callable[[], T], cured: type[KeyferryError], seconds: float) -> T:
        """Return what ``attempt`` returns, trying again while it raises what time may have ``cured``."""
        end = time.monotonic() + seconds
        while True:
            try:
                return attempt()
            except cured:
                left = end - time.monotonic()
                if left <= 0:
                    raise
            time.sleep(min(_POLL_SECONDS, left))

    def _observe(self) -> tuple[Snapshot | None, float]:
        """Return what there is, a withdrawn key included, and in how many seconds to look again."""
        with contextlib.suppress(KeyferryError):
            self._look(force=True)
        view = self._view
        if view is NOTHING:
            return None, self.check_interval
        if view.snapshot.withdrawn is not None:
            return view.snapshot, self.check_interval
        return view.snapshot, view.deadline - time.monotonic()

    def _after_fork(self) -> None:
        # Another thread of the parent may have held the lock: it does not exist here.
        self._lock = RLock()
        self._view.deadline = -math.inf
        self._watch.after_fork()


_adapters: Final[weakref.WeakSet[FileAdapter]] = weakref.WeakSet()


def _after_fork() -> None:
    for adapter in tuple(_adapters):
        adapter._after_fork()  # noqa: SLF001 -- the same module


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
