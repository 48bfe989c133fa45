"""Changed block tracking: which areas of a disk were written since when.

    epoch      1          2         3           a snapshot ends an epoch and is named by it
    written    {4,5}      {9}       {4}
    snapshot        "id/1"     "id/2"
    changed between id/1 and id/2: {9}

As with real hosts the answer is in areas coarser than the writes, and comes in pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vcbproxy.lab.state import DiskState
from vcbproxy.units import KiB

AREA_BYTES = 64 * KiB
AREAS_PER_ANSWER = 2000


class UnknownChangeId(ValueError):
    """A change id of another disk or time, or no change id at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of [start, start + length): the areas within that changed."""

    start: int
    length: int
    areas: tuple[tuple[int, int], ...]


def record(disk: DiskState, offset: int, length: int) -> None:
    """Note a write."""
    if disk.tracking_id and length:
        areas = range(offset // AREA_BYTES, (offset + length - 1) // AREA_BYTES + 1)
        disk.changes.setdefault(disk.epoch, set()).update(areas)


def landmark(disk: DiskState) -> str:
    """The change id of this instant; writes from now on come after it."""
    change_id = f"{disk.tracking_id}/{disk.epoch}"
    disk.epoch += 1
    return change_id


def changed(disk: DiskState, since: str, until: str, start: int) -> Answer:
    """The areas written after one landmark, up to another one or (empty) to now.

    Raises:
        UnknownChangeId: not a landmark of this disk.
    """
    first = _epoch(disk, since)
    last = _epoch(disk, until) if until else disk.epoch
    numbers = {area for epoch, areas in disk.changes.items() if first < epoch <= last for area in areas}
    ranges = ((number * AREA_BYTES, AREA_BYTES) for number in sorted(numbers))
    return answer(disk, ranges, start)


def answer(disk: DiskState, ranges: Iterable[tuple[int, int]], start: int) -> Answer:
    """One page of (offset, length) ranges that come in order."""
    areas: list[tuple[int, int]] = []
    for first, end in _areas(ranges, disk.size_bytes):
        if end <= start:
            continue
        if len(areas) == AREAS_PER_ANSWER:
            return Answer(start, sum(areas[-1]) - start, tuple(areas))
        areas.append((max(first, start), end - max(first, start)))
    return Answer(start, disk.size_bytes - start, tuple(areas))


def _areas(ranges: Iterable[tuple[int, int]], size_bytes: int) -> Iterator[tuple[int, int]]:
    """Widen ranges to whole areas, join those that touch, stay inside the disk: (start, end)."""
    held: tuple[int, int] | None = None
    for offset, length in ranges:
        start = offset // AREA_BYTES * AREA_BYTES
        end = min(-(-(offset + length) // AREA_BYTES) * AREA_BYTES, size_bytes)
        if held is not None and start <= held[1]:
            held = (held[0], max(end, held[1]))
            continue
        if held is not None:
            yield held
        held = (start, end)
    if held is not None:
        yield held


def _epoch(disk: DiskState, change_id: str) -> int:
    tracking_id, slash, epoch = change_id.rpartition("/")
    if not slash or tracking_id != disk.tracking_id or not epoch.isdecimal():
        raise UnknownChangeId(change_id)
    return int(epoch)
