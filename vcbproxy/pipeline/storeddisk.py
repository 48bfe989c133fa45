"""A disk in a repository as something to make an image of: read in order, its chunks loaded some way ahead.

chunks    ┼──┼────┼─▒▒▒▒▒▒▒▒─┼───┼──┼────┼     ▒ zeroes, by their id: not loaded
loaded         └ worker 0 ┘   └ worker n ┘     digested by whoever loads them
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from vcbproxy.device import check_range
from vcbproxy.extent import Extent, Kind, merged
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.content import Lengths
from vcbproxy.pipeline.restore import BlobLoader, Chunks, load_chunk
from vcbproxy.repository.idlist import Ids

_AHEAD = 2  # chunks for each worker


def differing(ids: Ids, lengths: Lengths, base_ids: Ids, base_lengths: Lengths) -> Areas:
    """Where a disk is made of other chunks than its base, by their lists alone.

    Args:
        ids: uint8[n, 32], in order.
        lengths: uint32[n].
        base_ids: likewise, of the base.
        base_lengths: likewise; both disks have one size.
    """
    ends, base_ends = np.cumsum(lengths, dtype=np.int64), np.cumsum(base_lengths, dtype=np.int64)
    size_bytes = int(ends[-1]) if len(ends) else 0
    starts, base_starts = ends - lengths, base_ends - base_lengths
    at = np.minimum(np.searchsorted(base_starts, starts), max(len(base_starts) - 1, 0))
    if not len(base_starts):
        return Areas.whole(size_bytes)
    same = (base_starts[at] == starts) & (base_lengths[at] == lengths)
    rows = np.flatnonzero(same)
    same[rows] = (ids[rows] == base_ids[at[rows]]).all(axis=1)
    changed = np.flatnonzero(~same)
    return Areas.of(np.stack([starts[changed], lengths[changed].astype(np.int64)], axis=1), size_bytes)


@contextmanager
def stored_disk(loader: BlobLoader, name: str, ids: Ids, lengths: Lengths, *, workers: int) -> Iterator[StoredDisk]:
    """A disk, for the length of a ``with``."""
    with ThreadPoolExecutor(workers, "chunks") as pool:
        disk = StoredDisk(loader, name, Chunks(ids, lengths), pool, workers * _AHEAD)
        try:
            yield disk
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class StoredDisk:
    """A MappedDevice; for one thread that reads forward. Going back is possible, and slow."""

    def __init__(self, loader: BlobLoader, name: str, chunks: Chunks, pool: ThreadPoolExecutor, ahead: int) -> None:
        self._loader = loader
        self._name = name
        self._chunks = chunks
        self._pool = pool
        self._ahead = ahead
        self._data = np.flatnonzero(~chunks.zero)
        self._waiting: dict[int, Future[memoryview]] = {}

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """The sum of its chunks' lengths."""
        return self._chunks.size_bytes

    def extents(self) -> Iterator[Extent]:
        """ZERO where a chunk is zeroes, by its id."""
        offsets, lengths, zero = self._chunks.offsets, self._chunks.lengths, self._chunks.zero
        return merged(
            Extent(int(offsets[row]), int(lengths[row]), Kind.ZERO if zero[row] else Kind.DATA)
            for row in range(len(lengths))
            if lengths[row]
        )

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf``.

        Raises:
            IntegrityError: a chunk is damaged or missing.
            DeviceError: outside the disk.
        """
        check_range(self, offset, len(buf))
        row = int(np.searchsorted(self._chunks.offsets, offset, side="right")) - 1
        done = 0
        while done < len(buf):
            start = offset + done - int(self._chunks.offsets[row])
            count = min(int(self._chunks.lengths[row]) - start, len(buf) - done)
            if self._chunks.zero[row]:
                buf[done : done + count] = bytes(count)
            else:
                buf[done : done + count] = self._loaded(row)[start : start + count]
            done += count
            row += 1

    def _loaded(self, row: int) -> memoryview:
        """A chunk; those behind it are asked for as well, those before it let go."""
        for gone in [known for known in self._waiting if known < row]:
            self._waiting.pop(gone).cancel()
        first = int(np.searchsorted(self._data, row))
        for wanted in self._data[first : first + self._ahead].tolist():
            if wanted not in self._waiting:
                self._waiting[wanted] = self._pool.submit(load_chunk, self._loader, self._chunks, wanted)
        return self._waiting[row].result()
