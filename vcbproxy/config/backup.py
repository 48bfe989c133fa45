"""How backups are made, and how long they are kept."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from vcbproxy.config.base import Section


class Quiesce(Enum):
    """Whether the guest is asked to come to rest before the snapshot."""

    REQUIRE = "require"
    TRY = "try"
    OFF = "off"


class Compression(Enum):
    """How hard the repository tries to make blobs small."""

    OFF = "off"
    FASTEST = "fastest"
    AUTO = "auto"
    MAX = "max"


class Mode(Enum):
    """What of a disk is read."""

    AUTO = "auto"
    """What changed since an earlier restore point, where that is known; else all of it."""
    FULL = "full"
    INCREMENTAL = "incremental"
    """What changed; fail where that is not known."""


class OnCbtLost(Enum):
    """What is done when changes were tracked, and what they were cannot be told any more."""

    FULL = "full"
    FAIL = "fail"


class Backup(Section):
    """How a backup is made when its policy does not say otherwise."""

    workers: int = Field(2, ge=1, le=64)
    quiesce: Quiesce = Quiesce.TRY
    compression: Compression = Compression.AUTO
    busy_timeout_s: float = Field(900, gt=0)
    quiesce_timeout_s: float = Field(900, gt=0)
    removal_timeout_s: float = Field(12 * 3600, gt=0)
    mode: Mode = Mode.AUTO
    enable_cbt: bool = False
    on_cbt_lost: OnCbtLost = OnCbtLost.FULL
    audit_fraction: float = Field(0.001, ge=0, le=1)
    audit_chunks_min: int = Field(16, ge=1)
    allocated_only: bool = False
    vms: tuple[str, ...] = ()


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {name!r} on this machine; `timedatectl list-timezones` shows them") from error
    return name


Count = Annotated[int, Field(ge=0)] | Literal["unlimited"]
Length = Annotated[str, Field(pattern=r"^([0-9]{1,4}y)?([0-9]{1,5}m)?([0-9]{1,6}d)?([0-9]{1,7}h)?$", min_length=2)]


class Retention(Section):
    """Which restore points of each VM `vcbproxy forget` keeps, unless its options say so."""

    keep_last: Count = 0
    keep_hourly: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0
    keep_within: Length | None = None
    keep_within_hourly: Length | None = None
    keep_within_daily: Length | None = None
    keep_within_weekly: Length | None = None
    keep_within_monthly: Length | None = None
    keep_within_yearly: Length | None = None
    time_zone: Annotated[str, AfterValidator(_known_zone)] | None = None
