"""Run maps against a naive model: one (device, place) for each byte of a little file."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.device import MemoryDevice, read
from vcbproxy.extent import Kind, tiled
from vcbproxy.vmfs import runs
from vcbproxy.vmfs.pieces import Pieces
from vcbproxy.vmfs.runs import ZERO, Builder, Mapped, RunMap
from vcbproxy.vmfs.span import LogicalVolume

quick = settings(max_examples=80, deadline=None)
Piece = tuple[int, int, int, int]  # gap before, length, device, place
Place = tuple[int, int]

pieces = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 6), st.sampled_from([ZERO, 0, 1]), st.integers(0, 90)), max_size=12
)


def built(batches: list[list[Piece]], size: int) -> RunMap:
    build = Builder()
    at = 0
    for batch in batches:
        rows = []
        for gap, length, device, place in batch:
            rows.append((at + gap, length, device, place))
            at += gap + length
        columns = np.array(rows, np.int64).reshape(-1, 4)
        build.add(columns[:, 0], columns[:, 1], columns[:, 2].astype(np.int16), columns[:, 3])
    return build.finish(size)


def model(batches: list[list[Piece]], size: int) -> list[Place]:
    places: list[Place] = []
    for gap, length, device, place in (piece for batch in batches for piece in batch):
        places += [(ZERO, 0)] * gap
        places += [(device, 0 if device == ZERO else place + step) for step in range(length)]
    return (places + [(ZERO, 0)] * size)[:size]


def expanded(found: RunMap) -> list[Place]:
    return [(run.device, 0 if run.is_zero else run.device_offset + step) for run in found for step in range(run.length)]


@quick
@given(st.lists(pieces, max_size=4), st.integers(0, 80))
def test_builder_joins_and_fills(batches: list[list[Piece]], size: int) -> None:
    found = built(batches, size)
    wanted = model(batches, size)
    assert expanded(found) == wanted
    assert int(found.length.sum()) == size
    assert found.allocated_bytes == sum(device != ZERO for device, _ in wanted)
    joined = list(found)
    for before, after in itertools.pairwise(joined):
        both_zero = before.is_zero and after.is_zero
        touch = before.device == after.device and before.device_offset + before.length == after.device_offset
        assert not both_zero
        assert before.is_zero or not touch


@quick
@given(st.lists(pieces, max_size=3), st.integers(1, 80), st.integers(0, 79), st.integers(0, 80))
def test_any_range(batches: list[list[Piece]], size: int, offset: int, length: int) -> None:
    offset = min(offset, size)
    length = min(length, size - offset)
    found = built(batches, size)
    wanted = model(batches, size)[offset : offset + length]
    seen = [
        (r.device, 0 if r.is_zero else r.device_offset + i)
        for r in found.between(offset, length)
        for i in range(r.length)
    ]
    assert seen == wanted
    devices = [MemoryDevice(bytes(range(100))), MemoryDevice(bytes(range(100, 200)))]
    mapped = Mapped("file", found, devices)
    assert list(read(mapped, offset, length)) == [0 if d == ZERO else 100 * d + place for d, place in wanted]


@quick
@given(st.lists(pieces, max_size=3), st.integers(0, 80))
def test_extents_tile_and_say_what_reads_as_zeroes(batches: list[list[Piece]], size: int) -> None:
    found = built(batches, size)
    wanted = model(batches, size)
    extents = list(tiled(found.extents(), size))
    for before, after in itertools.pairwise(extents):
        assert before.kind is not after.kind
    for extent in extents:
        for device, _ in wanted[extent.start : extent.end]:
            assert (extent.kind is Kind.ZERO) == (device == ZERO)


def test_chunks_are_no_edges() -> None:
    """Maps larger than a chunk: no run and no extent is cut or lost where chunks meet."""
    count = 40_000
    build = Builder()
    starts = np.arange(count, dtype=np.int64) * 10
    devices = np.where(np.arange(count) % 3 == 0, ZERO, 0).astype(np.int16)
    build.add(starts, np.full(count, 10, np.int64), devices, starts[::-1] * 7)
    found = build.finish(count * 10)
    assert sum(run.length for run in found) == count * 10
    assert len(list(tiled(found.extents(), count * 10))) == 2 * count // 3 + 1
    assert [run.file_offset for run in found] == found.file_offset.tolist()


@quick
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), max_size=8))
def test_shared_places_are_seen(blocks: list[tuple[int, int]]) -> None:
    found = Pieces(512, 16)
    starts = np.cumsum([0, *(length for _, length in blocks)])[:-1] * 512 if blocks else np.zeros(0, np.int64)
    columns = np.array(blocks, np.int64).reshape(-1, 2) * 512
    found.add(starts.astype(np.int64), columns[:, 1], columns[:, 0], np.zeros(len(blocks), bool))
    used = [unit for place, length in blocks for unit in range(place, place + length)]
    assert (found.shared() is not None) == (len(set(used)) != len(used))


@quick
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0, 1])), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 12), st.sampled_from([ZERO, 0]), st.integers(0, 30)), max_size=6
    ),
)
def test_placing_on_devices(spans: list[tuple[int, int]], batch: list[Piece]) -> None:
    """A file's map on the volume, put on the devices: each byte where two steps by hand would find it."""
    volume_map = built(
        [[(0, length, device, 100 * number) for number, (length, device) in enumerate(spans)]], sum(s for s, _ in spans)
    )
    limit = volume_map.size_bytes
    batch = [
        (gap, min(length, limit), device, min(place, limit - min(length, limit)))
        for gap, length, device, place in batch
    ]
    size = sum(gap + length for gap, length, _, _ in batch)
    file_map = built([batch], size)
    volume = LogicalVolume("volume", [MemoryDevice(b"")] * 2, volume_map)
    by_hand = expanded(volume_map)
    wanted = [(ZERO, 0) if device == ZERO else by_hand[place] for device, place in expanded(file_map)]
    assert expanded(volume.place(file_map)) == wanted


