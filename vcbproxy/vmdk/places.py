"""Which places of a sparse file are taken, a bit each: so that no two tables, nor grains of any tables, share one.

    places   ├ table 0 ┼ g ┼ g ┼ g ┼ table 1 ┼ g ┼ g ┤        each is taken when its table is first looked at
                             ▲ taken twice: one of two ranges would read as the other's bytes

A table can be right by itself and still lead to another's grain: a bit that flipped, an entry that was never written.
Memory grows with what lies in the file: 3 MB for 100 GiB of 4 KiB grains; past ``BYTES_MAX`` no more is noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from vcbproxy.device import Device
from vcbproxy.errors import VmdkError

Numbers = npt.NDArray[np.int64]

BYTES_MAX = 16 << 20
_PAGE_BYTES = 1 << 16
_PAGE_SHIFT = np.int64(19)  # a page has bits for 2 to the power of it
_INSIDE = (np.int64(1) << _PAGE_SHIFT) - 1
_BITS = np.left_shift(1, np.arange(8)).astype(np.uint8)


class Places:
    """The places of one extent. Several threads may use it.

    Args:
        file: for messages.
        kinds: how many kinds of places there are, each numbered by itself.
    """

    def __init__(self, file: Device, kinds: int = 1) -> None:
        self._file = file
        self._met = _Bits()
        self._taken = [_Bits() for _ in range(kinds)]
        self._lock = Lock()

    def take(self, table: int, *places: Numbers) -> None:
        """Note where a table and its grains lie, a column a kind; of a table that was noted before, nothing is asked.

        Raises:
            VmdkError: some of it lies where what was noted before does.
        """
        index = _by_page(np.array([table], np.int64))
        with self._lock:
            if self._met.holds(index):
                return
            columns = [np.sort(column) for column in places]
            parts = [_by_page(column) for column in columns]
            twice = any((column[1:] == column[:-1]).any() for column in columns)
            if twice or any(taken.holds(part) for taken, part in zip(self._taken, parts, strict=True)):
                reason = f"grain table {table}, or a grain of it, lies where another does"
                raise VmdkError(file=self._file.name, reason=reason)
            for taken, part in zip(self._taken, parts, strict=True):
                taken.add(part)
            self._met.add(index)


@dataclass(frozen=True, slots=True)
class _Part:
    """Numbers of one page: in which of its bytes they are, and as which bits."""

    page: int
    octets: Numbers
    bits: npt.NDArray[np.uint8]


def _by_page(numbers: Numbers) -> list[_Part]:
    """Numbers in order, page by page."""
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers >> _PAGE_SHIFT)) + 1
    return [
        _Part(int(part[0] >> _PAGE_SHIFT), (part & _INSIDE) >> 3, _BITS[part & 7]) for part in np.split(numbers, cuts)
    ]


class _Bits:
    """A set of numbers, most of them close together."""

    def __init__(self) -> None:
        self._pages: dict[int, npt.NDArray[np.uint8]] = {}

    def holds(self, parts: list[_Part]) -> bool:
        """Whether any of them is in it."""
        for part in parts:
            page = self._pages.get(part.page)
            if page is not None and (page[part.octets] & part.bits).any():
                return True
        return False

    def add(self, parts: list[_Part]) -> None:
        """Take them in, as far as there is memory for them."""
        for part in parts:
            page = self._pages.get(part.page)
            if page is None:
                if len(self._pages) * _PAGE_BYTES >= BYTES_MAX:
                    continue
                page = self._pages[part.page] = np.zeros(_PAGE_BYTES, np.uint8)
            first = np.flatnonzero(np.diff(part.octets, prepend=-1))
            page[part.octets[first]] |= np.bitwise_or.reduceat(part.bits, first)
