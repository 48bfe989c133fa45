"""Changed areas: 64 KiB each, in pages, from landmark to landmark."""

from __future__ import annotations

import pytest

from vcbproxy.lab import tracking
from vcbproxy.lab.state import DiskState
from vcbproxy.lab.tracking import AREA_BYTES, AREAS_PER_ANSWER
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
