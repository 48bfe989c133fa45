"""Delta files as bytes: the fields of their headers, and where the first grains lie."""

from __future__ import annotations

import itertools
import struct

import pytest

from tests.lab import labs
from vcbproxy.lab.cowd import CowdFile
from vcbproxy.lab.grains import PARENT, ZERO
from vcbproxy.lab.sesparse import SeSparseFile
from vcbproxy.units import KiB, MiB

SIZE = 20 * MiB


@pytest.fixture
def store(tmp_path):
    return labs.new_store("nfs", tmp_path)


@pytest.fixture(params=["cowd", "sesparse"])
def delta(request, store):
    if request.param == "cowd":
        return CowdFile.create(store, "/d", SIZE, "base.vmdk")
    return SeSparseFile.create(store, "/d", SIZE)


def u32(store, offset, count=1):
    return struct.unpack(f"<{count}I", store.read("/d", offset, 4 * count))


def u64(store, offset, count=1):
    return struct.unpack(f"<{count}Q", store.read("/d", offset, 8 * count))


def test_a_cowd_file_grain_by_grain(store):
    delta = CowdFile.create(store, "/d", SIZE, "base.vmdk")
    assert store.read("/d", 0, 4) == b"COWD"
    # version, flags, capacity, grain, directory at sector 4, entries (2 MiB each), next free sector
    assert u32(store, 4, 7) == (1, 3, SIZE // 512, 1, 4, 10, 5)
    assert store.read("/d", 32, 10) == b"base.vmdk\0"
    delta.write(2 * MiB + 1024, b"a" * 1024)
    # Second directory entry: the data came first (sectors 5 and 6), then the table's 32 sectors.
    assert u32(store, 2048, 3) == (0, 7, 0)
    assert u32(store, 7 * 512, 5) == (0, 0, 5, 6, 0)
    assert store.read("/d", 5 * 512, 1024) == b"a" * 1024
    assert u32(store, 28) == (7 + 32,)
    delta.write(2 * MiB + 1536, b"b" * 1024)
    # The first grain is written in place, the other is new.
    assert u32(store, 7 * 512, 5) == (0, 0, 5, 6, 39)
    assert store.read("/d", 6 * 512, 512) == b"b" * 512


def test_an_sesparse_file_grain_by_grain(store):
    delta = SeSparseFile.create(store, "/d", SIZE)
    assert u64(store, 0, 5) == (0xCAFEBABE, 0x200000001, SIZE // 512, 8, 64)
    assert u64(store, 512, 4)[0::3] == (0xCAFECAFE, 0)  # the volatile header: no journal to replay
    directory, _, tables = u64(store, 16 * 8, 3)
    grains = u64(store, 24 * 8)[0]
    delta.write(16 * MiB + 4096, b"a" * 8192)
    assert u64(store, directory * 512, 2) == (0, 1 << 60)  # table 0 is the one of the second 16 MiB
    here = 3 << 60
    assert u64(store, tables * 512, 4) == (0, here, here | 1 << 48, 0)
    assert store.read("/d", grains * 512, 8192) == b"a" * 8192
    delta.zero(16 * MiB + 8192, 4096)
    assert u64(store, tables * 512, 4) == (0, here, 2 << 60, 0)
    delta.zero(16 * MiB + 4096, 8192)
    assert u64(store, tables * 512, 4) == (0, 1 << 60, 2 << 60, 0), "unmapped and zeroed, by turns"


def test_numbers_of_grains_are_spread(store):
    """Slot 0x1234 is written as 0x234 in bits 48.. and 0x1 below."""
    delta = SeSparseFile.create(store, "/d", 32 * MiB)
    delta.write(0, bytes(0x1234 * 4096))
    delta.write(0x1234 * 4096, b"x" * 4096)
    tables = u64(store, 18 * 8)[0]
    assert u64(store, tables * 512 + 0x1234 * 8) == (3 << 60 | 0x234 << 48 | 0x1,)
    again = SeSparseFile(store, "/d")
    (segment,) = again.segments(0x1234 * 4096, 4096)
    assert store.read("/d", segment.file_offset, 4096) == b"x" * 4096


def test_slots_that_grains_have_left_are_used_again(store):
    """A delta that is erased and written again for days never has more grains than its disk."""
    delta = SeSparseFile.create(store, "/d", 64 * KiB)
    size_bytes = store.size("/d") + 64 * KiB
    for number in range(40):
        delta.write(0, bytes([65 + number]) * 64 * KiB)
        delta.zero(number % 16 * 4 * KiB, 4 * KiB)
        delta = delta if number % 8 else SeSparseFile(store, "/d")
    assert store.size("/d") == size_bytes
    held = [store.read("/d", segment.file_offset, segment.length) for segment in delta.segments(0, 28 * KiB)]
    assert b"".join(held) == bytes([65 + 39]) * 28 * KiB
    places = [
        segment.file_offset + skipped
        for segment in delta.written()
        for skipped in range(0, segment.length, 4 * KiB)
        if segment.file_offset >= 0
    ]
    assert len(places) == len(set(places)) == 15


def test_segments_tile_what_was_asked_for(delta):
    delta.write(4 * KiB, b"a" * 8 * KiB)
    delta.write(16 * MiB - 4 * KiB, b"b" * 8 * KiB)
    segments = list(delta.segments(0, SIZE))
    assert segments[0].start == 0
    assert all(a.start + a.length == b.start for a, b in itertools.pairwise(segments))
    assert segments[-1].start + segments[-1].length == SIZE
    assert sum(segment.length for segment in segments if segment.file_offset == PARENT) == SIZE - 16 * KiB
    assert sum(segment.length for segment in delta.written()) == 16 * KiB


def test_zeroes_hide_the_parent(delta):
    delta.zero(8 * KiB, 4 * KiB)
    (segment,) = delta.written()
    assert (segment.start, segment.length) == (8 * KiB, 4 * KiB)
    assert segment.file_offset == ZERO or not any(delta.store.read("/d", segment.file_offset, 4 * KiB))


@pytest.mark.parametrize(("offset", "length"), [(100, 4096), (0, 100), (SIZE, 4096), (SIZE - 4096, 8192)])
def test_wrong_ranges_are_refused(delta, offset, length):
    with pytest.raises(ValueError, match="/d"):
        delta.write(offset, bytes(length))


def test_files_of_another_kind_are_refused(store):
    store.create_file("/d", data=bytes(8192))
    with pytest.raises(ValueError, match="not a COWD"):
        CowdFile(store, "/d")
    with pytest.raises(ValueError, match="not an SE-sparse"):
        SeSparseFile(store, "/d")
