"""Holds what a delta on tape leaves to its base against the disk: a list of changes may lie.

    base     ┼──────┼──────┼─▓▓▓──┼──────┼──────┼        frames, each with a checksum; ▓ changed, it is said
    sampled     ├──────┤             ├──────┤            read again, compared

A frame that changed in part since the last full image has no checksum any more, and is not looked at. Frames of zeroes
and of data are drawn apart: on a disk that is mostly holes, the few data would else hardly ever be looked at.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vcbproxy.archive.frames import FRAME_BYTES, plain_checksum
from vcbproxy.archive.remembered import FrameSums
from vcbproxy.device import MappedDevice
from vcbproxy.extent import Kind
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit
from vcbproxy.repository import pages


def holes_of(source: MappedDevice) -> NDArray[np.int64]:
    """What the disk's own map knows to be zeroes: int64[n, 2], as [start, end) in order."""
    found = [(extent.start, extent.end) for extent in source.extents() if extent.kind is Kind.ZERO]
    return np.array(found, np.int64).reshape(-1, 2)


def gone(source: MappedDevice, sums: FrameSums) -> Areas:
    """What the disk's own map knows to be zeroes by now, and did not then: nobody need have told of that."""
    ranges = [(start, end - start) for start, end in less(holes_of(source), sums.holes)]
    return Areas.of(ranges, source.size_bytes)


def less(ranges: NDArray[np.int64], others: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """What of ranges is not in others; both are in order."""
    behind = iter(others.tolist())
    other = next(behind, None)
    for start, end in ranges.tolist():
        at = start
        while other is not None and other[0] < end:
            if other[1] > at:
                if at < other[0]:
                    yield at, other[0]
                at = other[1]
            if other[1] > end:
                break
            other = next(behind, None)
        if at < end:
            yield at, end


def audit_frames(
    source: MappedDevice, sums: FrameSums, changed: Areas, seed: int, *, share: float, least: int
) -> Audit:
    """Read a sample of the frames that lie wholly outside of what changed; compare them with the base.

    Raises:
        SourceError: the disk could not be read.
    """
    frames = np.flatnonzero(sums.after(changed.ranges, sums.holes).known)
    zero = sums.sums[frames] == _zero_sums(sums)[frames]
    rng = random.Random(seed)
    drawn = sorted([*_drawn(frames[~zero], rng, share, least), *_drawn(frames[zero], rng, share, least)])
    buffer = pages.buffer(FRAME_BYTES)
    differing: list[tuple[int, int]] = []
    bytes_read = 0
    for frame in drawn:
        start, length = sums.place(frame)
        source.read_into(start, buffer[:length])
        bytes_read += length
        if plain_checksum(buffer[:length]) != int(sums.sums[frame]):
            differing.append((start, length))
    return Audit(seed, len(drawn), bytes_read, tuple(differing))


def _drawn(frames: NDArray[np.int64], rng: random.Random, share: float, least: int) -> list[int]:
    wanted = min(max(math.ceil(share * len(frames)), least), len(frames))
    return sorted(rng.sample(frames.tolist(), wanted))


def _zero_sums(sums: FrameSums) -> NDArray[np.uint32]:
    """What each frame's checksum would be if it were zeroes."""
    found = np.full(len(sums.sums), plain_checksum(bytes(FRAME_BYTES)), np.uint32)
    if len(found) and sums.size_bytes % FRAME_BYTES:
        found[-1] = plain_checksum(bytes(sums.size_bytes % FRAME_BYTES))
    return found
