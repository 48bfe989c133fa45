"""Blocks to be zeroed: allocated, never written, holding what a deleted file left. None of that may ever be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vmfs.labs import lab, overlaid
from tests.vmfs.patient import DATA, PATH, Patient
from vcbproxy.device import read
from vcbproxy.errors import VmfsError
from vcbproxy.extent import Kind
from vcbproxy.lab.vmfs import Allocation, VolumeSpec
from vcbproxy.units import MiB

OLD = pytest.mark.parametrize("patient", [3, 5], indirect=True)
NEW = pytest.mark.parametrize("patient", [6], indirect=True)
POISON = b"left by a deleted file"


def poison(patient: Patient, index: int) -> None:
    """What lies on disk under a block."""
    run = next(patient.volume.open_file(PATH).runs().between(index * MiB, MiB))
    patient.overlay.patch(run.device_offset, POISON)
    assert read(patient.volume.open_file(PATH), index * MiB, len(POISON)) == POISON


def is_zero(patient: Patient, index: int) -> bool:
    file = patient.volume.open_file(PATH)
    extents = [(extent.start, extent.length) for extent in file.extents() if extent.kind is Kind.ZERO]
    assert extents == [(index * MiB, MiB)]
    return not any(read(file, index * MiB, MiB))


@OLD
def test_the_one_bit_of_old_versions(patient: Patient) -> None:
    poison(patient, 3)
    patient.set_pointer(3, patient.pointer(3) | 1 << 5)
    patient.refused("1 blocks to be zeroed were found, its file descriptor says 0")
    patient.meta(0x48, 1)
    assert is_zero(patient, 3)


@NEW
@pytest.mark.parametrize("bitmap", [0x01, 0xFF])
def test_the_first_bit_or_all_where_one_stands_for_the_block(patient: Patient, bitmap: int) -> None:
    """As on every volume that hosts make: a bit stands for 1 MiB, and so do blocks."""
    poison(patient, 3)
    patient.set_pointer(3, patient.pointer(3) | bitmap << 7)
    patient.refused("1 blocks to be zeroed were found, its file descriptor says 0")
    patient.meta(0x48, 1)
    assert is_zero(patient, 3)


@NEW
@pytest.mark.parametrize("bitmap", [0x02, 0x80, 0x0F, 0x7F, 0xFE])
def test_other_bits_where_one_stands_for_the_block(patient: Patient, bitmap: int) -> None:
    """They contradict that: a guest may have written a part of the block, and zeroes would be wrong."""
    poison(patient, 3)
    patient.set_pointer(3, patient.pointer(3) | bitmap << 7)
    patient.meta(0x48, 1)
    patient.refused("to be zeroed in part")


@NEW
@pytest.mark.parametrize(
    ("in_file", "in_volume"), [(17, MiB), (20, MiB // 8), (0, MiB // 8), (17, 0), (0, 0), (19, 0), (200, 0)]
)
def test_some_bits_where_each_stands_for_a_part(patient: Patient, in_file: int, in_volume: int) -> None:
    """Or where nobody says what they stand for: all bits or none are clear, and others are not guessed at."""
    poison(patient, 3)
    pointer = patient.pointer(3)
    patient.meta(0x6C, in_file)
    patient.overlay.patch_number(DATA + 0x200000 + 0x144, in_volume)
    patient.volume = type(patient.volume).open([patient.overlay])
    patient.meta(0x48, 1)
    for bitmap in (0x01, 0x0F, 0x7F, 0xFE):
        patient.set_pointer(3, pointer | bitmap << 7)
        patient.refused("to be zeroed in part")
    patient.set_pointer(3, pointer | 0xFF << 7)
    assert is_zero(patient, 3)


@NEW
@pytest.mark.parametrize(("in_file", "in_volume"), [(20, 0), (0, MiB), (29, 512 * MiB), (200, MiB)])
def test_where_only_one_says_what_a_bit_stands_for(patient: Patient, in_file: int, in_volume: int) -> None:
    patient.meta(0x6C, in_file)
    patient.overlay.patch_number(DATA + 0x200000 + 0x144, in_volume)
    patient.volume = type(patient.volume).open([patient.overlay])
    patient.set_pointer(3, patient.pointer(3) | 1 << 7)
    patient.meta(0x48, 1)
    assert is_zero(patient, 3)


@OLD
def test_copy_on_write_is_no_zero(patient: Patient) -> None:
    """The bit beside it, which readers need not know."""
    poison(patient, 3)
    patient.set_pointer(3, patient.pointer(3) | 1 << 4)
    assert read(patient.volume.open_file(PATH), 3 * MiB, len(POISON)) == POISON


@NEW
def test_copy_on_write_is_no_zero_on_new_ones(patient: Patient) -> None:
    poison(patient, 3)
    patient.set_pointer(3, patient.pointer(3) | 1 << 5)
    assert read(patient.volume.open_file(PATH), 3 * MiB, len(POISON)) == POISON


LARGE = 512 * MiB


def test_large_blocks(tmp_path: Path) -> None:
    """Each pointer to a large block is for 1 MiB of it: all of that is to be zeroed, or none."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=2048 * MiB)) as truth:
        truth.create_file("/disk", LARGE, allocation=Allocation.EAGER, use_lfb=True, materialise=False)
        truth.write("/disk", 7 * MiB, POISON)
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            inode = tree.find("/disk")
            fd = DATA + inode.offset
            assert inode.blocks_large == 1
            first = int(inode.pointers(volume.fs)[0])
            source = tree.view._resource(2)
            place = source.place(first >> 6 & 0xFFFFFFFFF, first >> 56, "/disk")
            [piece] = source.pieces(place, "/disk")
            slot = DATA + piece.device_offset + 8 * 7
            pointer = overlay.number(slot, 8)
            assert pointer & 7 == 7
            assert read(volume.open_file("/disk"), 7 * MiB, len(POISON)) == POISON

            overlay.patch_number(fd + 4096 + 0x24, 1, 8)
            assert read(volume.open_file("/disk"), 7 * MiB, len(POISON)) == POISON, "counted once for all its pointers"
            overlay.patch_number(fd + 4096 + 0x8C, 2)
            with pytest.raises(VmfsError, match="512 blocks were found, its file descriptor says 1"):
                volume.open_file("/disk")
            overlay.patch_number(fd + 4096 + 0x8C, 1)
            overlay.patch_number(fd + 4096 + 0x24, 511, 8)
            with pytest.raises(VmfsError, match="512 blocks were found, its file descriptor says 511"):
                volume.open_file("/disk")
            overlay.patch_number(fd + 4096 + 0x24, 512, 8)

            overlay.patch_number(fd + 4096 + 0x48, 1)
            overlay.patch_number(slot, pointer | 0xFF << 7, 8)
            file = volume.open_file("/disk")
            assert [(e.start, e.length) for e in file.extents() if e.kind is Kind.ZERO] == [(7 * MiB, MiB)]
            assert not any(read(file, 7 * MiB, MiB))
            overlay.patch_number(slot, pointer | 0x01 << 7, 8)
            with pytest.raises(VmfsError, match="to be zeroed in part"):
                volume.open_file("/disk")

            overlay.patch_number(fd + 4096 + 0x48, 0)
            overlay.patch_number(fd + 4096 + 0x24, 511, 8)
            overlay.patch_number(slot, 0, 8)
            with pytest.raises(VmfsError, match="it has a hole in the range of bytes from 0 on that a large block"):
                volume.open_file("/disk")


