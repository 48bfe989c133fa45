"""A tape drive: blocks and filemarks written, read, and found again.

    partition 0   ├block 0┼ block 1 ┼ ▌2 ┼ block 3 ┤                 ▌ a filemark: counts as a block of its own
    partition 1   ├block 0┼ ▌1 ┼ block 2 ┼ …                ┤ data end
                                  ▲ position: (partition, block), the block that the next command reads or writes

Where the tape stands is known at any time, and held against what the drive says after everything that may have moved it
behind our back. A bus reset may rewind a tape; the next write would then destroy the volume (the reference
implementation of LTFS has the same guard).

Warnings of the end are an answer, not an error: the block was written, and somebody has to make room for an index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
from tape.scsi.unit import TAPE, Identity, Unit
from tape.sequential import LOAD_S, BlockLimits, EndWarning, Met, Position

__all__ = ["LOAD_S", "BlockLimits", "EndWarning", "Met", "Position", "TapeDrive"]

BLOCK_S = 300.0
SEEK_S = 3600.0  # drives say up to 50 minutes for a LOCATE
_RETRIES_MAX = 3


class TapeDrive:
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
        self._expected: Position | None = None
        self._guards: list[Callable[[], None]] = []
        self._doubt: UnitAttention | None = None
        """What another command has met since the tape was last known to stand where we think: it told us, not you."""
        self.unit.noticed = self._notice
        self.unit.attend()
        self.identity: Identity = self.unit.inquiry()
        if self.identity.kind != TAPE:
            raise TapeError(f"{self.name} is no tape drive: {self.identity}")

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.unit.name

    @property
    def expected(self) -> Position | None:
        """Where the tape stands by our own count; None when that is not known."""
        return self._expected

    # ------------------------------------------------------------------ the cartridge

    def wait_ready(self, timeout_s: float = LOAD_S, waiting: Callable[[NotReady], None] | None = None) -> None:
        """Wait until its cartridge is ready.

        Args:
            timeout_s: how long.
            waiting: told once a second of what it is not ready yet.

        Raises:
            NoMedium: there is none.
            NotReady: it did not become ready in time, or will not by itself: a cleaning cartridge, one that it cannot
                use, one that is stuck.
        """
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
                self._expected = None
            else:
                return

    def load(self, timeout_s: float = LOAD_S) -> None:
        """Thread the cartridge that lies in the drive, and let blocks have any length.

        Raises:
            NoMedium: there is none.
            TapeError: it cannot be loaded.
        """
        self._expected = None
        self.unit.attend()  # that there is another cartridge is what one loads for
        try:
            with self._attentive():
                self.unit.tell(cdb.load_unload(load=True), "load", timeout_s=timeout_s)
        except NotReady as error:  # most drives begin to thread as soon as the robot has let go
            if isinstance(error, NoMedium) or not _is_on_its_way(error):
                raise
        self.wait_ready(timeout_s)
        self._use_variable_blocks()
        self._expected = self.position()

    def unload(self) -> None:
        """Rewind, and give the cartridge out, so that the robot can take it.

        Raises:
            RemovalPrevented: something holds it.
            TapeError: it is stuck.
        """
        self._expected = None
        with self._attentive():
            self.unit.tell(cdb.load_unload(load=False), "unload", timeout_s=SEEK_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody take the cartridge out for the length of a ``with``."""
        with self._attentive():
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

    def release(self) -> None:
        """Hold the cartridge no longer, whoever it was that held it.

        Raises:
            TapeError: it cannot be told to.
        """
        with suppress(MediumChanged):  # noticed, and of no matter to one who lets go
            self.unit.tell(cdb.prevent_removal(False), "allow removal")
            return
        self.unit.tell(cdb.prevent_removal(False), "allow removal")

    def partition_in_two(self) -> None:
        """A small partition 0, and the rest as partition 1: all that is on the cartridge is lost.

        Raises:
            RefusedCommand: neither this drive nor this cartridge can have two.
            TapeError: it failed; the cartridge may be in whatever state.
        """
        self.locate(Position(0, 0))
        partitions.make_two(self.unit)
        self.locate(Position(0, 0))

    @contextmanager
    def guarded(self, guard: Callable[[], None]) -> Iterator[None]:
        """For the length of a ``with``, call ``guard`` after everything that may have happened to the drive.

        It raises when what it guards does not hold any more: the command that met a reset is then not sent again.
        """
        self._guards.append(guard)
        try:
            yield
        finally:
            self._guards.remove(guard)

    def block_limits(self) -> BlockLimits:
        """What the drive, and the way to it, allow."""
        data = self.unit.ask(cdb.read_block_limits(), "read block limits", 6)
        if len(data) < 6:
            raise TapeError(f"{self.name}: block limits of {len(data)} bytes")
        longest = int.from_bytes(data[1:4], "big") or self.unit.transport.transfer_bytes_max
        return BlockLimits(int.from_bytes(data[4:6], "big"), min(longest, self.unit.transport.transfer_bytes_max))

    # ------------------------------------------------------------------ blocks

    def write(self, block: Buffer) -> EndWarning:
        """Write one block.

        Raises:
            VolumeOverflow: the end; it was not written.
            MediumError: it could not be written; what the drive had buffered before may not be either.
            WriteProtected: the cartridge takes no writing.
            PositionLost: a reset moved the tape.
        """
        self._hold_known()
        with self._counted():
            reply, sense = self._run(cdb.write(len(block)), "write", data_out=block, timeout_s=BLOCK_S)
            self._moved_by(1)
        left = _unwritten(sense) if sense is not None else len(block) - reply.transferred
        if left:
            self._expected = None
            raise TapeError(f"{self.name}: of a block of {len(block)} bytes {left} were not written")
        return _warning(sense)

    def write_filemarks(self, count: int = 1) -> EndWarning:
        """Write filemarks, and wait until all that was written is on tape.

        Raises:
            TapeError: as ``write``; also for blocks written long before.
        """
        if count:
            self._hold_known()
        with self._counted():
            _, sense = self._run(cdb.write_filemarks(count), "write filemarks", timeout_s=BLOCK_S)
            self._moved_by(count)
        if sense is not None and (left := _unwritten(sense)):
            self._expected = None
            raise TapeError(f"{self.name}: of {count} filemarks {left} were not written")
        return _warning(sense)

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
        """
        at = self._expected
        with self._counted():
            reply, sense = self._run(
                cdb.read(len(buf)), "read", data_in=buf, timeout_s=BLOCK_S, quiet=(Key.BLANK_CHECK,)
            )
            if sense is not None and (sense.key == Key.BLANK_CHECK or (sense.code == (0x00, 0x05) and not sense.ili)):
                return Met.END_OF_DATA
            self._moved_by(1)
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

    def position(self) -> Position:
        """Where the tape stands, by the drive's word.

        Raises:
            TapeError: it does not know.
        """
        with self._attentive():
            data = self.unit.ask(cdb.read_position(), "read position", 32)
        if len(data) < 32 or data[0] & 0x0C:  # MPU, LONU: position unknown
            raise TapeError(f"{self.name}: the drive does not know where the tape stands")
        return Position(int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:16], "big"))

    def locate(self, place: Position) -> None:
        """Go there.

        Raises:
            EndOfData: the recorded part ends before.
            TapeError: it cannot be found.
        """
        self._expected = None
        self._seek(cdb.locate(place.block, place.partition), f"locate {place}")
        self._stand_at(place)

    def locate_end(self, partition: int) -> Position:
        """Go behind all that is recorded in a partition; tells where that is."""
        self._expected = None
        try:
            self._seek(cdb.locate_end(partition), f"locate the end of partition {partition}")
        except RefusedCommand:  # older drives have no such destination
            self.locate(Position(partition, 0))
            self._expected = None
            self._seek(cdb.space_end_of_data(), "space to the end of data")
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
        self._expected = None
        _, sense = self._run(cdb.space_filemarks(count), "space filemarks", timeout_s=SEEK_S, quiet=(Key.BLANK_CHECK,))
        if sense is not None and (sense.key == Key.BLANK_CHECK or sense.eom):
            raise EndOfData(
                device=self.name, command="space filemarks", reason=f"there are no {abs(count)} filemarks that way",
                key=sense.key, asc=sense.asc, ascq=sense.ascq,
            )  # fmt: skip
        self._expected = found = self.position()
        return found

    def rewind(self) -> None:
        """To the beginning of this partition."""
        self._expected = None
        self._seek(cdb.rewind(), "rewind")
        self._expected = self.position()

    # ------------------------------------------------------------------ where it must stand

    def _seek(self, command: bytes, what: str) -> None:
        """Go somewhere from wherever the tape stands: after a reset the same again. It is noticed all the same."""
        with self._attentive():
            self.unit.tell(command, what, timeout_s=SEEK_S)

    def _stand_at(self, place: Position) -> None:
        found = self.position()
        if found != place:
            raise PositionLost(device=self.name, expected=place, found=found)
        self._expected = place

    def _moved_by(self, blocks: int) -> None:
        if self._expected is not None:
            self._expected = Position(self._expected.partition, self._expected.block + blocks)

    def _run(
        self,
        command: bytes,
        what: str,
        *,
        data_out: Buffer = b"",
        data_in: memoryview | None = None,
        timeout_s: float,
        quiet: tuple[Key, ...] = (),
    ) -> tuple[Reply, Sense | None]:
        """Run what depends on where the tape stands; after a reset only if it still stands there."""
        if self._doubt is not None and self._expected is not None:
            self._recheck(self._doubt)
        for _ in range(_RETRIES_MAX):
            try:
                with self._attentive():
                    return self.unit.run(
                        command, what, data_out=data_out, data_in=data_in, timeout_s=timeout_s, quiet=quiet
                    )
            except MediumChanged:
                raise
            except UnitAttention as error:
                if self._expected is None:
                    raise
                self._recheck(error)
        with self._attentive():
            return self.unit.run(command, what, data_out=data_out, data_in=data_in, timeout_s=timeout_s, quiet=quiet)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A command interrupted by Ctrl-C may have been carried out, and the block not counted."""
        try:
            yield
        except TapeError:
            raise
        except BaseException:
            self._expected = None
            raise

    def _notice(self, attention: UnitAttention) -> None:
        """A command of whatever kind has met it, and the drive will not tell it a second time."""
        self._doubt = attention
        if isinstance(attention, MediumChanged):
            self._expected = None

    def _hold_known(self) -> None:
        """Nothing is written where nobody knows what lies there."""
        if self._expected is None:
            raise PositionLost(device=self.name, expected="one that is known", found="a place that nobody knows")

    def _recheck(self, because: UnitAttention) -> None:
        """After a reset: the command was not carried out, and may be sent again if nothing has moved."""
        expected = self._expected
        assert expected is not None, "nothing to hold the position against"
        for further in self.unit.attend():  # a lost session and a reset are told one after the other
            if isinstance(further, MediumChanged):
                self._expected = None
                raise further
        found = self.position()
        if found != expected:
            self._expected = None
            raise PositionLost(device=self.name, expected=expected, found=found) from because
        self._doubt = None
        for guard in self._guards:
            guard()

    @contextmanager
    def _attentive(self) -> Iterator[None]:
        """What fails leaves the tape somewhere; a changed cartridge voids all that was known."""
        try:
            yield
        except UnitAttention as error:
            if isinstance(error, MediumChanged):
                self._expected = None
            raise
        except TapeError:
            self._expected = None
            raise

    def _use_variable_blocks(self) -> None:
        """Block length 0, writes buffered by the drive; the density is left as it is sensed.

        A density of 0 would mean the drive's default, and has been seen to change the cartridge's.
        """
        sensed = self.unit.ask(cdb.mode_sense(0x00, 16), "mode sense", 16)
        density = sensed[8] if len(sensed) >= 16 and int.from_bytes(sensed[6:8], "big") >= 8 else 0
        header = bytes((0, 0, 0, 0x10, 0, 0, 0, 8))
        block = bytes((density, 0, 0, 0, 0, 0, 0, 0))
        self.unit.tell(cdb.mode_select(16), "mode select", header + block)

    def close(self) -> None:
        """Let the drive go; the cartridge stays in it."""
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
