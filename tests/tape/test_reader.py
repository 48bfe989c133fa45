"""Files read in order, ahead of whoever wants them; and files as others lay them out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.errors import FormatError, MediumError
from tape.ltfs.index import Extent, File, Pointer, Times
from tape.ltfs.readahead import ReadAhead
from tape.ltfs.reader import Piece
from tape.ltfs.volume import LtfsVolume
from tape.scsi.sense import Key
from tape.sequential import Position
from tests.tape.volumes import BLOCK, cartridge, content, formatted, mounted, put


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    return formatted(tmp_path / "TAP001L8")


@pytest.fixture
def volume(lun: DriveLun) -> LtfsVolume:
    return mounted(lun)


def collect(pieces: Iterable[Piece], into: bytearray) -> None:
    for piece in pieces:
        into += piece.data


def ahead(volume: LtfsVolume, path: str, offset: int = 0, ring_bytes: int = 2 * BLOCK) -> bytes:
    with ReadAhead(volume.open(path), offset=offset, ring_bytes=ring_bytes) as pieces:
        return b"".join(piece.data for piece in pieces)


@pytest.mark.parametrize("offset", [0, 1, BLOCK, 5 * BLOCK - 1, 9 * BLOCK + 7])
def test_a_file_is_read_ahead_from_anywhere(volume: LtfsVolume, offset: int) -> None:
    data = content(1, 9 * BLOCK + 7)
    put(volume, "/f", data)
    assert ahead(volume, "/f", offset) == data[offset:]


def test_reading_in_order_never_seeks(volume: LtfsVolume, lun: DriveLun) -> None:
    put(volume, "/f", content(1, 20 * BLOCK))
    seen: list[int] = []
    lun.before = lambda _lun, cdb: seen.append(cdb[0])
    ahead(volume, "/f")
    assert [code for code in seen if code != 0x08] == [0x92, 0x34]  # one way to its beginning


def test_who_has_read_enough_ends_the_thread(volume: LtfsVolume) -> None:
    put(volume, "/f", content(1, 50 * BLOCK))
    with ReadAhead(volume.open("/f"), ring_bytes=2 * BLOCK) as pieces:
        first = next(iter(pieces))
    assert first.data == content(1, 50 * BLOCK)[:BLOCK]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("read:")] == []
    put(volume, "/g", b"the drive is free again")


def test_what_lies_before_a_bad_place_is_given_first(volume: LtfsVolume, lun: DriveLun) -> None:
    data = content(1, 9 * BLOCK)
    put(volume, "/f", data)
    start = volume.data_end - 9

    def fail(lun_: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x08 and lun.block == start + 5:
            raise Check(Key.MEDIUM_ERROR, 0x11)

    lun.before = fail
    got = bytearray()
    with ReadAhead(volume.open("/f")) as pieces, pytest.raises(MediumError):
        collect(pieces, got)
    assert got == data[: 5 * BLOCK]


# ---------------------------------------------------------------------- as others lay them out


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """Extents of a file over twelve blocks: (hole before, block, offset in it, length), blocks shared or skipped."""
    return draw(
        st.lists(
            st.tuples(
                st.integers(0, 2 * BLOCK), st.integers(0, 8), st.integers(0, BLOCK - 1), st.integers(1, 3 * BLOCK)
            ),
            max_size=5,
        )
    )


@given(layouts(), st.integers(0, 3 * BLOCK), st.data())
def test_extents_anywhere_in_blocks_and_holes_between_them_read_as_the_format_has_it(
    tmp_path_factory: pytest.TempPathFactory, layout: list[tuple[int, int, int, int]], tail: int, data: st.DataObject
) -> None:
    """Files that share blocks, begin within one, are scattered, or are sparse: others write such."""
    folder = tmp_path_factory.mktemp("layout")
    volume = mounted(formatted(folder / "TAP001L8"))
    start = volume.data_end
    blocks = content(7, 12 * BLOCK)
    put(volume, "/blocks", blocks)
    extents, expected = [], bytearray()
    for hole, block, byte_offset, count in layout:
        at = block * BLOCK + byte_offset
        expected += bytes(hole)
        extents.append(Extent(len(expected), Pointer("b", start + block), byte_offset, count))
        expected += blocks[at : at + count]
    expected += bytes(tail)
    volume.index.root.entries["f"] = File("f", 99, Times.all(0), len(expected), tuple(extents))
    reader = volume.open("/f")
    assert b"".join(piece.data for piece in reader.pieces()) == expected
    begin = data.draw(st.integers(0, len(expected)))
    buf = bytearray(data.draw(st.integers(0, len(expected) - begin)))
    reader.read_into(begin, memoryview(buf))
    assert buf == expected[begin : begin + len(buf)]
    assert b"".join(piece.data for piece in reader.pieces(begin)) == expected[begin:]


def test_files_on_the_index_partition_are_read_and_never_written_over(volume: LtfsVolume, lun: DriveLun) -> None:
    """A placement policy put them there; each later index goes behind them."""
    drive = volume.drive
    end = drive.locate_end(0).block
    drive.locate(Position(0, end))
    drive.write(b"small, and often read")
    drive.flush()
    volume.index.root.entries["small"] = File("small", 99, Times.all(0), 21, (Extent(0, Pointer("a", end), 0, 21),))
    volume.index.highest_uid = 99
    volume.recording.shared = True  # as whoever puts files there must know
    volume.commit_anew()
    for search in (False, True):
        with mounted(lun, search=search) as again:
            assert ahead(again, "/small") == b"small, and often read"
            put(again, f"/night{search}", content(1, 5))
    tape = cartridge(lun)
    assert [tape.tracks[0].is_filemark(number) for number in range(4, tape.tracks[0].end)] == [
        True, False, True, False, *[True, False, True] * 3
    ]  # fmt: skip
    del again.index.root.entries["small"]
    again.commit_anew()
    assert tape.tracks[0].read(end) == b"small, and often read", "an older state has it still"


def test_an_extent_that_leads_to_a_filemark_or_a_short_block_is_refused(volume: LtfsVolume) -> None:
    put(volume, "/f", content(1, BLOCK + 5))
    block = volume.data_end - 2
    for number, (start, count) in enumerate([(block - 1, 5), (block, 3 * BLOCK), (block + 1, 6), (block + 2, 1)]):
        name = f"wrong{number}"
        volume.index.root.entries[name] = File(
            name, 90 + number, Times.all(0), count, (Extent(0, Pointer("b", start), 0, count),)
        )
        with pytest.raises(FormatError):
            volume.open(f"/{name}").read_into(0, memoryview(bytearray(count)))
        with pytest.raises(FormatError):
            list(volume.open(f"/{name}").pieces())
