"""The tape in an emulated drive: where it stands, and what is written, read and sought there.

The cartridge's own limits give the warnings of the end, in this order as a partition fills:

    ├─────────────────────── data ─────────────────┬ programmable ┬── early ──┤ overflow: the block is not written
                                     as mode page 10h/01h says ───┘   the last fiftieth, at least 4 MiB
"""

from __future__ import annotations

from tape.emulator import attributes
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check, Session, invalid_field
from tape.emulator.pace import Pace
from tape.emulator.seal import Sealer
from tape.emulator.track import Track
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer

BLOCK_BYTES_MAX = 8 << 20
_FILEMARKS_MAX = 1000  # in one command: each is a file, and nobody wants sixteen million of them
_MIB = 1 << 20
_EARLY_BYTES_MIN = 4 * _MIB
_EARLY_SHARE = 50


class Deck:
    """Works on whatever cartridge it is given; one at a time."""

    def __init__(self, pace: Pace, sealer: Sealer) -> None:
        self.partition = 0
        self.block = 0
        self.block_length = 0
        """Of fixed blocks; 0 when there are none."""
        self.programmable_mib = 0
        self.warns = True
        """Whether it announces the end; some do so too late."""
        self.written_bytes = 0
        self.read_bytes = 0
        self._pace = pace
        self._sealer = sealer
        self._warned: set[int] = set()
        self._reference_read = True  # the volume change reference moves on the first write after it was read

    def thread(self) -> None:
        """To the beginning of partition 0; what was known of another cartridge is void."""
        self.partition = self.block = 0
        self._reference_read = True
        self._warned.clear()

    def new_cartridge(self) -> None:
        """Counters begin anew."""
        self.written_bytes = self.read_bytes = 0

    def _track(self, tape: Cartridge) -> Track:
        """The partition in which it stands."""
        return tape.tracks[self.partition]

    # ------------------------------------------------------------------ writing

    def hold_writable(self, tape: Cartridge) -> None:
        """Hold that something may be written here.

        Raises:
            Check: the tab is set, or it is WORM and something is written here.
        """
        if tape.kind.write_protected:
            raise Check(Key.DATA_PROTECT, 0x27, 0x00)
        if tape.kind.worm and self.block < self._track(tape).end:
            raise Check(Key.DATA_PROTECT, 0x30, 0x0C)

    def write(self, tape: Cartridge, session: Session, cdb: bytes, data: Buffer) -> None:
        """WRITE(6), one block or several fixed ones."""
        self.hold_writable(tape)
        length = int.from_bytes(cdb[2:5], "big")
        if not cdb[1] & 1:
            if length != len(data) or length > BLOCK_BYTES_MAX:
                raise invalid_field()
            self._put(tape, session, data)
        else:
            view = memoryview(data)
            if not self.block_length or len(view) != length * self.block_length:
                raise invalid_field()
            for start in range(0, len(view), self.block_length):
                self._put(tape, session, view[start : start + self.block_length])
        self._warn(tape)

    def _put(self, tape: Cartridge, session: Session, record: Buffer) -> None:
        if not len(record):
            return
        if self.block == self._track(tape).end and len(record) > self._left(tape):
            raise Check(Key.VOLUME_OVERFLOW, 0x00, 0x02, eom=True, information=len(record))
        sealed = self._sealer.sealed(session, record)
        self.changes(tape)
        self._pace.write(len(record))
        self._track(tape).write(self.block, sealed)
        self.written_bytes += len(record)
        self.block += 1

    def write_filemarks(self, tape: Cartridge, cdb: bytes) -> None:
        """WRITE FILEMARKS(6); a count of 0 only puts on tape what is in the buffer."""
        count = int.from_bytes(cdb[2:5], "big")
        if count > _FILEMARKS_MAX:
            raise invalid_field()
        if count:
            self.hold_writable(tape)
        for _ in range(count):
            self.changes(tape)
            self._track(tape).write_filemark(self.block)
            self.block += 1
        if not cdb[1] & 1:
            self.flush(tape)
        self._warn(tape)

    def flush(self, tape: Cartridge) -> None:
        """Put on tape what is in the buffer."""
        self._pace.settle()
        tape.flush()

    def changes(self, tape: Cartridge) -> None:
        """Something is about to be written: move the reference, if anybody may know it."""
        if self._reference_read:
            attributes.move_reference(tape)
            self._reference_read = False

    def reference_was_read(self) -> None:
        """Whoever has read the volume change reference will know whether anything was written since."""
        self._reference_read = True

    def erase(self, tape: Cartridge) -> None:
        """ERASE: the data end here."""
        self.hold_writable(tape)
        self.changes(tape)
        track = self._track(tape)
        track.overwrite(min(self.block, track.end))
        self.flush(tape)

    def format(self, tape: Cartridge, *, two: bool) -> None:
        """FORMAT MEDIUM, at the beginning of partition 0 only."""
        if tape.kind.write_protected or (tape.kind.worm and tape.tracks[0].end):
            raise Check(Key.DATA_PROTECT, 0x27, 0x00)
        if self.partition or self.block:
            raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0C)
        tape.partition(2 if two else 1)
        attributes.move_reference(tape)
        self._warned.clear()

    # ------------------------------------------------------------------ the end

    def _left(self, tape: Cartridge) -> int:
        return tape.capacity_bytes(self.partition) - self._track(tape).used_bytes

    def _warn(self, tape: Cartridge) -> None:
        """A warning is said after the deed: the block is written."""
        if not self.warns:
            return
        left = self._left(tape)
        if left < early_bytes(tape, self.partition):
            raise Check(Key.NO_SENSE, 0x00, 0x02, eom=True)
        if left < self._programmable_from(tape) and self.partition not in self._warned:
            self._warned.add(self.partition)
            raise Check(Key.NO_SENSE, 0x00, 0x07, eom=True)

    def _programmable_from(self, tape: Cartridge) -> int:
        if not self.programmable_mib:
            return 0
        return early_bytes(tape, self.partition) + self.programmable_mib * _MIB

    def set_programmable(self, size_mib: int) -> None:
        """How long before the early warning there is another one."""
        self.programmable_mib = size_mib
        self._warned.clear()

    # ------------------------------------------------------------------ reading

    def read(self, tape: Cartridge, session: Session, cdb: bytes) -> Buffer:
        """READ(6), one block or several fixed ones."""
        length = int.from_bytes(cdb[2:5], "big")
        if not length:
            return b""
        if cdb[1] & 1:
            return self._read_fixed(tape, session, length)
        record = self._next(tape, session, length)
        if len(record) == length or (cdb[1] & 2 and len(record) < length):
            return record
        raise Check(Key.NO_SENSE, 0, ili=True, information=length - len(record), data=record[:length])

    def _read_fixed(self, tape: Cartridge, session: Session, count: int) -> bytes:
        if not self.block_length:
            raise invalid_field()
        records: list[bytes] = []
        while len(records) < count:
            left = count - len(records)
            try:
                record = self._next(tape, session, left)
            except Check as check:
                check.data = b"".join(records)
                raise
            if len(record) != self.block_length:
                raise Check(Key.NO_SENSE, 0, ili=True, information=left, data=b"".join(records))
            records.append(record)
        return b"".join(records)

    def _next(self, tape: Cartridge, session: Session, asked: int) -> bytes:
        track = self._track(tape)
        if self.block >= track.end:
            raise Check(Key.BLANK_CHECK, 0x00, 0x05, information=asked)
        if track.is_filemark(self.block):
            self.block += 1
            raise Check(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=asked)
        record = self._sealer.opened(session, track.read(self.block))
        self._pace.read(len(record))
        self.read_bytes += len(record)
        self.block += 1
        return record

    def next_record(self, tape: Cartridge) -> bytes | None:
        """What lies before the head, as it is on tape; None where no record lies."""
        track = self._track(tape)
        if self.block >= track.end or track.is_filemark(self.block):
            return None
        return track.read(self.block)

    # ------------------------------------------------------------------ finding places

    def rewind(self, tape: Cartridge) -> None:
        """To the beginning of this partition."""
        self.flush(tape)
        self._go(tape, 0)

    def _go(self, tape: Cartridge, block: int) -> None:
        self._pace.seek(self.block, block, tape.capacity_bytes(self.partition))
        self.block = block

    def locate(self, tape: Cartridge, cdb: bytes) -> None:
        """LOCATE(10) and (16): to an object, behind a filemark, to the end of data."""
        if cdb[0] == 0x2B:
            kind, partition, block = 0, cdb[8], int.from_bytes(cdb[3:7], "big")
        else:
            kind, partition, block = cdb[1] >> 3 & 0x07, cdb[3], int.from_bytes(cdb[4:12], "big")
        partition = partition if cdb[1] & 2 else self.partition
        if partition >= tape.partitions or kind not in (0, 1, 3):
            raise invalid_field()
        self.flush(tape)
        self.partition = partition
        track = self._track(tape)
        end = track.end
        if kind == 3:
            self._go(tape, end)
            return
        if kind == 1:
            found = track.filemark_from(0, block) if block else 0
            block = end + 1 if found is None else found + bool(block)
        self._go(tape, min(block, end))
        if block > end:
            raise Check(Key.BLANK_CHECK, 0x00, 0x05)

    def space(self, tape: Cartridge, cdb: bytes) -> None:
        """SPACE(6) and (16): over blocks, over filemarks, to the end of data."""
        code = cdb[1] & 0x0F
        field = cdb[2:5] if cdb[0] == 0x11 else cdb[4:12]
        count = int.from_bytes(field, "big", signed=True)
        self.flush(tape)
        match code:
            case 0x00:
                self._space_blocks(tape, count)
            case 0x01:
                self._space_filemarks(tape, count)
            case 0x03:
                self._go(tape, self._track(tape).end)
            case _:
                raise invalid_field()

    def _space_blocks(self, tape: Cartridge, count: int) -> None:
        track, step = self._track(tape), 1 if count > 0 else -1
        for left in range(abs(count), 0, -1):
            at = self.block if step > 0 else self.block - 1
            if at < 0:
                raise Check(Key.NO_SENSE, 0x00, 0x04, eom=True, information=left)
            if at >= track.end:
                raise Check(Key.BLANK_CHECK, 0x00, 0x05, information=left)
            self.block += step
            if track.is_filemark(at):
                raise Check(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=left)

    def _space_filemarks(self, tape: Cartridge, count: int) -> None:
        if not count:
            return
        track = self._track(tape)
        found = track.filemark_from(self.block, count)
        if found is not None:
            self._go(tape, found + 1 if count > 0 else found)
            return
        before = track.filemarks_before(self.block)
        if count > 0:
            total = track.filemarks_before(track.end)
            self._go(tape, track.end)
            raise Check(Key.BLANK_CHECK, 0x00, 0x05, information=count - (total - before))
        self._go(tape, 0)
        raise Check(Key.NO_SENSE, 0x00, 0x04, eom=True, information=-count - before)

    def position(self, tape: Cartridge, cdb: bytes) -> bytes:
        """READ POSITION, in its three forms."""
        left = self._left(tape)
        flags = (0x80 if self.block == 0 else 0) | (0x40 if left < early_bytes(tape, self.partition) else 0)
        if self.programmable_mib and left < self._programmable_from(tape):
            flags |= 0x01
        number = self.block.to_bytes(8, "big")
        match cdb[1] & 0x1F:
            case 0x00 | 0x01:
                return bytes((flags & 0xC0, self.partition, 0, 0)) + number[4:] + number[4:] + bytes(8)
            case 0x06:
                marks = self._track(tape).filemarks_before(self.block).to_bytes(8, "big")
                return bytes((flags, 0, 0, 0)) + self.partition.to_bytes(4, "big") + number + marks + bytes(8)
            case 0x08:
                return bytes((flags, self.partition, 0, 28, 0, 0, 0, 0)) + number + number + bytes(8)
        raise invalid_field()


def early_bytes(tape: Cartridge, partition: int) -> int:
    """How much of a partition lies behind its early warning."""
    return max(tape.capacity_bytes(partition) // _EARLY_SHARE, _EARLY_BYTES_MIN)
