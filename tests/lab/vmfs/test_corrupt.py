"""Each damage hits what it says and nothing else, and the record stays true so that the test can go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import oracles
from tests.lab.vmfs.cases import Case, case
from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs import Allocation, Layout, corrupt
from vcbproxy.units import MiB


def fill(made: Case) -> None:
    made.volume.mkdir("/dir")
    made.create("/dir/pb-flat.vmdk", 8 * MiB, (0, MiB + 5), layout=Layout.POINTERS)
    made.create("/dir/thick-flat.vmdk", 3 * MiB, (MiB, 5), allocation=Allocation.ZEROEDTHICK)


def pages(path: Path) -> dict[int, bytes]:
    """The pages of a sparse file that are not zeroes, by offset."""
    found = {}
    with path.open("rb", buffering=0) as image:
        end = 0
        while True:
            try:
                start = os.lseek(image.fileno(), end, os.SEEK_DATA)
            except OSError:  # no data behind
                return found
            end = os.lseek(image.fileno(), start, os.SEEK_HOLE)
            data = os.pread(image.fileno(), end - start, start)
            found |= {start + at: data[at : at + 4096] for at in range(0, len(data), 4096) if any(data[at : at + 4096])}


def undo(path: Path, intact: dict[int, bytes]) -> int:
    """Put the intact pages back; returns how many bytes had changed."""
    damaged = pages(path)
    changed = 0
    with path.open("r+b") as image:
        for at in damaged.keys() | intact.keys():
            before, after = intact.get(at, bytes(4096)), damaged.get(at, bytes(4096))
            if before != after:
                changed += sum(a != b for a, b in zip(before, after, strict=True))
                image.seek(at)
                image.write(before)
    return changed


@pytest.mark.parametrize("version", [5, 6])
def test_damage_to_files_and_volumes_is_small_and_leaves_the_record(version: int, tmp_path: Path) -> None:
    with case(tmp_path, version=version) as made:
        fill(made)
        intact = pages(made.volume.paths[0])
        truth = made.volume.read("/dir/pb-flat.vmdk", 0, 8 * MiB)
        damages = [
            (name, lambda hit=hit: hit(made.volume, "/dir/pb-flat.vmdk")) for name, hit in corrupt.FILE_DAMAGES.items()
        ]
        damages += [(name, lambda hit=hit: hit(made.volume)) for name, hit in corrupt.VOLUME_DAMAGES.items()]
        for name, hit in damages:
            if name == "partly_to_be_zeroed" and version == 5:
                with pytest.raises(UsageError):
                    hit()
                continue
            hit()
            assert 0 < undo(made.volume.paths[0], intact) <= 1024, name
            assert made.volume.read("/dir/pb-flat.vmdk", 0, 8 * MiB) == truth


@pytest.mark.parametrize("version", [3, 5, 6])
@pytest.mark.parametrize("name", list(corrupt.DIRECTORY_DAMAGES))
def test_damage_to_directories_hits_the_disk(version: int, name: str, tmp_path: Path) -> None:
    with case(tmp_path, version=version) as made:
        fill(made)
        if name == "directory_version" and version != 6:
            with pytest.raises(UsageError):
                corrupt.DIRECTORY_DAMAGES[name](made.volume, "/dir")
            return
        corrupt.DIRECTORY_DAMAGES[name](made.volume, "/dir")
        if name == "directory_cycle" and version == 5:
            assert "pb-flat.vmdk" in oracles.dissect_list(made.volume.paths, "/dir/cycle/cycle/cycle")


def test_fsck_sees_damage(tmp_path: Path) -> None:
    with case(tmp_path, version=3) as made:
        made.create("/f", 5 * MiB, (0, 5 * MiB))
        assert oracles.fsck_complaints(made.volume.paths) == {}
        corrupt.pointer_vanished(made.volume, "/f")
        assert oracles.fsck_complaints(made.volume.paths) == {"Lost blocks": 1}


def test_a_device_can_be_cut_and_a_bit_flipped(tmp_path: Path) -> None:
    with case(tmp_path, devices=2) as made:
        made.create("/f", 5 * MiB, (0, 5 * MiB))
        corrupt.flip_bit(made.volume, 5, 3)
        assert made.volume.store.images.read(5, 1) == b"\x08"
        corrupt.cut_device(made.volume, 1, 20 * MiB)
        assert made.volume.paths[1].stat().st_size == 20 * MiB
