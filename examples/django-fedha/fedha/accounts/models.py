# SPDX-License-Identifier: Apache-2.0
"""What the app keeps."""

from django.db import models

from fedha.encryption.fields import EncryptedTextField


class Account(models.Model):
    """A customer's bank account."""

    holder = models.CharField(max_length=200)
    iban = EncryptedTextField()
    tax_id = EncryptedTextField(null=True)

    def __str__(self) -> str:
        return str(self.holder)
