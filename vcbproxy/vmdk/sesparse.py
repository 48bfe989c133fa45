"""SE-sparse: the deltas on VMFS-6, and of disks beyond 2 TB on VMFS-5. Grains of 4 KiB, tables of 4096 grains.

    constant header    magic, capacity, where the regions below lie; all zero behind that
    volatile header    must not ask for its journal to be replayed
    journal, free bitmap, back map              not read
    grain directory    u64 a table:  0            nothing there
                                     1000 0000 iiii iiii   grain table number i
    grain tables       u64 a grain:  0            ask the parent
                                     1xxx …       unmapped by the guest: zeroes
                                     2xxx …       zeroed
                                     3lll hhhh hhhh hhhh   grain number h·4096 + l
    grains             in the order they were first written, and reused after an unmap

VMware never documented it. What is here is what QEMU's block/vmdk.c found out, and is as strict: any other version,
flag, reserved bit, grain size, nibble or padding is refused. A journal to be replayed is refused too: until it is,
the tables are older than the grains. A delta of 512 MiB that ESXi made (tests/vmdk/test_real_disks.py) is so; there the
back map holds ``1lll hhhh hhhh hhhh`` for each grain in use, the number of the grain on the disk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn, Self

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


def open_sesparse(file: Device, sectors: int, cache: Cache) -> SparseLayer:
    """Open an SE-sparse extent that the descriptor says is ``sectors`` long.

    Raises:
        VmdkError: it is not one, is damaged, or was not closed cleanly.
    """
    header = _Header.read(file)
    check_capacity(file, header.capacity, sectors, c_vmdk.SE_GRAIN_SECTORS)
    return SparseLayer(
        file.name, _SeMap(file, header, sectors, cache), PlainGrains(file, c_vmdk.SE_GRAIN_SECTORS * SECTOR), cache
    )


@dataclass(frozen=True, slots=True)
class _Header:
    """The constant header's facts, in sectors."""

    capacity: int
    directory: tuple[int, int]
    tables: tuple[int, int]
    grains: tuple[int, int]

    @classmethod
    def read(cls, file: Device) -> Self:
        """Read and check both headers."""

        def refuse(reason: str) -> NoReturn:
            raise VmdkError(file=file.name, reason=reason)

        if file.size_bytes < SECTOR:
            refuse("too short for an SE-sparse header")
        raw = read(file, 0, SECTOR)
        words = struct.unpack_from(c_vmdk.SE_HEADER, raw)
        magic, version, capacity, grain, table, flags = words[:6]
        if magic != c_vmdk.SE_MAGIC:
            refuse("not an SE-sparse extent: its magic is missing")
        if version != c_vmdk.SE_VERSION or flags:
            refuse(f"unknown SE-sparse version {version:#x}, flags {flags:#x}")
        if grain != c_vmdk.SE_GRAIN_SECTORS or table != c_vmdk.SE_TABLE_SECTORS:
            refuse(f"unknown SE-sparse grain size {grain}, table size {table} sectors")
        if any(words[6:10]) or any(raw[struct.calcsize(c_vmdk.SE_HEADER) :]):
            refuse("its SE-sparse header has reserved bits set")
        if max(words[10:]) > c_vmdk.MAX_SECTORS:
            refuse("its SE-sparse regions lie beyond any file")
        _check_volatile(file, words[10] * SECTOR)
        return cls(capacity, directory=words[16:18], tables=words[18:20], grains=words[24:26])


def _check_volatile(file: Device, offset: int) -> None:
    check_region(file, "volatile header", offset, SECTOR)
    raw = read(file, offset, SECTOR)
    magic, _free_table, _next_transaction, replay = struct.unpack_from(c_vmdk.SE_VOLATILE, raw)
    if magic != c_vmdk.SE_VOLATILE_MAGIC:
        raise VmdkError(file=file.name, reason="its volatile header has no magic")
    if replay:
        reason = "its journal must be replayed first: power the VM on, or consolidate it, then try again"
        raise VmdkError(file=file.name, reason=reason)
    if any(raw[struct.calcsize(c_vmdk.SE_VOLATILE) :]):
        raise VmdkError(file=file.name, reason="its volatile header has reserved bits set")


