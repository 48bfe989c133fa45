"""What was kept is held against the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.pipeline import disks
from tests.pipeline.disks import GRANULE, MappedMemory
from tests.pipeline.test_incremental import RULE, full, mapped
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import Cancelled, DeviceError, IntegrityError
from vcbproxy.extent import Extent, Kind
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import audit

CONTENT = disks.data("ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "-" * 200 + "abc1111" + "-" * 9) + b"end"
NONE = Areas.none(len(CONTENT))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


class Plain(MemoryDevice):
    """A disk whose map knows of no zeroes."""

    bytes_read = 0

    def read_into(self, offset: int, buf: memoryview) -> None:
        self.bytes_read += len(buf)
        super().read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size_bytes, Kind.DATA)


def written(at: int, what: bytes) -> bytes:
    return CONTENT[:at] + what + CONTENT[at + len(what) :]


def test_an_honest_map_passes() -> None:
    source = Plain(CONTENT)
    done = audit(source, full(CONTENT), NONE, RULE, seed=1, workers=1)
    assert done.passed
    assert done.seed == 1
    assert done.chunks == 16 + 16, "of data, and of holes"
    assert done.bytes_read == source.bytes_read < 3 * len(CONTENT) // 4


def test_one_flipped_bit_is_found_and_named() -> None:
    at = 7 * GRANULE + 1000
    done = audit(Plain(written(at, bytes([CONTENT[at] ^ 1]))), full(CONTENT), NONE, RULE, seed=1, share=1)
    assert not done.passed
    ((offset, length),) = done.differing
    assert offset <= at < offset + length


def test_what_grew_in_a_hole_is_found_without_the_map() -> None:
    """The base knows of a hole there, and no change was told."""
    source = Plain(written(100 * GRANULE, disks.noise(1, 100 * GRANULE)))
    found = audit(source, full(CONTENT), NONE, RULE, 1, share=0.1)
    assert found.differing
    assert found.bytes_read < 60 * GRANULE


def test_an_audit_of_all_finds_every_granule_that_grew_in_a_hole() -> None:
    """Also beside what was told to have changed, and though it is but a byte."""
    grown = (60, 97, 150)
    content = bytearray(CONTENT)
    for number in grown:
        content[number * GRANULE + 5000] = 1
    changed = Areas.of([(61 * GRANULE, GRANULE)], len(CONTENT))
    found = audit(Plain(bytes(content)), full(CONTENT), changed, RULE, 1, share=1)
    assert [start for start, _ in found.differing] == [number * GRANULE for number in grown]


def test_holes_of_the_disks_own_map_are_not_looked_at() -> None:
    source = mapped(CONTENT)
    done = audit(source, full(CONTENT), NONE, RULE, 1, share=1)
    assert done.passed
    assert done.bytes_read < 60 * GRANULE


def test_what_is_told_to_have_changed_is_not_looked_at() -> None:
    changed = Areas.of([(7 * GRANULE, GRANULE)], len(CONTENT))
    assert audit(Plain(written(7 * GRANULE + 1000, b"new")), full(CONTENT), changed, RULE, 1, share=1).passed


def test_what_was_unmapped_is_cut_anew_and_no_lie() -> None:
    class Unmapped(Plain):
        def extents(self) -> Iterator[Extent]:
            return mapped(bytes(self._data)).extents()

    source = Unmapped(written(8 * GRANULE, bytes(3 * GRANULE)))
    assert audit(source, full(CONTENT), NONE, RULE, 1, share=1).passed


def test_the_same_seed_draws_the_same_sample() -> None:
    broken = bytes(byte ^ 1 for byte in CONTENT)
    first, again, other = (audit(Plain(broken), full(CONTENT), NONE, RULE, seed) for seed in (5, 5, 6))
    assert first == again
    assert first.chunks == len(first.differing) == other.chunks == 32
    assert first.differing != other.differing


def test_a_share_of_many_is_more_than_the_least() -> None:
    assert audit(Plain(CONTENT), full(CONTENT), NONE, RULE, 1, share=0.5, least=1).chunks > 16


def test_nothing_to_look_at() -> None:
    assert audit(Plain(CONTENT), full(CONTENT), Areas.whole(len(CONTENT)), RULE, 1).chunks == 0
    assert audit(Plain(b""), full(b""), Areas.none(0), RULE, 1).passed


def test_a_base_of_another_disk_is_refused() -> None:
    with pytest.raises(IntegrityError):
        audit(Plain(CONTENT[:-512]), full(CONTENT), Areas.none(len(CONTENT) - 512), RULE, 1)


def test_a_disk_that_cannot_be_read_is_no_passed_audit() -> None:
    class Failing(MappedMemory):
        def read_into(self, offset: int, buf: memoryview) -> None:
            raise DeviceError(device="lun", offset=offset, length=len(buf), reason="Input/output error")

    with pytest.raises(DeviceError):
        audit(Failing(CONTENT, "D" * 300), full(CONTENT), NONE, RULE, 1)


def test_cancelled() -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        audit(Plain(CONTENT), full(CONTENT), NONE, RULE, 1, cancel=cancel)
