"""Which file blocks are free, and in which order they are handed out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.lab.vmfs.address import LARGE_BLOCKS

Numbers = NDArray[np.int64]


class Space:
    """Free and used blocks of a volume; the caller holds a lock.

    ``stale`` remembers which blocks may hold old bytes: a thin block that has never been used needs no zeroing.
    """

    def __init__(self, blocks: int, cluster_blocks: int, *, seed: int, scatter: bool, run_blocks: int) -> None:
        self.used = np.zeros(blocks, dtype=np.bool_)
        self.stale = np.zeros(blocks, dtype=np.bool_)
        self.large = np.zeros(-(-blocks // LARGE_BLOCKS), dtype=np.bool_)
        """Which large blocks are given out whole."""
        self.touched: set[int] = set()
        """Clusters whose blocks changed hands since the bitmaps were written."""
        self._cluster_blocks = cluster_blocks
        self._random = np.random.default_rng(seed)
        self._scatter = scatter
        self._run_blocks = run_blocks
        self._queue: Numbers = np.empty(0, dtype=np.int64)
        self._cursor = 0

    @property
    def free(self) -> int:
        """How many blocks are left."""
        return int(len(self.used) - np.count_nonzero(self.used))

    def require(self, count: int) -> None:
        """Refuse to begin what cannot be finished.

        Raises:
            TargetError: fewer blocks are free.
        """
        if count > self.free:
            raise _full(count, self.free)

    def take(self, count: int) -> Numbers:
        """Hand out ``count`` blocks.

        Raises:
            TargetError: there are not that many.
        """
        if count == 0:
            return np.empty(0, dtype=np.int64)
        numbers = self._take_scattered(count) if self._scatter else self._take_next(count)
        self._mark(numbers, used=True)
        return numbers

    def take_at(self, first: int, count: int) -> Numbers:
        """Hand out exactly these blocks, which are free: what mkfs puts at fixed places."""
        assert not self.used[first : first + count].any()
        numbers = np.arange(first, first + count, dtype=np.int64)
        self._mark(numbers, used=True)
        self._cursor = max(self._cursor, first + count)
        return numbers

    def take_neighbours(self, count: int) -> Numbers:
        """Hand out the first free stretch of ``count`` blocks.

        Raises:
            TargetError: there is none so long.
        """
        busy = np.flatnonzero(np.concatenate([[True], self.used, [True]])) - 1
        gaps = np.flatnonzero(np.diff(busy) > count)
        if not len(gaps):
            raise _full(count, 0)
        return self.take_at(int(busy[gaps[0]]) + 1, count)

    def take_large(self) -> int | None:
        """Hand out a large block of which every small one is free, or None."""
        whole = len(self.used) // LARGE_BLOCKS
        busy = self.used[: whole * LARGE_BLOCKS].reshape(whole, LARGE_BLOCKS).any(axis=1)
        free = np.flatnonzero(~busy)
        if len(free) == 0:
            return None
        number = int(self._random.choice(free)) if self._scatter else int(free[0])
        self.large[number] = True
        self._mark(np.arange(LARGE_BLOCKS, dtype=np.int64) + number * LARGE_BLOCKS, used=True)
        return number

    def give_back_large(self, number: int) -> None:
        """Free a large block whole."""
        self.large[number] = False
        self._mark(np.arange(LARGE_BLOCKS, dtype=np.int64) + number * LARGE_BLOCKS, used=False)

    def give_back(self, numbers: Numbers) -> None:
        """Free blocks; what they hold stays there."""
        self._mark(numbers, used=False)

    def _mark(self, numbers: Numbers, *, used: bool) -> None:
        self.used[numbers] = used
        self.touched.update(np.unique(numbers // self._cluster_blocks).tolist())

    def _take_next(self, count: int) -> Numbers:
        end = self._cursor + count
        if end <= len(self.used) and not self.used[self._cursor : end].any():
            numbers = np.arange(self._cursor, end, dtype=np.int64)
        else:
            free = np.flatnonzero(~self.used)
            if len(free) < count:
                raise _full(count, len(free))
            start = int(np.searchsorted(free, self._cursor))
            numbers = np.concatenate([free[start:], free[:start]])[:count]
        self._cursor = int(numbers[-1]) + 1
        return numbers

    def _take_scattered(self, count: int) -> Numbers:
        parts: list[Numbers] = []
        fresh = False
        while count:
            if len(self._queue) == 0:
                if fresh:
                    raise _full(count, 0)
                taken = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
                self._queue, fresh = self._shuffled(taken), True
            head, self._queue = self._queue[:count], self._queue[count:]
            head = head[~self.used[head]]
            parts.append(head)
            count -= len(head)
        return np.concatenate(parts)

    def _shuffled(self, taken: Numbers) -> Numbers:
        """All free blocks, in runs of neighbours up to the longest allowed, the runs in random order."""
        open_blocks = ~self.used
        open_blocks[taken] = False
        free = np.flatnonzero(open_blocks)
        if self._run_blocks == 1 or len(free) == 0:
            return self._random.permutation(free)
        lengths = self._random.integers(1, self._run_blocks + 1, size=2 * len(free) // self._run_blocks + 2)
        ends = np.cumsum(lengths)
        while ends[-1] < len(free):
            ends = np.concatenate([ends, ends[-1] + ends])
        ends = np.append(ends[ends < len(free)], len(free))
        starts = np.concatenate([[0], ends[:-1]])
        order = self._random.permutation(len(starts))
        sizes = (ends - starts)[order]
        offsets = np.arange(len(free)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        shuffled: Numbers = free[np.repeat(starts[order], sizes) + offsets]
        return shuffled


def _full(wanted: int, left: int) -> TargetError:
    return TargetError(f"the lab volume is full: {wanted} blocks wanted, {left} left; make it larger")
