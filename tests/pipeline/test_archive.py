"""A disk's image, made and taken apart again, by ours and by stock zstd."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline.disks import GRANULE, MappedMemory, contents, data, noise
from tests.pipeline.rawfile import restored
from vcbproxy.archive.appetite import LEVELS
from vcbproxy.archive.frames import checksum_of, plain_checksum
from vcbproxy.archive.plan import Filled, Zeroes, plan
from vcbproxy.archive.seekable import Damage, SeekableImage, salvage
from vcbproxy.archive.seektable import SeekTableBuilder, read_table
from vcbproxy.device import MemoryDevice, read
from vcbproxy.errors import Cancelled, DeviceError, IntegrityError, UsageError
from vcbproxy.extent import Extent, Kind, merged
from vcbproxy.pipeline.archive import ImageFacts, ImageOptions, image_stream
from vcbproxy.pipeline.unarchive import Expected, unpack
from vcbproxy.units import KiB, MiB

SMALL = ImageOptions(workers=3, memory_bytes=1, frame_bytes=128 * KiB)
zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


def level_1() -> int:
    return 1


@dataclass(frozen=True)
class Image:
    data: bytes = field(repr=False)
    facts: ImageFacts

    def device(self) -> MemoryDevice:
        return MemoryDevice(self.data, "image")


def image_of(source: MappedMemory, options: ImageOptions = SMALL, level: Callable[[], int] = level_1) -> Image:
    with image_stream(source, level, options=options) as stream:
        pieces = list(stream)
    return Image(b"".join(pieces), stream.facts)


def mapped(content: bytes, drawing: str = "") -> MappedMemory:
    return MappedMemory(content, drawing or "D" * -(-len(content) // GRANULE))


def cut(image: bytes, step: int) -> Iterator[bytes]:
    return (image[at : at + step] for at in range(0, len(image), step))


class Memory:
    """A sink that keeps what it gets, over a content."""

    def __init__(self, size_bytes: int) -> None:
        self.content = bytearray(b"?" * size_bytes)

    def write_at(self, offset: int, plain: memoryview) -> None:
        assert offset + len(plain) <= len(self.content)
        self.content[offset : offset + len(plain)] = plain

    def zero_at(self, offset: int, length: int) -> None:
        self.write_at(offset, memoryview(bytes(length)))


def unpacked(image: bytes, size_bytes: int, step: int = 50_000) -> bytes:
    sink = Memory(size_bytes)
    unpack(cut(image, step), sink, Expected(size_bytes), name="image", workers=3)
    return bytes(sink.content)


@settings(max_examples=40, deadline=None)
@given(contents(), st.integers(1, 300_000))
def test_what_went_in_comes_out(content: bytes, step: int) -> None:
    drawing = "".join("D" if any(content[at : at + GRANULE]) else "-" for at in range(0, len(content), GRANULE))
    image = image_of(MappedMemory(content, drawing))
    assert image.facts.sha256 == hashlib.sha256(content).hexdigest()
    assert image.facts.image_bytes == len(image.data)
    assert unpacked(image.data, len(content), step) == content
    assert read(SeekableImage(image.device()), 0, len(content)) == content


@zstd
@pytest.mark.parametrize("drawing", ["", "A", "A-bz", "AB----CD--", "--------", "-A-", "------B"])
@pytest.mark.parametrize("tail", [0, 1, 4095])
def test_stock_zstd_restores_it_even_from_parts(drawing: str, tail: int, tmp_path: Path) -> None:
    content = data(drawing) + noise(7, tail)
    image = image_of(MappedMemory(content, drawing.replace("A", "D") + "D" * bool(tail)))
    half = len(image.data) // 2
    (tmp_path / "disk.raw.zst").write_bytes(image.data[:half])
    (tmp_path / "disk.raw.zst.part2").write_bytes(image.data[half:])
    restored = subprocess.run(
        "cat disk.raw.zst disk.raw.zst.part2 > whole.zst && zstd -q -t whole.zst && zstd -q -d -c whole.zst",
        shell=True, cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    assert restored.stdout == content


def test_known_zeroes_are_neither_read_nor_held() -> None:
    content = bytes(200 * GRANULE) + noise(1, GRANULE)
    source = MappedMemory(content, "-" * 200 + "D")
    image = image_of(source)
    assert source.bytes_read == GRANULE == image.facts.bytes_read
    assert image.facts.bytes_zero == 200 * GRANULE
    assert len(image.data) < GRANULE + 16 * KiB


def test_a_terabyte_of_zeroes_is_given_out_at_once() -> None:
    class Thin:
        name, size_bytes = "thin", 1 << 40

        def extents(self) -> Iterator[Extent]:
            yield Extent(0, self.size_bytes, Kind.ZERO)

        def read_into(self, offset: int, buf: memoryview) -> None:
            raise AssertionError("read a hole")

    with image_stream(Thin(), level_1) as stream:
        pieces = iter(stream)
        total = 0
        while stream.position < Thin.size_bytes:
            total += len(next(pieces))
    assert total < 64 * MiB  # and the digest of it all is not waited for


def test_frames_bear_the_table_s_checksums() -> None:
    content = data("AbC-")
    image = image_of(mapped(content))
    table = read_table(image.device())
    assert table is not None
    for frame in table.frames():
        plain = content[frame.start : frame.end]
        assert frame.checksum == plain_checksum(plain)
        assert frame.checksum == checksum_of(image.data[frame.at : frame.at + frame.compressed_bytes])


@settings(max_examples=30, deadline=None)
@given(contents(), st.data())
def test_any_part_can_be_read(content: bytes, draw: st.DataObject) -> None:
    image = SeekableImage(image_of(mapped(content)).device())
    start = draw.draw(st.integers(0, len(content)))
    end = draw.draw(st.integers(start, len(content)))
    assert read(image, start, end - start) == content[start:end]


def test_reading_behind_the_end_is_refused() -> None:
    image = SeekableImage(image_of(mapped(data("A"))).device())
    with pytest.raises(DeviceError):
        read(image, GRANULE - 1, 2)


@pytest.mark.parametrize("levels", [(-7, 1, 9), (1, 3), (-1,)])
def test_levels_change_from_frame_to_frame(levels: tuple[int, ...]) -> None:
    content = data("AbcdAbcdAbcd")
    turn, lock = iter(levels * 20), threading.Lock()

    def next_level() -> int:
        with lock:
            return next(turn)

    image = image_of(mapped(content), level=next_level)
    assert unpacked(image.data, len(content)) == content


@zstd
@pytest.mark.parametrize("level", [-100, *LEVELS, 12])
def test_stock_zstd_reads_every_level(level: int) -> None:
    content = data("AbCd--") * 12
    image = image_of(mapped(content), ImageOptions(), level=lambda: level)
    assert (
        subprocess.run(["zstd", "-q", "-d", "-c"], input=image.data, check=True, capture_output=True).stdout == content
    )
    assert unpacked(image.data, len(content)) == content


# ------------------------------------------------------------------ damage


DAMAGED = data("AbC-DeABCb")


@pytest.fixture(scope="module")
def good() -> Image:
    return image_of(mapped(DAMAGED))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.integers(0, 2**32), st.integers(-3000, -1)))  # the header's, the frames', the table's
def test_no_bit_that_matters_can_turn_unnoticed(good: Image, bit: int) -> None:
    """A few bits of a zstd frame do not matter: both values mean the same bytes."""
    bit %= 8 * len(good.data)
    hurt = bytearray(good.data)
    hurt[bit // 8] ^= 1 << bit % 8
    sink = Memory(len(DAMAGED))
    try:  # The disk's digest is not even asked: the frames and the table must tell.
        unpack(cut(bytes(hurt), 100_000), sink, Expected(len(DAMAGED)), name="image", workers=2)
    except IntegrityError:
        return
    assert sink.content == DAMAGED


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_end_can_be_cut_off_unnoticed(good: Image, draw: st.DataObject) -> None:
    table = read_table(good.device())
    assert table is not None
    edges = [frame.at for frame in table.frames()]
    end = draw.draw(st.one_of(st.sampled_from(edges), st.integers(0, table.compressed_bytes - 1)))
    with pytest.raises(IntegrityError):
        unpack(cut(good.data[:end], 100_000), Memory(len(DAMAGED)), Expected(len(DAMAGED)), name="image")


def test_a_frame_that_is_missing_or_twice_there_is_noticed(good: Image) -> None:
    table = read_table(good.device())
    assert table is not None
    _, second, *_ = table.frames()
    without = good.data[second.at :]
    twice = good.data[: second.at] + good.data
    for hurt in (without, twice):
        with pytest.raises(IntegrityError, match="its seek table tells of"):
            unpack([hurt], Memory(2 * len(DAMAGED)), name="image")


def test_another_disk_s_digest_is_noticed(good: Image) -> None:
    with pytest.raises(IntegrityError, match="SHA-256"):
        unpack([good.data], Memory(len(DAMAGED)), Expected(len(DAMAGED), "00" * 32), name="image")


def test_damage_is_named_by_frame_and_place_and_the_rest_is_salvaged(good: Image) -> None:
    hurt = bytearray(good.data)
    table = read_table(good.device())
    assert table is not None
    bad = list(table.frames())[2]
    hurt[bad.at + bad.compressed_bytes // 2] ^= 0x55
    image = SeekableImage(MemoryDevice(hurt, "image"))
    with pytest.raises(IntegrityError, match=f"frame 2 is damaged.*disk offset {bad.start}") as caught:
        read(image, bad.start, 10)
    assert (caught.value.frame, caught.value.offset) == (2, bad.start)
    found = bytearray(len(DAMAGED))
    damages = []
    for part in salvage(image):
        if isinstance(part, Damage):
            damages.append(part.frame)
        else:
            frame, plain = part
            found[frame.start : frame.end] = plain
    assert damages == [bad]
    assert found == DAMAGED[: bad.start] + bytes(bad.plain_bytes) + DAMAGED[bad.end :]


def test_a_good_frame_in_the_place_of_another_is_noticed(good: Image) -> None:
    table = read_table(good.device())
    assert table is not None
    builder = SeekTableBuilder()
    for frame in table.frames():
        assert frame.checksum is not None
        builder.add(frame.compressed_bytes, frame.plain_bytes, frame.checksum ^ (frame.number == 1))
    image = SeekableImage(MemoryDevice(good.data[: table.compressed_bytes] + builder.encode(), "image"))
    with pytest.raises(IntegrityError, match=r"frame 1 is damaged: its checksum is .* by the seek table"):
        read(image, 0, len(DAMAGED))


def test_what_cannot_be_read_is_salvaged_around(good: Image) -> None:
    class Torn(MemoryDevice):
        def read_into(self, offset: int, buf: memoryview) -> None:
            if offset == 0:
                raise DeviceError(device=self.name, offset=offset, length=len(buf), reason="medium error")
            super().read_into(offset, buf)

    parts = list(salvage(SeekableImage(Torn(good.data, "image"))))
    assert [isinstance(part, Damage) for part in parts] == [True] + [False] * (len(parts) - 1)


def test_an_image_without_a_table_says_what_to_do(good: Image) -> None:
    with pytest.raises(IntegrityError, match="does not end with a seek table"):
        SeekableImage(MemoryDevice(good.data[:-1], "image"))


# ------------------------------------------------------------------ restore to a file


def test_restores_to_a_sparse_file(tmp_path: Path) -> None:
    content = noise(1, GRANULE) + bytes(64 * GRANULE) + noise(2, 100)
    image = image_of(MappedMemory(content, "D" + "-" * 64 + "D"))
    path = tmp_path / "disk.raw"
    restored(cut(image.data, 512 * KiB), path, len(content), sha256=image.facts.sha256)
    assert path.read_bytes() == content
    assert path.stat().st_blocks * 512 < len(content) // 4
    with pytest.raises(UsageError):
        restored([image.data], path, len(content))


def test_a_restore_that_fails_leaves_no_file(tmp_path: Path, good: Image) -> None:
    hurt = bytearray(good.data)
    hurt[20_000] ^= 1
    with pytest.raises(IntegrityError):
        restored(cut(bytes(hurt), 1000), tmp_path / "disk.raw", len(DAMAGED))
    assert list(tmp_path.iterdir()) == []


@zstd
@pytest.mark.parametrize("command", ["zstd -q -1 -c < disk", "zstd -q -3 -T2 -c disk", "zstd -q --no-check -c disk"])
def test_any_zstd_stream_is_restored(command: str, tmp_path: Path) -> None:
    content = data("AbC--D") * 30
    (tmp_path / "disk").write_bytes(content)
    image = subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True).stdout
    assert unpacked(image, len(content)) == content
    with pytest.raises(IntegrityError):
        unpacked(image[:-1], len(content))


def test_a_frame_without_an_end_takes_no_memory_without_end() -> None:
    def endless() -> Iterator[bytes]:
        yield bytes.fromhex("28b52ffd 20 10")  # one segment of 16 bytes
        while True:
            yield bytes(3 * 65536)  # empty blocks, none of them the last

    with pytest.raises(IntegrityError, match="far longer"):
        unpack(endless(), Memory(16), name="image")


def test_what_is_no_zstd_is_refused() -> None:
    with pytest.raises(IntegrityError, match="no zstd frame begins with"):
        unpacked(b"MZ" + bytes(100), 100)
    with pytest.raises(IntegrityError, match="holds 0 bytes of a disk of 100"):
        unpacked(b"", 100)


# ------------------------------------------------------------------ trouble under way


def test_a_source_that_fails_ends_it_all() -> None:
    class Failing(MappedMemory):
        def read_into(self, offset: int, buf: memoryview) -> None:
            if offset >= 5 * GRANULE:
                raise DeviceError(device=self.name, offset=offset, length=len(buf), reason="Input/output error")
            super().read_into(offset, buf)

    content = data("AbcDEFGHIJ")
    before = threading.active_count()
    with (
        pytest.raises(DeviceError, match="Input/output error"),
        image_stream(Failing(content, "D" * 10), level_1, options=SMALL) as stream,
    ):
        list(stream)
    assert threading.active_count() == before


def test_whoever_goes_away_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with image_stream(mapped(data("AbcDEFGHIJ") * 4), level_1, options=SMALL) as stream:
        next(iter(stream))
    assert threading.active_count() == before


def test_cancelled_means_cancelled() -> None:
    cancel = threading.Event()
    with image_stream(mapped(data("AbcDEFGHIJ") * 4), level_1, options=SMALL, cancel=cancel) as stream:
        pieces = iter(stream)
        next(pieces)
        cancel.set()
        with pytest.raises(Cancelled):
            list(pieces)


def test_pieces_that_fail_end_a_restore(good: Image, tmp_path: Path) -> None:
    def torn() -> Iterator[bytes]:
        yield good.data[:200_000]
        raise DeviceError(device="drive", offset=0, length=1, reason="medium error")

    before = threading.active_count()
    with pytest.raises(DeviceError):
        restored(torn(), tmp_path / "disk.raw", len(DAMAGED))
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ the plan


@st.composite
def tilings(draw: st.DrawFn) -> list[Extent]:
    lengths = draw(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=12))
    at, extents = 0, []
    for length, zero in lengths:
        extents.append(Extent(at, length, Kind.ZERO if zero else Kind.DATA))
        at += length
    return list(merged(extents))


@given(tilings(), st.integers(1, 16))
def test_frames_tile_the_disk_on_their_grid(extents: list[Extent], frame_bytes: int) -> None:
    size = extents[-1].end if extents else 0
    at = 0
    filled: list[Extent] = []
    for part in plan(extents, size, frame_bytes):
        assert part.start == at
        assert at % frame_bytes == 0
        at += part.length
        if isinstance(part, Filled):
            assert part.length == min(frame_bytes, size - part.start)
            filled += part.fills
        else:
            assert isinstance(part, Zeroes)
            assert part.frame_bytes == frame_bytes or (part.count == 1 and at == size)
            filled.append(Extent(part.start, part.length, Kind.ZERO))
    assert at == size
    assert list(merged(filled)) == extents
