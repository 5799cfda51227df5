# SPDX-License-Identifier: Apache-2.0
"""Starts without agent.yaml: the variables that existing apps use, as the tree that agent.yaml would hold.

Rules:

- A variable that is empty counts as not set, as manifests leave it.
- Only the variables of the chosen provider are looked at.
- ``names_of`` lets problems name the variable: who starts the agent this way never saw agent.yaml's names.
"""

from collections.abc import Mapping
from typing import Any, Final

PROVIDER_VARIABLE: Final = "KMS_PROVIDER"

# The setting that each variable gives, for every provider and for one.
COMMON: Final[Mapping[str, str]] = {
    PROVIDER_VARIABLE: "keys.master.provider",
    "KEYFERRY_ENCODING": "keys.master.encoding",
    "KEYFERRY_LENGTH": "keys.master.length",
    "KEYFERRY_DIR": "volume.path",
}
OF_PROVIDER: Final[Mapping[str, Mapping[str, str]]] = {
    "env": {},  # EnvSource's own default is MASTER_ENCRYPTION_KEY, and only the provider reads it
    "file": {"KEYFERRY_FILE": "keys.master.path"},
    "aws-secrets-manager": {
        "AWS_SECRET_NAME": "keys.master.secret",
        "AWS_REGION": "keys.master.region",
    },
    "aws-kms": {
        "AWS_KMS_KEY_ID": "keys.master.key_id",
        "AWS_REGION": "keys.master.region",
        "KEYFERRY_WRAPPED_KEYRING": "keys.master.keyring",
    },
    "vault": {
        "VAULT_ADDR": "keys.master.address",
        "VAULT_SECRET_PATH": "keys.master.path",
        "VAULT_TOKEN": "keys.master.auth.token",
    },
    "vault-transit": {
        "VAULT_ADDR": "keys.master.address",
        "VAULT_TRANSIT_KEY": "keys.master.key_name",
        "VAULT_TOKEN": "keys.master.auth.token",
        "KEYFERRY_WRAPPED_KEYRING": "keys.master.keyring",
    },
    "gcp-kms": {
        "GCP_KMS_KEY_NAME": "keys.master.key_name",
        "KEYFERRY_WRAPPED_KEYRING": "keys.master.keyring",
    },
}
DEFAULTS: Final[Mapping[str, str]] = {
    "AWS_SECRET_NAME": "fedha/encryption/master-key",
    "VAULT_SECRET_PATH": "secret/fedha/encryption/master-key",
}


def tree_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the tree that agent.yaml would hold."""
    tree: dict[str, Any] = {}
    for variable, setting in _variables(environ).items():
        if value := environ.get(variable) or DEFAULTS.get(variable):
            *sections, name = setting.split(".")
            place = tree
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
    return tree


def names_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that each setting comes from."""
    return {setting: variable for variable, setting in _variables(environ).items()}


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {**COMMON, **OF_PROVIDER.get(environ.get(PROVIDER_VARIABLE, ""), {})}
