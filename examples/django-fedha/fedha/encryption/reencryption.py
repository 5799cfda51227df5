# SPDX-License-Identifier: Apache-2.0
"""Moves the rows of encrypted columns to the active version of the key, while the app runs.

Rules:

- A row is written only if it still holds the ciphertext that was read (compare-and-set), so that a write of
  the app in between always wins. Each row is a statement of its own: nothing waits for more than one row.
- The row itself tells its version. Nothing else is kept, so it can be stopped and started at will.
- A row that cannot be read is left as it is, and told.
- Ciphertexts are read past the field and past the model's managers, which may hide rows. Neither ``save`` nor
  signals are called: for the app nothing has changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from django.apps import apps
from django.db import router
from django.db.models import ExpressionWrapper, F, QuerySet, TextField, Value
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from fedha.encryption.fields import CiphertextField, EncryptedTextField
from fedha.encryption.key_manager import KeyManager, UnreadableError
from keyferry import UnknownVersionError

# Overtaken: the app deleted the row, or encrypted it anew by itself.
Outcome = Literal["renewed", "overtaken", "unreadable"]


@dataclass(frozen=True, slots=True)
class Column:
    """One encrypted column of one table. Models and querysets are Django's, hence ``Any``."""

    model: Any
    field: str
    database: str

    def __str__(self) -> str:
        return f"{self.model._meta.label}.{self.field}"

    def outdated(self, keys: KeyManager) -> Any:
        """Return the rows at a version that no longer encrypts, or at none that is named."""
        rows = self._rows().exclude(stored_=None)
        for header in keys.settled():
            # Not startswith, which ignores case on SQLite.
            rows = rows.exclude(Exact(Left("stored_", len(header)), Value(header)))
        return rows

    def reencrypt(
        self, keys: KeyManager, batch_size: int, *, dry_run: bool = False
    ) -> Iterator[tuple[object, Outcome]]:
        """Re-encrypt all outdated rows in order of their primary key; yield it, and what became of the row.

        In a ``dry_run`` rows are read and decrypted, and nothing is written.
        """
        rows = self.outdated(keys).order_by("pk").values_list("pk", "stored_")
        batch = list(rows[:batch_size])
        while batch:
            for pk, stored in batch:
                yield pk, self._renew(keys, pk, stored, dry_run=dry_run)
            # Asked anew each time: the key may have been rotated since.
            rows = self.outdated(keys).order_by("pk").values_list("pk", "stored_")
            batch = list(rows.filter(pk__gt=batch[-1][0])[:batch_size])

    def _renew(self, keys: KeyManager, pk: object, stored: str, *, dry_run: bool) -> Outcome:
        while True:
            try:
                renewed = Value(keys.encrypt(keys.decrypt(stored)), CiphertextField())
            except (UnknownVersionError, UnreadableError):
                return "unreadable"
            row = self._rows().filter(pk=pk)
            if dry_run or row.filter(stored_=stored).update(**{self.field: renewed}):
                return "renewed"
            current = row.values_list("stored_", flat=True).first()
            if current is None or current.startswith(keys.settled()):
                return "overtaken"
            stored = current

    def _rows(self) -> Any:
        # As plain text, else the field would decrypt what it reads and encrypt what it compares with. The
        # name ends with an underscore, as no field's may.
        stored = ExpressionWrapper(F(self.field), TextField())
        # No manager, since Meta.base_manager_name can have any of them hide rows.
        return QuerySet(self.model, using=self.database).annotate(stored_=stored)


def encrypted_columns(database: str) -> list[Column]:
    """Return the encrypted columns that live in ``database``; a model that inherits its table adds none."""
    return [
        Column(model, field.name, database)
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy and router.allow_migrate_model(database, model)
        for field in model._meta.local_concrete_fields
        if isinstance(field, EncryptedTextField)
    ]
