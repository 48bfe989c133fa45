"""COWD, ESXi's "vmfsSparse": the deltas of disks up to 2 TB on VMFS-3 and VMFS-5.

    sector 0..3   header              magic "COWD"
    sector 4..    grain directory     u32 sector of each table, 0: none
                  grain tables        4096 × u32 sector of each grain, 0: ask the parent
                  grains              of one sector each, as ESXi makes them, in the order they were first written

There is no zeroed grain here, and no checksum. The header's ``uncleanShutdown`` is not looked at: whether ESXi clears
it in a delta that was frozen by a newer VM snapshot is not known, and the tables are written before their grains count.

Sources: VMware's "Virtual Disk Format 5.0" note; read the same by QEMU's block/vmdk.c.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from vcbproxy.device import Device, read
from vcbproxy.errors import Changed, VmdkError
from vcbproxy.units import SECTOR
from vcbproxy.vmdk import c_vmdk
from vcbproxy.vmdk.cache import Cache
from vcbproxy.vmdk.capacity import check_capacity
from vcbproxy.vmdk.grains import Directory, Grains, Shape, check_grains, check_region, load_entries
from vcbproxy.vmdk.layer import State
from vcbproxy.vmdk.places import Places
from vcbproxy.vmdk.sparse import PlainGrains, SparseLayer

_TABLE_SECTORS = c_vmdk.COWD_TABLE_ENTRIES * 4 // SECTOR
_NOTED_SECTORS_MAX = 128


def open_cowd(file: Device, sectors: int, cache: Cache) -> SparseLayer:
    """Open a COWD extent that the descriptor says is ``sectors`` long.

    Raises:
        VmdkError: it is not one, or damaged.
    """
    grain_map = _CowdMap(file, sectors, cache)
    return SparseLayer(file.name, grain_map, PlainGrains(file, grain_map.shape.grain_bytes), cache)


class _CowdMap:
    def __init__(self, file: Device, sectors: int, cache: Cache) -> None:
        self._file = file
        self._header = _header(file)
        capacity, grain, directory, entries = self._header
        check_capacity(file, capacity, sectors, grain)
        self.shape = Shape(sectors * SECTOR, grain * SECTOR, c_vmdk.COWD_TABLE_ENTRIES)
        if entries < self.shape.table_count:
            reason = f"its directory has {entries} tables, {self.shape.table_count} are needed"
            raise VmdkError(file=file.name, reason=reason)
        check_region(file, "grain directory", directory * SECTOR, entries * 4)
        self._directory = Directory(file, cache, directory * SECTOR, self.shape.table_count, "<u4")
        self._places = Places(file)
        self._data_start = max(c_vmdk.COWD_HEADER_BYTES, directory * SECTOR + entries * 4)

    def recheck(self) -> None:
        """Header and directory, again."""
        if _header(self._file) != self._header:
            raise Changed(file=self._file.name, reason="its header was rewritten")
        self._directory.recheck()

    def present(self, first: int) -> npt.NDArray[np.bool_]:
        """Tables with an entry."""
        return np.asarray(self._directory.tail(first) != 0, dtype=np.bool_)

    def table(self, index: int) -> Grains | None:
        """Decode one table: a sector each, 0 for none."""
        sector = self._directory.entry(index)
        if sector == 0:
            return None
        check_region(self._file, f"grain table {index}", sector * SECTOR, c_vmdk.COWD_TABLE_ENTRIES * 4)
        entries = load_entries(self._file, sector * SECTOR, self.shape.grains_in(index), np.dtype("<u4"))
        state = np.where(entries == 0, State.BELOW, State.HERE).astype(np.uint8)
        grains = Grains(state, entries.astype(np.int64) * SECTOR)
        grains = check_grains(self._file, self.shape, index, grains, self._data_start)
        self._take(index, sector, entries[entries != 0].astype(np.int64))
        return grains

    def _take(self, index: int, table: int, grains: npt.NDArray[np.int64]) -> None:
        """Take the sectors of a table and its grains, unless these are larger than any that hosts make."""
        each = self.shape.grain_bytes // SECTOR
        if each > _NOTED_SECTORS_MAX:
            return
        lie = (grains[:, None] + np.arange(each)).reshape(-1)
        self._places.take(index, np.concatenate([np.arange(table, table + _TABLE_SECTORS), lie]))


def _header(file: Device) -> tuple[int, int, int, int]:
    """Capacity, grain size and place of the directory, in sectors, and how many tables it has."""
    if file.size_bytes < c_vmdk.COWD_HEADER_BYTES:
        raise VmdkError(file=file.name, reason="too short for a COWD header")
    raw = read(file, 0, struct.calcsize(c_vmdk.COWD_HEADER))
    magic, version, flags, capacity, grain, directory, entries, _ = struct.unpack(c_vmdk.COWD_HEADER, raw)
    if magic != c_vmdk.COWD_MAGIC:
        raise VmdkError(file=file.name, reason="not a COWD extent: its magic is missing")
    if version != 1 or flags & ~c_vmdk.COWD_FLAGS:
        raise VmdkError(file=file.name, reason=f"unknown COWD version {version}, flags {flags:#x}")
    if not 0 < grain <= c_vmdk.MAX_GRAIN_SECTORS:
        raise VmdkError(file=file.name, reason=f"its grains would be {grain} sectors long")
    return capacity, grain, directory, entries
