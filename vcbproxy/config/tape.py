"""Tape libraries, pools of cartridges, and where the catalog is."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from vcbproxy.config.barcodes import BarcodeRange
from vcbproxy.config.base import FilePath, Secret, Section
from vcbproxy.config.repository import Day

_LENGTH = r"^(forever|([0-9]{1,4}y)?([0-9]{1,5}m)?([0-9]{1,6}d)?([0-9]{1,7}h)?)$"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_RECIPIENT = re.compile(r"(age1[0-9a-z]{20,}|ssh-(ed25519|rsa) \S.*)")


def _barcodes(value: object) -> object:
    if isinstance(value, str):
        return BarcodeRange.parse(value)
    return value


def _recipient(value: str) -> str:
    if not _RECIPIENT.fullmatch(value):
        raise ValueError('a recipient is the public half of a key: "age1…", or a line that begins with ssh-ed25519')
    return value


Barcodes = Annotated[BarcodeRange, BeforeValidator(_barcodes)]
Recipient = Annotated[str, AfterValidator(_recipient)]


class Catalog(Secret):
    """Where it is written down which cartridges there are and what lies on them."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _known_and_without_secret(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError('write "sqlite:////var/lib/vcbproxy/catalog.db" or "postgresql://user@host/database"')
        if re.match(r"postgresql://[^/@]*:[^/@]*@", value):
            raise ValueError("the password does not belong into the URL: give password_file or the like")
        return value


class Robot(Enum):
    """Who speaks to the library's robot: we ourselves, or the program mtx."""

    SMC = "smc"
    MTX = "mtx"


class Library(Section):
    """One library; exactly one of ``changer``, ``drive``, ``folder`` and ``portal`` says where it is."""

    changer: str | None = None
    """The robot's serial number, or its device file."""
    drive: str | None = None
    """Of a drive that has no robot, and is fed by hand: its serial number, or its device file."""
    folder: FilePath | None = None
    """An emulated library's."""
    portal: str | None = Field(None, pattern=r"^iscsi://[^/]+(/.*)?$")
    """``iscsi://host:port/target``."""
    robot: Robot = Robot.SMC
    drives: tuple[str, ...] = ()
    """Serial numbers, or device files, of those that may be used; none: all that belong to the library."""
    reserve: bool = False
    """Whether other hosts are kept from a drive while it is used, by a persistent reservation."""

    @model_validator(mode="after")
    def _one_place(self) -> Library:
        if sum(place is not None for place in (self.changer, self.drive, self.folder, self.portal)) != 1:
            raise ValueError('give exactly one of changer, drive, folder and portal ("iscsi://host:port/target")')
        if self.robot is Robot.MTX and self.changer is None:
            raise ValueError("mtx needs a changer with a device file")
        return self


class Allocation(Enum):
    """When a new media set is begun, so that cartridges can leave the house or expire together."""

    CONTINUE = "continue"
    """When the one before may not be appended to any longer."""
    ALWAYS = "always"
    """With each job run."""
    WEEKLY = "weekly"
    """With the first job run on or after a day of each week."""


class Encryption(Enum):
    """How what lies on tape is kept from strangers."""

    NONE = "none"
    AGE = "age"
    """By us, in the age format, image by image."""
    HARDWARE = "hardware"
    """By the drive."""


class WriteVerify(Enum):
    """What proves, after writing, that it can be read."""

    NONE = "none"
    READ_BACK = "read-back"


class Pool(Section):
    """Cartridges for one purpose."""

    library: str | None = None
    """Which one; the only one where there is only one."""
    barcodes: tuple[Barcodes, ...] = Field(min_length=1)
    allocation: Allocation = Allocation.CONTINUE
    weekday: Day | None = None
    appendable_for: str = Field("forever", pattern=_LENGTH, min_length=2)
    """With ``continue``: how long after its first writing a media set may be appended to."""
    retention: str = Field(pattern=_LENGTH, min_length=2)
    """How long after the last writing a media set must not be overwritten."""
    encryption: Encryption = Encryption.NONE
    recipients: tuple[Recipient, ...] = ()
    identity_file: FilePath | None = None
    """With ``age``: the private half, for restores from this machine."""
    identity_command: list[str] | str | None = None
    """Likewise: a command that says it."""
    hardware_key_file: FilePath | None = None
    hardware_key_command: list[str] | str | None = None
    verify: WriteVerify = WriteVerify.NONE
    vault: str | None = None
    """Where its cartridges go once nothing more is written to them."""

    @model_validator(mode="after")
    def _day_of_the_week(self) -> Pool:
        if (self.allocation is Allocation.WEEKLY) != (self.weekday is not None):
            raise ValueError('weekday goes with allocation = "weekly", and only with it')
        if self.appendable_for != "forever" and self.allocation is not Allocation.CONTINUE:
            raise ValueError('appendable_for goes with allocation = "continue"')
        return self

    @model_validator(mode="after")
    def _one_encryption(self) -> Pool:
        identities = [place for place in (self.identity_file, self.identity_command) if place is not None]
        by_age = bool(self.recipients) or bool(identities)
        keys = [self.hardware_key_file, self.hardware_key_command]
        by_drive = sum(key is not None for key in keys)
        if self.encryption is Encryption.AGE and not self.recipients:
            raise ValueError('encryption = "age" needs recipients')
        if len(identities) > 1:
            raise ValueError("give only one of identity_file and identity_command")
        if self.encryption is Encryption.HARDWARE and by_drive != 1:
            raise ValueError('encryption = "hardware" needs exactly one of hardware_key_file and hardware_key_command')
        if by_age and self.encryption is not Encryption.AGE:
            raise ValueError('recipients, identity_file and identity_command go with encryption = "age"')
        if by_drive and self.encryption is not Encryption.HARDWARE:
            raise ValueError('hardware_key_file and hardware_key_command go with encryption = "hardware"')
        return self


class Tape(Section):
    """All libraries and pools, by name."""

    library: dict[str, Library] = Field(default_factory=dict)
    pool: dict[str, Pool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named_libraries(self) -> Tape:
        for name in (*self.library, *self.pool):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: names are of letters, digits, dot, dash and underscore")
        for name, pool in self.pool.items():
            if pool.library is None and len(self.library) != 1:
                raise ValueError(f"pool {name}: name its library: there are {len(self.library)}")
            if pool.library is not None and pool.library not in self.library:
                raise ValueError(f"pool {name}: no [tape.library.{pool.library}]")
        return self

    def library_of(self, pool: str) -> str:
        """The name of a pool's library."""
        return self.pool[pool].library or next(iter(self.library))
