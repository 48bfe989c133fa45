"""A drive through the kernel's tape driver (Documentation/scsi/st.rst; behaviour seen with Linux 6.1).

The driver keeps its own idea of where the tape stands, and does things by itself. What that takes when writing is told
in ``tape.st.writer``, of a failure in ``tape.st.standing``. Here:

- It reads a filemark and the end of the data alike, as 0 bytes: whether the tape has moved tells them apart.
- Partitions are changed with the next seek.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from typing_extensions import override

from tape.errors import (
    EndOfData,
    FormatError,
    MediumError,
    NotReady,
    PositionLost,
    RefusedCommand,
    TapeError,
    UnitAttention,
)
from tape.scsi import cdb
from tape.scsi.discover import Device
from tape.scsi.transport import Buffer, ScsiTransport
from tape.scsi.unit import Identity, Unit
from tape.sequential import LOAD_S, BlockLimits, EndWarning, Met, Position, SequentialDrive
from tape.st.loader import IO, Loader
from tape.st.loader import operate as carry_out
from tape.st.mtio import NstDevice, Op, TapeDevice
from tape.st.standing import Standing
from tape.st.transport import StTransport
from tape.st.writer import Writer


class StDrive(SequentialDrive):
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
        self._standing = Standing(device)
        self._writer = Writer(device, self._standing)
        self._loader.set_up()

    @property
    @override
    def name(self) -> str:
        return self._device.name

    @property
    @override
    def expected(self) -> Position | None:
        return self._standing.expected

    # ------------------------------------------------------------------ the cartridge

    @override
    def wait_ready(self, timeout_s: float = LOAD_S, waiting: Callable[[NotReady], None] | None = None) -> None:
        self._writer.settle()
        self._standing.forget()
        self._loader.wait_ready(timeout_s, waiting)

    @override
    def load(self, timeout_s: float = LOAD_S) -> None:
        self._writer.settle()
        self._standing.forget()
        self._loader.load(timeout_s)
        self._standing.found()

    @override
    def unload(self) -> None:
        self._writer.settle()
        self._standing.forget()
        self._do(Op.UNLOAD)

    @override
    def guarded(self, guard: Callable[[], None]) -> AbstractContextManager[None]:
        return self._standing.guarded(guard)

    @override
    @contextmanager
    def held(self) -> Iterator[None]:
        self._do(Op.LOCK)
        try:
            yield
        except BaseException:
            with suppress(TapeError):  # the first error is the one to be told
                self.release()
            raise
        self.release()

    @override
    def release(self) -> None:
        if self._loader.release():
            self._standing.forget()

    @override
    def partition_in_two(self) -> None:
        self._writer.settle()
        self._standing.forget()
        self._do(Op.MAKE_PARTITIONS, -1)  # partition 0 of 1 MB, or the smallest that there is
        self.locate(Position(1, 0))
        self.locate(Position(0, 0))

    @override
    def block_limits(self) -> BlockLimits:
        """Where we may not ask, 1 MiB. See ``SequentialDrive``."""
        most = self.unit.transport.transfer_bytes_max
        try:
            data = self.unit.ask(cdb.read_block_limits(), "read block limits", 6)
        except RefusedCommand:
            return BlockLimits(1, most)
        return BlockLimits(int.from_bytes(data[4:6], "big"), min(int.from_bytes(data[1:4], "big") or most, most))

    # ------------------------------------------------------------------ blocks

    @override
    def write(self, block: Buffer) -> EndWarning:
        return self._writer.write(block)

    @override
    def write_filemarks(self, count: int = 1) -> EndWarning:
        return self._writer.write_filemarks(count)

    @override
    def flush(self) -> EndWarning:
        return self._writer.write_filemarks(0)

    @override
    def read(self, buf: memoryview) -> int | Met:
        self._writer.settle()
        here = self._standing.expected or self.position()
        behind = Position(here.partition, here.block + 1)
        try:
            length = self._device.read(buf)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                self._standing.expected = behind
                raise FormatError(
                    where=f"{self.name}, {here}", reason=f"a block of more than {len(buf)} bytes"
                ) from error
            if self._is_end(error, here):
                self._standing.expected = here
                return Met.END_OF_DATA
            raise MediumError(device=self.name, command=f"read {here}", reason=IO, key=3, asc=0x11, ascq=0) from error
        if length:
            self._standing.expected = behind
            return length
        found = self.position()
        if found not in (here, behind):
            self._standing.forget()
            raise PositionLost(device=self.name, expected=here, found=found)
        self._standing.expected = found
        return Met.END_OF_DATA if found == here else Met.FILEMARK

    # ------------------------------------------------------------------ finding places

    @override
    def position(self) -> Position:
        return self._standing.asked()

    @override
    def locate(self, place: Position) -> None:
        self._writer.settle()
        self._change_partition(place.partition)
        try:
            self._device.operate(Op.SEEK, place.block)
        except OSError as error:
            end = self.locate_end(place.partition)
            if end.block < place.block:
                raise EndOfData(
                    device=self.name, command=f"locate {place}", reason=f"the data end at {end}", key=8, asc=0, ascq=5
                ) from error
            self._standing.forget()
            raise TapeError(f"{self.name}: locate {place}: {error.strerror}; {IO}") from error
        self._standing.arrive(place)

    @override
    def locate_end(self, partition: int) -> Position:
        self._writer.settle()
        self._change_partition(partition)
        self._do(Op.END_OF_DATA)
        found = self._standing.found()
        if found.partition != partition:
            raise PositionLost(device=self.name, expected=f"partition {partition}", found=found)
        return found

    @override
    def space_filemarks(self, count: int) -> Position:
        self._writer.settle()
        self._standing.forget()
        try:
            self._device.operate(Op.SPACE_FILEMARKS if count > 0 else Op.SPACE_FILEMARKS_BACK, abs(count))
        except OSError as error:
            found = self.position()
            if found.block == 0 if count < 0 else found == self.locate_end(found.partition):
                self._standing.forget()
                raise EndOfData(
                    device=self.name, command="space filemarks",
                    reason=f"there are no {abs(count)} filemarks that way", key=8, asc=0, ascq=5,
                ) from error  # fmt: skip
            self._standing.forget()
            raise TapeError(f"{self.name}: space filemarks: {error.strerror}; {IO}") from error
        return self._standing.found()

    @override
    def rewind(self) -> None:
        self._writer.settle()
        self._standing.forget()
        self._do(Op.REWIND)
        self._standing.found()

    @override
    def close(self) -> None:
        with suppress(TapeError):
            self._writer.settle()
        with suppress(OSError):
            self._device.close()

    # ------------------------------------------------------------------ the driver

    def _notice(self, attention: UnitAttention) -> None:
        """A command past the driver was told of it; the driver never will be."""
        self._standing.forget()

    def _change_partition(self, partition: int) -> None:
        """With the next movement."""
        self._standing.forget()
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
            self._standing.forget()
            raise

    def _is_end(self, error: OSError, here: Position) -> bool:
        """Whether a read failed because the data end here.

        Raises:
            PositionLost: because the tape stands elsewhere.
        """
        self._standing.hold_unmoved(error, here)
        return self.locate_end(here.partition) == here


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
