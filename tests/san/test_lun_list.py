"""``vcbproxy lun list`` on volumes that the lab made: which LUN carries what, and what is missing or wrong."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.san import loops
from vcbproxy.cli import lun as command
from vcbproxy.cli.main import main
from vcbproxy.device import read
from vcbproxy.errors import LvmError
from vcbproxy.lab.vmfs.spec import Partition, VolumeSpec
from vcbproxy.lab.vmfs.volume import LabVolume
from vcbproxy.manager.datastore import Datastore, DatastoreKind, VmfsExtent
from vcbproxy.san.discover import ImageLun, configured
from vcbproxy.source.storage import Storage
from vcbproxy.source.survey import look
from vcbproxy.units import GiB, MiB

NAMES = [f"600144f00000000000000000000000{number:02x}" for number in range(4)]


@pytest.fixture(scope="module")
def luns(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four LUNs: a VMFS-5 with a partition table, a VMFS-6 over two, and an empty one."""
    folder = tmp_path_factory.mktemp("luns")
    images = [folder / f"lun{number}.img" for number in range(4)]
    five = VolumeSpec(version=5, label="five", seed=5, size_bytes=GiB, partition=Partition.GPT, wwns=(NAMES[0],))
    six = VolumeSpec(version=6, label="six", seed=6, size_bytes=GiB, wwns=(NAMES[1], NAMES[2]))
    LabVolume.create(images[:1], five).close()
    LabVolume.create(images[1:3], six).close()
    with images[3].open("xb") as empty:
        empty.truncate(64 * MiB)
    return images


def listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: Sequence[tuple[Path, str]], expected_code: int
) -> tuple[list[dict[str, Any]], str]:
    entries = ",\n".join(f'{{ path = "{path}", wwn = "{wwn}" }}' for path, wwn in images)
    config = tmp_path / "vcbproxy.toml"
    config.write_text(f"[san]\ndiscover = false\nimages = [{entries}]\n")
    with pytest.raises(SystemExit) as ended:
        main(["lun", "list", "--config", str(config), "--json"])
    assert ended.value.code == expected_code
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_volumes_and_their_spans(tmp_path: Path, capsys: pytest.CaptureFixture[str], luns: list[Path]) -> None:
    named = list(zip(luns, [f"naa.{name}" for name in NAMES], strict=True))
    rows, said = listed(tmp_path, capsys, named, 0)
    assert said == ""
    assert [(row["lun"], row["wwn"]) for row in rows] == [(str(path), wwn) for path, wwn in named]
    assert [row["volume"] for row in rows] == ["five", "six", "six", None]
    assert [row["span"] for row in rows] == ["1 of 1", "1 of 2", "2 of 2", None]
    assert [row["version"] and row["version"][0] for row in rows] == ["5", "6", "6", None]
    assert rows[1]["uuid"] == rows[2]["uuid"] != rows[0]["uuid"]
    assert [row["missing"] for row in rows] == [None] * 4
    assert [row["size_bytes"] for row in rows] == [path.stat().st_size for path in luns]


@pytest.mark.parametrize(("there", "lost"), [(1, 2), (2, 1)])
def test_a_missing_span_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], luns: list[Path], there: int, lost: int
) -> None:
    rows, said = listed(tmp_path, capsys, [(luns[0], ""), (luns[there], "")], 3)
    assert rows[0]["missing"] is None
    named = f": naa.{NAMES[lost]}" if there == 1 else ""  # the volume's first device has written down the names of all
    assert rows[1]["missing"] == f"device {lost} of 2 is missing{named}"
    assert f"{luns[there]}: device {lost} of 2 is missing{named}" in said


def test_a_copy_beside_the_original_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], luns: list[Path]
) -> None:
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", luns[0], copy], check=True)
    rows, said = listed(tmp_path, capsys, [(luns[0], ""), (copy, "")], 3)
    assert [row["volume"] for row in rows] == ["five", "five"]
    assert "carries the same part of volume five as" in said


