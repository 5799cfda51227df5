# SPDX-License-Identifier: Apache-2.0
"""``manage.py rotate_encryption_keys``: re-encrypt all rows with the active version of the master key.

Exit codes: 0 every row in this database is at it, 1 some rows cannot be read, or the key or the database
cannot be used, 3 the app wrote rows with an earlier version meanwhile, 130 interrupted. After 3 and 130,
run it again: it goes on where it was.
"""

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from fedha.encryption.key_manager import KeyManager, key_manager
from fedha.encryption.reencryption import Column, encrypted_columns
from keyferry import KeyferryError

_WIDTH: Final = 30
_REDRAW_SECONDS: Final = 0.1
_SHOWN: Final = 10


class Command(BaseCommand):
    """Safe at any time: see ``fedha.encryption.reencryption``."""

    help = (
        "Re-encrypt all rows with the active version of the master key, while the app runs. It makes no new"
        " version: keyferry-agent rotate does."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--database", choices=tuple(connections), default=DEFAULT_DB_ALIAS, help="default: %(default)s"
        )
        parser.add_argument(
            "--batch-size", type=_positive, default=500, help="rows read at once (default %(default)s)"
        )
        parser.add_argument("--dry-run", action="store_true", help="decrypt every such row, write nothing")

    def handle(self, *, database: str, batch_size: int, dry_run: bool, **_: Any) -> None:
        """Re-encrypt column after column, then say how it went."""
        keys, done, left = key_manager(), Counter[str](), 0
        try:
            for column in encrypted_columns(database):
                found = self._reencrypt(column, keys, batch_size, dry_run=dry_run)
                if not dry_run:
                    left += max(0, column.outdated(keys).count() - found["unreadable"])
                done += found
        except (KeyferryError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            message = f"database {database!r}: {error}"
            raise CommandError(message) from error
        except KeyboardInterrupt:
            message = "interrupted; every row is whole. Run it again to go on"
            raise CommandError(message, returncode=130) from None
        if done["unreadable"]:
            message = (
                f"{done['unreadable']} values cannot be read and were left as they are: bring the version"
                " that they name back to the key store, or restore them"
            )
            raise CommandError(message)
        if left > 0:
            message = f"{left} values were written with an earlier version meanwhile: run it again"
            raise CommandError(message, returncode=3)

    def _reencrypt(self, column: Column, keys: KeyManager, batch_size: int, *, dry_run: bool) -> Counter[str]:
        found, unreadable = Counter[str](), []
        bar = _Bar(str(column), column.outdated(keys).count())
        for pk, outcome in column.reencrypt(keys, batch_size, dry_run=dry_run):
            found[outcome] += 1
            if outcome == "unreadable" and found[outcome] <= _SHOWN:
                unreadable.append(str(pk))
            bar.draw(found.total())
        bar.clear()
        verb = "to re-encrypt" if dry_run else "re-encrypted"
        line = f"{column}: {found['renewed']} {verb}, {found['overtaken']} done by the app"
        if unreadable:
            more = ", ..." if found["unreadable"] > _SHOWN else ""
            line += f", {found['unreadable']} unreadable: pk {', '.join(unreadable)}{more}"
        self.stdout.write(line)
        return found


class _Bar:
    """A progress bar on standard error if that is a terminal, else nothing."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._next = 0.0 if sys.stderr.isatty() else float("inf")

    def draw(self, done: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REDRAW_SECONDS
        # The app's writes may add rows on the way.
        total = max(self._total, done)
        full = "#" * (_WIDTH * done // total)
        sys.stderr.write(f"\r{self._title} [{full:.<{_WIDTH}}] {done}/{total}")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._next < float("inf"):
            sys.stderr.write("\r\033[K")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        message = f"{text!r} is not a number above 0"
        raise ArgumentTypeError(message)
    return int(text)
