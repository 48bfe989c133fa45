"""Grain tables: the map of a sparse extent, read in pieces and never held whole.

    directory   ├ entry ┼ entry ┼ entry ┤              an entry of 0: nothing there, ask the parent
                    │
    table           └─▶ ├ grain ┼ grain ┼ … ┼ grain ┤   by format: absent, zeroed, or where the grain lies

A 62 TiB SE-sparse delta has 16 G grains: so tables are read one at a time, the directory in pages, both through the
disk's bounded cache. What a table says is checked as it is decoded: grains inside the file, behind the metadata, and
no two in one place; nor of any two tables, see ``places``. (Packed grains say themselves whose they are.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vcbproxy.device import Device, read
from vcbproxy.errors import VmdkError
from vcbproxy.units import SECTOR
from vcbproxy.vmdk.cache import Cache
from vcbproxy.vmdk.layer import State
from vcbproxy.vmdk.witness import Witness

PAGE_ENTRIES = 4096
"""Directory entries read at a time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a sparse extent is cut."""

    size_bytes: int
    grain_bytes: int
    grains_per_table: int

    @property
    def table_bytes(self) -> int:
        """What one table covers."""
        return self.grain_bytes * self.grains_per_table

    @property
    def table_count(self) -> int:
        """How many tables cover the extent."""
        return -(-self.size_bytes // self.table_bytes)

    def grains_in(self, table: int) -> int:
        """How many grains of a table lie inside the extent: all, but for the last."""
        left = -(-(self.size_bytes - table * self.table_bytes) // self.grain_bytes)
        return min(self.grains_per_table, left)


@dataclass(frozen=True, slots=True)
class Grains:
    """One decoded table: a state a grain, and for those that are HERE, the byte offset in the file."""

    state: npt.NDArray[np.uint8]
    at: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.state.nbytes + self.at.nbytes


class GrainMap(Protocol):
    """The map of one sparse extent, by format."""

    @property
    def shape(self) -> Shape:
        """How it is cut."""

    def present(self, first: int) -> npt.NDArray[np.bool_]:
        """Which tables exist, from ``first`` on: as many as come at little cost, at least one."""

    def table(self, index: int) -> Grains | None:
        """One table, decoded and checked; None where there is none.

        Raises:
            VmdkError: it is damaged.
        """

    def recheck(self) -> None:
        """Read header and directory again.

        Raises:
            Changed: they are not what they were.
            VmdkError: they are damaged now.
        """


class Directory:
    """The grain directory, read in pages."""

    def __init__(self, file: Device, cache: Cache, offset: int, count: int, dtype: str) -> None:
        """Lay it over the file.

        Raises:
            VmdkError: the file ends before it does.
        """
        self._file = file
        self._cache = cache
        self._offset = offset
        self._count = count
        self._dtype = np.dtype(dtype)
        check_region(file, "grain directory", offset, count * self._dtype.itemsize)
        self._witness = Witness(file.name, "grain directory page")

    def tail(self, first: int) -> npt.NDArray[Any]:
        """The entries from ``first`` to the end of its page."""
        page = first // PAGE_ENTRIES
        entries = self._cache.get((id(self), page), np.ndarray, lambda: self._load(page))
        return entries[first - page * PAGE_ENTRIES :]

    def entry(self, index: int) -> int:
        """One entry."""
        return int(self.tail(index)[0])

    def recheck(self) -> None:
        """Read again what was read of it.

        Raises:
            Changed: it was rewritten.
        """
        for page in self._witness.seen():
            self._load(page)

    def _load(self, page: int) -> npt.NDArray[Any]:
        first = page * PAGE_ENTRIES
        count = min(PAGE_ENTRIES, self._count - first)
        entries = load_entries(self._file, self._offset + first * self._dtype.itemsize, count, self._dtype)
        self._witness.saw(page, entries.data)
        tables = np.sort(entries[entries != 0])
        if (tables[1:] == tables[:-1]).any():
            reason = f"its grain directory names one table twice, among entries {first} to {first + count - 1}"
            raise VmdkError(file=self._file.name, reason=reason)
        return entries


def load_entries(file: Device, offset: int, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Read ``count`` entries of a directory or table."""
    return np.frombuffer(read(file, offset, count * dtype.itemsize), dtype=dtype)


def check_region(file: Device, what: str, offset: int, length: int) -> None:
    """Refuse metadata that begin in the header or end behind the file.

    Raises:
        VmdkError: they do.
    """
    if offset < SECTOR or offset + length > file.size_bytes:
        reason = f"its {what} would lie at {offset}, {length} bytes long; the file has {file.size_bytes}"
        raise VmdkError(file=file.name, reason=reason)


def check_grains(file: Device, shape: Shape, index: int, grains: Grains, data_start: int) -> Grains:
    """Refuse a table whose grains lie outside ``[data_start, end of file)``, or over each other.

    Raises:
        VmdkError: they do; a grain that is shared or out of bounds would read as somebody else's bytes.
    """
    here = grains.state == State.HERE
    at = grains.at[here]
    if not len(at):
        return grains
    first = index * shape.grains_per_table
    room = np.full(len(at), shape.grain_bytes, dtype=np.int64)
    if here[-1]:
        room[-1] = min(shape.grain_bytes, shape.size_bytes - (first + len(here) - 1) * shape.grain_bytes)
    bad = (at < data_start) | (at > file.size_bytes - room)
    if bad.any():
        worst = int(np.argmax(bad))
        grain = first + int(np.flatnonzero(here)[worst])
        reason = f"grain {grain} would lie at {int(at[worst])}; grains lie from {data_start} to {file.size_bytes}"
        raise VmdkError(file=file.name, reason=reason)
    if len(at) > 1 and (np.diff(at) < shape.grain_bytes).any() and (np.diff(np.sort(at)) < shape.grain_bytes).any():
        raise VmdkError(file=file.name, reason=f"grain table {index} puts two grains in one place")
    return grains
