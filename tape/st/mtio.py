"""``/dev/nstN`` and its ioctls, as in linux/mtio.h; what they mean for one who writes LTFS is told in ``drive.py``."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Protocol

from tape.errors import TransportError
from tape.scsi.transport import Buffer

_MTIOCTOP = 0x40086D01
_MTIOCGET = 0x80306D02
_MTIOCPOS = 0x80086D03
_OPERATION = struct.Struct("hxxi")
_STATUS = struct.Struct("5lii")
_PLACE = struct.Struct("l")
_PARTITION, _STATE = 1, 3  # fields of struct mtget: mt_resid is the partition, mt_gstat the state


class Op(IntEnum):
    """Operations of MTIOCTOP."""

    SPACE_FILEMARKS = 1
    SPACE_FILEMARKS_BACK = 2
    WRITE_FILEMARKS = 5
    REWIND = 6
    UNLOAD = 7  # MTOFFL; unlike MTUNLOAD it is allowed after a reset
    END_OF_DATA = 12
    SET_BLOCK_LENGTH = 20
    SEEK = 22
    SET_OPTIONS = 24
    LOCK = 28
    UNLOCK = 29
    LOAD = 30
    SET_PARTITION = 33
    MAKE_PARTITIONS = 34


class Option(IntFlag):
    """How the driver behaves; for root to set, and for all to read in sysfs."""

    ASYNC_WRITES = 0x2
    READ_AHEAD = 0x4
    TWO_FILEMARKS = 0x10
    FAST_END = 0x20
    CAN_PARTITIONS = 0x400
    LOGICAL = 0x800
    NO_WAIT = 0x2000
    SILI = 0x4000
    NO_WAIT_FILEMARKS = 0x8000


SET, CLEAR = 0x30000000, 0x40000000


class State(IntFlag):
    """What MTIOCGET says of the tape."""

    END_OF_TAPE = 0x20000000
    END_OF_DATA = 0x08000000
    WRITE_PROTECTED = 0x04000000
    ONLINE = 0x01000000
    NO_CARTRIDGE = 0x00040000


@dataclass(frozen=True, slots=True)
class Status:
    """What the driver holds to be true, without asking the drive."""

    partition: int
    state: State


class TapeDevice(Protocol):
    """One drive as the driver shows it. Every method raises ``OSError`` with the driver's errno."""

    @property
    def name(self) -> str:
        """Its path."""

    @property
    def options(self) -> Option:
        """How the driver behaves at present."""

    def read(self, buf: memoryview) -> int:
        """One block; 0 at a filemark, and at the end of the data."""

    def write(self, block: Buffer) -> int:
        """One block."""

    def operate(self, op: Op, count: int = 1) -> None:
        """One operation of MTIOCTOP."""

    def block(self) -> int:
        """Before which block the drive says that its tape stands."""

    def status(self) -> Status:
        """What the driver holds to be true."""

    def reopen(self) -> None:
        """Have the driver look at the drive anew; it does so whenever it is opened."""

    def close(self) -> None:
        """Let it go; a second time does nothing."""


class NstDevice:
    """``/dev/nstN``, opened for as long as it is used; the driver lets one program have it."""

    def __init__(self, path: Path, *, sys: Path = Path("/sys")) -> None:
        """Open it, with or without a cartridge in it.

        Raises:
            TransportError: it cannot be opened.
        """
        self._path = path
        self._options = sys / "class/scsi_tape" / path.name / "options"
        self.fd = -1
        try:
            self.reopen()
        except OSError as error:
            remedy = {
                PermissionError: "; its group is `tape`: is this user in it?",
                BlockingIOError: "; another program has it",
            }.get(type(error), "")
            raise TransportError(device=self.name, command="open", reason=f"{error.strerror}{remedy}") from error

    @property
    def name(self) -> str:
        """Its path."""
        return str(self._path)

    @property
    def options(self) -> Option:
        """From sysfs; none where it does not say."""
        try:
            return Option(int(self._options.read_text("ascii"), 0) & sum(Option))
        except (OSError, ValueError):
            return Option(0)

    def read(self, buf: memoryview) -> int:
        """One block."""
        return os.readv(self.fd, [buf])

    def write(self, block: Buffer) -> int:
        """One block."""
        return os.write(self.fd, block)

    def operate(self, op: Op, count: int = 1) -> None:
        """One operation of MTIOCTOP."""
        fcntl.ioctl(self.fd, _MTIOCTOP, _OPERATION.pack(op, count))

    def block(self) -> int:
        """Its 32 bits are enough for 2 PB in blocks of 512 KiB."""
        (number,) = _PLACE.unpack(fcntl.ioctl(self.fd, _MTIOCPOS, bytes(_PLACE.size)))
        return int(number)

    def status(self) -> Status:
        """What the driver holds to be true."""
        fields = _STATUS.unpack(fcntl.ioctl(self.fd, _MTIOCGET, bytes(_STATUS.size)))
        return Status(int(fields[_PARTITION]), State(fields[_STATE] & sum(State)))

    def reopen(self) -> None:
        """Open it anew. Without O_NONBLOCK an open of an empty drive waits two minutes."""
        with suppress(OSError):  # it is closed all the same; the driver minds a reset
            self.close()
        self.fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        """Let it go."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
