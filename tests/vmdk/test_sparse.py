"""Sparse extents, byte by byte: each field that could lead astray is turned wrong once, and refused for its reason."""

import struct
import zlib
from contextlib import nullcontext

import pytest

from tests.images import data, extents, pattern, read_over
from tests.vmdk import images
from tests.vmdk.builders import MemoryFiles, cowd, descriptor, hosted, sesparse, stream
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.cache import Cache
from vcbproxy.vmdk.chain import open_disk
from vcbproxy.vmdk.cowd import open_cowd
from vcbproxy.vmdk.hosted import open_hosted
from vcbproxy.vmdk.sesparse import open_sesparse

CELL = 64 << 10
SECTORS = 4 * CELL // 512
OPENERS = {"cowd": open_cowd, "sesparse": open_sesparse, "hosted": open_hosted}
GOOD = {"cowd": cowd("A-BC", CELL), "sesparse": sesparse("A-0C", CELL), "hosted": hosted("A-0C", CELL)}


def sweep(kind: str, content: bytes, sectors: int = SECTORS) -> None:
    """Open, map and read all of an extent."""
    layer = OPENERS[kind](MemoryDevice(content, "disk-x.vmdk"), sectors, Cache(1 << 20))
    list(layer.tiles())
    layer.fill(0, memoryview(bytearray(layer.size_bytes)))


def refusal(kind: str, content: bytes, sectors: int = SECTORS) -> str:
    with pytest.raises(VmdkError) as caught:
        sweep(kind, content, sectors)
    assert str(caught.value).startswith("disk-x.vmdk: ")
    return str(caught.value)


def patched(content: bytes, offset: int, layout: str, value: int) -> bytes:
    out = bytearray(content)
    struct.pack_into(layout, out, offset, value)
    return bytes(out)


@pytest.mark.parametrize("kind", GOOD)
def test_the_unharmed_one_is_fine(kind):
    sweep(kind, GOOD[kind])


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("length", [0, 1, 4, 511, 512, 2047])
def test_a_file_cut_in_its_header_is_refused(kind, length):
    refusal(kind, GOOD[kind][:length])


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_cut_anywhere_is_refused(kind):
    for length in range(0, len(GOOD[kind]), 4096 + 512):
        refusal(kind, GOOD[kind][:length])
    refusal(kind, GOOD[kind][:-1])


