"""Where restore points are kept, and how that place is used."""

from __future__ import annotations

import re
from datetime import time
from enum import Enum

from pydantic import Field, field_validator, model_validator

from vcbproxy.config.base import FilePath, Secret, Section


class Addressing(Enum):
    """How a bucket is named in requests: in the path, or in front of the host."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class ObjectLock(Enum):
    """How the server refuses to remove a file: with ``governance`` a special permission overrides it."""

    OFF = "off"
    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


class S3(Section):
    """How a bucket is used; which one is in the repository's location. Keys come from boto3's own chain."""

    region: str | None = None
    profile: str | None = None
    ca_file: FilePath | None = None
    addressing: Addressing = Addressing.AUTO
    storage_class: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*$")
    object_lock: ObjectLock = ObjectLock.OFF
    object_lock_days: int | None = Field(None, ge=1, le=36500)
    connections: int = Field(5, ge=1, le=64)
    part_mib: int = Field(16, ge=5, le=1024)
    connect_timeout_s: float = Field(10, gt=0)
    read_timeout_s: float = Field(60, gt=0)

    @model_validator(mode="after")
    def _locked_for_days(self) -> S3:
        if (self.object_lock is ObjectLock.OFF) != (self.object_lock_days is None):
            raise ValueError("give object_lock and object_lock_days together, or neither")
        return self

    @model_validator(mode="after")
    def _readable_at_once(self) -> S3:
        if self.storage_class in ("GLACIER", "DEEP_ARCHIVE"):
            raise ValueError("objects of this storage class cannot be read at once; the coldest that can is GLACIER_IR")
        return self


class Day(Enum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class Limit(Section):
    """How fast the repository may be written and read, and when; times of day are the proxy's own."""

    begin: time = Field(time(), alias="from")
    end: time = Field(time(), alias="to")
    days: tuple[Day, ...] = tuple(Day)
    upload_mib_s: float | None = Field(None, gt=0)
    download_mib_s: float | None = Field(None, gt=0)

    @field_validator("begin", "end", mode="before")
    @classmethod
    def _of_a_clock(cls, value: object) -> object:
        if not isinstance(value, str | time) or (isinstance(value, str) and not _CLOCK.fullmatch(value)):
            raise ValueError('a time of day is written "18:00"')
        return value

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if not self.days:
            raise ValueError("days: name some, or leave the key out for all")
        return self


_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class Traffic(Section):
    """How patiently and how fast the repository's storage is used."""

    retry_s: float = Field(300, ge=0, le=420)
    limits: tuple[Limit, ...] = ()


class Cache(Section):
    """Local copies of what is read often of a bucket, and of the index of any repository that is large."""

    enabled: bool = True
    directory: FilePath | None = None
    size_gib: float = Field(8, gt=0)


class Prune(Section):
    """How `repo prune` and `forget --prune` work when the command line does not say otherwise."""

    max_unused: str = Field("5%", pattern=r"^([0-9]{1,2}(\.[0-9]+)?%|[0-9]+(\.[0-9]+)?[KMGT]?(i?B)?|unlimited)$")
    max_repack_size: str | None = Field(None, pattern=r"^[0-9]+(\.[0-9]+)?[KMGT]?(i?B)?$")
    grace: str | None = Field(None, pattern=r"^(0|[0-9]{1,6}[smhd])$")


class Repository(Secret):
    """Where restore points are kept. A location relative to the file is a directory beside it."""

    location: str
    s3: S3 = S3()
    traffic: Traffic = Traffic()
    cache: Cache = Cache()
    prune: Prune = Prune()

    @model_validator(mode="after")
    def _password_named(self) -> Repository:
        if not self.given:
            raise ValueError("give password_file, password_command or password_credential")
        return self
