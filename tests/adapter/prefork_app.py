# SPDX-License-Identifier: Apache-2.0
"""A WSGI app that uses its key before the workers are forked: the smallest app, with a callback on top.

``gunicorn --preload tests.adapter.prefork_app:tell``, with KEYFERRY_DIR set.
"""

import json
import os
import time
from collections.abc import Callable, Iterable

from examples.app.app import decrypt, encrypt, keys
from keyferry import Snapshot

heard: list[str] = []
keys.wait(timeout=30)
record = encrypt(b"before the fork")


@keys.on_change
def hear(snapshot: Snapshot) -> None:
    heard.append(snapshot.active.id)


def tell(_: object, start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answer which process this is, which version it encrypts with, and of which ones it was called back."""
    # So that the next request finds another worker.
    time.sleep(0.05)
    version = encrypt(b"").partition(b":")[0].decode()
    told = {"pid": os.getpid(), "uses": version, "heard": heard, "opens": decrypt(record).decode()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
