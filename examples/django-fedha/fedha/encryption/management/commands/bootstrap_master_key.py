# SPDX-License-Identifier: Apache-2.0
"""``manage.py bootstrap_master_key``: wait for the master key and prove that it encrypts.

Exit codes: 0 the key works, 1 it does not, 3 it is not there in time.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from fedha.encryption.key_manager import key_manager
from keyferry import KeyferryError, NotPublishedError


class Command(BaseCommand):
    """Never makes a key and never shows one: the app's copy is read-only."""

    help = (
        "Wait for the master key and prove that it encrypts. A key that does not exist yet is made by"
        " keyferry-agent bootstrap --create, beside the key store."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add --timeout."""
        parser.add_argument("--timeout", type=float, default=30.0, help="seconds (default %(default)s)")

    def handle(self, *, timeout: float, **_: Any) -> None:
        """Print which version is active, and what may be shown of it."""
        keys = key_manager()
        try:
            ring = keys.adapter.wait(timeout)
            keys.decrypt(keys.encrypt("it works"))
        except NotPublishedError as error:
            raise CommandError(str(error), returncode=3) from error
        except (KeyferryError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        for key in ring:
            self.stdout.write(f"master key, version {key.id}: {key.state}, {key.fingerprint}")
