"""Which parts of a disk an incremental must look at again, and what of its base it may keep.

Comes in: the base's layout, the changed areas, the disk's own map. Goes out: regions, in order, far enough apart not to
touch; whatever lies between two of them is kept of the base unseen. All positions of one are found by array operations.

                   w        changed       w
    base      ──┼───┊──┼──┼───▓▓▓▓▓▓──┼───┊──┼────      cuts between the two ┊ depend on what changed, no others do
              start ┊   looked for anew   ┊  end        from the last cut before it to the first firm one behind it
         seen   ├┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┤         w more on either side, since that is what a cut looks at

A chunk begins where the one before it ended, and ends at the next cut or at its greatest length, whichever comes first.
So what lies behind a *firm* edge is as it was. An edge that is not firm is passed over, and looked at anew: else a long
piece whose splits have moved would be spliced to splits that have not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.device import MappedDevice
from vcbproxy.extent import Extent, Kind
from vcbproxy.pipeline.areas import Areas, Ranges, merged
from vcbproxy.pipeline.base import Layout
from vcbproxy.pipeline.chunker import BLOCK, GRANULE, Rule
from vcbproxy.pipeline.cutter import Piece, Stretch

Positions = NDArray[np.int64]

_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch to be cut anew; it takes the place of the base's rows [row_first, row_behind)."""

    stretch: Stretch
    row_first: int
    row_behind: int


class Splice:
    """The regions of one disk, and what is known of the bytes in them."""

    def __init__(self, layout: Layout, changed: Areas, source: MappedDevice, rule: Rule) -> None:
        """Plan it."""
        zero = _zeroes_of(source)
        self.layout = layout
        self.changed = _with_unmapped(changed, layout, zero)
        self._zero = merged(np.concatenate([zero, (layout.hole_areas() - self.changed).ranges]))
        self._columns = _regions(layout, self.changed, rule.window * BLOCK)

    def regions(self) -> Iterator[Region]:
        """In order, made as they are asked for: a large disk with a change here and there has millions."""
        for start in range(0, len(self._columns[0]), _BATCH):
            batch = [column[start : start + _BATCH].tolist() for column in self._columns]
            for *stretch, row_first, row_behind in zip(*batch, strict=True):
                yield Region(Stretch(*stretch), row_first, row_behind)

    def extents(self, region: Region) -> Iterator[Extent]:
        """What must be read of a region, and what need not; they tile all that is seen of it."""
        at, end = region.stretch.seen_from, region.stretch.seen_to
        row = int(np.searchsorted(self._zero[:, 1], at, side="right"))
        while at < end:
            zero_start, zero_end = self._zero[row].tolist() if row < len(self._zero) else (end, end)
            if at < zero_start:
                yield Extent(at, min(zero_start, end) - at, Kind.DATA)
            at = max(at, zero_start)
            if at < end:
                yield Extent(at, min(zero_end, end) - at, Kind.ZERO)
            at, row = zero_end, row + 1

    def known_id(self, piece: Piece) -> bytes | None:
        """The id of a chunk that is the base's, bytes and all."""
        row = self.layout.row_of(piece.start, piece.length)
        if row is None or self.changed.touches(np.array([piece.start]), np.array([piece.end]))[0]:
            return None
        found: bytes = self.layout.base.ids[row].tobytes()
        return found


def changed_or_unmapped(layout: Layout, changed: Areas, source: MappedDevice) -> Areas:
    """What changed: by what was told, or by the disk's own map."""
    return _with_unmapped(changed, layout, _zeroes_of(source))


def holes_on_trust(layout: Layout, changed: Areas, source: MappedDevice) -> Areas:
    """Holes of the base that are kept unread because no change was told; the disk's map does not vouch for them."""
    return layout.hole_areas() - changed - _whole_granules(_zeroes_of(source), layout.size_bytes)


def _with_unmapped(changed: Areas, layout: Layout, zero: Ranges) -> Areas:
    """What the map knows to be zeroes where the base has data was unmapped since, whether or not that was told.

    Cutting it anew costs no reading.
    """
    return changed | (_whole_granules(zero, layout.size_bytes) - layout.hole_areas())


def _regions(layout: Layout, changed: Areas, window_bytes: int) -> tuple[Positions, ...]:
    """Grow each changed area into a region; join those that would look at the same bytes.

    Returns:
        The fields of each region's stretch, in their order, and its rows; a column each.
    """
    size = layout.size_bytes
    cuts_from = np.maximum(changed.starts - window_bytes, 0)
    first = layout.edges_before(cuts_from)
    # A cut at p looks at w blocks before it and at w + 1 from it on: what ends at b1 is out of sight from b1 + w + 1.
    behind, passed = layout.edges_behind(np.minimum(changed.ends + window_bytes + BLOCK, size))
    cuts_to = np.minimum(np.maximum(changed.ends + window_bytes, passed), size)
    start, end = layout.edges[first], layout.edges[behind]
    seen_from = np.minimum(start, np.maximum(cuts_from - window_bytes, 0)) // GRANULE * GRANULE
    seen_to = np.maximum(end, np.minimum(cuts_to + window_bytes, size))
    seen_to = np.minimum(-(-seen_to // GRANULE) * GRANULE, size)

    opens = _groups(seen_from, seen_to)
    if not len(opens):
        return (opens,) * 8
    cuts_to, end, seen_to, behind = (np.maximum.reduceat(column, opens) for column in (cuts_to, end, seen_to, behind))
    return seen_from[opens], start[opens], cuts_from[opens], cuts_to, end, seen_to, first[opens], behind


def _groups(seen_from: Positions, seen_to: Positions) -> Positions:
    """The first of each group of ranges that overlap or touch; both columns ascend by their starts."""
    if not len(seen_from):
        return np.zeros(0, np.int64)
    reach = np.maximum.accumulate(seen_to)
    return np.flatnonzero(np.concatenate([[True], seen_from[1:] > reach[:-1]]))


def _zeroes_of(source: MappedDevice) -> Ranges:
    """What the disk's map knows to be zeroes, as [start, end)."""
    edges = (edge for extent in source.extents() if extent.kind is Kind.ZERO for edge in (extent.start, extent.end))
    return np.fromiter(edges, np.int64).reshape(-1, 2)


def _whole_granules(ranges: Ranges, size_bytes: int) -> Areas:
    """The granules that lie wholly in these ranges."""
    starts = -(-ranges[:, 0] // GRANULE) * GRANULE
    ends = np.where(ranges[:, 1] == size_bytes, size_bytes, ranges[:, 1] // GRANULE * GRANULE)
    return Areas(merged(np.stack([starts, ends], axis=1)), size_bytes)
