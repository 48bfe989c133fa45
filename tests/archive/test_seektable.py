"""The seek table: what it says is what was written, and what contradicts itself is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.archive.seektable import SeekTable, SeekTableBuilder, parse_table, read_table
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import IntegrityError


def table_of(lengths: list[tuple[int, int]]) -> bytes:
    builder = SeekTableBuilder()
    for number, (compressed, plain) in enumerate(lengths):
        builder.add(compressed, plain, checksum=number)
    return builder.encode()


def image_of(lengths: list[tuple[int, int]]) -> MemoryDevice:
    return MemoryDevice(bytes(sum(compressed for compressed, _ in lengths)) + table_of(lengths), "image")


def test_it_lies_in_the_image_as_the_specification_says() -> None:
    builder = SeekTableBuilder()
    builder.add(300, 4096, 0x11223344)
    skippable = "5e2a4d18 15000000"  # magic, 12 + 9 bytes follow
    entry = "2c010000 00100000 44332211"  # compressed, plain, checksum
    footer = "01000000 80 b1ea928f"  # frames, checksums, seekable magic
    assert builder.encode() == bytes.fromhex(skippable + entry + footer)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30), st.integers(0, 300), st.integers(0, 300))
def test_finds_the_frames_of_any_range(lengths: list[tuple[int, int]], start: int, length: int) -> None:
    table = read_table(image_of(lengths))
    assert table is not None
    found = list(table.frames(start, min(start + length, table.plain_bytes)))
    at = plain = 0
    expected = []
    for number, (compressed_bytes, plain_bytes) in enumerate(lengths):
        if length and plain < start + length and start < plain + plain_bytes:
            expected.append((number, at, compressed_bytes, plain, plain_bytes, number))
        at, plain = at + compressed_bytes, plain + plain_bytes
    assert [(f.number, f.at, f.compressed_bytes, f.start, f.plain_bytes, f.checksum) for f in found] == expected


def test_finds_frames_behind_the_first_thousands() -> None:
    lengths = [(3, 5)] * 5000 + [(7, 11)]
    table = read_table(image_of(lengths))
    assert table is not None
    (last,) = table.frames(25_000)
    assert (last.number, last.at, last.start, last.end) == (5000, 15_000, 25_000, 25_011)
    (middle,) = table.frames(5 * 1024, 5 * 1024 + 1)
    assert (middle.number, middle.at) == (1024, 3 * 1024)


def test_tables_without_checksums_are_read() -> None:
    body = struct.pack("<II", 10, 20)
    data = bytes(10) + struct.pack("<II", 0x184D2A5E, 8 + 9) + body + struct.pack("<IBI", 1, 0, 0x8F92EAB1)
    table = read_table(MemoryDevice(data))
    assert table is not None
    (frame,) = table.frames()
    assert (frame.plain_bytes, frame.checksum) == (20, None)


def test_what_does_not_end_with_a_table_has_none() -> None:
    assert read_table(MemoryDevice(b"")) is None
    assert read_table(MemoryDevice(bytes(100))) is None
    whole = bytes(10) + table_of([(10, 20)])
    assert read_table(MemoryDevice(whole[:-1])) is None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[1:], "its frames have 10 bytes"),
        (lambda data: data[:10] + b"\x5f" + data[11:], "no header"),
        (lambda data: data[:-9] + b"\x02" + data[-8:], "damaged seek table"),
        (lambda data: data[:-9] + b"\xff\xff\xff\x07" + data[-5:], "claims 134217727 frames"),
        (lambda data: data[:-5] + b"\x84" + data[-4:], "flags"),
        (lambda data: data[:22] + b"\xff\xff\xff\xff" + data[26:], "a frame of 4294967295 bytes"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(damage, says: str) -> None:  # type: ignore[no-untyped-def]
    data = bytes(10) + table_of([(10, 20)])
    with pytest.raises(IntegrityError, match=says):
        read_table(MemoryDevice(damage(data), "image"))


def test_the_table_knows_its_own_limits() -> None:
    data = table_of([(1, 2**32 - 1)])
    with pytest.raises(IntegrityError, match="a frame of 4294967295 bytes"):
        parse_table(data, "image")


def test_frames_alike_are_added_at_once() -> None:
    one, other = SeekTableBuilder(), SeekTableBuilder()
    one.add(5, 6, 7, count=3)
    for _ in range(3):
        other.add(5, 6, 7)
    assert one.encode() == other.encode()
    assert (one.frames, one.plain_bytes, one.compressed_bytes) == (3, 18, 15)
    assert isinstance(parse_table(one.encode(), "image"), SeekTable)