def copied(image: Path, folder: Path, name: str) -> Path:
    copy = folder / name
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    return copy


def test_the_array_s_snapshot_of_a_lun_is_told_from_the_lun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], luns: list[Path]
) -> None:
    """Whichever is listed first: the volume has written down the names of the LUNs that it was made on."""
    snapshot = copied(luns[0], tmp_path, "snapshot.img")
    named = [(snapshot, f"naa.{NAMES[3]}"), (luns[0], f"naa.{NAMES[0]}")]
    for images in (named, named[::-1]):
        rows, said = listed(tmp_path, capsys, images, 3)
        by_lun = {row["lun"]: row for row in rows}
        assert (by_lun[str(luns[0])]["span"], by_lun[str(luns[0])]["problem"]) == ("1 of 1", None)
        assert by_lun[str(snapshot)]["span"] == "copy"
        expected = f"{snapshot}: carries the same part of volume five as {luns[0]}; unmap the copy"
        assert expected in said


def test_the_manager_says_which_of_two_twins_is_live(luns: list[Path], tmp_path: Path) -> None:
    """A datastore moved to another LUN by the array: the old one's name is in the volume, the manager knows the new."""
    moved = copied(luns[0], tmp_path, "moved.img")
    survey = look(configured([ImageLun(luns[0], NAMES[0]), ImageLun(moved, NAMES[3])]))
    [volume] = survey.volumes
    rows = list(command.rows(survey, [datastore("prod", volume.uuid, f"naa.{NAMES[3]}")]))
    assert [(row["datastore"], row["problem"]) for row in rows] == [
        (None, f"a copy: the manager has datastore prod on naa.{NAMES[3]}; unmap it"),
        ("prod", None),
    ]


def test_twins_that_nobody_can_tell_apart_are_both_a_problem(luns: list[Path], tmp_path: Path) -> None:
    copy = copied(luns[0], tmp_path, "copy.img")
    survey = look(configured([ImageLun(luns[0], NAMES[0]), ImageLun(copy, NAMES[0])]))
    [volume] = survey.volumes
    rows = list(command.rows(survey, [datastore("prod", volume.uuid, f"naa.{NAMES[0]}")]))
    assert [row["span"] for row in rows] == ["copy", "copy"]
    assert all("carries the same part of volume five as" in row["problem"] for row in rows)


def test_a_resignatured_copy_is_a_datastore_of_its_own(luns: list[Path], tmp_path: Path) -> None:
    """Hosts give it new UUIDs, a label of their own, and its own LUN's name; then it is nobody's copy any more."""
    image = tmp_path / "snap.img"
    spec = VolumeSpec(version=5, label="snap-4f3a21c0-five", seed=77, size_bytes=GiB, wwns=(NAMES[3],))
    LabVolume.create([image], spec).close()
    survey = look(configured([ImageLun(luns[0], NAMES[0]), ImageLun(image, NAMES[3])]))
    stores = [datastore(volume.label, volume.uuid, f"naa.{volume.device_names[0][4:]}") for volume in survey.volumes]
    rows = list(command.rows(survey, stores))
    assert [(row["volume"], row["datastore"], row["span"], row["problem"]) for row in rows] == [
        ("five", "five", "1 of 1", None),
        ("snap-4f3a21c0-five", "snap-4f3a21c0-five", "1 of 1", None),
    ]


def test_two_datastores_on_one_lun(tmp_path: Path) -> None:
    """A second VMFS partition, which hosts can make on the command line: a row, and a volume, for each."""
    image, volumes = two_partitions(tmp_path)
    info = configured([ImageLun(image, NAMES[0])])
    stores = [datastore(label, uuid, f"naa.{NAMES[0]}") for label, uuid in volumes.items()]
    for known in (stores, stores[::-1]):
        rows = list(command.rows(look(info), known))
        assert [(row["volume"], row["datastore"], row["span"], row["missing"], row["problem"]) for row in rows] == [
            ("one", "one", "1 of 1", None, None),
            ("two", "two", "1 of 1", None, None),
        ]
    with Storage(stores, info, {}) as storage:
        for label, uuid in volumes.items():
            assert storage.volume(label).uuid == uuid
            note = storage.files().open(f"[{label}] note")
            assert read(note, 0, note.size_bytes) == label.encode()
    none = datastore("none", "0-0-0-0", f"naa.{NAMES[0]}")
    with Storage([none], info, {}) as storage, pytest.raises(LvmError, match="the manager says 0-0-0-0"):
        storage.volume("none")


