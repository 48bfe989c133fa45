"""A disk of which only what was ever written is read, by what the host's change tracker tells; the rest is audited.

    map        ┼── DATA ──────────────────┼── ZERO ───┼── DATA ─────┼
    in use         ├────────┤     ├────┤                  ├──┤            by the tracker
    read           ├────────┤     ├────┤                  ├──┤
    skipped    ├──┤          ├───┤      ├─┤           ├──┤    ├─────┤     claimed to be zeroes: a sample is read

What the disk's own map knows to be zeroes needs no claim. Skipping anything else rests on the claim alone, which is why
nobody does so without having asked for it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np

from vcbproxy.device import MappedDevice
from vcbproxy.extent import Extent, Kind, merged
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit
from vcbproxy.pipeline.chunker import GRANULE
from vcbproxy.repository import pages


class Allocated:
    """A device that takes what is not in use for zeroes."""

    def __init__(self, source: MappedDevice, used: Areas) -> None:
        assert used.size_bytes == source.size_bytes, "the areas are those of another disk"
        self._source = source
        self._used = used

    @property
    def name(self) -> str:
        """The disk's own."""
        return self._source.name

    @property
    def size_bytes(self) -> int:
        """The disk's own."""
        return self._source.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Read from the disk below."""
        self._source.read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        """DATA only where the map says so and it is in use."""
        return merged(part for extent in self._source.extents() for part in self._parts(extent))

    def _parts(self, extent: Extent) -> Iterator[Extent]:
        if extent.kind is Kind.ZERO:
            yield extent
            return
        position = extent.start
        first = int(np.searchsorted(self._used.ends, extent.start, side="right"))
        behind = int(np.searchsorted(self._used.starts, extent.end, side="left"))
        for start, end in self._used.ranges[first:behind].tolist():
            start, end = max(start, extent.start), min(end, extent.end)
            yield Extent(position, start - position, Kind.ZERO)
            yield Extent(start, end - start, Kind.DATA)
            position = end
        yield Extent(position, extent.end - position, Kind.ZERO)


def audit_unused(source: MappedDevice, used: Areas, seed: int, *, share: float, least: int) -> Audit:
    """Read a sample of what would be skipped: it must be zeroes.

    Args:
        source: the disk.
        used: what is in use, it is said.
        seed: of the sample.
        share: of the granules (64 KiB) that would be skipped.
        least: how many at least, if there are so many.

    Raises:
        SourceError: the disk could not be read.
    """
    size = source.size_bytes
    mapped = [(extent.start, extent.length) for extent in source.extents() if extent.kind is not Kind.ZERO]
    skipped = Areas.of(mapped, size) - used
    total = skipped.granules
    drawn = sorted(random.Random(seed).sample(range(total), min(max(math.ceil(share * total), least), total)))
    buffer = pages.buffer(GRANULE)
    bytes_read, differing = 0, []
    for start in skipped.granule_starts(np.array(drawn, np.int64)).tolist():
        length = min(GRANULE, size - start)
        part = buffer[:length]
        source.read_into(start, part)
        bytes_read += length
        if np.frombuffer(part, np.uint8).any():
            differing.append((start, length))
    return Audit(seed, len(drawn), bytes_read, tuple(differing))
