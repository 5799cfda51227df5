# SPDX-License-Identifier: Apache-2.0
"""What the agent can be told, as frozen values.

Each field says its meaning, unit, default and why that default; docs/configuration.md is generated from here.
Durations are seconds. Loading and checking is ``agent.loading``'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from keyferry.layout import DEFAULT_PATH
from keyferry.material import Encoding

Reaction = Literal["keep", "withdraw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSettings:
    path: Path = Path(DEFAULT_PATH)
    mode: int = 0o440
    group: str | int | None = None
    require_tmpfs: bool = True
    wipe_on_exit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    interval: float = 300.0
    jitter: float = 0.10
    timeout: float = 10.0
    max_backoff: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSettings:
    activation_delay: float = 1200.0
    clock_skew: float = 30.0
    keep_versions: int | None = None  # None: all


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageSettings:
    max_stale: float | None = None  # None: never
    on_expired: Reaction = "keep"
    on_denied: Reaction = "keep"
    on_missing: Reaction = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupSettings:
    timeout: float | None = None  # None: never


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    host: str = ""      # "": all addresses, both families
    port: int | None = 8181  # None: off; 0: a free one


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSource:
    variable: str = "MASTER_ENCRYPTION_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    path: Path
    format: Literal["raw", "json", "keyring"] = "raw"
    field: str | None = None  # of a JSON file


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAuth:
    method: Literal["token", "approle", "kubernetes", "jwt"] = "token"
    mount: str | None = None
    role: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    role_id: str | None = None
    role_id_file: Path | None = None
    secret_id: str | None = field(default=None, repr=False)
    secret_id_file: Path | None = None
    secret_id_wrapped: bool = False
    jwt_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSource:
    address: str
    path: str
    field: str = "key"
    namespace: str | None = None
    ca_file: Path | None = None
    tls_server_name: str | None = None
    kv_version: Literal[1, 2] | None = None   # None: ask, else recognise by the answers
    auth: VaultAuth = VaultAuth()


Source = EnvSource | FileSource | VaultSource


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """One key: where it comes from and what it must look like."""

    name: str
    provider: str
    source: Source
    encoding: Encoding = "text"
    length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    keys: Mapping[str, KeySettings]
    volume: VolumeSettings = VolumeSettings()
    refresh: RefreshSettings = RefreshSettings()
    rotation: RotationSettings = RotationSettings()
    outage: OutageSettings = OutageSettings()
    startup: StartupSettings = StartupSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
