"""The configuration: one TOML file, read once, refused as a whole when any of it is wrong.

    [manager]                                   the vCenter Server or ESXi host
    host = "vcenter.example.com"
    username = "backup@vsphere.local"
    password_file = "vcenter.password"          or password_command = ["pass", "vcenter"], or password_credential
    ca_file = "vcenter-ca.pem"                  or thumbprint = "AA:BB:…" (SHA-256); without either, the system's CAs

    [san]
    images = [{ path = "lun0.img", wwn = "naa.600…" }]      plain files or loop devices taken as LUNs
    mounts = [{ datastore = "nfs1", path = "/mnt/nfs1" }]   NFS datastores, mounted here read-only
    read_timeout_s = 300                                    how long a LUN may take to answer before it is given up

    [repository]
    location = "/srv/backup"                    a directory, or s3:https://host/bucket/prefix
    password_file = "repo.password"

    [repository.s3]                             how a bucket is used: region, ca_file, object_lock, ...

    [repository.traffic]
    retry_s = 300                               how long a storage that is away is tried again
    limits = [{ from = "08:00", to = "18:00", upload_mib_s = 20 }]      how fast, and when

    [repository.cache]                          local copies of what is read often
    directory = "/var/cache/vcbproxy"

    [backup]
    workers = 2
    quiesce = "try"                             require | try | off
    compression = "auto"                        off | fastest | auto | max
    busy_timeout_s = 900                        how long to wait for other tasks on a VM
    mode = "auto"                               auto | full | incremental
    enable_cbt = true                           switch changed block tracking on where it is off

    [retention]                                 what `vcbproxy forget` keeps of each VM
    keep_daily = 14                             and keep_last, keep_hourly, keep_weekly, keep_monthly, keep_yearly
    keep_within = "7d"                          and keep_within_hourly, ..., keep_within_yearly
    time_zone = "Europe/Berlin"                 whose midnights part the days

    [state]
    directory = "/var/lib/vcbproxy"             which job runs are alive

Relative paths are taken from the directory of the file itself. Secrets are never inline: a file, a command or a systemd
credential names them.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from datetime import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vcbproxy.errors import ConfigError, CredentialsError

DEFAULT_PATH = Path("/etc/vcbproxy/vcbproxy.toml")
_COMMAND_TIMEOUT_S = 60


def _from_file_directory(value: object, info: ValidationInfo) -> object:
    """Take a relative path from the directory of the configuration file."""
    if isinstance(value, str) and info.context is not None:
        return info.context["directory"] / Path(value).expanduser()
    return value


FilePath = Annotated[Path, BeforeValidator(_from_file_directory)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Secret(_Section):
    """A password by the place it is kept in; exactly one of three."""

    password_file: FilePath | None = None
    password_command: list[str] | str | None = None
    password_credential: str | None = None

    @model_validator(mode="after")
    def _at_most_one(self) -> Secret:
        given = [self.password_file, self.password_command, self.password_credential]
        if sum(place is not None for place in given) > 1:
            raise ValueError("give only one of password_file, password_command, password_credential")
        return self

    @property
    def given(self) -> bool:
        """Whether any place was named."""
        return any(place is not None for place in (self.password_file, self.password_command, self.password_credential))

    def password(self, whose: str) -> str:
        """Read the password now; a trailing newline does not belong to it.

        Raises:
            ConfigError: no place was named.
            CredentialsError: the place could not be read, or is empty.
        """
        if self.password_command is not None:
            text = _run(self.password_command, whose)
        elif self.password_file is not None:
            text = _read(self.password_file, whose)
        elif self.password_credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY")
            if directory is None:
                raise CredentialsError(f"no password for {whose}: not run by systemd with LoadCredential=")
            text = _read(Path(directory) / self.password_credential, whose)
        else:
            raise ConfigError(f"no password for {whose}: give password_file, password_command or password_credential")
        password = text.split("\n", 1)[0].rstrip("\r")
        if not password:
            raise CredentialsError(f"the password for {whose} is empty")
        return password


def _read(path: Path, whose: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CredentialsError(f"cannot read the password for {whose} from {path}: {reason}") from error


def _run(command: list[str] | str, whose: str) -> str:
    import shlex

    try:
        arguments = shlex.split(command) if isinstance(command, str) else command
        done = subprocess.run(
            arguments,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            check=True,
        )
        return done.stdout.decode("utf-8")
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        raise CredentialsError(f"the password command for {whose} failed: {error}") from error


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


class Manager(Secret):
    """Where the manager is and who we are there."""

    host: str
    port: int = Field(443, ge=1, le=65535)
    username: str
    ca_file: FilePath | None = None
    thumbprint: str | None = None
    timeout_s: float = Field(60, gt=0)
    retry_s: float = Field(900, ge=0)

    @model_validator(mode="after")
    def _one_trust(self) -> Manager:
        if self.ca_file is not None and self.thumbprint is not None:
            raise ValueError("give ca_file or thumbprint, not both")
        if not self.given:
            raise ValueError("give password_file, password_command or password_credential")
        return self


class Image(_Section):
    """A plain file or loop device that stands for a LUN."""

    path: FilePath
    wwn: str = ""


class Mount(_Section):
    """An NFS datastore, mounted on the proxy."""

    datastore: str
    path: FilePath


class San(_Section):
    """What the proxy reads from beside the LUNs it finds by itself."""

    images: tuple[Image, ...] = ()
    mounts: tuple[Mount, ...] = ()
    discover: bool = True
    read_timeout_s: float = Field(300, gt=0)


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


class S3(_Section):
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


class Limit(_Section):
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


class Traffic(_Section):
    """How patiently and how fast the repository's storage is used."""

    retry_s: float = Field(300, ge=0, le=420)
    limits: tuple[Limit, ...] = ()


class Cache(_Section):
    """Local copies of what is read often of a bucket, and of the index of any repository that is large."""

    enabled: bool = True
    directory: FilePath | None = None
    size_gib: float = Field(8, gt=0)


class Prune(_Section):
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


class Backup(_Section):
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


class Retention(_Section):
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


class State(_Section):
    """Where this proxy notes which of its job runs are alive. All that back up from here must use one directory."""

    directory: FilePath | None = None


class Config(_Section):
    """The whole file."""

    manager: Manager | None = None
    san: San = San()
    repository: Repository | None = None
    backup: Backup = Backup()
    retention: Retention = Retention()
    state: State = State()


def load(path: Path) -> Config:
    """Read and check one configuration file.

    Raises:
        ConfigError: it is missing, is not TOML, or a key is unknown or wrong; all that is wrong is named at once.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    directory = path.resolve().parent
    try:
        config = Config.model_validate(data, context={"directory": directory})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explained(error)}") from error
    if config.repository is not None and ":" not in config.repository.location.split("/", 1)[0]:
        location = str(directory / config.repository.location)
        repository = config.repository.model_copy(update={"location": location})
        config = config.model_copy(update={"repository": repository})
    return config


def _explained(error: ValidationError) -> str:
    remedies = {"extra_forbidden": "no such key; see docs/configuration.md", "missing": "this key is needed"}
    problems = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(str(part) for part in detail["loc"])
        problems.append(f"{key}: {remedies.get(detail['type'], detail['msg'].removeprefix('Value error, '))}")
    return "; ".join(problems)