@pytest.mark.parametrize("kind", GOOD)
def test_the_descriptor_must_say_the_same_size(kind):
    assert "the descriptor" in refusal(kind, GOOD[kind], SECTORS + 4096)
    assert "the descriptor" in refusal(kind, GOOD[kind], SECTORS // 2)


COWD_TABLE = 4 * 512 + 512
SE_DIRECTORY = 8 * 512
SE_TABLE = 9 * 512
HOSTED_TABLE = 22 * 512


@pytest.mark.parametrize(
    ("kind", "offset", "layout", "value", "reason"),
    [
        ("cowd", 0, "<I", 0x564D444B, "magic"),
        ("cowd", 4, "<I", 2, "version 2"),
        ("cowd", 8, "<I", 0x13, "flags 0x13"),
        ("cowd", 16, "<I", 0, "grains would be 0"),
        ("cowd", 16, "<I", 1 << 31, "grains would be"),
        ("cowd", 16, "<I", 128, "grain"),
        ("cowd", 20, "<I", 0, "grain directory would lie at 0"),
        ("cowd", 20, "<I", 0xFFFFFFFF, "grain directory would lie"),
        ("cowd", 24, "<I", 0, "directory has 0 tables"),
        ("cowd", 24, "<I", 0xFFFFFFFF, "grain directory would lie"),
        ("cowd", 2048, "<I", 0xFFFFFFF0, "grain table 0 would lie"),
        ("cowd", COWD_TABLE, "<I", 1, "grain 0 would lie at 512"),
        ("cowd", COWD_TABLE, "<I", 0xFFFFFFFF, "grain 0 would lie"),
        ("sesparse", 0, "<Q", 0xCAFEBABF, "magic"),
        ("sesparse", 8, "<Q", 0x0000000300000001, "version 0x300000001"),
        ("sesparse", 24, "<Q", 16, "grain size 16"),
        ("sesparse", 32, "<Q", 128, "table size 128"),
        ("sesparse", 40, "<Q", 1, "flags 0x1"),
        ("sesparse", 48, "<Q", 1, "reserved bits"),
        ("sesparse", 500, "<Q", 1, "reserved bits"),
        ("sesparse", 80, "<Q", 0, "volatile header would lie at 0"),
        ("sesparse", 80, "<Q", 1 << 37, "volatile header would lie"),
        ("sesparse", 80, "<Q", 1 << 63, "beyond any file"),
        ("sesparse", 128, "<Q", 0, "grain directory would lie"),
        ("sesparse", 136, "<Q", 0, "directory has 0 tables"),
        ("sesparse", 152, "<Q", 0, "directory entry 0"),
        ("sesparse", 192, "<Q", 0, "header"),
        ("sesparse", 200, "<Q", 8, "grain 0 is 0x3"),
        ("sesparse", 512, "<Q", 0xCAFECAFF, "volatile header has no magic"),
        ("sesparse", 512 + 24, "<Q", 1, "journal must be replayed"),
        ("sesparse", 512 + 40, "<Q", 1, "reserved bits"),
        ("sesparse", SE_DIRECTORY, "<Q", 0x2000000000000000, "directory entry 0"),
        ("sesparse", SE_DIRECTORY, "<Q", 0x1000000100000000, "directory entry 0"),
        ("sesparse", SE_DIRECTORY, "<Q", 0x1000000000000001, "directory entry 0"),
        ("sesparse", SE_TABLE, "<Q", 0x0000000000000001, "grain 0 is 0x0000000000000001"),
        ("sesparse", SE_TABLE, "<Q", 0x4000000000000000, "grain 0 is 0x4"),
        ("sesparse", SE_TABLE, "<Q", 0x3000000000000001, "grain 0 is 0x3"),
        ("sesparse", SE_TABLE + 8, "<Q", 0x3FFFFFFFFFFFFFFF, "grain 1 is 0x3"),
        ("hosted", 0, "<I", 0x44574F43, "magic"),
        ("hosted", 4, "<I", 4, "version 4"),
        ("hosted", 8, "<I", 0x17, "flags 0x17"),
        ("hosted", 8, "<I", 0x10007, "compression 0"),
        ("hosted", 12, "<Q", 0, "0 sectors"),
        ("hosted", 12, "<Q", 1 << 60, "sectors"),
        ("hosted", 20, "<Q", 0, "grains of 0 sectors"),
        ("hosted", 20, "<Q", 1 << 40, "grains of"),
        ("hosted", 44, "<I", 0, "0 grains"),
        ("hosted", 44, "<I", 1 << 30, "grains of"),
        ("hosted", 48, "<Q", 1 << 50, "grain directory would lie"),
        ("hosted", 56, "<Q", 1 << 50, "grain directory would lie"),
        ("hosted", 56, "<Q", 0, "grain directory would lie"),
        ("hosted", 56, "<Q", 0xFFFFFFFFFFFFFFFF, "footer is missing"),
        ("hosted", 64, "<Q", 1 << 50, "grain 0 would lie"),
        ("hosted", 72, "<B", 1, "not closed cleanly"),
        ("hosted", 73, "<I", 0x0A0A0A0A, "as a text file"),
        ("hosted", 77, "<H", 1, "compression 1"),
        ("hosted", 77, "<H", 2, "compression 2"),
        ("hosted", 21 * 512, "<I", 0, "two copies"),
        ("hosted", HOSTED_TABLE, "<I", 0, "two copies"),
    ],
)
def test_each_wrong_field_is_refused_for_its_reason(kind, offset, layout, value, reason):
    assert reason in refusal(kind, patched(GOOD[kind], offset, layout, value))


def test_two_grains_in_one_place_are_refused():
    for kind, table, layout in (("cowd", COWD_TABLE, "<I"), ("sesparse", SE_TABLE, "<Q")):
        size = struct.calcsize(layout)
        (first,) = struct.unpack_from(layout, GOOD[kind], table)
        assert "two grains in one place" in refusal(kind, patched(GOOD[kind], table + size, layout, first))


def test_one_table_for_two_ranges_is_refused():
    text = "A" + "-" * 63 + "B"  # a COWD table covers 2 MiB: 32 cells
    content = cowd(text, CELL)
    (first,) = struct.unpack_from("<I", content, 2048)
    shared = patched(content, 2048 + 4 * 2, "<I", first)
    assert "one table twice" in refusal("cowd", shared, len(text) * CELL // 512)


LONG = "A" + "-" * 255 + "B"
"""Long enough for two SE-sparse tables, of 256 cells each, and for several of COWD, of 32."""
LONG_SECTORS = len(LONG) * CELL // 512


def test_two_tables_that_share_a_grain_are_refused():
    """Neither of them is wrong by itself: one of the two ranges would read as the other's bytes."""
    content = cowd(LONG, CELL)
    first, last = (struct.unpack_from("<I", content, 2048 + 4 * table)[0] * 512 for table in (0, 8))
    (grain,) = struct.unpack_from("<I", content, first)
    assert "lies where another does" in refusal("cowd", patched(content, last, "<I", grain), LONG_SECTORS)
    content = sesparse(LONG, CELL)
    one, other = SE_TABLE, SE_TABLE + 64 * 512
    (entry,) = struct.unpack_from("<Q", content, one)
    assert "lies where another does" in refusal("sesparse", patched(content, other, "<Q", entry), LONG_SECTORS)
    text = "A" + "-" * 511 + "B"  # a hosted table has 512 grains
    content = hosted(text, CELL, mirror=False)
    (grain,) = struct.unpack_from("<I", content, HOSTED_TABLE)
    harmed = patched(content, HOSTED_TABLE + 512 * 4, "<I", grain)
    assert "lies where another does" in refusal("hosted", harmed, len(text) * CELL // 512)
    sweep("hosted", content, len(text) * CELL // 512)


def test_a_grain_in_a_table_is_refused():
    """In COWD files tables lie between the grains."""
    content = cowd(LONG, CELL)
    first, last = (struct.unpack_from("<I", content, 2048 + 4 * table)[0] for table in (0, 8))
    for table in (first, last, last + 31):
        harmed = patched(content, last * 512, "<I", table)
        assert "lies where another does" in refusal("cowd", harmed, LONG_SECTORS)
    sweep("cowd", content, LONG_SECTORS)


def test_one_table_for_two_ranges_far_apart_is_refused():
    """As far as 64 GiB: directories are read in pages, and a page cannot tell."""
    sectors = (64 << 30) // 512 + 64 * 512
    directory_sectors = 65
    tables, grains = 8 + directory_sectors, 8 + directory_sectors + 64 * 4
    out = bytearray((grains + 8) * 512)
    words = [0xCAFEBABE, 0x0000000200000001, sectors, 8, 64, 0, 0, 0, 0, 0, 1, 1, 2, 2, 4, 4]
    struct.pack_into("<26Q", out, 0, *words, 8, directory_sectors, tables, 64 * 4, 0, 0, 0, 0, grains, 8)
    struct.pack_into("<4Q", out, 512, 0xCAFECAFE, 2, 7, 0)
    struct.pack_into("<Q", out, tables * 512, 3 << 60)
    for number, refused in ((1, False), (0, True)):
        struct.pack_into("<Q", out, 8 * 512, 1 << 60)
        struct.pack_into("<Q", out, 8 * 512 + 4096 * 8, 1 << 60 | number)
        layer = open_sesparse(MemoryDevice(bytes(out), "disk-x.vmdk"), sectors, Cache(1 << 20))
        with pytest.raises(VmdkError, match="lies where another does") if refused else nullcontext():
            list(layer.tiles())


@pytest.mark.parametrize("kind", ["cowd", "sesparse"])
def test_tables_may_be_read_again_whatever_the_cache_dropped(kind):
    content = {"cowd": cowd, "sesparse": sesparse}[kind](LONG, CELL)
    layer = OPENERS[kind](MemoryDevice(content, "disk-x.vmdk"), LONG_SECTORS, Cache(0))
    for _ in range(3):
        list(layer.tiles())
    layer.recheck()


@pytest.mark.parametrize("region", [16, 18, 24])
def test_regions_over_each_other_are_refused(region):
    """Directory, tables and grains: whatever lies in two of them would be taken for both."""
    words = struct.unpack_from("<26Q", GOOD["sesparse"])
    for other in {16, 18, 24} - {region}:
        harmed = patched(GOOD["sesparse"], region * 8, "<Q", words[other] + words[other + 1] - 1)
        assert "its regions lie over each other" in refusal("sesparse", harmed)


def test_a_zeroed_grain_needs_the_flag_that_allows_it():
    content = hosted("A-0C", CELL, mirror=False)
    assert "grain 2 would lie at 512" in refusal("hosted", patched(content, 8, "<I", 1))


def test_unmapped_grains_read_as_zeroes_like_zeroed_ones():
    for unmapped in (False, True):
        content = sesparse("A0-B", CELL, unmapped=unmapped)
        layer = open_sesparse(MemoryDevice(content), SECTORS, Cache(1 << 20))
        buf = bytearray(b"\xff" * 2 * CELL)
        assert layer.fill(0, memoryview(buf)) == []
        assert bytes(buf) == data("A0", CELL)


def test_a_capacity_that_is_no_multiple_of_the_grain():
    """The last grain is whole in the file, or cut at the disk's end: both are read as far as the disk goes."""
    for content in (cowd("AB", CELL, grain=4096), cowd("AB", CELL, grain=4096, seed=3)):
        sectors = 2 * CELL // 512 - 3
        odd = patched(content, 12, "<I", sectors)
        layer = open_cowd(MemoryDevice(odd), sectors, Cache(1 << 20))
        buf = bytearray(b"\xff" * sectors * 512)
        assert layer.fill(0, memoryview(buf)) == []
        assert bytes(buf) == data("AB", CELL)[: len(buf)]
        assert [tile.length for tile in layer.tiles()] == [len(buf)]


@pytest.mark.parametrize("kind", ["cowd", "hosted"])
def test_the_last_grain_may_end_with_the_disk(kind):
    """Its file may end there too; one sector sooner, and bytes of the disk are missing."""
    last = pattern(8 * 512, 4 * 512, "last")
    content = {
        "cowd": lambda: images.cowd(12, {1: last}, 8, 0),
        "hosted": lambda: images.hosted(12, {1: last}, 8, 512, 0, mirror=False),
    }[kind]()
    whole = content[: -4 * 512]
    layer = OPENERS[kind](MemoryDevice(whole, "disk-x.vmdk"), 12, Cache(1 << 20))
    buf = bytearray(12 * 512)
    assert [(gap.start, gap.length) for gap in layer.fill(0, memoryview(buf))] == [(0, 8 * 512)]
    assert buf[8 * 512 :] == last
    assert "grain 1 would lie at" in refusal(kind, whole[:-512], 12)


def test_what_a_table_says_beyond_the_end_of_the_disk_is_not_looked_at():
    """Tables have room for 4096 grains, the disk ends before: nobody wrote there, and nobody reads there."""
    sweep("cowd", patched(GOOD["cowd"], COWD_TABLE + SECTORS * 4, "<I", 0xFFFFFFFF))
    sweep("sesparse", patched(GOOD["sesparse"], SE_TABLE + SECTORS, "<Q", 0xFFFFFFFFFFFFFFFF))


# ---- streams --------------------------------------------------------------------------------------------------------


def streamed(content: bytes) -> MemoryFiles:
    return MemoryFiles({"disk.vmdk": content})


def stream_refusal(content: bytes) -> str:
    with pytest.raises(VmdkError) as caught, open_disk(streamed(content), "disk.vmdk") as disk:
        read_over(disk, 0, disk.size_bytes)
    return str(caught.value)


def test_a_stream_is_read_through_its_footer():
    with open_disk(streamed(stream("A0-BC", CELL)), "disk.vmdk") as disk:
        assert read_over(disk, 0, disk.size_bytes) == data("A0-BC", CELL)
        assert list(disk.extents()) == extents("A0-BC", CELL)
        assert read_over(disk, 3 * CELL + 100, CELL) == data("A0-BC", CELL)[3 * CELL + 100 : 4 * CELL + 100]


def test_a_stream_that_was_cut_is_refused():
    content = stream("A0-BC", CELL)
    for length in (len(content) - 1, len(content) - 512, len(content) // 2 // 512 * 512, 128 * 512, 512):
        stream_refusal(content[:length])


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason"),
    [
        (0, "<Q", 128, "its marker says sector 128"),
        (8, "<I", 0, "0 bytes long"),
        (8, "<I", 1 << 31, "bytes long"),
        (8, "<I", 100, "its length is wrong"),
        (12, "<Q", 0, "does not unpack"),
        (600, "<Q", 0, "does not unpack"),
    ],
)
def test_a_damaged_packed_grain_is_refused(offset, layout, value, reason):
    assert reason in stream_refusal(patched(stream("A0-BC", CELL), 128 * 512 + offset, layout, value))


def test_a_packed_grain_that_another_table_leads_to_is_refused():
    """By its marker; also when the cache has it unpacked already, as that other's."""
    content = stream("A" + "-" * 511 + "B", CELL)
    (directory,) = struct.unpack_from("<Q", content, len(content) - 1024 + 56)
    first, second = (table * 512 for table in struct.unpack_from("<2I", content, directory * 512))
    (grain,) = struct.unpack_from("<I", content, first)
    assert "its marker says sector 0" in stream_refusal(patched(content, second, "<I", grain))


def test_a_bomb_in_a_packed_grain_does_not_go_off():
    content = bytearray(stream("ABCD", CELL))
    bomb = zlib.compress(bytes(64 << 20), 9)
    assert len(bomb) < 2 * CELL
    content[128 * 512 : 128 * 512 + 12 + len(bomb)] = struct.pack("<QI", 0, len(bomb)) + bomb
    assert "its length is wrong" in stream_refusal(bytes(content))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (zlib.compress(bytes(CELL - 512)), f"it unpacks to {CELL - 512} bytes"),
        (zlib.compress(bytes(CELL + 1)), f"it unpacks to {CELL + 1} bytes"),
        (zlib.compress(bytes(CELL)) + b"x", "its length is wrong"),
    ],
)
def test_a_packed_grain_of_another_length_is_refused(payload, reason):
    content = bytearray(stream("ABCD", CELL))
    content[128 * 512 : 128 * 512 + 12 + len(payload)] = struct.pack("<QI", 0, len(payload)) + payload
    assert reason in stream_refusal(bytes(content))


def test_packed_grains_without_markers_are_refused():
    content = patched(stream("ABCD", CELL), 8, "<I", 0x10001)
    assert "have no markers to tell their length" in stream_refusal(content)


@pytest.mark.parametrize("directory_at", [48, 56])
def test_a_table_that_only_one_directory_names_is_not_left_out(directory_at):
    """Taken for absent, what it holds would be the parent's, or zeroes; its map alone must say so."""
    directory = struct.unpack_from("<Q", GOOD["hosted"], directory_at)[0] * 512
    content = patched(GOOD["hosted"], directory, "<I", 0)
    layer = open_hosted(MemoryDevice(content, "disk-x.vmdk"), SECTORS, Cache(1 << 20))
    with pytest.raises(VmdkError, match="the two copies of grain table 0 differ"):
        list(layer.tiles())


@pytest.mark.parametrize("from_end", [3 * 512, 512])
def test_a_stream_without_one_of_its_last_markers_is_refused(from_end):
    content = bytearray(stream("A0-BC", CELL))
    content[-from_end + 12] ^= 1  # the marker's type
    assert "cut short" in stream_refusal(bytes(content))


def test_a_second_directory_counts_only_where_the_header_says_so():
    content = patched(GOOD["hosted"], 8, "<I", 1 | 4)
    sweep("hosted", patched(content, 21 * 512, "<I", 0))


def test_a_footer_of_another_disk_is_refused():
    content = bytearray(stream("A0-BC", CELL))
    other = stream("A0-B", CELL)
    content[-1024:-512] = other[-1024:-512]
    assert "not of one disk" in stream_refusal(bytes(content))


def test_a_split_disks_extent_is_told_from_a_disk():
    assert "open the descriptor" in stream_refusal(hosted("AB", CELL))


def test_a_monolithic_disk_may_have_been_renamed():
    inside = descriptor("monolithicSparse", [f'RW {2 * CELL // 512} SPARSE "old name.vmdk"'])
    with open_disk(streamed(hosted("AB", CELL, text_inside=inside)), "disk.vmdk") as disk:
        assert read_over(disk, 0, disk.size_bytes) == data("AB", CELL)


@pytest.mark.parametrize("lines", [['RW 128 SPARSE "a"', 'RW 128 SPARSE "b"'], ["RW 256 ZERO"]])
def test_a_descriptor_inside_must_be_of_one_file(lines):
    inside = descriptor("monolithicSparse", lines)
    assert "one file" in stream_refusal(hosted("AB", CELL, text_inside=inside))
