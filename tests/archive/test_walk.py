"""An image without its seek table: what is sure is salvaged, and nothing is put where it does not belong."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pipeline.disks import GRANULE, MappedMemory, data, noise
from vcbproxy.archive import walk
from vcbproxy.archive.seekable import Damage
from vcbproxy.archive.seektable import Frame, read_table
from vcbproxy.archive.walk import salvage_walking
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import DeviceError, IntegrityError
from vcbproxy.pipeline.archive import ImageOptions, image_stream

FRAME = GRANULE
DISK = data("AbC-DEaF--cBAD") + noise(5, 1234)


class Tape(MemoryDevice):
    """An image of which some ranges cannot be read."""

    def __init__(self, content: bytes, *unreadable: tuple[int, int]) -> None:
        super().__init__(content, "image")
        self._unreadable = unreadable

    def read_into(self, offset: int, buf: memoryview) -> None:
        for start, end in self._unreadable:
            if offset < end and offset + len(buf) > start:
                raise DeviceError(device=self.name, offset=offset, length=len(buf), reason="medium error")
        super().read_into(offset, buf)


@pytest.fixture(scope="module")
def image() -> bytes:
    source = MappedMemory(DISK, "D" * -(-len(DISK) // GRANULE))
    with image_stream(source, lambda: 1, options=ImageOptions(frame_bytes=FRAME)) as stream:
        return b"".join(stream)


@pytest.fixture(scope="module")
def frames(image: bytes) -> list[Frame]:
    table = read_table(MemoryDevice(image))
    assert table is not None
    return list(table.frames())


def lost_of(tape: MemoryDevice) -> list[int]:
    """The numbers of the frames that could not be had; all others are held against the disk."""
    lost: list[int] = []
    at = 0
    for part in salvage_walking(tape, len(DISK), FRAME):
        frame = part.frame if isinstance(part, Damage) else part[0]
        assert frame.start == at, "they tile the disk"
        at = frame.end
        if isinstance(part, Damage):
            lost += range(frame.start // FRAME, -(-frame.end // FRAME))
        else:
            assert part[1] == DISK[frame.start : frame.end], "a guess"
    assert at == len(DISK)
    return lost


def hurt(image: bytes, *frames: Frame) -> bytes:
    """Frames overwritten, so that they are none any more."""
    found = bytearray(image)
    for frame in frames:
        found[frame.at : frame.at + frame.compressed_bytes] = noise(frame.number, frame.compressed_bytes)
    return bytes(found)


def test_all_is_found_without_the_table(image: bytes, frames: list[Frame]) -> None:
    end = frames[-1].at + frames[-1].compressed_bytes
    assert lost_of(Tape(image)) == []
    assert lost_of(Tape(image[:end])) == []
    assert lost_of(Tape(image[:-7])) == []
    assert lost_of(Tape(image[:end] + noise(1, 200))) == []


@pytest.mark.parametrize("number", [0, 1, 5, 13, 14])
def test_one_damaged_frame_is_one_lost_frame(number: int, image: bytes, frames: list[Frame]) -> None:
    assert lost_of(Tape(hurt(image, frames[number]))) == [number]


def test_one_place_of_several_frames_is_counted_back_from_the_end(image: bytes, frames: list[Frame]) -> None:
    assert lost_of(Tape(hurt(image, *frames[4:8]))) == [4, 5, 6, 7]


def test_between_two_places_nothing_is_guessed(image: bytes, frames: list[Frame]) -> None:
    assert lost_of(Tape(hurt(image, frames[2], frames[3], frames[8]))) == [2, 3, 4, 5, 6, 7, 8]


def test_what_was_cut_off_is_lost(image: bytes, frames: list[Frame]) -> None:
    assert lost_of(Tape(image[: frames[9].at + 10])) == [9, 10, 11, 12, 13, 14]
    cut_and_hurt = hurt(image, frames[3])[: frames[9].at]
    assert lost_of(Tape(cut_and_hurt)) == [3, *range(4, 15)], "how many were lost before the cut, nobody knows"


def test_a_damaged_table_and_a_damaged_frame(image: bytes, frames: list[Frame]) -> None:
    broken = bytearray(hurt(image, frames[6]))
    broken[-1] ^= 1
    assert lost_of(Tape(bytes(broken))) == [6]


def test_unreadable_blocks_cost_the_frames_in_them(frames: list[Frame], image: bytes) -> None:
    bad = frames[8]
    lost = lost_of(Tape(image, (bad.at + 5, bad.at + 6)))
    assert bad.number in lost
    step = walk._STEP_BYTES
    touched = [f.number for f in frames if f.at // step <= bad.at // step <= (f.at + f.compressed_bytes - 1) // step]
    assert set(lost) <= set(touched)


def test_damage_inside_a_frame_that_can_be_walked_over(image: bytes, frames: list[Frame]) -> None:
    broken = bytearray(image)
    broken[frames[4].at + frames[4].compressed_bytes - 1] ^= 1  # its checksum
    assert lost_of(Tape(bytes(broken))) == [4]


@settings(max_examples=100, deadline=None)
@example(damages=[(1e-05, 1, 0)], cut=False)  # a length in the first header that reads as another one
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 100_000), st.integers(0, 255)), max_size=4), st.booleans())
def test_nothing_is_ever_guessed(
    image: bytes, frames: list[Frame], damages: list[tuple[float, int, int]], cut: bool
) -> None:
    broken = bytearray(image)
    for where, length, seed in damages:
        start = int(where * len(image))
        broken[start : start + length] = noise(seed, len(broken[start : start + length]))
    if cut and damages:
        del broken[int(damages[0][0] * len(broken)) :]
    lost_of(Tape(bytes(broken)))


def test_frames_of_another_image_in_a_damaged_one_are_not_taken_for_its_own(image: bytes, frames: list[Frame]) -> None:
    """A disk that holds images may be stored as it is: then their frames come to light where its own are damaged."""
    inner = image[frames[1].at : frames[2].at]
    broken = bytearray(hurt(image, frames[5], frames[6], frames[7]))
    broken[frames[6].at : frames[6].at + len(inner)] = inner
    assert lost_of(Tape(bytes(broken))) == [5, 6, 7]


def test_an_end_that_does_not_fit_the_beginning_is_given_up(image: bytes, frames: list[Frame]) -> None:
    ten, five = frames[10].at, frames[5].at
    assert lost_of(Tape(image[:ten] + noise(3, 500) + image[five:])) == [10, 11, 12, 13, 14]


def test_another_disk_s_image_is_refused(image: bytes, frames: list[Frame]) -> None:
    with pytest.raises(IntegrityError, match="not those of the disk"):
        list(salvage_walking(Tape(hurt(image, frames[10])), 3 * FRAME - 5, FRAME))
