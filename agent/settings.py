# SPDX-License-Identifier: Apache-2.0
"""What the agent can be told, as frozen values.

Rules:

- Each field says its meaning, unit, default and why that default; docs/configuration.md is made from that.
- Durations are seconds and shares are 0 to 1 in memory; their text has a unit (``agent.parsing``).
- Values only: reading agent.yaml and the environment is ``agent.loading``'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as setting
from pathlib import Path
from typing import Literal, get_args

from agent.kinds import FLAG, GROUP, LISTEN_HOST, LISTEN_PORT, MODE, PATH, SHARE, choice, duration, whole
from agent.sources import SOURCES, Source
from agent.sources.base import about
from keyferry.layout import DEFAULT_PATH
from keyferry.material import ENCODINGS, Encoding

Reaction = Literal["keep", "withdraw"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSettings:
    """Where and how keys are published. A change needs a restart."""

    path: Path = setting(
        default=Path(DEFAULT_PATH),
        metadata=about(
            PATH,
            "The root of the volume that the agent and the app share.",
            why="The adapter looks there too, unless KEYFERRY_DIR says otherwise.",
        ),
    )
    mode: int = setting(
        default=0o440,
        metadata=about(
            MODE,
            "The mode of the published files; directories follow from it.",
            why="The app reads through the volume's group, and nobody writes.",
        ),
    )
    group: str | int | None = setting(
        default=None,
        metadata=about(
            GROUP,
            "The group of the published files.",
            why="The group of the volume's root, which Kubernetes sets to the pod's fsGroup.",
        ),
    )
    require_tmpfs: bool = setting(
        default=True,
        metadata=about(
            FLAG,
            "Refuse a volume that is not in memory.",
            why="A key that was on a disk once can stay there. Nothing is synced to one: after a crash of "
            "the node what lies on it may be damaged until the agent publishes again.",
        ),
    )
    wipe_on_exit: bool = setting(
        default=False,
        metadata=about(
            FLAG,
            "Remove the keys when the agent stops.",
            why="A sidecar's restart must not take the key away from a running app.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """How often the providers are asked."""

    interval: float = setting(
        default=300.0,
        metadata=about(
            duration(),
            "How long after a refresh the next one is due.",
            why="A rotation is seen within minutes, and a fleet of 1000 asks 3 times a second.",
        ),
    )
    jitter: float = setting(
        default=0.10,
        metadata=about(
            SHARE,
            "How far the interval is stretched or shrunk at random, each time.",
            why="Replicas that started together drift apart within a few refreshes.",
        ),
    )
    timeout: float = setting(
        default=10.0,
        metadata=about(
            duration(),
            "How long one whole refresh of one key may take, login included.",
            why="Far beyond any healthy answer, far below the interval.",
        ),
    )
    max_backoff: float = setting(
        default=60.0,
        metadata=about(
            duration(),
            "The longest wait after a failed refresh; it doubles up to here.",
            why="A store that is back is found within a minute.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSettings:
    """How a new version is handed out before it is used."""

    activation_delay: float = setting(
        default=1200.0,
        metadata=about(
            duration(zero=True),
            "How long a new version only decrypts before it encrypts. One value for the whole fleet, at "
            'least the bound of its slowest replica. "0s" replaces at once: with several replicas some then '
            "meet ciphertexts of a key that they do not have yet.",
            why="It covers the default bound, a mounted source's delay, and a margin.",
        ),
    )
    clock_skew: float = setting(
        default=30.0,
        metadata=about(
            duration(zero=True),
            "How far the clocks of two replicas may differ.",
            why="Far more than any synchronised clock is off.",
        ),
    )
    keep_versions: int | None = setting(
        default=None,
        metadata=about(
            whole(none="all"),
            "How many versions are published, counted back from the active one; pre-active ones always are.",
            why="Old records outlive rotations.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageSettings:
    """What becomes of a published key that can no longer be refreshed."""

    max_stale: float | None = setting(
        default=None,
        metadata=about(
            duration(never=True),
            "How old the last successful refresh may be before the key counts as expired.",
            why="How long a revoked key may live on is the operator's decision, not a default.",
        ),
    )
    on_expired: Reaction = setting(
        default="keep",
        metadata=about(
            choice(get_args(Reaction)),
            "What happens to an expired key.",
            why="An outage of the store must not become one of the app.",
        ),
    )
    on_denied: Reaction = setting(
        default="keep",
        metadata=about(
            choice(get_args(Reaction)),
            "What happens to a key that the store refuses to give: `withdraw` makes that a kill switch.",
            why="A mistake in a policy must not take every pod down.",
        ),
    )
    on_missing: Reaction = setting(
        default="keep",
        metadata=about(
            choice(get_args(Reaction)),
            "What happens to a key of which the store has nothing left.",
            why="An accidental deletion must not make records unreadable.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupSettings:
    """What happens when there is no key to begin with."""

    timeout: float | None = setting(
        default=None,
        metadata=about(
            duration(never=True),
            "How long to try before the agent gives up with exit code 3.",
            why="Kubernetes' own probes decide how long a pod may take.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Probes, metrics and status. A change needs a restart."""

    port: int | None = setting(
        default=8181,
        metadata=about(
            LISTEN_PORT,
            'Where to serve /livez, /readyz, /metrics and /status. Without a host: all addresses. "off" '
            "serves nothing, port 0 takes a free one.",
            name="listen",
            why="Probes come to the pod's address, over IPv4 or IPv6.",
        ),
    )
    host: str = setting(default="", metadata=about(LISTEN_HOST, "The host in `listen`.", name="listen"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is told on standard error."""

    level: LogLevel = setting(
        default="info",
        metadata=about(
            choice(get_args(LogLevel)),
            "The least severe events that are told; audit events always are.",
            why="One line a change, none a quiet refresh.",
        ),
    )
    format: LogFormat = setting(
        default="json",
        metadata=about(
            choice(get_args(LogFormat)),
            "JSON for machines, or columns for people.",
            why="A sidecar's log is read by a collector.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """One key: where it comes from and what it must look like."""

    name: str
    provider: str = setting(metadata=about(choice(SOURCES), "Where the key comes from."))
    source: Source
    encoding: Encoding = setting(
        default="text",
        metadata=about(
            choice(ENCODINGS),
            "How the key's text stands for its bytes. It is checked strictly before anything is published.",
            why="It fits any text, and says nothing that the agent cannot know.",
        ),
    )
    length: int | None = setting(
        default=None,
        metadata=about(
            whole(),
            "How many bytes the key has after decoding; a value of another length is never published.",
            why="Only the app knows it. Set it.",
        ),
    )

    @property
    def source_files(self) -> tuple[Path, ...]:
        """The files whose change means a new value."""
        return self.source.source_files

    @property
    def credential_files(self) -> tuple[Path, ...]:
        """The files whose change means another login."""
        return self.source.credential_files

    @property
    def source_digest(self) -> str:
        """The name of the secret that this key comes from: another digest is another key."""
        return self.source.digest(self.provider)

    @property
    def mounted(self) -> bool:
        """Whether a new value arrives through a mounted ConfigMap or Secret, hence late."""
        return self.source.mounted and bool(self.source.source_files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything, complete and checked."""

    volume: VolumeSettings = setting(default_factory=VolumeSettings)
    refresh: RefreshSettings = setting(default_factory=RefreshSettings)
    rotation: RotationSettings = setting(default_factory=RotationSettings)
    outage: OutageSettings = setting(default_factory=OutageSettings)
    startup: StartupSettings = setting(default_factory=StartupSettings)
    http: HttpSettings = setting(default_factory=HttpSettings)
    log: LogSettings = setting(default_factory=LogSettings)
    keys: Mapping[str, KeySettings]