def test_a_hole_beside_a_large_block_in_a_file_that_ends_inside_of_it(tmp_path: Path) -> None:
    """What lies past the end of the file does not make up for what is missing before it."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=2048 * MiB)) as truth:
        truth.create_file("/disk", LARGE, allocation=Allocation.EAGER, use_lfb=True, materialise=False)
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            inode = tree.find("/disk")
            first = int(inode.pointers(volume.fs)[0])
            source = tree.view._resource(2)
            [piece] = source.pieces(source.place(first >> 6 & 0xFFFFFFFFF, first >> 56, "/disk"), "/disk")
            meta = DATA + inode.offset + 4096
            overlay.patch_number(meta + 0x14, 8 * MiB, 8)
            assert volume.open_file("/disk").size_bytes == 8 * MiB
            overlay.patch_number(DATA + piece.device_offset + 8 * 3, 0, 8)
            overlay.patch_number(meta + 0x24, 511, 8)
            with pytest.raises(VmfsError, match="it has a hole in the range of bytes from 0 on that a large block"):
                volume.open_file("/disk")


@pytest.mark.parametrize(
    ("blocks", "tbz", "is_right"), [(512, 512, True), (1, 1, True), (1, 512, False), (512, 1, False)]
)
def test_a_large_block_that_is_all_to_be_zeroed(blocks: int, tbz: int, is_right: bool, tmp_path: Path) -> None:
    """Its blocks and those to be zeroed are counted alike: once for the large one, or once for each pointer to it."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=2048 * MiB)) as truth:
        truth.create_file("/disk", LARGE, allocation=Allocation.EAGER, use_lfb=True, materialise=False)
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            inode = tree.find("/disk")
            first = int(inode.pointers(volume.fs)[0])
            source = tree.view._resource(2)
            [piece] = source.pieces(source.place(first >> 6 & 0xFFFFFFFFF, first >> 56, "/disk"), "/disk")
            for index in range(512):
                slot = DATA + piece.device_offset + 8 * index
                overlay.patch_number(slot, overlay.number(slot, 8) | 0xFF << 7, 8)
            meta = DATA + inode.offset + 4096
            overlay.patch_number(meta + 0x24, blocks, 8)
            overlay.patch_number(meta + 0x48, tbz)
            if is_right:
                assert [extent.kind for extent in volume.open_file("/disk").extents()] == [Kind.ZERO]
            else:
                with pytest.raises(VmfsError, match="were found, its file descriptor says"):
                    volume.open_file("/disk")
