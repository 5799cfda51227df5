# SPDX-License-Identifier: Apache-2.0
from django.db import migrations, models

import fedha.encryption.fields


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="Account",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("holder", models.CharField(max_length=200)),
                ("iban", fedha.encryption.fields.EncryptedTextField()),
                ("tax_id", fedha.encryption.fields.EncryptedTextField(null=True)),
            ],
        ),
    ]
