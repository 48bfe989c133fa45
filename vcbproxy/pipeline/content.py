"""A disk as the repository knows it: its chunks' ids and lengths, in order. Millions of them, hence columns.

``Rows`` grows while a disk is copied: one thread appends, many fill in the ids that they learn later.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository import idlist, pages
from vcbproxy.repository.idblocks import IdBlocks
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.repository.vouched import TakenOver

Lengths = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class CopyStats:
    """What a copy did.

    Attributes:
        bytes_total: the disk's size.
        bytes_read: how many of them were read from the source; the rest was known to be zero, or the same as before.
        bytes_zero: how many lie in holes, known or found.
        bytes_stored: how much the target grew by data, compressed; duplicates cost nothing.
        chunks: chunks of data that were given to the target; those kept of a base are not among them.
    """

    bytes_total: int
    bytes_read: int
    bytes_zero: int
    bytes_stored: int
    chunks: int


@dataclass(frozen=True, slots=True)
class DiskContent:
    """Chunk ``i`` of the disk has the id ``ids[i]`` and ``lengths[i]`` bytes.

    Attributes:
        ids: uint8[n, 32].
        lengths: uint32[n]; their sum is the disk's size.
        stats: how it came about.
        taken_over: which chunks come from a base that was looked up.
        untold: (offset, length) of chunks that are not the base's, though no change was told of them: what was read
            around changes. They are as they were read; what was not read may be stale.
    """

    ids: Ids
    lengths: Lengths
    stats: CopyStats
    taken_over: TakenOver | None = None
    untold: tuple[tuple[int, int], ...] = ()


@lru_cache(maxsize=1024)
def zero_id(length: int) -> bytes:
    """The id of so many zeroes. Lengths are few: multiples of 64 KiB up to 4 MiB, and one a disk for its end."""
    return hashlib.sha256(bytes(length)).digest()


class Rows:
    """Ids and lengths, growing by blocks that never move: filling in an id needs no lock."""

    _BLOCK = idlist.ROWS

    def __init__(self) -> None:
        self._ids = IdBlocks()
        self._lengths: list[Lengths] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, length: int) -> int:
        """Add a chunk whose id is not known yet; return its row."""
        block, at = self._room()
        self._lengths[block][at] = length
        self._count += 1
        return self._count - 1

    def place(self, row: int, blob_id: bytes) -> None:
        """Fill in the id of a row."""
        block, at = divmod(row, self._BLOCK)
        self._ids[block][at] = np.frombuffer(blob_id, np.uint8)

    def append_zeroes(self, lengths: Lengths) -> list[int]:
        """Add chunks of zeroes, of which all is known; return the different lengths among them."""
        different, which = np.unique(lengths, return_inverse=True)
        known = np.frombuffer(b"".join(map(zero_id, different.tolist())), np.uint8).reshape(-1, ID_BYTES)
        done = 0
        while done < len(lengths):
            block, at = self._room()
            step = min(self._BLOCK - at, len(lengths) - done)
            self._lengths[block][at : at + step] = lengths[done : done + step]
            self._ids[block][at : at + step] = known[which[done : done + step]]
            self._count += step
            done += step
        return [int(length) for length in different]

    def extend(self, ids: Ids, lengths: Lengths) -> None:
        """Add chunks of which all is known."""
        done = 0
        while done < len(lengths):
            block, at = self._room()
            step = min(self._BLOCK - at, len(lengths) - done)
            self._lengths[block][at : at + step] = lengths[done : done + step]
            self._ids[block][at : at + step] = ids[done : done + step]
            pages.let_go(ids[done : done + step])
            self._count += step
            done += step

    def _room(self) -> tuple[int, int]:
        """Block and place of the next row."""
        block, at = divmod(self._count, self._BLOCK)
        if at == 0:
            self._ids.add()
            self._lengths.append(np.zeros(self._BLOCK, np.uint32))
        return block, at

    def columns(self) -> tuple[Ids, Lengths]:
        """All rows, as two arrays; nothing is left here."""
        ids, lengths = self._ids.joined(self._count), self._lengths
        self._lengths = []
        return ids, np.concatenate([*lengths, np.zeros(0, np.uint32)])[: self._count]
