"""COWD files: the ``-delta.vmdk`` of a snapshot on VMFS-3 and VMFS-5 (``vmfsSparse``).

Little endian, offsets and sizes in sectors of 512 bytes; as in VMware's "Virtual Disk Format 5.0" and QEMU's
block/vmdk.c:

    sector 0   header, 2048 bytes: "COWD", version 1, flags 3, capacity, grain size, directory offset, directory
               entries, next free sector, name of the parent, ...
    sector 4   grain directory: u32 sector of each grain table, 0 where there is none
    then       tables (4096 x u32: sector of the grain, 0 = ask the parent) and grains, as they were needed

A grain is one sector, a table describes 2 MiB.
"""

from __future__ import annotations

import struct

import numpy as np

from vcbproxy.lab.grains import PARENT, GrainFile, Slots
from vcbproxy.lab.store import Store
from vcbproxy.units import SECTOR, align_up

_MAGIC = b"COWD"
_VERSION = 1
_FLAGS = 3
_HEADER_BYTES = 2048
_DIRECTORY_SECTOR = _HEADER_BYTES // SECTOR
_ENTRIES_PER_TABLE = 4096
_TABLE_SECTORS = _ENTRIES_PER_TABLE * 4 // SECTOR
_FREE_SECTOR_OFFSET = 28
_FIELDS = struct.Struct("<4s7I")
_PARENT_NAME = struct.Struct("<1024sI")
_U32 = struct.Struct("<I")


class CowdFile(GrainFile):
    """One COWD file."""

    grain_bytes = SECTOR
    grains_per_table = _ENTRIES_PER_TABLE

    def __init__(self, store: Store, path: str) -> None:
        """Open one that ``create`` made."""
        magic, _, _, capacity, _, _, entries, free = _FIELDS.unpack(store.read(path, 0, _FIELDS.size))
        if magic != _MAGIC:
            raise ValueError(f"{path} is not a COWD file")
        super().__init__(store, path, capacity * SECTOR)
        directory = store.read(path, _HEADER_BYTES, entries * 4)
        self._directory = np.frombuffer(directory, dtype="<u4").astype(np.int64)
        self._free_sector: int = free

    @classmethod
    def create(cls, store: Store, path: str, capacity_bytes: int, parent_name: str) -> CowdFile:
        """Write an empty one."""
        capacity = capacity_bytes // SECTOR
        entries = -(-capacity // _ENTRIES_PER_TABLE)
        directory_bytes = align_up(entries * 4, SECTOR)
        free = _DIRECTORY_SECTOR + directory_bytes // SECTOR
        header = bytearray(_HEADER_BYTES)
        _FIELDS.pack_into(header, 0, _MAGIC, _VERSION, _FLAGS, capacity, 1, _DIRECTORY_SECTOR, entries, free)
        _PARENT_NAME.pack_into(header, _FIELDS.size, parent_name.encode(), 0)
        store.create_file(path, data=bytes(header) + bytes(directory_bytes))
        return cls(store, path)

    def _has_table(self, index: int) -> bool:
        return bool(self._directory[index])

    def _load_table(self, index: int) -> Slots:
        sector = int(self._directory[index])
        raw = np.frombuffer(self.store.read(self.path, sector * SECTOR, _TABLE_SECTORS * SECTOR), dtype="<u4")
        slots = raw.astype(np.int64)
        slots[slots == 0] = PARENT
        return slots

    def _add_table(self, index: int) -> None:
        sector = self._grow(_TABLE_SECTORS)
        self.store.write(self.path, sector * SECTOR, bytes(_TABLE_SECTORS * SECTOR))
        self._directory[index] = sector
        self.store.write(self.path, _HEADER_BYTES + index * 4, _U32.pack(sector))

    def _save_entries(self, index: int, first: int, slots: Slots) -> None:
        raw = np.where(slots == PARENT, 0, slots).astype("<u4").tobytes()
        self.store.write(self.path, int(self._directory[index]) * SECTOR + first * 4, raw)

    def _allocate(self, count: int) -> Slots:
        start = self._grow(count)
        return np.arange(start, start + count, dtype=np.int64)

    def _grow(self, count: int) -> int:
        """The first of so many new sectors at the file's end."""
        start = self._free_sector
        self._free_sector += count
        self.store.write(self.path, _FREE_SECTOR_OFFSET, _U32.pack(self._free_sector))
        return start

    def _slot_offset(self, slot: int) -> int:
        return slot * SECTOR

    def _present_tables(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(self._directory)]
