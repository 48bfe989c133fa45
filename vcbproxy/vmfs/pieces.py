"""Pieces: where parts of a file lie in the volume, checked against one another while they become a run map.

    file     0      1M     2M     3M     4M          in: three pieces (one of them to be zeroed), a hole between
             ├──────┼──────┤      ├──────┤           out: runs that tile [0, length): data, zeroes, data

In: columns, in file order, batch by batch. Out: a run map over the volume (device 0). Promised: no two pieces share a
byte of the volume; of what was added before, 8 bytes a piece are kept for that.
"""

from __future__ import annotations

from array import array

import numpy as np

from vcbproxy.vmfs import runs
from vcbproxy.vmfs.address import Mask
from vcbproxy.vmfs.layout import Offsets

_CHUNK_ROWS = 1 << 16
PIECES_MAX = 1 << 27  # a file of 128 TiB of which no two 1 MiB blocks lie together


class Pieces:
    """The pieces of one file.

    Args:
        unit: all lie on multiples of so many bytes, and are multiples of it long.
        length_bits: no piece is longer than 2 to the power of it, in units; what remains of 64 bits holds its place.
    """

    def __init__(self, unit: int, length_bits: int) -> None:
        self._unit = np.uint64(unit)
        self._shift = np.uint64(length_bits)
        self._used = array("Q")  # place << length_bits | length, in units
        self._build = runs.Builder()

    def __len__(self) -> int:
        return len(self._used)

    def add_blocks(self, numbers: Offsets, places: Offsets, zeroed: Mask, size: int) -> None:
        """Add blocks of one size; those that follow one another in file and volume are one piece."""
        apart = np.ones(len(numbers), bool)
        apart[1:] = (np.diff(numbers) != 1) | (np.diff(places) != size) | (zeroed[1:] != zeroed[:-1])
        first = np.flatnonzero(apart)
        lengths = np.diff(first, append=len(numbers)) * size
        self.add(numbers[first] * size, lengths, places[first], zeroed[first])

    def add(self, starts: Offsets, lengths: Offsets, places: Offsets, zeroed: Mask) -> None:
        """Add pieces: where in the file, how long, where in the volume, whether to be read as zeroes."""
        used = (places.astype(np.uint64) // self._unit) << self._shift
        used |= lengths.astype(np.uint64) // self._unit
        self._used.frombytes(runs.raw_bytes(used))
        self._build.add(starts, lengths, np.where(zeroed, runs.ZERO, 0).astype(np.int16), places)

    def shared(self) -> int | None:
        """A place in the volume that two pieces use, or None."""
        used = np.frombuffer(self._used, np.uint64)
        used.sort()  # in place: their order is not needed again
        mask = (np.uint64(1) << self._shift) - np.uint64(1)
        for row in range(0, len(used), _CHUNK_ROWS):
            part = used[row : row + _CHUNK_ROWS + 1]
            places = part >> self._shift
            twice = places[:-1] + (part[:-1] & mask) > places[1:]
            if twice.any():
                return int(places[1:][np.argmax(twice)] * self._unit)
        return None

    def tiled(self, length: int) -> runs.RunMap:
        """The map of a file of that length: zeroes where no piece lies, cut off where it ends."""
        return self._build.finish(length)
