"""LUNs as a SAN's udev shows them, found by `[san] discover`: identities, partition tables, VMFS members.

One udev on a machine: these tests share a group, take turns with those of other checkouts, and leave nothing behind.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.test_main_job import assert_restores
from tests.program import Program, served
from tests.san import loops
from vcbproxy.device import read
from vcbproxy.lab import spec as specification
from vcbproxy.lab.vmfs import LabVolume, Partition, VolumeSpec
from vcbproxy.san.discover import LunKind, discover, find, whole
from vcbproxy.san.lun import open_lun
from vcbproxy.units import GiB, MiB, align_up
from vcbproxy.vmfs.volume import Volume

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("udev")]

NAMES = [f"600144f0beef000000000000000000{number:02x}" for number in range(6)]
VMFS_TYPE = "AA31E02A-400F-11DB-9590-000C2911D1B8"


@dataclass(frozen=True)
class San:
    """Loop devices: a VMFS-5 in a GPT partition, a VMFS-6 over two whole LUNs, and a GPT of 4096-byte sectors."""

    partitioned: Path
    spans: tuple[Path, Path]
    large_sectors: Path
    data: dict[str, bytes]


@pytest.fixture(scope="module")
def udev(tmp_path_factory: pytest.TempPathFactory, disk_folder: Path) -> Iterator[None]:
    """Identities for every loop device over a file of these tests that has one beside it."""
    folders = (tmp_path_factory.getbasetemp(), disk_folder)
    with loops.udev_rules([rule for folder in folders for rule in loops.identity_rules(folder)]):
        yield


@pytest.fixture(scope="module")
def san(udev: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[San]:
    folder = tmp_path_factory.mktemp("san")
    images = [folder / f"lun{number}.img" for number in range(4)]
    data = {"five": b"on a partition", "six": b"on two LUNs", "native": b"on large sectors"}

    def make(paths: list[Path], spec: VolumeSpec) -> None:
        with LabVolume.create(paths, spec) as volume:
            volume.create_file("/note", data=data[spec.label])

    make(images[:1], VolumeSpec(5, "five", seed=5, size_bytes=GiB, partition=Partition.GPT, wwns=(NAMES[0],)))
    make(images[1:3], VolumeSpec(6, "six", seed=6, size_bytes=GiB, wwns=(NAMES[1], NAMES[2])))
    make([folder / "bare"], VolumeSpec(6, "native", seed=7, size_bytes=GiB, wwns=(NAMES[3],)))
    in_large_partition(folder / "bare", images[3])
    for number, (image, name) in enumerate(zip(images, NAMES[:4], strict=True)):
        loops.identify(image, name, f"LUN-{number}")
    with ExitStack() as stack:
        sectors = (512, 512, 512, 4096)
        devices = [stack.enter_context(loops.attached(*pair)) for pair in zip(images, sectors, strict=True)]
        for device in devices:
            loops.trigger(device)
        stack.enter_context(loops.scanned(devices[0]))
        stack.enter_context(loops.scanned(devices[3]))
        yield San(devices[0], (devices[1], devices[2]), devices[3], data)


def in_large_partition(volume: Path, image: Path) -> None:
    """Put a volume behind a partition table that sfdisk writes onto a disk of 4096-byte sectors."""
    loops.need_root("sfdisk")
    size_bytes = align_up(volume.stat().st_size, 4096)
    with image.open("xb") as out:
        out.truncate(size_bytes + 2 * MiB)
    copy = ["dd", f"if={volume}", f"of={image}", "bs=1M", "seek=1", "conv=sparse,notrunc", "status=none"]
    subprocess.run(copy, check=True)
    with loops.attached(image, 4096, read_only=False) as device:
        table = f"label: gpt\nstart={MiB // 4096}, size={size_bytes // 4096}, type={VMFS_TYPE}\n"
        command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(device)]
        subprocess.run(command, input=table, text=True, check=True, capture_output=True)


def test_what_udev_found_is_listed(san: San, tmp_path: Path) -> None:
    (tmp_path / "vcbproxy.toml").write_text("[san]\ndiscover = true\n")
    # 3: a disk of this machine that may not be opened here (as in a chroot) is listed as well, with its problem.
    every = Program(tmp_path / "vcbproxy.toml")("lun", "list", "--json", code=(0, 3)).json
    listed = {row["wwn"]: row for row in every}
    rows = [listed[f"naa.{name}"] for name in NAMES[:4]]
    paths = [str(path) for path in (san.partitioned, *san.spans, san.large_sectors)]
    assert [(row["lun"], row["kind"], row["read_only"]) for row in rows] == [(path, "loop", True) for path in paths]
    assert [row["serial"] for row in rows] == ["LUN-0", "LUN-1", "LUN-2", "LUN-3"]
    assert {row["model"] for row in rows} == {"LABSAN VIRTUAL-LUN"}
    assert [row["sector_bytes"] for row in rows] == [512, 512, 512, 4096]
    assert [(row["volume"], row["span"]) for row in rows] == [
        ("five", "1 of 1"),
        ("six", "1 of 2"),
        ("six", "2 of 2"),
        ("native", "1 of 1"),
    ]
    assert [row["content"] for row in rows[1:3]] == ["VMFS_volume_member"] * 2
    assert [row["problem"] for row in rows] == [None] * 4


def test_partitions_are_seen_beside_their_lun_and_read_through_it(san: San) -> None:
    found = discover()
    for device, name, label in ((san.partitioned, NAMES[0], "five"), (san.large_sectors, NAMES[3], "native")):
        part = find(found, f"naa.{name}:1")
        assert (part.kind, part.partition_of, part.partition) == (LunKind.PARTITION, str(device), 1)
        assert part.partition_type == VMFS_TYPE.lower()
        assert part.content == "VMFS_volume_member"
        assert find(found, f"/dev/disk/by-id/wwn-0x{name}-part1") == part
        lun = find(found, f"naa.{name}")
        assert lun.path == str(device)
        assert part not in whole(found)
        for info in (lun, part):
            with open_lun(info.path) as opened:
                file = Volume.open([opened]).open_file("/note")
                assert read(file, 0, file.size_bytes) == san.data[label], info.path


def test_a_backup_off_luns_that_are_named_nowhere(udev: None, tmp_path: Path) -> None:
    """The manager says naa.…, udev says which device that is; the configuration says nothing."""
    with served(tmp_path / "lab", specification.tiny(6, snapshots=1)) as lab, ExitStack() as stack:
        config = lab.directory / "vcbproxy.toml"
        text = config.read_text()
        [(path, name)] = re.findall(r'path = "(.*?)", wwn = "(.*?)"', text)
        image = lab.directory / path
        loops.identify(image, name, "LUN-9")
        text = re.sub(r"discover = false\nimages = \[.*?\n\]", "discover = true", text, flags=re.DOTALL)
        assert "images" not in text
        config.write_text(text)
        lab.new_repository()
        loop = stack.enter_context(loops.attached(image))
        loops.trigger(loop)
        [planned] = lab.vcbproxy("backup", "vm1", "--dry-run", "--json").json
        assert planned["luns"] == [loop.name]
        with lab.server.guest_writer(writes_per_s=200):
            assert lab.vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
        assert_restores(lab, "vm1", tmp_path / "back")


def test_luns_are_seen_to_come_and_go(udev: None, tmp_path: Path) -> None:
    """`lun watch` in a process of its own, while loop devices are attached, given a new size, and detached."""
    image = tmp_path / "hot.img"
    LabVolume.create([image], VolumeSpec(5, "hot", size_bytes=GiB, wwns=(NAMES[4],))).close()
    loops.identify(image, NAMES[4], "LUN-4")
    size_bytes = image.stat().st_size
    (tmp_path / "already.img").write_bytes(bytes(MiB))
    entry = f'{{ path = "already.img", wwn = "{NAMES[5]}" }}'
    (tmp_path / "vcbproxy.toml").write_text(f"[san]\nimages = [{entry}]\n")
    process = Program(tmp_path / "vcbproxy.toml").start("lun", "watch", "--json", "--settle", "0.2", "--for", "40")
    assert process.stdout is not None

    def next_event(name: str = NAMES[4]) -> dict[str, object]:
        """The next event about our LUN; other tests may have loop devices too."""
        while True:
            row = json.loads(process.stdout.readline())
            if row["wwn"] == f"naa.{name}":
                return row

    try:
        assert next_event(NAMES[5])["event"] == "present"
        with loops.attached(image) as loop:
            came = next_event()
            assert (came["event"], came["lun"], came["volume"]) == ("added", str(loop), "hot")
            assert came["size_bytes"] == size_bytes
            loops.resize(loop, size_bytes - MiB)
            loops.trigger(loop)
            shrunk = next_event()
            assert (shrunk["event"], shrunk["changed"]) == ("changed", ["size_bytes"])
            assert shrunk["size_bytes"] == size_bytes - MiB
        went = next_event()
        assert (went["event"], went["lun"], went["volume"]) == ("removed", str(loop), None)
    finally:
        process.kill()
        process.communicate()
