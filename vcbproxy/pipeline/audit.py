"""Holds what an incremental keeps of its base against the disk: a changed-block map may lie, and has lied before.

    base     ┼──┼────┼─▓▓▓▓▓─┼────┼──┼─────┼──▓▓──┼───┼        ▓ changed, by what the manager says
    sampled     ├────┤            ├──┤            ├───┤        read again, digested, compared

The sample is drawn from a seed that the result names, so that a finding can be repeated. Chunks of data and granules of
holes are drawn apart: on a disk that is mostly holes, the few data would else hardly ever be looked at. Of holes only
those count for which nothing vouches but that no change was told: what was written into a hole for the first time is
data by the disk's own map, and what that map knows to be zeroes a full read would not read either.
"""

from __future__ import annotations

import math
import os
import random
import threading
from dataclasses import dataclass

import numpy as np

from vcbproxy.device import Device, MappedDevice
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.base import Base, Layout, Rows
from vcbproxy.pipeline.channel import Channel
from vcbproxy.pipeline.chunker import GRANULE, Rule
from vcbproxy.pipeline.content import zero_id
from vcbproxy.pipeline.crew import Cancel, Crew, Interrupt
from vcbproxy.pipeline.regions import changed_or_unmapped, holes_on_trust
from vcbproxy.repository import pages
from vcbproxy.repository.ids import digest

SHARE = 0.001
LEAST = 16
_WORKERS_MAX = 4


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        seed: of the sample.
        chunks: how many were looked at: chunks of data, granules of holes.
        bytes_read: how much was read for it.
        differing: (offset, length) of every one that is not what the base says, in the disk's order.
    """

    seed: int
    chunks: int
    bytes_read: int
    differing: tuple[tuple[int, int], ...]

    @property
    def passed(self) -> bool:
        """Whether the base is what it says, as far as was looked."""
        return not self.differing


@dataclass(frozen=True, slots=True)
class _Probe:
    """``length`` bytes at ``start`` must have this id."""

    start: int
    length: int
    expected: bytes


def audit(
    source: MappedDevice,
    base: Base,
    changed: Areas,
    rule: Rule,
    seed: int,
    *,
    share: float = SHARE,
    least: int = LEAST,
    workers: int = 0,
    cancel: Cancel | None = None,
    interrupt: Interrupt | None = None,
) -> Audit:
    """Read a sample of the chunks that lie wholly outside of what changed; compare them with the base.

    Args:
        source: the disk as it is now.
        base: its chunks as they were, cut by ``rule``.
        changed: all that may differ since.
        rule: the rule of the base.
        seed: of the sample.
        share: of the chunks of data, and of the granules of holes, that are looked at; 1 for all.
        least: how many of each at least, if there are so many.
        workers: threads that read, each with a buffer for the longest chunk; 0 for one per processor, at most four.
        cancel: looked at a few times a second.
        interrupt: called when it ends early: makes a read of ``source`` that hangs come back, with an error.

    Raises:
        IntegrityError: the base is not a list of this disk's size, or was cut by another rule.
        SourceError: the disk could not be read.
        Cancelled: ``cancel`` was set.
    """
    layout = Layout(base, source.size_bytes, rule)
    touched = changed_or_unmapped(layout, changed, source).touches(layout.edges[:-1], layout.edges[1:])
    rng = random.Random(seed)
    rows = np.flatnonzero(~touched & ~layout.holes)
    data = [_of_data(layout, row) for row in rows[_drawn(len(rows), rng, share, least)].tolist()]
    holes = holes_on_trust(layout, changed, source)
    starts = holes.granule_starts(_drawn(holes.granules, rng, share, least)).tolist()
    probes = sorted([*data, *(_of_hole(layout, start) for start in starts)], key=lambda probe: probe.start)
    with Crew("audit", cancel, interrupt) as crew:
        work: Channel[_Probe] = crew.channel(2 * _WORKERS_MAX)
        inspector = _Inspector(source)
        buffer_bytes = max((probe.length for probe in probes), default=0)
        for _ in range(min(workers or min(os.cpu_count() or 1, _WORKERS_MAX), len(probes))):
            crew.start(inspector.run, work, buffer_bytes)
        for probe in probes:
            work.put(probe)
        work.close()
        crew.join()
    bytes_read = sum(probe.length for probe in probes)
    return Audit(seed, len(probes), bytes_read, tuple(sorted(inspector.differing)))


def _drawn(count: int, rng: random.Random, share: float, least: int) -> Rows:
    """So many numbers below ``count``, in order."""
    wanted = min(max(math.ceil(share * count), least), count)
    return np.array(sorted(rng.sample(range(count), wanted)), np.int64)


def _of_data(layout: Layout, row: int) -> _Probe:
    start, end = layout.edges[row : row + 2].tolist()
    return _Probe(start, end - start, layout.base.ids[row].tobytes())


def _of_hole(layout: Layout, start: int) -> _Probe:
    length = min(GRANULE, layout.size_bytes - start)
    return _Probe(start, length, zero_id(length))


class _Inspector:
    """Reads and compares, in any number of threads."""

    def __init__(self, source: Device) -> None:
        self._source = source
        self._lock = threading.Lock()
        self.differing: list[tuple[int, int]] = []

    def run(self, work: Channel[_Probe], buffer_bytes: int) -> None:
        """A worker."""
        buffer = pages.buffer(buffer_bytes)
        for probe in work:
            part = buffer[: probe.length]
            self._source.read_into(probe.start, part)
            if digest(part) != probe.expected:
                with self._lock:
                    self.differing.append((probe.start, probe.length))
