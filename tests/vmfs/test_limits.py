"""Where layouts and sizes end: the last block of each layout, lengths that are no multiples, places past 16 TiB."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.images import pattern
from tests.vmfs.labs import SMALL, lab, opened, overlaid
from vcbproxy.device import read
from vcbproxy.errors import DeviceError, VmfsError
from vcbproxy.extent import Kind, tiled
from vcbproxy.lab.vmfs import Allocation, Layout, VolumeSpec
from vcbproxy.units import GiB, KiB, MiB, TiB
from vcbproxy.vmfs.inode import Layout as Zla

# Layout, and how many bytes it can hold with blocks of 1 MiB.
LAST = [
    (3, Layout.BLOCKS, Zla.BLOCKS, 256 * MiB),
    (3, Layout.POINTERS, Zla.POINTERS, 256 * GiB),
    (5, Layout.BLOCKS, Zla.BLOCKS, 256 * MiB),
    (5, Layout.POINTERS, Zla.POINTERS, 256 * GiB),
    (5, Layout.DOUBLE, Zla.DOUBLE, 62 * TiB),
    (6, Layout.BLOCKS, Zla.BLOCKS, 320 * MiB),
    (6, Layout.POINTERS, Zla.POINTERS, 2560 * GiB),
    (6, Layout.DOUBLE, Zla.DOUBLE, 62 * TiB),
]


def edges(version: int, size: int) -> list[int]:
    """Block numbers on either side of every pointer block's edge that such a file has, and its last one."""
    per = {3: 1024, 5: 1024, 6: 8192}[version]
    last = size // MiB - 1
    near = [0, per - 1, per, 2 * per - 1, per * per - 1, per * per, last - per, last]
    return sorted({number for number in near if 0 <= number <= last})


@pytest.mark.parametrize(("version", "layout", "zla", "size"), LAST)
def test_every_edge_of_every_layout(version: int, layout: Layout, zla: Zla, size: int, tmp_path: Path) -> None:
    """A thin file as long as its layout allows, with data in the blocks around each edge only."""
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL, scatter=True)) as truth:
        truth.create_file("/disk", size, layout=layout)
        numbers = edges(version, size)
        for number in numbers:
            truth.write("/disk", number * MiB, f"first of {number}".encode())
            truth.write("/disk", (number + 1) * MiB - 8, number.to_bytes(8, "big"))
        with opened(truth) as volume:
            file = volume.open_file("/disk")
            assert (file.info.layout, file.info.blocks, file.size_bytes) == (zla, len(numbers), size)
            for number in numbers:
                assert read(file, number * MiB, 20) == f"first of {number}".encode().ljust(20, b"\0")
                assert read(file, (number + 1) * MiB - 8, 8) == number.to_bytes(8, "big")
            data = [extent for extent in tiled(file.extents(), size) if extent.kind is Kind.DATA]
            covered = [number for extent in data for number in range(extent.start // MiB, extent.end // MiB)]
            assert covered == numbers
            hole = next(number for number in range(size // MiB) if number not in numbers)
            assert not any(read(file, hole * MiB, MiB))


@pytest.mark.parametrize(("version", "layout", "zla", "size"), LAST)
def test_no_file_is_longer_than_its_layout(version: int, layout: Layout, zla: Zla, size: int, tmp_path: Path) -> None:
    """One byte more than there are pointers for would be read as zeroes: it is refused instead."""
    room = size if zla is not Zla.DOUBLE else {5: 256 * 1024**2, 6: 320 * 8192**2}[version] * MiB
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL)) as truth:
        truth.create_file("/disk", 3 * MiB, layout=layout)
        with overlaid(truth) as (volume, overlay):
            at = 0x1100000 + volume.tree().find("/disk").offset + {3: 512, 5: 512, 6: 4096}[version] + 0x14
            overlay.patch_number(at, room, 8)
            assert volume.open_file("/disk").size_bytes == room
            overlay.patch_number(at, room + 1, 8)
            with pytest.raises(VmfsError, match=f"its layout can hold {room} bytes"):
                volume.open_file("/disk")


@pytest.mark.parametrize("version", [5, 6])
def test_resident_files_end_with_their_descriptor(version: int, tmp_path: Path) -> None:
    room = {5: 1024, 6: 3584}[version]
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL)) as truth:
        truth.create_file("/full", data=bytes(range(256)) * (room // 256), layout=Layout.RESIDENT)
        truth.create_file("/empty", layout=Layout.RESIDENT)
        with overlaid(truth) as (volume, overlay):
            assert read(volume.open_file("/full"), 0, room) == bytes(range(256)) * (room // 256)
            assert volume.open_file("/empty").size_bytes == 0
            at = 0x1100000 + volume.tree().find("/full").offset + {5: 512, 6: 4096}[version] + 0x14
            overlay.patch_number(at, room + 1, 8)
            with pytest.raises(VmfsError, match=f"which has room for {room}"):
                volume.open_file("/full")


@pytest.mark.parametrize("version", [3, 5, 6])
@pytest.mark.parametrize("tail", [1, 511, 4096 + 1, MiB - 1])
def test_the_last_block_ends_where_the_file_does(version: int, tail: int, tmp_path: Path) -> None:
    """What a block holds behind the file's end belongs to nobody; a read past the end is refused, not padded."""
    size = 2 * MiB + tail
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL)) as truth:
        truth.create_file("/disk", data=b"\xaa" * (3 * MiB), layout=Layout.BLOCKS)
        truth.truncate("/disk", size)
        with opened(truth) as volume:
            file = volume.open_file("/disk")
            assert read(file, 0, size) == b"\xaa" * size
            assert sum(run.length for run in file.runs()) == size == file.runs().allocated_bytes
            with pytest.raises(DeviceError, match=f"ends at {size}"):
                read(file, size - 1, 2)


@pytest.mark.parametrize(("version", "step"), [(3, 64 * KiB), (5, 8 * KiB), (6, 64 * KiB)])
def test_sub_blocks_end_where_the_file_does(version: int, step: int, tmp_path: Path) -> None:
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL)) as truth:
        for size in (1, step - 1, step):
            truth.create_file(f"/f{size}", data=b"\x55" * size, layout=Layout.SUB_BLOCK)
        with opened(truth) as volume:
            for size in (1, step - 1, step):
                file = volume.open_file(f"/f{size}")
                assert file.info.layout is Zla.SUB_BLOCKS
                assert read(file, 0, size) == b"\x55" * size
                assert [run.length for run in file.runs()] == [size]


