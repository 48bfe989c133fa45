"""An emulated tape drive (SSC): what it does with the cartridge in it.

The cartridge's own limits give the warnings of the end, in this order as a partition fills:

    ├─────────────────────── data ─────────────────┬ programmable ┬── early ──┤ overflow: the block is not written
                                     as mode page 10h/01h says ───┘   the last fiftieth, at least 4 MiB
"""

from __future__ import annotations

from typing import ClassVar

from tape.emulator import attributes, life, logpages, modes
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check, invalid_field, invalid_parameter
from tape.emulator.lun import MEDIUM_CHANGED, Lun
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer

BLOCK_BYTES_MAX = 8 << 20
_MIB = 1 << 20
_EARLY_BYTES_MIN = 4 * _MIB
_EARLY_SHARE = 50
_MEDIUM_TYPE = 0x88  # an LTO-8 cartridge


class DriveLun(Lun):
    """One drive, empty or not."""

    kind: ClassVar[int] = 1

    def __init__(self, serial: str, *, product: str = "ULT3580-TD8", density: int = 0x5E) -> None:
        super().__init__("IBM", product, "HB83", serial)
        self.density = density
        self.cartridge: Cartridge | None = None
        self.threaded = False
        self.removal_prevented = False
        self.alerts: set[int] = set()
        self.warns = True
        """Whether it announces the end; some do so too late."""
        self.loads = 0
        self.written_bytes = 0
        self.read_bytes = 0
        self.partition = 0
        self.block = 0
        self._block_length = 0
        self._partition_page: bytes | None = None
        self._programmable_mib = 0
        self._warned: set[int] = set()
        self._reference_read = True  # the volume change reference moves on the first write after it was read
        self._handlers |= {
            0x01: self._rewind,
            0x04: self._format,
            0x05: lambda _cdb, _data: b"\0" + BLOCK_BYTES_MAX.to_bytes(3, "big") + b"\0\x01",
            0x08: self._read,
            0x0A: self._write,
            0x10: self._write_filemarks,
            0x11: self._space,
            0x15: self._mode_select,
            0x19: self._erase,
            0x1A: self._mode_sense,
            0x1B: self._load_unload,
            0x1E: self._prevent,
            0x2B: self._locate,
            0x34: self._read_position,
            0x44: self._report_density,
            0x4D: lambda cdb, _data: logpages.sense(self, cdb),
            0x55: self._mode_select,
            0x5A: self._mode_sense,
            0x82: lambda _cdb, _data: b"",
            0x8C: lambda cdb, _data: attributes.read(self, self.loaded, cdb),
            0x8D: lambda cdb, data: attributes.write(self.loaded, cdb, data),
            0x91: self._space,
            0x92: self._locate,
        }

    # ------------------------------------------------------------------ cartridges come and go

    @property
    def loaded(self) -> Cartridge:
        """The cartridge, ready for work."""
        if self.cartridge is None:
            raise Check(Key.NOT_READY, 0x3A)
        if life.is_cleaning(self.cartridge):
            raise Check(Key.NOT_READY, 0x30, 0x03)
        if not self.threaded:
            raise Check(Key.NOT_READY, 0x04, 0x02)
        return self.cartridge

    def insert(self, cartridge: Cartridge) -> None:
        """The robot, or a hand, puts one in; it is threaded at once, or cleans at once and can be taken out again."""
        with self._lock:
            assert self.cartridge is None, "there is one in it"
            self.cartridge = cartridge
            self.loads += 1
            self.written_bytes = self.read_bytes = 0
            self._thread()
            if life.is_cleaning(cartridge):
                life.clean(self, cartridge)
            self.attention(MEDIUM_CHANGED)

    def take_out(self) -> Cartridge:
        """The robot takes it away.

        Raises:
            Check: it is held.
        """
        with self._lock:
            if self.cartridge is None:
                raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0E)
            if self.removal_prevented:
                raise Check(Key.ILLEGAL_REQUEST, 0x53, 0x02)
            self.cartridge.flush()
            taken, self.cartridge, self.threaded = self.cartridge, None, False
            return taken

    def power_cut(self, keep: int = 0, *, end_marked: bool = True) -> None:
        """The power fails and comes back: what was not flushed is lost, the tape is rewound."""
        with self._lock:
            if self.cartridge is not None:
                self.cartridge.power_cut(keep, end_marked=end_marked)
                self._thread()
            self.removal_prevented = False
            self.reset()

    def rewound_by_reset(self) -> None:
        """A bus reset that rewinds the tape, as some do; what was buffered is still written."""
        with self._lock:
            if self.cartridge is not None:
                self.cartridge.flush()
            self.partition = self.block = 0
            self.reset()

    def _thread(self) -> None:
        self.threaded = not life.is_cleaning(self.cartridge)
        self.partition = self.block = 0
        self._reference_read = True
        self._warned.clear()

    def _test_unit_ready(self, cdb: bytes, data: Buffer) -> bytes:
        _ = self.loaded
        return b""

    def _load_unload(self, cdb: bytes, data: Buffer) -> bytes:
        if self.cartridge is None:
            raise Check(Key.NOT_READY, 0x3A)
        if cdb[4] & 1:
            if life.is_cleaning(self.cartridge):
                raise Check(Key.NOT_READY, 0x30, 0x03)
            self._thread()
        else:
            if self.removal_prevented:
                raise Check(Key.ILLEGAL_REQUEST, 0x53, 0x02)
            self.cartridge.flush()
            self.threaded = False
        return b""

    def _prevent(self, cdb: bytes, data: Buffer) -> bytes:
        self.removal_prevented = bool(cdb[4] & 1)
        return b""

    # ------------------------------------------------------------------ writing

    def _hold_writable(self, tape: Cartridge) -> None:
        if tape.kind.write_protected:
            raise Check(Key.DATA_PROTECT, 0x27, 0x00)
        if tape.kind.worm and self.block < tape.end(self.partition):
            raise Check(Key.DATA_PROTECT, 0x30, 0x0C)

    def _write(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        self._hold_writable(tape)
        length = int.from_bytes(cdb[2:5], "big")
        if not cdb[1] & 1:
            if length != len(data) or length > BLOCK_BYTES_MAX:
                raise invalid_field()
            self._put(tape, data)
        else:
            view = memoryview(data)
            if not self._block_length or len(view) != length * self._block_length:
                raise invalid_field()
            for start in range(0, len(view), self._block_length):
                self._put(tape, view[start : start + self._block_length])
        self._warn(tape)
        return b""

    def _put(self, tape: Cartridge, record: Buffer) -> None:
        if not len(record):
            return
        if self.block == tape.end(self.partition):
            left = tape.capacity_bytes(self.partition) - tape.used_bytes(self.partition)
            if len(record) > left:
                raise Check(Key.VOLUME_OVERFLOW, 0x00, 0x02, eom=True, information=len(record))
        self._changes(tape)
        tape.write(self.partition, self.block, record)
        self.written_bytes += len(record)
        self.block += 1

    def _write_filemarks(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        count = int.from_bytes(cdb[2:5], "big")
        if count:
            self._hold_writable(tape)
        for _ in range(count):
            self._changes(tape)
            tape.write_filemark(self.partition, self.block)
            self.block += 1
        if not cdb[1] & 1:
            tape.flush()
        self._warn(tape)
        return b""

    def _warn(self, tape: Cartridge) -> None:
        """A warning is said after the deed: the block is written."""
        if not self.warns:
            return
        left = tape.capacity_bytes(self.partition) - tape.used_bytes(self.partition)
        if left < self.early_bytes(tape, self.partition):
            raise Check(Key.NO_SENSE, 0x00, 0x02, eom=True)
        if left < self._programmable_from(tape) and self.partition not in self._warned:
            self._warned.add(self.partition)
            raise Check(Key.NO_SENSE, 0x00, 0x07, eom=True)

    def early_bytes(self, tape: Cartridge, partition: int) -> int:
        """How much of a partition lies behind its early warning."""
        return max(tape.capacity_bytes(partition) // _EARLY_SHARE, _EARLY_BYTES_MIN)

    def _programmable_from(self, tape: Cartridge) -> int:
        if not self._programmable_mib:
            return 0
        return self.early_bytes(tape, self.partition) + self._programmable_mib * _MIB

    def _changes(self, tape: Cartridge) -> None:
        if self._reference_read:
            attributes.move_reference(tape)
            self._reference_read = False

    def reference_was_read(self) -> None:
        """Whoever has read the volume change reference will know whether anything was written since."""
        self._reference_read = True

    def _erase(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        self._hold_writable(tape)
        self._changes(tape)
        tape.overwrite(self.partition, min(self.block, tape.end(self.partition)))
        tape.flush()
        return b""

    def _format(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        if tape.kind.write_protected or (tape.kind.worm and tape.end(0)):
            raise Check(Key.DATA_PROTECT, 0x27, 0x00)
        if self.partition or self.block:
            raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0C)
        wanted = self._partition_page[3] if cdb[2] & 0x0F and self._partition_page else 0
        tape.partition(2 if wanted else 1)
        attributes.move_reference(tape)
        self._warned.clear()
        return b""

    # ------------------------------------------------------------------ reading

    def _read(self, cdb: bytes, data: Buffer) -> Buffer:
        tape = self.loaded
        length = int.from_bytes(cdb[2:5], "big")
        if not length:
            return b""
        if cdb[1] & 1:
            return self._read_fixed(tape, length)
        record = self._next(tape, length)
        if len(record) == length or (cdb[1] & 2 and len(record) < length):
            return record
        raise Check(Key.NO_SENSE, 0, ili=True, information=length - len(record), data=record[:length])

    def _read_fixed(self, tape: Cartridge, count: int) -> bytes:
        if not self._block_length:
            raise invalid_field()
        records: list[bytes] = []
        while len(records) < count:
            left = count - len(records)
            try:
                record = self._next(tape, left)
            except Check as check:
                check.data = b"".join(records)
                raise
            if len(record) != self._block_length:
                raise Check(Key.NO_SENSE, 0, ili=True, information=left, data=b"".join(records))
            records.append(record)
        return b"".join(records)

    def _next(self, tape: Cartridge, asked: int) -> bytes:
        if self.block >= tape.end(self.partition):
            raise Check(Key.BLANK_CHECK, 0x00, 0x05, information=asked)
        if tape.is_filemark(self.partition, self.block):
            self.block += 1
            raise Check(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=asked)
        record = tape.read(self.partition, self.block)
        self.read_bytes += len(record)
        self.block += 1
        return record

    # ------------------------------------------------------------------ finding places

    def _rewind(self, cdb: bytes, data: Buffer) -> bytes:
        self.loaded.flush()
        self.block = 0
        return b""

    def _locate(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        if cdb[0] == 0x2B:
            kind, partition, block = 0, cdb[8], int.from_bytes(cdb[3:7], "big")
        else:
            kind, partition, block = cdb[1] >> 3 & 0x07, cdb[3], int.from_bytes(cdb[4:12], "big")
        partition = partition if cdb[1] & 2 else self.partition
        if partition >= tape.partitions or kind not in (0, 1, 3):
            raise invalid_field()
        tape.flush()
        self.partition = partition
        end = tape.end(partition)
        if kind == 3:
            self.block = end
            return b""
        if kind == 1:
            found = tape.filemark_from(partition, 0, block) if block else 0
            block = end + 1 if found is None else found + bool(block)
        self.block = min(block, end)
        if block > end:
            raise Check(Key.BLANK_CHECK, 0x00, 0x05)
        return b""

    def _space(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        code = cdb[1] & 0x0F
        field = cdb[2:5] if cdb[0] == 0x11 else cdb[4:12]
        count = int.from_bytes(field, "big", signed=True)
        tape.flush()
        match code:
            case 0x00:
                self._space_blocks(tape, count)
            case 0x01:
                self._space_filemarks(tape, count)
            case 0x03:
                self.block = tape.end(self.partition)
            case _:
                raise invalid_field()
        return b""

    def _space_blocks(self, tape: Cartridge, count: int) -> None:
        step = 1 if count > 0 else -1
        for left in range(abs(count), 0, -1):
            at = self.block if step > 0 else self.block - 1
            if at < 0:
                raise Check(Key.NO_SENSE, 0x00, 0x04, eom=True, information=left)
            if at >= tape.end(self.partition):
                raise Check(Key.BLANK_CHECK, 0x00, 0x05, information=left)
            self.block += step
            if tape.is_filemark(self.partition, at):
                raise Check(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=left)

    def _space_filemarks(self, tape: Cartridge, count: int) -> None:
        if not count:
            return
        found = tape.filemark_from(self.partition, self.block, count)
        if found is not None:
            self.block = found + 1 if count > 0 else found
            return
        before = tape.filemarks_before(self.partition, self.block)
        if count > 0:
            total = tape.filemarks_before(self.partition, tape.end(self.partition))
            self.block = tape.end(self.partition)
            raise Check(Key.BLANK_CHECK, 0x00, 0x05, information=count - (total - before))
        self.block = 0
        raise Check(Key.NO_SENSE, 0x00, 0x04, eom=True, information=-count - before)

    def _read_position(self, cdb: bytes, data: Buffer) -> bytes:
        tape = self.loaded
        left = tape.capacity_bytes(self.partition) - tape.used_bytes(self.partition)
        flags = (0x80 if self.block == 0 else 0) | (0x40 if left < self.early_bytes(tape, self.partition) else 0)
        if self._programmable_mib and left < self._programmable_from(tape):
            flags |= 0x01
        number = self.block.to_bytes(8, "big")
        match cdb[1] & 0x1F:
            case 0x00 | 0x01:
                return bytes((flags & 0xC0, self.partition, 0, 0)) + number[4:] + number[4:] + bytes(8)
            case 0x06:
                marks = tape.filemarks_before(self.partition, self.block).to_bytes(8, "big")
                return bytes((flags, 0, 0, 0)) + self.partition.to_bytes(4, "big") + number + marks + bytes(8)
            case 0x08:
                return bytes((flags, self.partition, 0, 28, 0, 0, 0, 0)) + number + number + bytes(8)
        raise invalid_field()

    # ------------------------------------------------------------------ what it is, and how it is set

    def _report_density(self, cdb: bytes, data: Buffer) -> bytes:
        if cdb[1] & 1 and self.cartridge is None:
            raise Check(Key.NOT_READY, 0x3A)
        capacity = (self.cartridge.kind.capacity_mib if self.cartridge else 12_000_000).to_bytes(4, "big")
        texts = b"LTO-CVE " + b"U-832   " + b"Ultrium 8/32T       "
        one = bytes((self.density, self.density, 0xA0)) + bytes(9) + capacity + texts
        return ((len(one) + 2).to_bytes(2, "big") + bytes(2) + one)[: int.from_bytes(cdb[7:9], "big")]

    def _mode_sense(self, cdb: bytes, data: Buffer) -> bytes:
        pages = {
            (0x02, 0): lambda: bytes((0x02, 14)) + bytes(14),
            (0x0A, 0): lambda: bytes((0x0A, 10)) + bytes(10),
            (0x0A, 0xF0): lambda: bytes((0x4A, 0xF0, 0, 4)) + bytes(4),
            (0x0F, 0): lambda: bytes((0x0F, 14, 0xC0, 0x80, 0, 0, 0, 0xFF, 0, 0, 0, 0xFF)) + bytes(4),
            (0x10, 0): lambda: bytes((0x10, 14)) + bytes(6) + bytes((0x40, 0)) + bytes(6),
            (0x10, 1): self._programmable_page,
            (0x11, 0): self._medium_partition_page,
            (0x1C, 0): lambda: bytes((0x1C, 10)) + bytes(10),
            (0x23, 0): lambda: bytes((0x23, 22)) + bytes(22),
            (0x24, 0): lambda: bytes((0x24, 6)) + bytes(6),
        }
        loaded = self.cartridge is not None
        medium, density = (_MEDIUM_TYPE, self.density) if loaded else (0, 0)
        protected = self.cartridge is not None and self.cartridge.kind.write_protected
        return modes.sense(
            cdb, pages, medium=medium, density=density, block=self._block_length, write_protected=protected
        )

    def _programmable_page(self) -> bytes:
        return bytes((0x50, 0x01, 0, 28)) + bytes(2) + self._programmable_mib.to_bytes(2, "big") + bytes(24)

    def _medium_partition_page(self) -> bytes:
        two = self.cartridge is not None and self.cartridge.partitions == 2
        sizes = bytes((0, 1, 0xFF, 0xFF)) if two else bytes((0xFF, 0xFF, 0, 0))
        return bytes((0x11, 10, 1, int(two), 0x3C, 3, 9, 0)) + sizes

    def _mode_select(self, cdb: bytes, data: Buffer) -> bytes:
        block, pages = modes.selected(cdb, data)
        for page in pages:
            if page not in ((0x02, 0), (0x0A, 0), (0x0F, 0), (0x10, 0), (0x10, 1), (0x11, 0), (0x1C, 0), (0x24, 0)):
                raise invalid_parameter()
        if block is not None:
            self._block_length = block
        if (0x11, 0) in pages:
            if pages[0x11, 0][3] > 1:
                raise invalid_parameter()
            self._partition_page = pages[0x11, 0]
        if (0x10, 1) in pages:
            self._programmable_mib = int.from_bytes(pages[0x10, 1][6:8], "big")
            self._warned.clear()
        return b""
