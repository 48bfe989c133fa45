"""SE-sparse files: the ``-sesparse.vmdk`` of a snapshot on VMFS-6 (``seSparse``).

Little endian u64, offsets and sizes in sectors of 512 bytes; as QEMU's block/vmdk.c reads them:

    sector 0      constant header: magic, version 2.1, capacity, grain size 8, table size 64, then (offset, size) of
                  each region below
    sector 1      volatile header: magic, tables in use, next transaction, whether the journal must be replayed (never)
    sector 2      journal header, and from 2048 the journal: not used by us, left as zeroes
    directory     one entry for 16 MiB of disk: 0, or 0x1 << 60 | number of its table
    tables        64 sectors each, 4096 entries, one a grain
    free bitmap, back map: reserved, left as zeroes (no reader needs them)
    grains        of 4 KiB, in the order of first writing; what grains have left is used again, as there are no more
                  of them than the disk has

An entry's top nibble says what the grain is: 0 ask the parent, 1 unmapped by the guest, 2 zeroes, 3 lies in the grain
whose number is spread over the rest: bits 59..48 hold its low 12 bits, bits 47..0 the others.
"""

from __future__ import annotations

import struct

import numpy as np

from vcbproxy.lab.grains import PARENT, ZERO, GrainFile, Slots
from vcbproxy.lab.store import Store
from vcbproxy.units import SECTOR, align_up

_CONST_MAGIC = 0x00000000CAFEBABE
_VOLATILE_MAGIC = 0x00000000CAFECAFE
_VERSION = 0x0000000200000001
_GRAIN_SECTORS = 8
_TABLE_SECTORS = 64
_ENTRIES_PER_TABLE = _TABLE_SECTORS * SECTOR // 8
_REGION_ALIGN = 2048
_VOLATILE_SECTOR = 1
_CONST = struct.Struct("<26Q")
_VOLATILE = struct.Struct("<4Q")
_U64 = struct.Struct("<Q")
_NIBBLE = 60
_TABLE_PRESENT = 1
_GRAIN_UNMAPPED = 1
_GRAIN_ZERO = 2
_GRAIN_HERE = 3


