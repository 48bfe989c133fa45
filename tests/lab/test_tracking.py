"""Changed areas: 64 KiB each, in pages, from landmark to landmark."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.lab import tracking
from vcbproxy.lab.state import DiskState
from vcbproxy.lab.tracking import AREA_BYTES, AREAS_PER_ANSWER, Habits
from vcbproxy.lab.vmfs import Allocation
from vcbproxy.units import GiB


def new_disk(size_bytes: int = 1 * GiB) -> DiskState:
    disk = DiskState("scsi0-0", 2000, "Hard disk 1", "ds", size_bytes, Allocation.THIN, "", [])
    disk.tracking_id, disk.epoch = "id", 1
    return disk


def areas(answer: tracking.Answer) -> list[int]:
    ranges = (range(start // AREA_BYTES, -(-(start + length) // AREA_BYTES)) for start, length in answer.areas)
    return [area for found in ranges for area in found]


def test_writes_belong_to_the_landmark_after_them():
    disk = new_disk()
    first = tracking.landmark(disk)
    tracking.record(disk, AREA_BYTES - 1, 2)
    second = tracking.landmark(disk)
    tracking.record(disk, 9 * AREA_BYTES, 512)
    third = tracking.landmark(disk)
    assert areas(tracking.changed(disk, first, second, 0)) == [0, 1]
    assert areas(tracking.changed(disk, second, third, 0)) == [9]
    assert areas(tracking.changed(disk, first, third, 0)) == [0, 1, 9]
    assert areas(tracking.changed(disk, first, "", 0)) == [0, 1, 9]
    assert areas(tracking.changed(disk, third, third, 0)) == []


def test_the_last_area_ends_with_the_disk():
    disk = new_disk(AREA_BYTES + 4096)
    first = tracking.landmark(disk)
    tracking.record(disk, AREA_BYTES, 512)
    assert tracking.changed(disk, first, "", 0).areas == ((AREA_BYTES, 4096),)


def test_many_areas_come_in_pages():
    disk = new_disk()
    first = tracking.landmark(disk)
    written = [*range(0, 3 * AREAS_PER_ANSWER, 2), 16000]
    for area in written:
        tracking.record(disk, area * AREA_BYTES, 1)
    found: list[int] = []
    start, answers = 0, 0
    while start < disk.size_bytes:
        answer = tracking.changed(disk, first, "", start)
        assert answer.start == start
        assert len(answer.areas) <= AREAS_PER_ANSWER
        found += areas(answer)
        start += answer.length
        answers += 1
    assert found == written
    assert answers == 2


def test_an_answer_starts_where_it_was_asked_to():
    disk = new_disk()
    first = tracking.landmark(disk)
    tracking.record(disk, 0, 4 * AREA_BYTES)
    assert tracking.changed(disk, first, "", AREA_BYTES + 512).areas == ((AREA_BYTES + 512, 3 * AREA_BYTES - 512),)


@pytest.mark.parametrize("wrong", ["", "id", "other/1", "id/x", "/1"])
def test_ids_of_others_are_refused(wrong):
    with pytest.raises(tracking.UnknownChangeId):
        tracking.changed(new_disk(), wrong, "", 0)


def all_areas(disk: DiskState, since: str, habits: Habits) -> list[tuple[int, int]]:
    """Every page, as a client that asks to the end of the disk."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < disk.size_bytes:
        answer = tracking.changed(disk, since, "", start, habits)
        assert answer.length > 0
        assert len(answer.areas) <= habits.per_answer
        found += answer.areas
        start += answer.length
    return found


@settings(max_examples=60, deadline=None)
@given(
    written=st.sets(st.integers(0, 199), min_size=1, max_size=60),
    tail=st.sampled_from([0, 512, 4096]),
    habits=st.builds(
        Habits,
        per_answer=st.integers(1, 20),
        unchanged=st.sampled_from([0, 0.1, 1]),
        ragged=st.booleans(),
        beyond_end=st.booleans(),
        seed=st.integers(0, 9),
    ),
)
def test_bad_habits_name_more_and_never_less(written, tail, habits):
    disk = new_disk(200 * AREA_BYTES + tail)
    first = tracking.landmark(disk)
    for area in written:
        tracking.record(disk, area * AREA_BYTES, 512)
    named = all_areas(disk, first, habits)
    covered = np.zeros(disk.size_bytes + AREA_BYTES, np.uint8)
    position = 0
    for start, length in named:
        assert start >= position, "in order, and none twice"
        covered[start : start + length] = 1
        position = start + length
    assert all(covered[area * AREA_BYTES : (area + 1) * AREA_BYTES].all() for area in written)
    assert position <= disk.size_bytes or habits.beyond_end


def test_what_bad_habits_look_like():
    disk = new_disk(64 * AREA_BYTES)
    first = tracking.landmark(disk)
    tracking.record(disk, 8 * AREA_BYTES, 512)
    tracking.record(disk, disk.size_bytes - 512, 512)
    honest = all_areas(disk, first, Habits())
    assert len(all_areas(disk, first, Habits(unchanged=0.3))) > len(honest)
    assert any(start % 512 or length % 512 for start, length in all_areas(disk, first, Habits(ragged=True)))
    assert sum(all_areas(disk, first, Habits(beyond_end=True))[-1]) > disk.size_bytes
    assert len(all_areas(disk, first, Habits(omitted=1))) == len(honest) - 1, "a lie"
