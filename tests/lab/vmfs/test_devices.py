"""What lies outside the file system: LVM headers, extent tables beyond 16 TiB, partition tables, names."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import oracles
from tests.lab.vmfs.cases import FIRST_DAY, case
from vcbproxy.clock import ManualClock
from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs import LabVolume, Partition, VolumeSpec
from vcbproxy.units import GiB, KiB, MiB, TiB


@pytest.fixture
def big_place() -> Iterator[Path]:
    """A file system that takes sparse files of any size."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize(("version", "jump"), [(5, 0x100002100000), (6, 0x100002100000)])
def test_physical_offsets_jump_beyond_16_tib(version: int, jump: int, big_place: Path) -> None:
    with case(big_place, version=version, size_bytes=17 * TiB, descriptors=256) as made:
        runs = oracles.dissect_runs(made.volume.paths)
        assert runs == [(0, 0x1100000, 16 * TiB, 0), (16 * TiB, jump, TiB, 0)]
        made.volume.create_file("/far", 4 * MiB)
        made.volume.store.space.used[: 16 * TiB // MiB + 5] = True
        made.volume.write("/far", 0, b"behind the jump")
        if version == 6:  # with LVM-5's 70,000 extents dissect takes its time
            assert oracles.dissect_read(made.volume.paths, "/far", 0, 15) == b"behind the jump"
        with made.volume.paths[0].open("rb") as image:
            image.seek(jump + 5 * MiB)
            assert image.read(15) == b"behind the jump"


def test_spans_follow_one_another(tmp_path: Path) -> None:
    with case(tmp_path, devices=3, version=6) as made:
        assert oracles.dissect_runs(made.volume.paths) == [
            (number * 256 * MiB, 0x1100000, 256 * MiB, number) for number in range(3)
        ]


def test_blkid_knows_the_devices(tmp_path: Path) -> None:
    if shutil.which("blkid") is None:
        pytest.skip("no blkid: apt-get install util-linux")
    for version in (3, 5, 6):
        with case(tmp_path, version=version) as made:
            done = subprocess.run(["blkid", "-p", "-o", "export", *made.volume.paths], capture_output=True, check=True)
            said = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
            assert said["TYPE"] == "VMFS_volume_member"
            assert said["UUID_SUB"] == str(made.volume.identity.devices[0])
            if version != 6:
                assert said["UUID"] == made.volume.lvm_uuid


@pytest.mark.parametrize(
    ("partition", "kind", "start"),
    [(Partition.GPT, "aa31e02a-400f-11db-9590-000c2911d1b8", 2048), (Partition.MBR, "0xfb", 128)],
)
def test_partx_reads_the_partition_table(partition: Partition, kind: str, start: int, tmp_path: Path) -> None:
    if shutil.which("partx") is None:
        pytest.skip("no partx: apt-get install util-linux")
    with case(tmp_path, partition=partition) as made:
        command = ["partx", "--raw", "--noheadings", "--output", "START,SECTORS,TYPE", *made.volume.paths]
        done = subprocess.run(command, capture_output=True, check=True)
        found = done.stdout.decode().split()
        assert (int(found[0]), found[2]) == (start, kind)
        assert int(found[1]) * 512 >= 17 * MiB + 256 * MiB


@pytest.mark.parametrize("partition", [Partition.GPT, Partition.MBR])
def test_the_volume_begins_where_the_partition_does(partition: Partition, tmp_path: Path) -> None:
    with case(tmp_path, partition=partition) as made:
        made.create("/f", 100, (0, 100))
        start = {Partition.GPT: 2048, Partition.MBR: 128}[partition] * 512
        assert oracles.dissect_read(made.volume.paths, "/f", 0, 100, start=start) == made.files["/f"].read(0, 100)


def test_names_come_from_the_spec_or_the_seed(tmp_path: Path) -> None:
    given = "naa.600144F00000000000000000000000AA"
    with case(tmp_path, wwns=(given,)) as made:
        assert made.volume.wwns == ("600144f00000000000000000000000aa",)
    with case(tmp_path, seed=7) as first:
        names = first.volume.wwns, first.volume.uuid, first.volume.lvm_uuid
    with case(tmp_path, seed=7) as second:
        assert (second.volume.wwns, second.volume.uuid, second.volume.lvm_uuid) == names
    with case(tmp_path, seed=8) as third:
        assert third.volume.wwns != names[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"version": 3, "block_size_bytes": 512 * KiB}, "no 512 KiB blocks"),
        ({"version": 6, "block_size_bytes": 2 * MiB}, "no 2048 KiB blocks"),
        ({"size_bytes": MiB}, "at least 256 MiB"),
        ({"label": "ü" * 64}, "label too long"),
        ({"wwns": ("naa.1", "naa.2")}, "as many names"),
        ({"descriptors": 200_000}, "too small"),
    ],
)
def test_what_no_host_would_make_is_refused(options: dict[str, object], complaint: str, tmp_path: Path) -> None:
    options.setdefault("size_bytes", 256 * MiB)
    with pytest.raises(UsageError, match=complaint):
        LabVolume.create([tmp_path / "lun.img"], VolumeSpec(**options), ManualClock(FIRST_DAY))  # type: ignore[arg-type]
    assert not (tmp_path / "lun.img").exists(), "nothing half made stays"


def test_a_two_tib_map_can_be_had_without_its_data(big_place: Path) -> None:
    from vcbproxy.lab.vmfs import Allocation

    spec = {"version": 5, "size_bytes": 2 * TiB + 8 * GiB, "scatter": True, "scatter_run_blocks": 100}
    with case(big_place, **spec) as made:
        made.volume.create_file("/2t-flat.vmdk", 2 * TiB, allocation=Allocation.EAGER, materialise=False)
        assert made.volume.data_ranges("/2t-flat.vmdk") == [(0, 2 * TiB)]
        assert sum(path.stat().st_blocks * 512 for path in made.volume.paths) < 64 * MiB