def test_one_piece() -> None:
    assert list(runs.of_one(0, 5, 10)) == [runs.Run(0, 10, 0, 5)]
    assert list(runs.of_one(0, 5, 0)) == []
    assert list(runs.of_one(0, 5, 0).extents()) == []


def test_maps_are_the_same_only_if_every_column_is() -> None:
    def mapped(starts: list[int], devices: list[int], places: list[int], size: int) -> RunMap:
        return RunMap(np.array(starts, np.int64), np.array(devices, np.int16), np.array(places, np.int64), size)

    one = mapped([0, 10], [0, 1], [500, 700], 20)
    assert one.same_as(mapped([0, 10], [0, 1], [500, 700], 20))
    for other in (
        mapped([0, 11], [0, 1], [500, 700], 20),
        mapped([0, 10], [0, 0], [500, 700], 20),
        mapped([0, 10], [0, 1], [500, 701], 20),
        mapped([0, 10], [0, 1], [500, 700], 21),
        mapped([0], [0], [500], 20),
    ):
        assert not one.same_as(other)
        assert not other.same_as(one)


@quick
@given(st.lists(pieces, max_size=3), st.integers(1, 80), st.integers(0, 79), st.integers(0, 80))
def test_holes_are_written_into_buffers_that_were_used_before(
    batches: list[list[Piece]], size: int, offset: int, length: int
) -> None:
    """A buffer is lent again and again: what it held must not pass for what a hole holds."""
    offset = min(offset, size)
    length = min(length, size - offset)
    mapped = Mapped("file", built(batches, size), [MemoryDevice(bytes([1]) * 100), MemoryDevice(bytes([2]) * 100)])
    buf = bytearray(b"\xff" * length)
    mapped.read_into(offset, memoryview(buf))
    assert list(buf) == [0 if device == ZERO else device + 1 for device, _ in model(batches, size)[offset:][:length]]


def test_shared_places_are_seen_where_chunks_meet() -> None:
    for row in (0, (1 << 16) - 1, 1 << 16, (1 << 17) - 1):
        found = Pieces(512, 16)
        places = np.arange(140_000, dtype=np.int64) * 1024
        places[row + 1] = places[row]
        found.add(
            np.arange(140_000, dtype=np.int64) * 512, np.full(140_000, 512, np.int64), places, np.zeros(140_000, bool)
        )
        assert found.shared() == row * 1024
