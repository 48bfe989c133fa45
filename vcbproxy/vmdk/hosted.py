"""Hosted sparse extents, as Workstation, ovftool and qemu-img write them: plain, or compressed for a stream.

    sector 0      header                   magic "KDMV"
    sector 1..    descriptor               in a monolithicSparse or streamOptimized disk
                  directory, tables        twice, if the header says so: then the two must agree
                  grains                   64 KiB each; packed grains have a marker of 12 bytes before them
    last three    footer marker, footer, end of stream      where the header could not know the directory's place yet

Sources: VMware's "Virtual Disk Format 5.0" note; QEMU's block/vmdk.c; files of ovftool.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

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
from vcbproxy.vmdk.packed import PackedGrains
from vcbproxy.vmdk.places import Places
from vcbproxy.vmdk.sparse import GrainReader, PlainGrains, SparseLayer


def open_hosted(file: Device, sectors: int, cache: Cache) -> SparseLayer:
    """Open a hosted sparse extent that the descriptor says is ``sectors`` long.

    Raises:
        VmdkError: it is not one, is damaged, or was not closed cleanly.
    """
    header = HostedHeader.read(file)
    check_capacity(file, header.capacity, sectors, header.grain_sectors)
    grain_map = _HostedMap(file, header, sectors, cache)
    shape = grain_map.shape
    reader: GrainReader = PlainGrains(file, shape.grain_bytes)
    if header.is_packed:
        reader = PackedGrains(file, shape, cache)
    return SparseLayer(file.name, grain_map, reader, cache)


def embedded_descriptor(file: Device) -> bytes:
    """The descriptor inside a hosted sparse file; what lies behind its first NUL byte is left over from longer ones.

    Raises:
        VmdkError: it has none, or lies outside the file.
    """
    header = HostedHeader.read(file, footer=False)
    if header.descriptor_sectors == 0:
        reason = "is one extent of a split disk: open the descriptor that names it"
        raise VmdkError(file=file.name, reason=reason)
    if header.descriptor_sectors * SECTOR > c_vmdk.DESCRIPTOR_MAX_BYTES:
        raise VmdkError(file=file.name, reason=f"its descriptor would be {header.descriptor_sectors} sectors long")
    offset, length = header.descriptor_offset * SECTOR, header.descriptor_sectors * SECTOR
    check_region(file, "descriptor", offset, length)
    text = read(file, offset, length).partition(b"\0")[0]
    if not text.strip():
        raise VmdkError(file=file.name, reason="is one extent of a split disk: open the descriptor that names it")
    return text


@dataclass(frozen=True, slots=True)
class HostedHeader:
    """The header's facts, or the footer's where it has one; offsets and sizes in sectors."""

    flags: int
    capacity: int
    grain_sectors: int
    descriptor_offset: int
    descriptor_sectors: int
    table_entries: int
    mirror: int
    directory: int
    overhead: int

    @property
    def is_packed(self) -> bool:
        """Grains are compressed."""
        return bool(self.flags & c_vmdk.HOSTED_PACKED)

    @classmethod
    def read(cls, file: Device, *, footer: bool = True) -> Self:
        """Read it, checked; with the footer in its place where the directory lies at the end."""
        if file.size_bytes < SECTOR:
            raise VmdkError(file=file.name, reason="too short for a sparse header")
        header = cls._unpack(file, read(file, 0, SECTOR))
        if header.directory != c_vmdk.HOSTED_AT_END or not footer:
            return header
        last = cls._unpack(file, _footer(file))
        if (last.flags, last.capacity, last.grain_sectors, last.table_entries) != (
            header.flags,
            header.capacity,
            header.grain_sectors,
            header.table_entries,
        ):
            raise VmdkError(file=file.name, reason="its footer and its header are not of one disk")
        if last.directory == c_vmdk.HOSTED_AT_END:
            raise VmdkError(file=file.name, reason="its footer does not say where the grain directory is")
        return last

    @classmethod
    def _unpack(cls, file: Device, raw: bytes) -> Self:
        fields = struct.unpack_from(c_vmdk.HOSTED_HEADER, raw)
        magic, version, flags, *numbers, unclean, newlines, algorithm = fields
        capacity, grain, descriptor, descriptor_size, table_entries, mirror, directory, overhead = numbers
        problem = None
        if magic != c_vmdk.HOSTED_MAGIC:
            problem = "not a sparse extent: its magic is missing"
        elif version not in c_vmdk.HOSTED_VERSIONS or flags & ~c_vmdk.HOSTED_FLAGS:
            problem = f"unknown sparse version {version}, flags {flags:#x}"
        elif flags & c_vmdk.HOSTED_NEWLINES and newlines != c_vmdk.HOSTED_NEWLINE_BYTES:
            problem = "it was copied as a text file, which changed its bytes: copy it again"
        elif unclean:
            problem = "it was not closed cleanly: repair it with `vmware-vdiskmanager -R`"
        elif bool(flags & c_vmdk.HOSTED_PACKED) != (algorithm == c_vmdk.HOSTED_DEFLATE) or algorithm > 1:
            problem = f"unknown compression {algorithm} with flags {flags:#x}"
        elif flags & c_vmdk.HOSTED_PACKED and not flags & c_vmdk.HOSTED_MARKERS:
            problem = "its grains are packed, but have no markers to tell their length"
        elif not 0 < grain <= c_vmdk.MAX_GRAIN_SECTORS or not 0 < table_entries <= c_vmdk.HOSTED_MAX_TABLE_ENTRIES:
            problem = f"its tables would have {table_entries} grains of {grain} sectors"
        elif not 0 < capacity <= c_vmdk.MAX_SECTORS:
            problem = f"its header says {capacity} sectors"
        if problem is not None:
            raise VmdkError(file=file.name, reason=problem)
        return cls(flags, capacity, grain, descriptor, descriptor_size, table_entries, mirror, directory, overhead)


def _footer(file: Device) -> bytes:
    """The footer, from between its marker and the end-of-stream marker.

    Raises:
        VmdkError: the markers are not there: the file was cut.
    """
    length = 3 * SECTOR
    if file.size_bytes % SECTOR or file.size_bytes < length + SECTOR:
        raise VmdkError(file=file.name, reason="its footer is missing: the file was cut short")
    raw = read(file, file.size_bytes - length, length)
    marker = struct.unpack_from(c_vmdk.MARKER, raw, 0)
    end = struct.unpack_from(c_vmdk.MARKER, raw, 2 * SECTOR)
    if marker[1:] != (0, c_vmdk.MARKER_FOOTER) or end != (0, 0, c_vmdk.MARKER_END):
        raise VmdkError(file=file.name, reason="its footer is missing: the file was cut short")
    return raw[SECTOR : 2 * SECTOR]


class _HostedMap:
    def __init__(self, file: Device, header: HostedHeader, sectors: int, cache: Cache) -> None:
        self.shape = Shape(sectors * SECTOR, header.grain_sectors * SECTOR, header.table_entries)
        self._file = file
        self._header = header
        self._has_zeroed = bool(header.flags & c_vmdk.HOSTED_ZEROED)
        self._packed = header.is_packed
        self._data_start = max(1, header.overhead) * SECTOR
        self._directory = Directory(file, cache, header.directory * SECTOR, self.shape.table_count, "<u4")
        self._places = Places(file)
        self._mirror = None
        if header.flags & c_vmdk.HOSTED_MIRROR and header.mirror:
            self._mirror = Directory(file, cache, header.mirror * SECTOR, self.shape.table_count, "<u4")

    def recheck(self) -> None:
        """Header and directories, again."""
        if HostedHeader.read(self._file) != self._header:
            raise Changed(file=self._file.name, reason="its header was rewritten")
        self._directory.recheck()
        if self._mirror is not None:
            self._mirror.recheck()

    def present(self, first: int) -> npt.NDArray[np.bool_]:
        """Tables with an entry, in either directory: the two are compared when the table is read."""
        present = self._directory.tail(first) != 0
        if self._mirror is not None:
            present |= self._mirror.tail(first) != 0
        return np.asarray(present, dtype=np.bool_)

    def table(self, index: int) -> Grains | None:
        """Decode one table, read twice where it is there twice."""
        entries = self._entries(self._directory, index)
        if self._mirror is not None and not _equal(entries, self._entries(self._mirror, index)):
            raise VmdkError(file=self._file.name, reason=f"the two copies of grain table {index} differ")
        if entries is None:
            return None
        zeroed = (entries == c_vmdk.HOSTED_GRAIN_ZEROED) & self._has_zeroed
        state = np.where(entries == 0, State.BELOW, np.where(zeroed, State.ZERO, State.HERE)).astype(np.uint8)
        grains = Grains(state, entries.astype(np.int64) * SECTOR)
        return self._checked(index, grains)

    def _checked(self, index: int, grains: Grains) -> Grains:
        """Packed grains are of any length, so only their markers can be held to the file's bounds here.

        The marker also says whose grain it is; of a plain one nothing does, so it must be no other table's too.
        """
        if self._packed:
            shape = Shape(self.shape.size_bytes, SECTOR, self.shape.grains_per_table)
            return check_grains(self._file, shape, index, grains, self._data_start)
        check_grains(self._file, self.shape, index, grains, self._data_start)
        self._places.take(index, grains.at[grains.state == State.HERE] // self.shape.grain_bytes)
        return grains

    def _entries(self, directory: Directory, index: int) -> npt.NDArray[np.uint32] | None:
        sector = directory.entry(index)
        if sector == 0:
            return None
        check_region(self._file, f"grain table {index}", sector * SECTOR, self.shape.grains_per_table * 4)
        return load_entries(self._file, sector * SECTOR, self.shape.grains_in(index), np.dtype("<u4"))


def _equal(one: npt.NDArray[np.uint32] | None, other: npt.NDArray[np.uint32] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one, other))
