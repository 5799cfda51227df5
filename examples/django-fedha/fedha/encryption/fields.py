# SPDX-License-Identifier: Apache-2.0
"""``EncryptedTextField``: text in Python, ciphertext in the database.

Each write encrypts with the version that is active then; each read decrypts with the one that the row names.
The same text gives another ciphertext each time, so the database can neither search it nor keep it unique.
"""

from typing import Any, NoReturn

from django.core.exceptions import FieldError
from django.db import models

from fedha.encryption.key_manager import key_manager


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

    def get_lookup(self, lookup_name: str) -> Any:
        """Allow ``isnull`` and no other lookup: it would compare with a ciphertext, and find nothing."""
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else self._refuse(lookup_name)

    def _refuse(self, lookup_name: str) -> NoReturn:
        message = (
            f"{self} is encrypted and cannot be searched by {lookup_name!r}, only by 'isnull'; store a keyed"
            " hash (HMAC) of the value beside it to find equal ones"
        )
        raise FieldError(message)
