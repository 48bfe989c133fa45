"""A drive through the kernel's tape driver (Documentation/scsi/st.rst; behaviour seen with Linux 6.1).

The driver keeps its own idea of where the tape stands, and does things by itself. What that takes here:

- It writes a filemark when one seeks, rewinds or closes behind written blocks. So they are flushed (MTWEOF 0) first,
  after which it believes that there is nothing to end.
- Near the end of the tape every other write fails with ENOSPC, and was not sent:

      write    n accepted, early warning │ n+1 ENOSPC, not sent │ n+1 accepted │ n+2 ENOSPC, not sent │ …
      at the end                         │ n+9 ENOSPC, not sent │ n+9 ENOSPC, sent and refused

  The first ENOSPC is only the warning, told late; MTIOCGET tells it in time. Two of them in a row are the end.
- It reads a filemark and the end of the data alike, as 0 bytes: whether the tape has moved tells them apart.
- It ends written blocks with a filemark even where a write has just failed, wherever the tape stands by then: at the
  beginning of the volume, after another host's reset. A flush (MTWEOF 0) makes it forget that there is anything to end.
- Whatever else goes wrong is EIO. After a reset of its own making it refuses everything but going to a known place;
  after one by others it would write on wherever the tape stands now. So after every EIO we do not know where we are,
  and write nothing until the place has been found again.
- Partitions are changed with the next seek. Where it stands in which, one must have told it to keep (CAN_PARTITIONS);
  only root may tell it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tape.errors import (
    EndOfData,
    FormatError,
    MediumError,
    NotReady,
    PositionLost,
    RefusedCommand,
    TapeError,
    UnitAttention,
    VolumeOverflow,
    WriteProtected,
)
from tape.scsi import cdb
from tape.scsi.discover import Device
from tape.scsi.transport import Buffer, ScsiTransport
from tape.scsi.unit import Identity, Unit
from tape.sequential import LOAD_S, BlockLimits, EndWarning, Met, Position
from tape.st.loader import IO, Loader
from tape.st.loader import operate as carry_out
from tape.st.mtio import NstDevice, Op, State, TapeDevice
from tape.st.transport import StTransport

_OVERFLOW_REFUSALS = 2


class StDrive:
    """One drive, with or without a cartridge. For one thread."""

    def __init__(
        self,
        device: TapeDevice,
        transport: ScsiTransport,
        identity: Identity,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take it over.

        Args:
            device: the tape device.
            transport: for commands that do not move the tape.
            identity: who the drive is; the driver does not tell.
            sleep: waits so many seconds.
            monotonic: a clock, in seconds.

        Raises:
            TapeError: the driver is set up so that no volume can be written through it, and we may not change that.
        """
        self.identity = identity
        self.unit = Unit(transport, sleep=sleep)
        self.unit.noticed = self._notice
        self._device = device
        self._loader = Loader(device, sleep=sleep, monotonic=monotonic)
        self._expected: Position | None = None
        self._written = False
        """Whether blocks were written since the last filemark or flush."""
        self._near_end = False
        self._loader.set_up()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._device.name

    @property
    def expected(self) -> Position | None:
        """Where the tape stands by our own count; None when that is not known."""
        return self._expected

    # ------------------------------------------------------------------ the cartridge

    def wait_ready(self, timeout_s: float = LOAD_S, waiting: Callable[[NotReady], None] | None = None) -> None:
        """Wait until its cartridge is ready.

        Raises:
            NoMedium: there is none.
            NotReady: it did not become ready in time.
        """
        self._settle()
        self._expected = None
        self._loader.wait_ready(timeout_s, waiting)

    def load(self, timeout_s: float = LOAD_S) -> None:
        """Thread the cartridge that lies in the drive, and let blocks have any length.

        Raises:
            NoMedium: there is none.
            TapeError: it cannot be loaded.
        """
        self._settle()
        self._expected = None
        self._loader.load(timeout_s)
        self._expected = self.position()

    def unload(self) -> None:
        """Rewind, and give the cartridge out, so that the robot can take it.

        Raises:
            TapeError: it is held, or stuck.
        """
        self._settle()
        self._expected = None
        self._do(Op.UNLOAD)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody take the cartridge out for the length of a ``with``."""
        self._do(Op.LOCK)
        try:
            yield
        except BaseException:
            with suppress(TapeError):  # the first error is the one to be told
                self.release()
            raise
        self.release()

    def release(self) -> None:
        """Hold the cartridge no longer, whoever it was that held it.

        Raises:
            TapeError: it cannot be told to.
        """
        if self._loader.release():
            self._expected = None

    def partition_in_two(self) -> None:
        """A small partition 0, and the rest as partition 1: all that is on the cartridge is lost.

        Raises:
            TapeError: it failed; the cartridge may be in whatever state.
        """
        self._settle()
        self._expected = None
        self._do(Op.MAKE_PARTITIONS, -1)  # partition 0 of 1 MB, or the smallest that there is
        self.locate(Position(1, 0))
        self.locate(Position(0, 0))

    def block_limits(self) -> BlockLimits:
        """What the drive, and the way to it, allow; 1 MiB where we may not ask."""
        most = self.unit.transport.transfer_bytes_max
        try:
            data = self.unit.ask(cdb.read_block_limits(), "read block limits", 6)
        except RefusedCommand:
            return BlockLimits(1, most)
        return BlockLimits(int.from_bytes(data[4:6], "big"), min(int.from_bytes(data[1:4], "big") or most, most))

    # ------------------------------------------------------------------ blocks

    def write(self, block: Buffer) -> EndWarning:
        """Write one block.

        Raises:
            VolumeOverflow: the end; it was not written.
            WriteProtected: the cartridge takes no writing.
            PositionLost: a reset moved the tape; it was not written.
            TapeError: it could not be written; what the drive had buffered before may not be either.
        """
        here = self._hold_known()
        self._written = True
        warning = EndWarning.NONE
        for _ in range(_OVERFLOW_REFUSALS):
            try:
                length = self._device.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise self._not_written(error, here) from error
                warning = EndWarning.EARLY
                continue
            if length != len(block):
                self._expected = None
                raise TapeError(f"{self.name}: of a block of {len(block)} bytes {length} were written")
            self._expected = Position(here.partition, here.block + 1)
            self._near_end = self._is_near_end() or warning is EndWarning.EARLY
            return EndWarning.EARLY if self._near_end else EndWarning.NONE
        raise _overflow(self.name, "write")

    def _is_near_end(self) -> bool:
        with suppress(OSError):  # the block is written; whatever this is, the next one will meet it
            return State.END_OF_TAPE in self._device.status().state
        return False

    def write_filemarks(self, count: int = 1) -> EndWarning:
        """Write filemarks, and wait until all that was written is on tape.

        The driver keeps to itself whether the end is near.

        Raises:
            TapeError: as ``write``; also for blocks written long before.
        """
        if not count and not self._written:
            return EndWarning.NONE
        here = self._hold_known()
        try:
            self._device.operate(Op.WRITE_FILEMARKS, count)
        except OSError as error:
            near_end, failure = self._near_end, self._not_written(error, here)
            if count and near_end and isinstance(failure, MediumError):
                raise _overflow(self.name, "write filemarks") from error
            raise failure from error
        self._written = False
        self._expected = Position(here.partition, here.block + count)
        return EndWarning.NONE

    def flush(self) -> EndWarning:
        """Wait until all that was written is on tape.

        Raises:
            TapeError: some of it could not be written.
        """
        return self.write_filemarks(0)

    def read(self, buf: memoryview) -> int | Met:
        """Read one block: gives its length, or what was met in its place. A filemark is stepped over.

        Raises:
            FormatError: the block is longer than ``buf``.
            MediumError: it cannot be read.
            PositionLost: a reset moved the tape.
        """
        self._settle()
        here = self._expected or self.position()
        behind = Position(here.partition, here.block + 1)
        try:
            length = self._device.read(buf)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                self._expected = behind
                raise FormatError(
                    where=f"{self.name}, {here}", reason=f"a block of more than {len(buf)} bytes"
                ) from error
            if self._is_end(error, here):
                self._expected = here
                return Met.END_OF_DATA
            raise MediumError(device=self.name, command=f"read {here}", reason=IO, key=3, asc=0x11, ascq=0) from error
        if length:
            self._expected = behind
            return length
        found = self.position()
        if found not in (here, behind):
            self._expected = None
            raise PositionLost(device=self.name, expected=here, found=found)
        self._expected = found
        return Met.END_OF_DATA if found == here else Met.FILEMARK

    # ------------------------------------------------------------------ finding places

    def position(self) -> Position:
        """Where the tape stands: the block by the drive's word, the partition by the driver's.

        Raises:
            TapeError: it is not known.
        """
        try:
            block = self._device.block()
            return Position(self._device.status().partition, block)
        except OSError as error:
            self._expected = None
            raise TapeError(f"{self.name}: the driver does not know where the tape stands: {error.strerror}") from error

    def locate(self, place: Position) -> None:
        """Go there.

        Raises:
            EndOfData: the recorded part ends before.
            TapeError: it cannot be found.
        """
        self._settle()
        self._change_partition(place.partition)
        try:
            self._device.operate(Op.SEEK, place.block)
        except OSError as error:
            end = self.locate_end(place.partition)
            if end.block < place.block:
                raise EndOfData(
                    device=self.name, command=f"locate {place}", reason=f"the data end at {end}", key=8, asc=0, ascq=5
                ) from error
            self._expected = None
            raise TapeError(f"{self.name}: locate {place}: {error.strerror}; {IO}") from error
        found = self.position()
        if found != place:
            raise PositionLost(device=self.name, expected=place, found=found)
        self._expected = place

    def locate_end(self, partition: int) -> Position:
        """Go behind all that is recorded in a partition; tells where that is."""
        self._settle()
        self._change_partition(partition)
        self._do(Op.END_OF_DATA)
        self._expected = found = self.position()
        if found.partition != partition:
            raise PositionLost(device=self.name, expected=f"partition {partition}", found=found)
        return found

    def space_filemarks(self, count: int) -> Position:
        """Over so many filemarks, forward or (negative) back; tells where that is: behind the last one, or before it.

        Raises:
            EndOfData: there are not so many.
            TapeError: the tape cannot be moved; or its beginning was met.
        """
        self._settle()
        self._expected = None
        try:
            self._device.operate(Op.SPACE_FILEMARKS if count > 0 else Op.SPACE_FILEMARKS_BACK, abs(count))
        except OSError as error:
            found = self.position()
            if found.block == 0 if count < 0 else found == self.locate_end(found.partition):
                self._expected = None
                raise EndOfData(
                    device=self.name, command="space filemarks",
                    reason=f"there are no {abs(count)} filemarks that way", key=8, asc=0, ascq=5,
                ) from error  # fmt: skip
            self._expected = None
            raise TapeError(f"{self.name}: space filemarks: {error.strerror}; {IO}") from error
        self._expected = found = self.position()
        return found

    def rewind(self) -> None:
        """To the beginning of this partition."""
        self._settle()
        self._expected = None
        self._do(Op.REWIND)
        self._expected = self.position()

    def close(self) -> None:
        """Let the drive go; the cartridge stays in it. Never raises."""
        with suppress(TapeError):
            self._settle()
        with suppress(OSError):
            self._device.close()

    # ------------------------------------------------------------------ where it must stand

    def _notice(self, attention: UnitAttention) -> None:
        """A command past the driver was told of it; the driver never will be."""
        self._expected = None

    def _hold_known(self) -> Position:
        """Nothing is written where nobody knows what lies there."""
        if self._expected is None:
            raise PositionLost(device=self.name, expected="one that is known", found="a place that nobody knows")
        return self._expected

    def _settle(self) -> None:
        """Have what was written on tape, so that the driver ends it with no filemark of its own."""
        if not self._written:
            return
        if self._expected is not None:
            self.flush()
        else:
            self._calm()

    def _calm(self) -> None:
        """Have the driver believe that there is nothing to end; where the tape stands nothing is written."""
        self._written = False
        with suppress(OSError):  # it refuses after a reset of its own making, and then writes no filemark either
            self._device.operate(Op.WRITE_FILEMARKS, 0)

    def _change_partition(self, partition: int) -> None:
        """With the next movement."""
        self._expected = None
        try:
            self._device.operate(Op.SET_PARTITION, partition)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise RefusedCommand(
                    device=self.name, command="locate", reason=f"the cartridge has no partition {partition}",
                    key=5, asc=0x24, ascq=0,
                ) from error  # fmt: skip
            self._loader.wake()
            self._do(Op.SET_PARTITION, partition)

    def _do(self, op: Op, count: int = 1) -> None:
        try:
            carry_out(self._device, op, count)
        except TapeError:
            self._expected = None
            raise

    def _is_end(self, error: OSError, here: Position) -> bool:
        """Whether a read failed because the data end here.

        Raises:
            PositionLost: because the tape stands elsewhere.
        """
        self._hold_unmoved(error, here)
        return self.locate_end(here.partition) == here

    def _not_written(self, error: OSError, here: Position) -> TapeError:
        """What a write that failed comes to."""
        self._calm()
        self._expected = None
        if error.errno in (errno.EBUSY, errno.EINVAL, errno.EOVERFLOW):
            return TapeError(f"{self.name}: the way to the drive carries no block of this length: {error.strerror}")
        if error.errno in (errno.EACCES, errno.EROFS):
            return WriteProtected(
                device=self.name, command="write", reason="the cartridge is write-protected", key=7, asc=0x27, ascq=0
            )
        try:
            self._hold_unmoved(error, here)
        except TapeError as lost:
            return lost
        return MediumError(device=self.name, command=f"write {here}", reason=IO, key=3, asc=0x0C, ascq=0)

    def _hold_unmoved(self, error: OSError, here: Position) -> None:
        self._expected = None
        try:
            found: Position | str = self.position()
        except TapeError:
            found = "an unknown place"
        if found != here:
            raise PositionLost(device=self.name, expected=here, found=found) from error


def _overflow(name: str, command: str) -> VolumeOverflow:
    return VolumeOverflow(device=name, command=command, reason="the end of the partition", key=0xD, asc=0, ascq=2)


def open_drive(found: Device) -> StDrive:
    """A drive that was discovered, through the tape driver.

    Raises:
        TapeError: it cannot be opened, or the driver is not set up for it.
    """
    if found.nst is None:
        raise TapeError(f"{found}: the kernel's tape driver does not show it; is the module st loaded?")
    device = NstDevice(found.nst)
    identity = Identity(found.kind, found.vendor, found.product, found.revision, found.serial)
    try:
        return StDrive(device, StTransport(device), identity)
    except BaseException:
        with suppress(OSError):
            device.close()
        raise
