# SPDX-License-Identifier: Apache-2.0
"""Django's settings. No key is in them: the adapter reads one when it is used, and again when it changed."""

import os
from pathlib import Path

from fedha.encryption.key_manager import KMSAdapter
from keyferry import get_kms_adapter

BASE_DIR = Path(__file__).parents[1]

INSTALLED_APPS = ["fedha.encryption", "fedha.accounts"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

_SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": os.environ.get("DATABASE_PATH") or BASE_DIR / "db.sqlite3",
    "OPTIONS": {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        # Whoever will write says so first: then it waits for its turn, instead of failing at once.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
    },
}
# PGHOST, PGUSER, PGPASSWORD and their like are read by PostgreSQL's own library.
_POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE")}
DATABASES = {"default": _POSTGRESQL if _POSTGRESQL["NAME"] else _SQLITE}

# The agent's volume where KEYFERRY_DIR is set, whatever KMS_PROVIDER says; else MASTER_ENCRYPTION_KEY.
KMS_ADAPTER: KMSAdapter = get_kms_adapter()
