# SPDX-License-Identifier: Apache-2.0
"""Reads the keys that the keyferry agent publishes, with nothing but the standard library.

``FileAdapter`` is the way in; ``get_kms_adapter`` chooses between it and an environment variable.
"""

# Not from typing: that alone would import thirty modules. Type checkers know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from keyferry.adapter import FileAdapter
    from keyferry.errors import (
        ContractError,
        DeploymentError,
        KeyferryError,
        KeyWithdrawnError,
        NotPublishedError,
        ReadOnlyKeyError,
        SubPathError,
        UnknownKeyError,
        UnknownVersionError,
        VolumeAccessError,
        VolumeMissingError,
    )
    from keyferry.key import Key, Snapshot
    from keyferry.kms import EnvAdapter, KMSAdapter, get_kms_adapter
    from keyferry.material import InvalidMaterialError

__all__ = [
    "ContractError",
    "DeploymentError",
    "EnvAdapter",
    "FileAdapter",
    "InvalidMaterialError",
    "KMSAdapter",
    "Key",
    "KeyWithdrawnError",
    "KeyferryError",
    "NotPublishedError",
    "ReadOnlyKeyError",
    "Snapshot",
    "SubPathError",
    "UnknownKeyError",
    "UnknownVersionError",
    "VolumeAccessError",
    "VolumeMissingError",
    "get_kms_adapter",
]

_MODULES = {
    "EnvAdapter": "kms",
    "FileAdapter": "adapter",
    "InvalidMaterialError": "material",
    "KMSAdapter": "kms",
    "Key": "key",
    "Snapshot": "key",
    "get_kms_adapter": "kms",
}


def __getattr__(name: str) -> object:
    """Import a public name's module when it is first asked for: the agent takes the layout and no more."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