class _SeMap:
    def __init__(self, file: Device, header: _Header, sectors: int, cache: Cache) -> None:
        self.shape = Shape(sectors * SECTOR, c_vmdk.SE_GRAIN_SECTORS * SECTOR, c_vmdk.SE_TABLE_ENTRIES)
        self._file = file
        self._header = header
        entries = header.directory[1] * SECTOR // 8
        if entries < self.shape.table_count:
            reason = f"its directory has {entries} tables, {self.shape.table_count} are needed"
            raise VmdkError(file=file.name, reason=reason)
        self._directory = Directory(file, cache, header.directory[0] * SECTOR, self.shape.table_count, "<u8")
        self._tables_start = header.tables[0] * SECTOR
        self._table_count = header.tables[1] // c_vmdk.SE_TABLE_SECTORS
        self._grains_start = header.grains[0] * SECTOR
        self._grain_count = header.grains[1] // c_vmdk.SE_GRAIN_SECTORS
        self._places = Places(file, kinds=2)
        if self._grains_start < SECTOR:
            raise VmdkError(file=file.name, reason="its grains would lie in its header")
        regions = sorted((start, start + size) for start, size in (header.directory, header.tables, header.grains))
        if any(end > start for (_, end), (start, _) in pairwise(regions)):
            raise VmdkError(file=file.name, reason="its regions lie over each other")

    def recheck(self) -> None:
        """Headers and directory, again."""
        if _Header.read(self._file) != self._header:
            raise Changed(file=self._file.name, reason="its header was rewritten")
        self._directory.recheck()

    def present(self, first: int) -> npt.NDArray[np.bool_]:
        """Tables with an entry."""
        return np.asarray(self._directory.tail(first) != 0, dtype=np.bool_)

    def table(self, index: int) -> Grains | None:
        """Decode one table."""
        entry = self._directory.entry(index)
        if entry == 0:
            return None
        number = entry & 0xFFFFFFFF
        if entry >> 32 != c_vmdk.SE_TABLE_ALLOCATED or number >= self._table_count:
            raise VmdkError(
                file=self._file.name, reason=f"directory entry {index} is {entry:#018x}: unknown or damaged"
            )
        offset = self._tables_start + number * c_vmdk.SE_TABLE_SECTORS * SECTOR
        check_region(self._file, f"grain table {index}", offset, c_vmdk.SE_TABLE_SECTORS * SECTOR)
        entries = load_entries(self._file, offset, self.shape.grains_in(index), np.dtype("<u8"))
        grains = check_grains(self._file, self.shape, index, self._decode(index, entries), self._grains_start)
        lie = (grains.at[grains.state == State.HERE] - self._grains_start) // self.shape.grain_bytes
        self._places.take(index, np.array([number], np.int64), lie)
        return grains

    def _decode(self, index: int, entries: npt.NDArray[np.uint64]) -> Grains:
        nibble = entries >> np.uint64(60)
        number = ((entries >> np.uint64(48)) & np.uint64(0xFFF)) | (
            (entries & np.uint64(0xFFFFFFFFFFFF)) << np.uint64(12)
        )
        allocated = nibble == c_vmdk.SE_GRAIN_ALLOCATED
        zeroed = (nibble == c_vmdk.SE_GRAIN_UNMAPPED) | (nibble == c_vmdk.SE_GRAIN_ZEROED)
        known = zeroed | (entries == 0) | (allocated & (number < np.uint64(self._grain_count)))
        if not known.all():
            bad = int(np.argmin(known))
            grain = index * self.shape.grains_per_table + bad
            raise VmdkError(
                file=self._file.name, reason=f"grain {grain} is {int(entries[bad]):#018x}: unknown or damaged"
            )
        state = np.where(allocated, State.HERE, np.where(zeroed, State.ZERO, State.BELOW)).astype(np.uint8)
        at = np.where(allocated, number, np.uint64(0)).astype(np.int64) * self.shape.grain_bytes + self._grains_start
        return Grains(state, at)
