# SPDX-License-Identifier: Apache-2.0
"""What lies in the database, past the field; and ciphertexts as they were before they named a version."""

import base64
import os
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.db.models import ExpressionWrapper, F, TextField, Value

from fedha.accounts.models import Account
from fedha.encryption.fields import CiphertextField
from keyferry import Key

IBAN = "DE02120300000000202051"


def stored(account: Account, field: str = "iban") -> Any:
    """Return the ciphertext of one row."""
    return _raw(field).filter(pk=account.pk).values_list("raw", flat=True).get()


def store(account: Account, ciphertext: str) -> None:
    """Put ``ciphertext`` where the field would put its own."""
    Account.objects.filter(pk=account.pk).update(iban=Value(ciphertext, CiphertextField()))


def all_stored() -> list[str]:
    """Return all ciphertexts, by primary key."""
    return list(_raw("iban").order_by("pk").values_list("raw", flat=True))


def legacy(key: Key, plaintext: str) -> str:
    """Encrypt as the app did when it knew one key."""
    nonce = os.urandom(12)
    return base64.b64encode(nonce + AESGCM(key.bytes).encrypt(nonce, plaintext.encode(), None)).decode()


def _raw(field: str) -> Any:
    return Account.objects.annotate(raw=ExpressionWrapper(F(field), TextField()))
