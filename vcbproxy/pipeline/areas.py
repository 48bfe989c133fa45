"""Areas of a disk: what changed, on the grid on which we cut.

Comes in: ranges as a manager tells them, in any order, of any alignment, overlapping or not. Goes out: sorted ranges
that neither overlap nor touch, each grown outwards to whole 64 KiB granules and kept within the disk.

    told      ├──┤   ├─┤├──┤            ├┤
    granules  ┆    ┆    ┆    ┆    ┆    ┆    ┆
    areas     ├─────────────┤         ├────┤
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import SourceError
from vcbproxy.pipeline.chunker import GRANULE
from vcbproxy.units import align_up

Ranges = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """Some of the bytes of a disk.

    Attributes:
        ranges: int64[n, 2], each [start, end) in bytes; sorted, disjoint, never touching. Both lie on the granule grid,
            or at the disk's end.
        size_bytes: the disk's size.
    """

    ranges: Ranges
    size_bytes: int

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]] | Ranges, size_bytes: int) -> Self:
        """Areas that hold all of these (offset, length) ranges.

        Raises:
            SourceError: an offset or a length is negative; who tells such things cannot be believed in anything.
        """
        bound = align_up(size_bytes, GRANULE)
        if not isinstance(ranges, np.ndarray):
            # Whoever means "to the end" may tell a length that no 64 bits hold, or no sum with its offset.
            ranges = np.array([(min(at, bound), min(length, bound)) for at, length in ranges], np.int64)
        told = np.minimum(ranges.reshape(-1, 2), bound)
        wrong = np.flatnonzero((told < 0).any(axis=1))
        if len(wrong):
            offset, length = told[wrong[0]].tolist()
            raise SourceError(f"a changed area of {length} bytes at offset {offset} cannot be")
        told = told[(told[:, 0] < bound) & (told[:, 1] > 0)]
        starts = told[:, 0] // GRANULE * GRANULE
        ends = np.minimum(-(-told.sum(axis=1) // GRANULE) * GRANULE, size_bytes)
        return cls(merged(np.stack([starts, ends], axis=1)), size_bytes)

    @classmethod
    def none(cls, size_bytes: int) -> Self:
        """No byte of the disk."""
        return cls(np.zeros((0, 2), np.int64), size_bytes)

    @classmethod
    def whole(cls, size_bytes: int) -> Self:
        """All of the disk."""
        return cls.of([(0, size_bytes)], size_bytes)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each begins."""
        return self.ranges[:, 0]

    @property
    def ends(self) -> NDArray[np.int64]:
        """One past the last byte of each."""
        return self.ranges[:, 1]

    @property
    def total_bytes(self) -> int:
        """How many bytes they hold."""
        return int((self.ends - self.starts).sum())

    @property
    def granules(self) -> int:
        """How many granules they have; one cut short by the disk's end counts too."""
        return int(self._granules_in_each().sum())

    def granule_starts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where granules begin, each by its number among those of all areas."""
        counts = self._granules_in_each()
        behind = np.cumsum(counts)
        area = np.searchsorted(behind, numbers, side="right")
        starts: NDArray[np.int64] = self.starts[area] + (numbers - behind[area] + counts[area]) * GRANULE
        return starts

    def _granules_in_each(self) -> NDArray[np.int64]:
        return -(-(self.ends - self.starts) // GRANULE)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ranges)

    def __or__(self, other: Areas) -> Areas:
        """All bytes of both."""
        assert self.size_bytes == other.size_bytes, "areas of two disks"
        return Areas(merged(np.concatenate([self.ranges, other.ranges])), self.size_bytes)

    def __sub__(self, other: Areas) -> Areas:
        """All bytes of these that are not in the others."""
        return (self.complement() | other).complement()

    def complement(self) -> Areas:
        """All bytes of the disk but these."""
        edges = np.concatenate([[0], self.ranges.reshape(-1), [self.size_bytes]]).astype(np.int64)
        return Areas(merged(edges.reshape(-1, 2)), self.size_bytes)

    def touches(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of many ranges [start, end), none of them empty, has a byte in them."""
        if not len(self):
            return np.zeros(len(starts), np.bool_)
        first = np.searchsorted(self.ends, starts, side="right")  # the first area that ends behind the start
        inside = np.minimum(first, len(self) - 1)
        found: NDArray[np.bool_] = (first < len(self)) & (self.starts[inside] < ends)
        return found


def merged(ranges: Ranges) -> Ranges:
    """Sort [start, end) ranges of any alignment; join those that overlap or touch; drop empty ones."""
    ranges = ranges[ranges[:, 0] < ranges[:, 1]]
    if not len(ranges):
        return ranges
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ranges[:, 1])
    first = np.flatnonzero(np.concatenate([[True], ranges[1:, 0] > reach[:-1]]))
    last = np.concatenate([first[1:], [len(ranges)]]) - 1
    return np.stack([ranges[first, 0], reach[last]], axis=1)
