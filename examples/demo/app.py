# SPDX-License-Identifier: Apache-2.0
"""A real app in small: it encrypts new records and decrypts all of them, all the time, its neighbour's too.

    KEYFERRY_DIR=/run/keyferry python -m examples.demo.app NAME records.sqlite

Rules:

- A record keeps the id of the version that sealed it. Nothing is tried twice: what cannot be decrypted at the
  first try is a failure.
- It tells what it does on standard output, one JSON object a line, and never anything of a key but its id,
  state and fingerprint.
- It ends when its standard input does, so it never outlives whoever started it.
"""

import contextlib
import itertools
import json
import os
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyferry import FileAdapter, KeyferryError, Snapshot

TELL_EVERY_SECONDS = 0.25
# A steady load that leaves the machine idle enough to measure latencies on it.
ENCRYPT_EVERY_SECONDS = 0.02
LOOK_EVERY_SECONDS = 0.005
SWEEP_PAUSE_SECONDS = 0.02
BATCH = 100

INSERT = "INSERT INTO record VALUES (?, ?, ?, ?)"
AFTER = "SELECT rowid, name, version, nonce, sealed FROM record WHERE rowid > ? ORDER BY rowid LIMIT ?"

Row = tuple[int, str, str, bytes, bytes]


@dataclass
class Tally:
    """What one worker did. Only that worker writes it."""

    encrypted: int = 0
    decrypted: int = 0
    failures: int = 0
    failure: str | None = None


class App:
    """One replica: three workers around one adapter and the record store that all replicas share."""

    def __init__(self, name: str, records: str) -> None:
        self.name = name
        self.records = records
        self.keys = FileAdapter()
        self.stop = threading.Event()
        self._telling = threading.Lock()

    def run(self) -> int:
        """Work until standard input ends; return the exit code."""
        self.keys.wait(timeout=20)
        self.keys.on_change(self.tell_versions)
        self.tell_versions(self.keys.keyring)
        tallies = [Tally(), Tally(), Tally()]
        targets = (self.encrypt, self.decrypt_new, self.decrypt_all)
        workers = [
            threading.Thread(target=target, args=(tally,), name=target.__name__, daemon=True)
            for target, tally in zip(targets, tallies, strict=True)
        ]
        for worker in (*workers, threading.Thread(target=self.watch_input, daemon=True)):
            worker.start()
        while not self.stop.wait(TELL_EVERY_SECONDS):
            self.tell_totals(tallies)
            if not all(worker.is_alive() for worker in workers):
                return 1
        for worker in workers:
            worker.join()
        self.tell_totals(tallies)
        return 0

    def encrypt(self, tally: Tally) -> None:
        """Seal one new record after the other with the active version."""
        store = self.open_store()
        for number in itertools.count():
            if self.stop.wait(ENCRYPT_EVERY_SECONDS):
                return
            key, name, nonce = self.keys.active, f"{self.name}-{number}", os.urandom(12)
            sealed = AESGCM(key.bytes).encrypt(nonce, content_of(name), key.id.encode())
            store.execute(INSERT, (name, key.id, nonce, sealed))
            tally.encrypted += 1

    def decrypt_new(self, tally: Tally) -> None:
        """Open each record as soon as any replica has stored it: without staging, this would fail."""
        store, last = self.open_store(), 0
        while not self.stop.wait(LOOK_EVERY_SECONDS):
            for row in store.execute(AFTER, (last, BATCH)).fetchall():
                self.decrypt(row, tally)
                last = row[0]

    def decrypt_all(self, tally: Tally) -> None:
        """Open all records, the oldest first, over and over: old ones must outlive every rotation."""
        store, last = self.open_store(), 0
        while not self.stop.wait(SWEEP_PAUSE_SECONDS):
            rows = store.execute(AFTER, (last, BATCH)).fetchall()
            for row in rows:
                self.decrypt(row, tally)
            last = rows[-1][0] if len(rows) == BATCH else 0

    def decrypt(self, row: Row, tally: Tally) -> None:
        """Open one record with the version that it names."""
        _, name, version, nonce, sealed = row
        try:
            opened = AESGCM(self.keys.get(version).bytes).decrypt(nonce, sealed, version.encode())
            problem = "" if opened == content_of(name) else "it holds something else"
        except (KeyferryError, InvalidTag) as error:
            problem = str(error) or type(error).__name__
        if problem:
            tally.failures += 1
            tally.failure = tally.failure or f"record {name} of version {version}: {problem}"
        else:
            tally.decrypted += 1

    def open_store(self) -> sqlite3.Connection:
        """Return a connection of this thread's own."""
        store = sqlite3.connect(self.records, timeout=10, isolation_level=None)
        store.execute("PRAGMA synchronous = OFF")
        return store

    def watch_input(self) -> None:
        """Stop when whoever started this process closes its input, or is gone."""
        sys.stdin.read()
        self.stop.set()

    def tell_versions(self, snapshot: Snapshot) -> None:
        """Tell which versions there are now, and what each may be used for."""
        versions = [
            {
                "id": key.id,
                "state": key.state,
                "fingerprint": key.fingerprint,
                "activates_at": timestamp(key.activates_at),
            }
            for key in snapshot.versions
        ]
        self.tell(kind="versions", generation=snapshot.generation, versions=versions)

    def tell_totals(self, tallies: list[Tally]) -> None:
        """Tell how much was done so far."""
        self.tell(
            kind="totals",
            encrypted=sum(tally.encrypted for tally in tallies),
            decrypted=sum(tally.decrypted for tally in tallies),
            failures=sum(tally.failures for tally in tallies),
            failure=next((tally.failure for tally in tallies if tally.failure), None),
        )

    def tell(self, **fields: object) -> None:
        """Write one line; threads take turns."""
        with self._telling:
            print(json.dumps({"at": time.time(), **fields}), flush=True)


def create_store(records: Path) -> None:
    """Create the record store; done once, since changing the journal's mode takes no second process."""
    with contextlib.closing(sqlite3.connect(records)) as store:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("CREATE TABLE record (name TEXT, version TEXT, nonce BLOB, sealed BLOB)")


def content_of(name: str) -> bytes:
    """Return the plaintext of a record, which follows from its name so that anybody can check it."""
    return f"what nobody but the app may read about {name}".encode()


def timestamp(moment: datetime | None) -> float | None:
    """Return Unix seconds."""
    return None if moment is None else moment.timestamp()


if __name__ == "__main__":
    sys.exit(App(*sys.argv[1:3]).run())