def test_a_sub_block_that_lies_across_two_blocks(tmp_path: Path) -> None:
    """On VMFS-3 those of 64 KiB begin at 96 KiB into .sbc.sf: every sixteenth crosses a block's edge."""
    step = 64 * KiB
    contents = {f"/f{number}": pattern(number * step, step - number, "sub-blocks") for number in range(20)}
    with lab(tmp_path, VolumeSpec(version=3, size_bytes=SMALL)) as truth:
        for path, content in contents.items():
            truth.create_file(path, data=content, layout=Layout.SUB_BLOCK)
        with overlaid(truth) as (volume, overlay):
            table = volume.tree().find("/.sbc.sf")
            first, second = (int(raw) for raw in table.pointers(volume.fs)[:2])
            free = volume.size_bytes // MiB - 1
            second_block, far_block = (0x1100000 + number * MiB for number in (second >> 6, free))
            overlay.patch(far_block, read(overlay, second_block, MiB))
            overlay.patch(second_block, b"\xee" * MiB)
            overlay.patch_number(0x1100000 + table.offset + 1024 + 4, free << 6 | second & 0x3F)
            assert first >> 6 == (second >> 6) - 1, "they were one run"
            files = {path: volume.open_file(path) for path in contents}
            assert {path: read(file, 0, file.size_bytes) for path, file in files.items()} == contents
            assert sorted(len(file.runs()) for file in files.values())[-2:] == [1, 2], "one lies in two pieces"


def test_blocks_behind_the_end_are_not_the_files(tmp_path: Path) -> None:
    """Preallocated ones, for instance: counted, held to all checks, and left out of the map."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=SMALL)) as truth:
        truth.create_file("/disk", 8 * MiB, layout=Layout.BLOCKS, allocation=Allocation.EAGER)
        with overlaid(truth) as (volume, overlay):
            overlay.patch_number(0x1100000 + volume.tree().find("/disk").offset + 4096 + 0x14, 3 * MiB + 5, 8)
            file = volume.open_file("/disk")
            assert file.info.blocks == 8
            assert file.runs().allocated_bytes == 3 * MiB + 5


def test_places_past_16_tebibytes() -> None:
    """Blocks on both sides of the extended LVM region of a 17 TiB device (only in memory can a file be so long)."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as folder,
        lab(Path(folder), VolumeSpec(version=6, size_bytes=17 * TiB, scatter=True)) as truth,
    ):
        truth.create_file("/disk", 64 * MiB, allocation=Allocation.EAGER, materialise=False)
        for number in range(64):
            truth.write("/disk", number * MiB + 4096, number.to_bytes(8, "big"))
        with opened(truth) as volume:
            assert len(volume.logical.runs()) == 2, "the tables say that places jump at 16 TiB"
            file = volume.open_file("/disk")
            places = {run.device_offset // (16 * TiB) for run in file.runs()}
            assert places == {0, 1}
            for number in range(64):
                assert read(file, number * MiB + 4096, 8) == number.to_bytes(8, "big")


def test_a_large_block_on_two_devices(tmp_path: Path) -> None:
    """The seam of two devices falls inside a large block, and inside one read."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=1280 * MiB), devices=2) as truth:
        size = 1024 * MiB
        truth.create_file("/disk", size, allocation=Allocation.EAGER, use_lfb=True, materialise=False)
        assert truth.node("/disk").large == 2
        with opened(truth) as volume:
            runs = list(volume.open_file("/disk").runs())
            [seam] = [run.file_offset for run in runs if run.device == 1 and run.file_offset % (512 * MiB)]
            marks = [0, seam - 7, 512 * MiB - 3, 512 * MiB, size - 9]
            for mark in marks:
                truth.write("/disk", mark, f"<{mark:>12}>".encode()[: size - mark])
            file = volume.open_file("/disk")
            for mark in marks:
                assert read(
                    file, mark - mark % MiB, 2 * MiB if mark + 2 * MiB < size else size - mark + mark % MiB
                ) == (truth.read("/disk", mark - mark % MiB, 2 * MiB))
            assert read(file, seam - 4096, 8192) == truth.read("/disk", seam - 4096, 8192)
            assert read(file, seam - 7, 14) == f"<{seam - 7:>12}>".encode()
