# SPDX-License-Identifier: Apache-2.0
"""One app of the fleet; run as a program: ``python -m tests.fleet.app NAME RECORDS``, with KEYFERRY_DIR set.

Rules:

- It writes a record every now and then, and opens every record of every app as soon as it is there. The
  demo's app opens them: at the first try or not at all.
- A line on standard input stops the writing, and is answered by one. The end of the input stops all: what is
  left is opened, then every record of the fleet once more, since old ones must outlive every rotation.
- Then it tells all as JSON. It never outlives whoever started it.
"""

import json
import os
import select
import sys
from dataclasses import asdict
from itertools import count
from sqlite3 import Connection

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from examples.demo.app import AFTER, BATCH, INSERT, App, Tally, content_of

PAUSE_SECONDS = 0.05


def main(name: str, records: str) -> None:
    """Work until told to stop."""
    app = App(name, records)
    app.keys.wait(timeout=30)
    store = app.open_store()
    fresh, all_again = Tally(), Tally()
    last = 0
    for number in count():
        if select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
            break
        write(app, store, f"{name}-{number}")
        fresh.encrypted += 1
        last = open_from(last, app, store, fresh)
    print(sys.stdin.readline(), end="", flush=True)  # noqa: T201 - its only way to tell
    sys.stdin.read()
    open_from(last, app, store, fresh)
    open_from(0, app, store, all_again)
    print(json.dumps({"fresh": asdict(fresh), "all_again": asdict(all_again)}))  # noqa: T201 - the same


def write(app: App, store: Connection, name: str) -> None:
    """Store one new record under the active version."""
    key, nonce = app.keys.active, os.urandom(12)
    sealed = AESGCM(key.bytes).encrypt(nonce, content_of(name), key.id.encode())
    store.execute(INSERT, (name, key.id, nonce, sealed))


def open_from(last: int, app: App, store: Connection, tally: Tally) -> int:
    """Open all records after the row ``last``, and return the last one's."""
    while rows := store.execute(AFTER, (last, BATCH)).fetchall():
        for row in rows:
            app.decrypt(row, tally)
        last = rows[-1][0]
    return last


if __name__ == "__main__":
    main(*sys.argv[1:3])