class SeSparseFile(GrainFile):
    """One SE-sparse file."""

    grain_bytes = _GRAIN_SECTORS * SECTOR
    grains_per_table = _ENTRIES_PER_TABLE

    def __init__(self, store: Store, path: str) -> None:
        """Open one that ``create`` made."""
        fields = _CONST.unpack(store.read(path, 0, _CONST.size))
        if fields[0] != _CONST_MAGIC:
            raise ValueError(f"{path} is not an SE-sparse file")
        super().__init__(store, path, fields[2] * SECTOR)
        self._directory_offset: int = fields[16] * SECTOR
        self._tables_offset: int = fields[18] * SECTOR
        self._grains_offset: int = fields[24] * SECTOR
        entries = -(-self.capacity_bytes // self._table_bytes)
        raw = np.frombuffer(store.read(path, self._directory_offset, entries * 8), dtype="<u8")
        # Table number of each directory entry, -1 where there is none.
        self._directory = np.where(raw == 0, -1, raw & np.uint64(0xFFFFFFFF)).astype(np.int64)
        self._tables_used = int(np.count_nonzero(raw))
        self._grains_used: int = (store.size(path) - self._grains_offset) // self.grain_bytes
        self._left = self._find_left()

    @classmethod
    def create(cls, store: Store, path: str, capacity_bytes: int) -> SeSparseFile:
        """Write an empty one."""
        grains = -(-capacity_bytes // cls.grain_bytes)
        tables = -(-grains // _ENTRIES_PER_TABLE)
        sizes = {
            "directory": align_up(tables * 8, SECTOR) // SECTOR,
            "tables": tables * _TABLE_SECTORS,
            "bitmap": align_up(-(-grains // 8), SECTOR) // SECTOR,
            "backmap": align_up(grains * 8, SECTOR) // SECTOR,
        }
        position = 2 * _REGION_ALIGN
        regions: list[int] = []
        for size in sizes.values():
            regions += [position, size]
            position = align_up(position + size, _REGION_ALIGN)
        header = _CONST.pack(
            _CONST_MAGIC,
            _VERSION,
            capacity_bytes // SECTOR,
            _GRAIN_SECTORS,
            _TABLE_SECTORS,
            *(0, 0, 0, 0, 0),  # flags, reserved
            *(_VOLATILE_SECTOR, 1),
            *(2, 2),  # journal header
            *(_REGION_ALIGN, _REGION_ALIGN),  # journal
            *regions,
            *(position, grains * _GRAIN_SECTORS),
        )
        store.create_file(path, size_bytes=position * SECTOR)
        store.write(path, 0, header)
        store.write(path, _VOLATILE_SECTOR * SECTOR, _VOLATILE.pack(_VOLATILE_MAGIC, 0, 1, 0))
        return cls(store, path)

    def _find_left(self) -> list[int]:
        """Slots in the file in which no grain lies."""
        held = np.zeros(self._grains_used, np.bool_)
        for index in self._present_tables():
            slots = self._slots(index)
            held[slots[slots >= 0]] = True
        return [int(slot) for slot in np.flatnonzero(~held)]

    def zero(self, offset: int, length: int) -> None:
        """Mark grains as zeroes; slots they had are free then."""
        self._check(offset, length)
        for index, first, count in self._pieces(offset, length):
            before = self._slots(index)[first : first + count].copy()
            self._set(index, first, np.full(count, ZERO, dtype=np.int64))
            self._left += before[before >= 0].tolist()

    def _has_table(self, index: int) -> bool:
        return bool(self._directory[index] >= 0)

    def _load_table(self, index: int) -> Slots:
        number = int(self._directory[index])
        offset = self._tables_offset + number * _TABLE_SECTORS * SECTOR
        raw = np.frombuffer(self.store.read(self.path, offset, _TABLE_SECTORS * SECTOR), dtype="<u8")
        kind = raw >> np.uint64(_NIBBLE)
        low = (raw >> np.uint64(48)) & np.uint64(0xFFF)
        high = (raw & np.uint64((1 << 48) - 1)) << np.uint64(12)
        slots = (low | high).astype(np.int64)
        slots[kind == 0] = PARENT
        slots[(kind == _GRAIN_UNMAPPED) | (kind == _GRAIN_ZERO)] = ZERO
        return slots

    def _add_table(self, index: int) -> None:
        number = self._tables_used
        self._tables_used += 1
        # The region reads as zeroes from the beginning: an empty table needs no writing, only to be counted and shown.
        counted = _VOLATILE.pack(_VOLATILE_MAGIC, self._tables_used, self._tables_used + 1, 0)
        self.store.write(self.path, _VOLATILE_SECTOR * SECTOR, counted)
        self._directory[index] = number
        entry = (_TABLE_PRESENT << _NIBBLE) | number
        self.store.write(self.path, self._directory_offset + index * 8, _U64.pack(entry))

    def _save_entries(self, index: int, first: int, slots: Slots) -> None:
        placed = np.maximum(slots, 0).astype(np.uint64)
        raw = ((placed & np.uint64(0xFFF)) << np.uint64(48)) | (placed >> np.uint64(12))
        raw |= np.uint64(_GRAIN_HERE << _NIBBLE)
        raw[slots == PARENT] = 0
        # Which of the two a host writes depends on the guest's command, and reads the same: here, by turns.
        kinds = np.where((first + np.arange(len(slots))) % 2, _GRAIN_UNMAPPED, _GRAIN_ZERO).astype(np.uint64)
        raw[slots == ZERO] = kinds[slots == ZERO] << np.uint64(_NIBBLE)
        number = int(self._directory[index])
        offset = self._tables_offset + number * _TABLE_SECTORS * SECTOR + first * 8
        self.store.write(self.path, offset, raw.astype("<u8").tobytes())

    def _allocate(self, count: int) -> Slots:
        again = [self._left.pop() for _ in range(min(count, len(self._left)))]
        new = count - len(again)
        self._grains_used += new
        return np.array([*again, *range(self._grains_used - new, self._grains_used)], np.int64)

    def _slot_offset(self, slot: int) -> int:
        return self._grains_offset + slot * self.grain_bytes

    def _present_tables(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(self._directory >= 0)]
