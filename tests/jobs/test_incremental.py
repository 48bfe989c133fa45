"""Changed-block incrementals: what is restored is what was frozen, whatever the change tracker says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.test_main_job import assert_restores
from tests.program import Lab, served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

DISK = DiskSpec(16 * MiB, content=ContentSpec(used=0.7))


@contextmanager
def lab_with(folder: Path, *, disks: int = 1, tracked: bool = True, version: int = 6, **facts: Any) -> Iterator[Lab]:
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", version, lun_size_bytes=GiB), DatastoreSpec("ds2", 5, lun_size_bytes=GiB)),
        vms=(VmSpec("vm1", "ds1", disks=(DISK,) * disks, change_tracking=tracked, **facts),),
        truth=Truth.DIGEST,
    )
    with served(folder / "lab", spec) as lab:
        lab.vcbproxy("repo", "init")
        yield lab


def backed_up(lab: Lab, *options: object, code: int = 0) -> dict[str, Any]:
    row: dict[str, Any] = lab.vcbproxy("backup", "vm1", "--json", *options, code=code).json[0]
    return row


def guest_writes(lab: Lab, *offsets: int, node: str = "scsi0-0", data: bytes = b"changed!" * 64) -> None:
    for offset in offsets:
        lab.datacenter.machine("vm1").guest_write(node, offset, data)


def manifest(lab: Lab, point: str = "vm1@latest") -> dict[str, Any]:
    shown: dict[str, Any] = lab.vcbproxy("points", "show", point, "--json").json["manifest"]
    return shown


@pytest.mark.parametrize("version", [3, 5, 6])
def test_only_what_changed_is_read_and_all_is_restored(tmp_path: Path, version: int) -> None:
    with lab_with(tmp_path, version=version) as lab:
        first = backed_up(lab)
        assert first["method"] == "full"
        guest_writes(lab, 3 * MiB, 9 * MiB + 4096)
        second = backed_up(lab)
        assert second["method"] == "incremental"
        (disk,) = second["disks"]
        assert disk["base"] == first["point_id"]
        assert disk["bytes_changed"] == 2 * 64 * 1024
        assert disk["audit"]["chunks"] >= 16
        assert disk["audit"]["differing"] == []
        recorded = manifest(lab)
        assert (recorded["method"], recorded["base"]) == ("incremental", first["point_id"])
        assert recorded["disks"][0]["audit"] == disk["audit"]
        assert_restores(lab, "vm1", tmp_path / "back")
        lab.vcbproxy("repo", "check", "--read-data")


def test_an_incremental_heals_what_a_check_found_damaged(tmp_path: Path) -> None:
    """Nothing changed on the disk; the damaged chunks are read again all the same, and both points restore."""
    with lab_with(tmp_path) as lab:
        first = backed_up(lab)
        pack = max((lab.repo / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
        damaged = bytearray(pack.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(damaged)
        lab.vcbproxy("repo", "check", "--read-data", code=4)
        assert pack.name in lab.vcbproxy("repo", "prune", code=4).err

        second = backed_up(lab)
        assert second["method"] == "incremental"
        lab.vcbproxy("verify", first["point_id"])
        assert "healed" in lab.vcbproxy("repo", "check", "--read-data").err
        lab.vcbproxy("repo", "prune")
        assert not pack.exists()
        lab.vcbproxy("repo", "check", "--read-data")
        assert_restores(lab, "vm1", tmp_path / "back")