def test_a_damaged_second_partition_hides_not_the_first(tmp_path: Path) -> None:
    image, volumes = two_partitions(tmp_path)
    with image.open("r+b") as file:
        file.seek(512 * MiB + MiB + 4)
        file.write(b"\xff" * 8)  # an LVM version that nobody knows
    info = configured([ImageLun(image, NAMES[0])])
    [row] = command.rows(look(info), [])
    assert (row["volume"], row["problem"]) == ("one", None)
    with Storage([datastore("one", volumes["one"], f"naa.{NAMES[0]}")], info, {}) as storage:
        assert storage.volume("one").uuid == volumes["one"]


def two_partitions(folder: Path) -> tuple[Path, dict[str, str]]:
    """A LUN with an MBR and two VMFS-5; their UUIDs by label."""
    starts = {"one": MiB, "two": 512 * MiB}
    image, uuids = folder / "two.img", {}
    with image.open("xb") as lun:
        lun.truncate(1024 * MiB)
        for number, (label, start) in enumerate(starts.items()):
            spec = VolumeSpec(5, label, seed=number, size_bytes=256 * MiB)
            with LabVolume.create([folder / label], spec) as volume:
                volume.create_file("/note", data=label.encode())
                uuids[label] = volume.uuid
            copy = ["dd", f"if={folder / label}", f"of={image}", "bs=1M", f"seek={start // MiB}", "status=none"]
            subprocess.run([*copy, "conv=sparse,notrunc"], check=True)
            lun.seek(446 + 16 * number)
            lun.write(struct.pack("<4xB3xII", 0xFB, start // 512, (folder / label).stat().st_size // 512))
        lun.seek(510)
        lun.write(b"\x55\xaa")
    return image, uuids


def test_a_second_datastore_that_is_not_on_its_lun_is_named(luns: list[Path]) -> None:
    """The manager says that a second VMFS partition is there; it was never made, or deleted, on this copy."""
    survey = look(configured([ImageLun(luns[0], NAMES[0])]))
    [volume] = survey.volumes
    stores = [datastore("b", "0-0-0-1", f"naa.{NAMES[0]}"), datastore("a", volume.uuid, f"naa.{NAMES[0]}")]
    for known in (stores, stores[::-1]):
        rows = list(command.rows(survey, known))
        assert [(row["datastore"], row["problem"], row["missing"]) for row in rows] == [
            ("a", None, None),
            ("b", None, "on none of its LUNs"),
        ]


def test_each_device_is_opened_once(tmp_path: Path, luns: list[Path]) -> None:
    loops.need("strace")
    images = ", ".join(f'{{ path = "{path}", wwn = "{name}" }}' for path, name in zip(luns, NAMES, strict=True))
    config, out = tmp_path / "vcbproxy.toml", tmp_path / "strace"
    config.write_text(f"[san]\ndiscover = false\nimages = [{images}]\n")
    command = [sys.executable, "-m", "vcbproxy", "lun", "list", "--json", "--config", str(config)]
    trace = ["strace", "-f", "-e", "trace=open,openat,openat2,preadv", "-o", str(out)]
    done = subprocess.run([*trace, *command], capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip("needs permission to trace processes")
    assert (done.returncode, len(json.loads(done.stdout))) == (0, 4), done.stderr
    calls = out.read_text().splitlines()
    for path in luns:
        assert len([call for call in calls if f'"{path}"' in call]) == 1, path
    assert sum("preadv(" in call for call in calls) <= 4 * 7, "few small reads tell what is on a LUN"


def test_a_broken_lun_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str], luns: list[Path]) -> None:
    broken = tmp_path / "broken.img"
    with luns[1].open("rb") as whole:
        broken.write_bytes(whole.read(MiB) + b"\x0d\xd0\x01\xc0" + b"\xff" * 8192)
    rows, said = listed(tmp_path, capsys, [(broken, ""), (luns[0], "")], 3)
    assert [row["volume"] for row in rows] == [None, "five"]
    assert rows[0]["problem"]
    assert str(broken) in said


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str], luns: list[Path]) -> None:
    config = tmp_path / "vcbproxy.toml"
    config.write_text(f'[san]\ndiscover = false\nimages = [{{ path = "{luns[0]}", wwn = "{NAMES[0]}" }}]\n')
    with pytest.raises(SystemExit) as ended:
        main(["lun", "list", "--config", str(config)])
    assert ended.value.code == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["LUN", "SIZE", "WWN", "KIND"]
    assert row.split()[:4] == [luns[0].name, "1.0", "GiB", f"naa.{NAMES[0]}"]
    assert "PROBLEM" not in head


