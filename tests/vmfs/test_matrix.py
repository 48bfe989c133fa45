"""Lab volumes of every kind, read back byte for byte: what the builder recorded is what the reader must give."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, opened
from vcbproxy.device import read
from vcbproxy.extent import Kind, tiled
from vcbproxy.lab.vmfs import Allocation, LabVolume, Layout, Partition, VolumeSpec
from vcbproxy.units import KiB, MiB
from vcbproxy.vmfs.volume import Volume


@dataclass(frozen=True)
class Case:
    spec: VolumeSpec
    devices: int = 1

    def __str__(self) -> str:
        spec = self.spec
        return (
            f"vmfs{spec.version}-{self.devices}dev-{spec.partition.value}-{spec.block_size_bytes // KiB or 'std'}"
            f"{'-scattered' if spec.scatter else ''}{'' if spec.dense else '-sparse-sbc'}"
            f"{'-indirect' if spec.indirect_system_files else ''}"
        )


def spec(version: int, **options: object) -> VolumeSpec:
    size = 2 * SMALL if options.get("block_size_bytes") == 8 * MiB else SMALL
    return VolumeSpec(version=version, size_bytes=size, **options)  # type: ignore[arg-type]


CASES = [
    *(Case(spec(version, scatter=scatter)) for version in (3, 5, 6) for scatter in (False, True)),
    *(Case(spec(version, scatter=True), devices) for version in (3, 5, 6) for devices in (2, 3)),
    *(Case(spec(version, partition=kind)) for version in (3, 5, 6) for kind in (Partition.MBR, Partition.GPT)),
    *(Case(spec(3, block_size_bytes=size * MiB, scatter=True)) for size in (1, 2, 4, 8)),
    *(Case(spec(5, block_size_bytes=size)) for size in (512 * KiB, 2 * MiB, 8 * MiB)),
    Case(spec(5, dense=False, scatter=True)),
    Case(spec(5, block_size_bytes=512 * KiB, indirect_system_files=True, scatter=True)),
    Case(spec(5, block_size_bytes=4 * MiB, sub_block_bytes=64 * KiB, dense=False)),
]


def layouts(version: int) -> list[Layout]:
    late = (Layout.RESIDENT, Layout.DOUBLE)
    return [layout for layout in Layout if layout is not Layout.AUTO and not (version == 3 and layout in late)]


def fill(volume: LabVolume, seed: int) -> dict[str, int]:
    """A file of every layout and allocation, written here and there; returns their sizes."""
    chance = random.Random(seed)
    volume.mkdir("/vm")
    sizes = {Layout.RESIDENT: 1000, Layout.SUB_BLOCK: 7000}
    made = {}
    block = volume.store.geometry.block_bytes
    for layout, allocation in itertools.product(layouts(volume.store.spec.version), Allocation):
        path = f"/vm/{layout.value}.{allocation.value}"
        size = sizes.get(layout, max(2, 4 * MiB // block) * block + 12345)
        volume.create_file(path, size, layout=layout, allocation=allocation)
        for _ in range(2):
            offset = chance.randrange(size - 512)
            volume.write(path, offset, chance.randbytes(512))
        made[path] = size
    return made


def check(volume: Volume, truth: LabVolume, path: str, size: int) -> None:
    file = volume.open_file(path)
    whole = read(file, 0, size)
    assert whole == truth.read(path, 0, size)
    assert file.info.size_bytes == size
    for extent in tiled(file.extents(), size):
        if extent.kind is Kind.ZERO:
            assert not any(whole[extent.start : extent.end])
    for run in file.runs():
        if not run.is_zero:
            raw = read(file.devices[run.device], run.device_offset, run.length)
            assert raw == whole[run.file_offset : run.file_offset + run.length]
    file.recheck()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layout_and_allocation(case: Case, tmp_path: Path) -> None:
    with lab(tmp_path, case.spec, case.devices) as truth:
        made = fill(truth, seed=case.devices)
        with opened(truth) as volume:
            assert (volume.label, volume.uuid, volume.lvm_uuid) == (truth.label, truth.uuid, truth.lvm_uuid)
            assert volume.major == case.spec.version
            assert [entry.name for entry in volume.entries("/vm")] or not made
            for path, size in made.items():
                check(volume, truth, path, size)


@pytest.mark.parametrize("version", [3, 5, 6])
def test_blocks_to_be_zeroed_never_leak_what_lies_under_them(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, spec(version)) as truth:
        truth.create_file("/thick", 8 * MiB, allocation=Allocation.ZEROEDTHICK)
        with opened(truth) as volume:
            file = volume.open_file("/thick")
            assert file.info.blocks_tbz == 8
            assert [extent.kind for extent in file.extents()] == [Kind.ZERO]
            assert not any(read(file, 0, 8 * MiB))
        truth.write("/thick", 3 * MiB + 100, b"x")
        with opened(truth) as volume:
            file = volume.open_file("/thick")
            assert [extent.start for extent in file.extents()] == [0, 3 * MiB, 4 * MiB]
            assert read(file, 0, 8 * MiB) == truth.read("/thick", 0, 8 * MiB)


def test_large_blocks_beside_small_ones(tmp_path: Path) -> None:
    options = VolumeSpec(version=6, size_bytes=4096 * MiB)
    with lab(tmp_path, options) as truth:
        truth.create_file("/disk", 1100 * MiB, allocation=Allocation.EAGER, use_lfb=True, materialise=False)
        for offset in (0, 511 * MiB + 5, 512 * MiB - 3, 1024 * MiB, 1100 * MiB - 6):
            truth.write("/disk", offset, b"marker")
        with opened(truth) as volume:
            file = volume.open_file("/disk")
            assert len(file.runs()) >= 1
            for offset in (0, 511 * MiB + 5, 512 * MiB - 3, 1024 * MiB, 1100 * MiB - 6):
                assert read(file, offset, 6) == b"marker"


@pytest.mark.parametrize("version", [5, 6])
def test_huge_thin_disk(version: int, tmp_path: Path) -> None:
    """Doubly indirect, with data near the end."""
    size = 42 << 40
    with lab(tmp_path, spec(version)) as truth:
        truth.create_file("/disk", size)
        truth.write("/disk", size - 3 * MiB, b"near the end")
        with opened(truth) as volume:
            file = volume.open_file("/disk")
            assert read(file, size - 3 * MiB, 12) == b"near the end"
            assert file.runs().allocated_bytes == MiB
            assert len(list(tiled(file.extents(), size))) == 3


def test_reads_of_any_range(tmp_path: Path) -> None:
    chance = random.Random(7)
    with lab(tmp_path, spec(5, scatter=True)) as truth:
        size = 9 * MiB + 777
        truth.create_file("/disk", size)
        for _ in range(6):
            truth.write("/disk", chance.randrange(size - 5000), chance.randbytes(5000))
        whole = truth.read("/disk", 0, size)
        with opened(truth) as volume:
            file = volume.open_file("/disk")
            for _ in range(200):
                offset = chance.randrange(size)
                length = min(chance.choice([0, 1, 511, 4096, MiB, 3 * MiB]), size - offset)
                assert read(file, offset, length) == whole[offset : offset + length]
