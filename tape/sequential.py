"""What a tape drive is to those who use one, whichever way leads to it: the words, and the promises.

    LtfsVolume, Library ──▶ SequentialDrive ◀── TapeDrive   SCSI commands, on /dev/sgN, iSCSI or an emulated drive
                                            ◀── StDrive     the kernel's tape driver, /dev/nstN: a way out

Standards call it a sequential-access device. Where the tape stands is known at any time: a drive that cannot say so any
more writes nothing until the place has been found again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

from tape.errors import NotReady
from tape.scsi.transport import Buffer
from tape.scsi.unit import Identity, Unit

LOAD_S = 7200.0 + 720.0  # a new LTO-9 cartridge is calibrated on its first load, for up to 132 minutes


class EndWarning(IntEnum):
    """How near the end is."""

    NONE = 0
    PROGRAMMABLE = 1
    EARLY = 2


class Met(Enum):
    """What a read met in place of a block."""

    FILEMARK = "filemark"
    END_OF_DATA = "end of data"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a tape stands: before this block of this partition."""

    partition: int
    block: int

    def __str__(self) -> str:
        return f"block {self.block} of partition {self.partition}"


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """How short and how long the drive lets blocks be."""

    min_bytes: int
    max_bytes: int


class SequentialDrive(Protocol):
    """One drive, with or without a cartridge. For one thread."""

    identity: Identity
    """Who it is."""

    unit: Unit
    """For commands that do not move the tape: the cartridge's memory, counters, encryption.

    What the way to the drive does not let through ends with ``RefusedCommand``, as what the drive does not know.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def expected(self) -> Position | None:
        """Where the tape stands by our own count; None when that is not known."""

    # ------------------------------------------------------------------ the cartridge

    def wait_ready(self, timeout_s: float = LOAD_S, waiting: Callable[[NotReady], None] | None = None) -> None:
        """Wait until its cartridge is ready.

        Args:
            timeout_s: how long.
            waiting: told once a second of what it is not ready yet.

        Raises:
            NoMedium: there is none.
            NotReady: it did not become ready in time, or says that it will not by itself: a cleaning cartridge, one
                that it cannot use, one that is stuck.
        """

    def load(self, timeout_s: float = LOAD_S) -> None:
        """Thread the cartridge that lies in the drive, and let blocks have any length.

        Raises:
            NoMedium: there is none.
            TapeError: it cannot be loaded.
        """

    def unload(self) -> None:
        """Rewind, and give the cartridge out, so that the robot can take it.

        Raises:
            RemovalPrevented: something holds it.
            TapeError: it is stuck.
        """

    def guarded(self, guard: Callable[[], None]) -> AbstractContextManager[None]:
        """For the length of a ``with``, call ``guard`` after everything that may have happened to the drive.

        It raises when what it guards does not hold any more: the command that met a reset is then not sent again.
        """

    def held(self) -> AbstractContextManager[None]:
        """Let nobody take the cartridge out for the length of a ``with``."""

    def release(self) -> None:
        """Hold the cartridge no longer, whoever it was that held it.

        Raises:
            TapeError: it cannot be told to.
        """

    def partition_in_two(self) -> None:
        """A small partition 0, and the rest as partition 1: all that is on the cartridge is lost.

        Raises:
            RefusedCommand: neither this drive nor this cartridge can have two.
            TapeError: it failed; the cartridge may be in whatever state.
        """

    def block_limits(self) -> BlockLimits:
        """What the drive, and the way to it, allow."""

    # ------------------------------------------------------------------ blocks

    def write(self, block: Buffer) -> EndWarning:
        """Write one block.

        Raises:
            VolumeOverflow: the end; it was not written.
            WriteProtected: the cartridge takes no writing.
            PositionLost: a reset moved the tape; it was not written.
            TapeError: it could not be written; what the drive had buffered before may not be either.
        """

    def write_filemarks(self, count: int = 1) -> EndWarning:
        """Write filemarks, and wait until all that was written is on tape.

        Raises:
            TapeError: as ``write``; also for blocks written long before.
        """

    def flush(self) -> EndWarning:
        """Wait until all that was written is on tape.

        Raises:
            TapeError: some of it could not be written.
        """

    def read(self, buf: memoryview) -> int | Met:
        """Read one block: gives its length, or what was met in its place. A filemark is stepped over.

        Raises:
            FormatError: the block is longer than ``buf``.
            TapeError: it cannot be read.
        """

    # ------------------------------------------------------------------ finding places

    def position(self) -> Position:
        """Where the tape stands, by the drive's word.

        Raises:
            TapeError: it does not know.
        """

    def locate(self, place: Position) -> None:
        """Go there.

        Raises:
            EndOfData: the recorded part ends before.
            TapeError: it cannot be found.
        """

    def locate_end(self, partition: int) -> Position:
        """Go behind all that is recorded in a partition; tells where that is."""

    def space_filemarks(self, count: int) -> Position:
        """Over so many filemarks, forward or (negative) back; tells where that is: behind the last one, or before it.

        Raises:
            EndOfData: there are not so many.
            TapeError: the tape cannot be moved; or its beginning was met.
        """

    def rewind(self) -> None:
        """To the beginning of this partition."""

    def close(self) -> None:
        """Let the drive go; the cartridge stays in it."""
