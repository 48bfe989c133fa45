"""A tape drive: blocks and filemarks written, read, and found again, by SCSI commands.

    partition 0   ├block 0┼ block 1 ┼ ▌2 ┼ block 3 ┤                 ▌ a filemark: counts as a block of its own
    partition 1   ├block 0┼ ▌1 ┼ block 2 ┼ …                ┤ data end
                                  ▲ position: (partition, block), the block that the next command reads or writes

Warnings of the end are an answer, not an error: the block was written, and somebody has to make room for an index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from typing_extensions import override

from tape import partitions
from tape.errors import (
    EndOfData,
    FormatError,
    MediumChanged,
    NoMedium,
    NotReady,
    PositionLost,
    RefusedCommand,
    TapeError,
    TransportError,
    UnitAttention,
)
from tape.scsi import cdb
from tape.scsi.sense import Key, Sense
from tape.scsi.transport import Buffer, Reply, ScsiTransport
from tape.scsi.unit import TAPE, Unit
from tape.sequential import LOAD_S, BlockLimits, EndWarning, Met, Position, SequentialDrive
from tape.standing import Standing

BLOCK_S = 300.0
SEEK_S = 3600.0  # drives say up to 50 minutes for a LOCATE


class TapeDrive(SequentialDrive):
    """One drive, with or without a cartridge. For one thread."""

    def __init__(
        self,
        transport: ScsiTransport,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take it over; whatever happened to it before this session is noticed, and of no interest.

        Raises:
            TapeError: it does not answer, or is no tape drive.
        """
        self.unit = Unit(transport, sleep=sleep)
        self._sleep = sleep
        self._monotonic = monotonic
        self.standing = Standing(self.unit)
        self.unit.attend()
        self.identity = self.unit.inquiry()
        if self.identity.kind != TAPE:
            raise TapeError(f"{self.name} is no tape drive: {self.identity}")

    @property
    @override
    def name(self) -> str:
        return self.unit.name

    @property
    @override
    def expected(self) -> Position | None:
        return self.standing.expected

    # ------------------------------------------------------------------ the cartridge

    @override
    def wait_ready(self, timeout_s: float = LOAD_S, waiting: Callable[[NotReady], None] | None = None) -> None:
        until_s = self._monotonic() + timeout_s
        while True:
            try:
                self.unit.run(cdb.test_unit_ready(), "test unit ready")
            except NoMedium:
                raise
            except NotReady as error:
                if not _is_on_its_way(error) or self._monotonic() >= until_s:
                    raise
                if waiting is not None:
                    waiting(error)
                self._sleep(1.0)
            except UnitAttention:
                self.standing.forget()
            else:
                return

    @override
    def load(self, timeout_s: float = LOAD_S) -> None:
        self.standing.forget()
        self.unit.attend()  # that there is another cartridge is what one loads for
        try:
            with self.standing.attentive():
                self.unit.tell(cdb.load_unload(load=True), "load", timeout_s=timeout_s)
        except NotReady as error:  # most drives begin to thread as soon as the robot has let go
            if isinstance(error, NoMedium) or not _is_on_its_way(error):
                raise
        self.wait_ready(timeout_s)
        self._use_variable_blocks()
        self.standing.found()

    def _use_variable_blocks(self) -> None:
        """Block length 0, writes buffered by the drive; the density is left as it is sensed.

        A density of 0 would mean the drive's default, and has been seen to change the cartridge's.
        """
        sensed = self.unit.ask(cdb.mode_sense(0x00, 16), "mode sense", 16)
        density = sensed[8] if len(sensed) >= 16 and int.from_bytes(sensed[6:8], "big") >= 8 else 0
        header = bytes((0, 0, 0, 0x10, 0, 0, 0, 8))
        block = bytes((density, 0, 0, 0, 0, 0, 0, 0))
        self.unit.tell(cdb.mode_select(16), "mode select", header + block)

    @override
    def unload(self) -> None:
        self.standing.forget()
        with self.standing.attentive():
            self.unit.tell(cdb.load_unload(load=False), "unload", timeout_s=SEEK_S)

    @override
    def guarded(self, guard: Callable[[], None]) -> AbstractContextManager[None]:
        return self.standing.guarded(guard)

    @override
    @contextmanager
    def held(self) -> Iterator[None]:
        with self.standing.attentive():
            self._prevent_removal()
        try:
            with self.guarded(self._prevent_removal):  # a reset lets it go
                yield
        except BaseException:
            with suppress(TapeError):  # the first error is the one to be told
                self.release()
            raise
        self.release()

    def _prevent_removal(self) -> None:
        self.unit.tell(cdb.prevent_removal(True), "prevent removal")

    @override
    def release(self) -> None:
        with suppress(MediumChanged):  # noticed, and of no matter to one who lets go
            self.unit.tell(cdb.prevent_removal(False), "allow removal")
            return
        self.unit.tell(cdb.prevent_removal(False), "allow removal")

    @override
    def partition_in_two(self) -> None:
        self.locate(Position(0, 0))
        partitions.make_two(self.unit)
        self.locate(Position(0, 0))

    @override
    def block_limits(self) -> BlockLimits:
        data = self.unit.ask(cdb.read_block_limits(), "read block limits", 6)
        if len(data) < 6:
            raise TapeError(f"{self.name}: block limits of {len(data)} bytes")
        longest = int.from_bytes(data[1:4], "big") or self.unit.transport.transfer_bytes_max
        return BlockLimits(int.from_bytes(data[4:6], "big"), min(longest, self.unit.transport.transfer_bytes_max))

    # ------------------------------------------------------------------ blocks

    @override
    def write(self, block: Buffer) -> EndWarning:
        self.standing.hold_known()
        with self.standing.counted():
            reply, sense = self.standing.run(cdb.write(len(block)), "write", data_out=block, timeout_s=BLOCK_S)
            self.standing.moved_by(1)
        left = _unwritten(sense) if sense is not None else len(block) - reply.transferred
        if left:
            self.standing.forget()
            raise TapeError(f"{self.name}: of a block of {len(block)} bytes {left} were not written")
        return _warning(sense)

    @override
    def write_filemarks(self, count: int = 1) -> EndWarning:
        if count:
            self.standing.hold_known()
        with self.standing.counted():
            _, sense = self.standing.run(cdb.write_filemarks(count), "write filemarks", timeout_s=BLOCK_S)
            self.standing.moved_by(count)
        if sense is not None and (left := _unwritten(sense)):
            self.standing.forget()
            raise TapeError(f"{self.name}: of {count} filemarks {left} were not written")
        return _warning(sense)

    @override
    def flush(self) -> EndWarning:
        return self.write_filemarks(0)

    @override
    def read(self, buf: memoryview) -> int | Met:
        at = self.standing.expected
        with self.standing.counted():
            reply, sense = self.standing.run(
                cdb.read(len(buf)), "read", data_in=buf, timeout_s=BLOCK_S, quiet=(Key.BLANK_CHECK,)
            )
            if sense is not None and (sense.key == Key.BLANK_CHECK or (sense.code == (0x00, 0x05) and not sense.ili)):
                return Met.END_OF_DATA
            self.standing.moved_by(1)
        if sense is not None and sense.filemark:
            return Met.FILEMARK
        return self._length(len(buf), reply, sense, f"{self.name}, {at or 'somewhere'}")

    def _length(self, wanted: int, reply: Reply, sense: Sense | None, where: str) -> int:
        """How long the block is that was read; one of which not all has come is none."""
        length = wanted
        if sense is not None and sense.ili:
            if sense.information is None:
                raise FormatError(where=where, reason="a block of a length that the drive does not tell")
            length -= sense.information
            if length > wanted:
                raise FormatError(where=where, reason=f"a block of {length} bytes")
        if reply.transferred < length:
            reason = f"of a block of {length} bytes {reply.transferred} came"
            raise TransportError(device=self.name, command="read", reason=reason)
        return length

    # ------------------------------------------------------------------ finding places

    @override
    def position(self) -> Position:
        return self.standing.asked()

    @override
    def locate(self, place: Position) -> None:
        self.standing.forget()
        self._seek(cdb.locate(place.block, place.partition), f"locate {place}")
        self.standing.arrive(place)

    @override
    def locate_end(self, partition: int) -> Position:
        self.standing.forget()
        try:
            self._seek(cdb.locate_end(partition), f"locate the end of partition {partition}")
        except RefusedCommand:  # older drives have no such destination
            self.locate(Position(partition, 0))
            self.standing.forget()
            self._seek(cdb.space_end_of_data(), "space to the end of data")
        found = self.standing.found()
        if found.partition != partition:
            raise PositionLost(device=self.name, expected=f"partition {partition}", found=found)
        return found

    @override
    def space_filemarks(self, count: int) -> Position:
        self.standing.forget()
        _, sense = self.standing.run(
            cdb.space_filemarks(count), "space filemarks", timeout_s=SEEK_S, quiet=(Key.BLANK_CHECK,)
        )
        if sense is not None and (sense.key == Key.BLANK_CHECK or sense.eom):
            raise EndOfData(
                device=self.name, command="space filemarks", reason=f"there are no {abs(count)} filemarks that way",
                key=sense.key, asc=sense.asc, ascq=sense.ascq,
            )  # fmt: skip
        return self.standing.found()

    @override
    def rewind(self) -> None:
        self.standing.forget()
        self._seek(cdb.rewind(), "rewind")
        self.standing.found()

    def _seek(self, command: bytes, what: str) -> None:
        """Go somewhere from wherever the tape stands: after a reset the same again. It is noticed all the same."""
        with self.standing.attentive():
            self.unit.tell(command, what, timeout_s=SEEK_S)

    @override
    def close(self) -> None:
        self.unit.close()


def _is_on_its_way(error: NotReady) -> bool:
    """Not ready yet (asc 04h), and neither a person (03h) nor a switch (12h) is needed for it."""
    return error.asc == 0x04 and error.ascq not in (0x03, 0x12)


def _unwritten(sense: Sense) -> int:
    """What of a write the end has cut off, by its warning (SSC: INFORMATION, with EOM)."""
    return (sense.information or 0) if sense.eom else 0


def _warning(sense: Sense | None) -> EndWarning:
    if sense is None:
        return EndWarning.NONE
    if sense.code == (0x00, 0x07):
        return EndWarning.PROGRAMMABLE
    return EndWarning.EARLY if sense.eom or sense.code == (0x00, 0x02) else EndWarning.NONE