def datastore(name: str, uuid: str, *disks: str) -> Datastore:
    extents = tuple(VmfsExtent(disk, 1) for disk in disks)
    return Datastore(name, name, DatastoreKind.VMFS, f"ds:///vmfs/volumes/{uuid}/", GiB, 0, True, uuid, "6.82", extents)


def test_datastores_are_told_by_what_the_volume_says(luns: list[Path]) -> None:
    """By UUID where it was read; by the LUN's name on a span without it; and those that are nowhere here are shown."""
    infos = configured([ImageLun(path, name) for path, name in zip(luns, NAMES, strict=True)][:2])
    survey = look(infos)
    five, six = (next(v for v in survey.volumes if v.label == label) for label in ("five", "six"))
    known = [
        datastore("prod-6", six.uuid, f"naa.{NAMES[1]}", f"naa.{NAMES[2]}"),
        datastore("prod-5", five.uuid, "naa.of-another-name"),
        datastore("elsewhere", "0-0-0-0", "naa.600144f0ffff"),
    ]
    rows = list(command.rows(survey, known))
    assert [row["datastore"] for row in rows] == ["prod-5", "prod-6", "elsewhere"]
    assert rows[0]["problem"] == (
        "the manager has datastore prod-5 on naa.of-another-name: a copy of that, or named otherwise; not read"
    )
    assert rows[1]["missing"] == f"device 2 of 2 is missing: naa.{NAMES[2]}"
    assert (rows[2]["lun"], rows[2]["missing"]) == (None, "not mapped here: naa.600144f0ffff")

    [second] = configured([ImageLun(luns[2], NAMES[2])])
    [row, _, _] = command.rows(look([second]), known)
    assert (row["datastore"], row["missing"]) == ("prod-6", f"device 1 of 2 is missing: naa.{NAMES[1]}")


def test_a_lun_that_is_not_what_the_manager_says_is_a_problem(luns: list[Path]) -> None:
    survey = look(configured([ImageLun(luns[0], NAMES[0]), ImageLun(luns[3], NAMES[3])]))
    known = [
        datastore("prod-a", "0-0-0-0", f"naa.{NAMES[0]}"),
        datastore("prod-b", "0-0-0-1", f"naa.{NAMES[3]}"),
    ]
    rows = list(command.rows(survey, known))
    assert [row["problem"] for row in rows[:2]] == [
        "the manager says that it carries datastore prod-a; volume five was found on it",
        "the manager says that it carries datastore prod-b; no VMFS volume was found on it",
    ]
    assert [row["datastore"] for row in rows] == [None, None, "prod-a", "prod-b"]
    assert [row["missing"] for row in rows[2:]] == ["on none of its LUNs", "on none of its LUNs"]
