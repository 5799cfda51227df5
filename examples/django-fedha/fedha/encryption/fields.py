# SPDX-License-Identifier: Apache-2.0
"""``EncryptedTextField``: text in Python, ciphertext in the database.

Each write encrypts with the version that is active then; each read decrypts with the one that the row names.
The same text gives another ciphertext each time, so the database can neither search it nor keep it unique.
It takes no expression: the database, which would compute it, cannot encrypt.
"""

from typing import Any, NoReturn

from django.core.exceptions import FieldError
from django.db import models
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

from fedha.encryption.key_manager import key_manager


class CiphertextField(models.TextField):
    """Says of an expression, ``Value(text, CiphertextField())``, that it is encrypted already."""


class EncryptedTextField(models.TextField):
    """A TextField whose value is encrypted with the master key; NULL stays NULL."""

    description = "Encrypted text"

    def from_db_value(self, value: str | None, *_: object) -> str | None:
        """Decrypt what the database holds."""
        return None if value is None else key_manager().decrypt(value)

    def get_prep_value(self, value: Any) -> Any:
        """Encrypt what is to be written."""
        text = super().get_prep_value(value)
        return None if text is None else key_manager().encrypt(text)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Encrypt a value; refuse an expression unless all that it can give is encrypted."""
        if hasattr(value, "as_sql") and not _is_encrypted(value):
            message = (
                f"{self} is encrypted and takes no expression, whose result would be stored as it is;"
                " read the row, set the field to the text and save it"
            )
            raise FieldError(message)
        return super().get_db_prep_save(value, connection)

    def get_lookup(self, lookup_name: str) -> Any:
        """Allow ``isnull`` and ``=None``. Others would compare with a ciphertext, and find nothing."""
        if lookup_name == "exact":
            return _ExactlyNone
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else self.refuse(lookup_name)

    def refuse(self, lookup_name: str) -> NoReturn:
        """Raise ``FieldError``, and say what may be done instead."""
        message = (
            f"{self} is encrypted and cannot be searched by {lookup_name!r}, only by 'isnull'; store a keyed"
            " hash (HMAC) of the value beside it to find equal ones"
        )
        raise FieldError(message)


class _ExactlyNone(Exact):
    # Django makes an isnull of it.
    def __init__(self, lhs: Any, rhs: Any) -> None:
        if rhs is not None:
            lhs.output_field.refuse("exact")
        super().__init__(lhs, rhs)


def _is_encrypted(expression: Any) -> bool:
    match expression:
        case models.Value(value=None):
            return True
        case models.Value():
            # Such a value is encrypted as one that is assigned. Without a field it would be text.
            return isinstance(expression.output_field, EncryptedTextField | CiphertextField)
        # What bulk_update makes: a Case of values, with a Cast around it on PostgreSQL.
        case models.Case():
            return all(map(_is_encrypted, [*(case.result for case in expression.cases), expression.default]))
        case Cast():
            return all(map(_is_encrypted, expression.get_source_expressions()))
    return False
