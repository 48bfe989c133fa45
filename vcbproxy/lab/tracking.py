"""Changed block tracking: which areas of a disk were written since when.

    epoch      1          2         3           a snapshot ends an epoch and is named by it
    written    {4,5}      {9}       {4}
    snapshot        "id/1"     "id/2"
    changed between id/1 and id/2: {9}

As with real hosts the answer is in areas coarser than the writes, and comes in pages. ``Habits`` makes it worse.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

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


class Nonsense(Enum):
    """What no host may answer; a client must not take any of it for a list."""

    NONE = ""
    STUCK = "an answer covers nothing, again and again"
    ELSEWHERE = "it answers from another offset than was asked"
    BACKWARDS = "areas come in the wrong order"
    OVERLAPPING = "an area is named twice"
    OUTSIDE = "an area lies past what the answer covers"
    LARGER = "the answer covers far more than there is of the disk"


@dataclass(frozen=True, slots=True)
class Habits:
    """How a host answers. All but ``omitted`` and ``nonsense`` is allowed to it, and was seen.

    Attributes:
        per_answer: how many areas at most.
        unchanged: the share of areas that did not change and are named nevertheless.
        ragged: whether areas begin and end at odd bytes, somewhat before and after what changed.
        beyond_end: whether the last area, when it reaches the disk's end, goes past it.
        omitted: how many areas that did change are *not* named: a lie, as some releases told it.
        seed: for what is drawn; the same on each page of an answer.
        nonsense: what makes no sense.
    """

    per_answer: int = AREAS_PER_ANSWER
    unchanged: float = 0
    ragged: bool = False
    beyond_end: bool = False
    omitted: int = 0
    seed: int = 1
    nonsense: Nonsense = Nonsense.NONE


HONEST = Habits()


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


def changed(disk: DiskState, since: str, until: str, start: int, habits: Habits = HONEST) -> Answer:
    """The areas written after one landmark, up to another one or (empty) to now.

    Raises:
        UnknownChangeId: not a landmark of this disk.
    """
    first = _epoch(disk, since)
    last = _epoch(disk, until) if until else disk.epoch
    numbers = {area for epoch, areas in disk.changes.items() if first < epoch <= last for area in areas}
    ranges = ((number * AREA_BYTES, AREA_BYTES) for number in sorted(numbers))
    return answer(disk, ranges, start, habits)


def answer(disk: DiskState, ranges: Iterable[tuple[int, int]], start: int, habits: Habits = HONEST) -> Answer:
    """One page of (offset, length) ranges that come in order."""
    areas: list[tuple[int, int]] = []
    named = _areas(ranges, disk.size_bytes)
    for first, end in named if habits == HONEST else _by_habit(list(named), disk, habits):
        if end <= start:
            continue
        if len(areas) == habits.per_answer:
            return _distorted(Answer(start, sum(areas[-1]) - start, tuple(areas)), disk, habits.nonsense)
        areas.append((max(first, start), end - max(first, start)))
    return _distorted(Answer(start, disk.size_bytes - start, tuple(areas)), disk, habits.nonsense)


def _distorted(honest: Answer, disk: DiskState, how: Nonsense) -> Answer:
    match how:
        case Nonsense.NONE:
            return honest
        case Nonsense.STUCK:
            return replace(honest, length=0, areas=())
        case Nonsense.ELSEWHERE:
            return replace(honest, start=honest.start + AREA_BYTES)
        case Nonsense.BACKWARDS:
            return replace(honest, areas=honest.areas[::-1])
        case Nonsense.OVERLAPPING:
            return replace(honest, areas=honest.areas + honest.areas[-1:])
        case Nonsense.OUTSIDE:
            return replace(honest, length=disk.size_bytes // 2, areas=((disk.size_bytes - AREA_BYTES, AREA_BYTES),))
        case Nonsense.LARGER:
            return replace(honest, length=1 << 45)


def _by_habit(areas: list[tuple[int, int]], disk: DiskState, habits: Habits) -> Iterator[tuple[int, int]]:
    """The areas as a host of bad habits names them: (start, end), in order."""
    draw = random.Random(f"{habits.seed} {disk.uuid}")
    for _ in range(min(habits.omitted, len(areas))):
        del areas[draw.randrange(len(areas))]
    if habits.unchanged:
        every = range(0, disk.size_bytes, AREA_BYTES)
        more = [(at, AREA_BYTES) for at in every if draw.random() < habits.unchanged]
        merged = sorted([*more, *((first, end - first) for first, end in areas)])
        areas = list(_areas(merged, disk.size_bytes))
    told = 0
    for first, end in areas:
        if habits.beyond_end and end == disk.size_bytes:
            end += AREA_BYTES
        elif habits.ragged:
            end = min(end + draw.randrange(AREA_BYTES // 2), disk.size_bytes)
        if habits.ragged:
            first -= draw.randrange(AREA_BYTES // 2)
        first = max(first, told)
        if first < end:
            yield first, end
            told = end


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
