"""The whole program with a manager that is not ours: vcsim tells of VMs whose disks lie on the lab's LUNs.

What the snapshot names is what is read, down the chain that the simulator shows; nobody writes meanwhile, so the truth
is what the disks hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pyVmomi import vim

from tests.program import Program
from tests.second.vcsim import Vcsim
from vcbproxy.lab import client, spec
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import LabSpec
from vcbproxy.lab.vcenter.faults import Where
from vcbproxy.units import MiB


@pytest.fixture
def tmp_path(disk_path: Path) -> Path:
    """All of it on a disk, once."""
    return disk_path


@contextmanager
def second(directory: Path, of: LabSpec) -> Iterator[tuple[Vcsim, Program]]:
    """A lab's LUNs, vcsim in front of them, and the program configured for both."""
    with Datacenter.create(directory, of) as datacenter, Vcsim(datacenter) as manager:
        client.set_port(directory, of, manager.port)
        vcbproxy = Program(directory / "vcbproxy.toml")
        vcbproxy("repo", "init")
        yield manager, vcbproxy


def truth(manager: Vcsim, vm: str) -> dict[str, str]:
    machine = manager.datacenter.machine(vm)
    return {
        disk.node: hashlib.sha256(machine.guest_read(disk.node, 0, disk.size_bytes)).hexdigest()
        for disk in machine.state.disks
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", [0, 3, 6])
def test_what_is_restored_is_what_the_disks_hold(tmp_path: Path, version: int) -> None:
    with second(tmp_path / "lab", spec.tiny(version, disks=2, snapshots=1)) as (manager, vcbproxy):  # type: ignore[arg-type]
        vcbproxy("check")
        (row,) = vcbproxy("backup", "--all", "--json").json
        assert (row["outcome"], row["quiesced"], row["vm"]) == ("ok", True, "vm1")
        assert manager.snapshots("vm1") == ["user 0"], "ours is gone, the owner's is not"
        vcbproxy("verify")
        vcbproxy("repo", "check", "--read-data")
        rows = vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", "--json").json
        assert {row["disk"]: sha256(Path(row["file"])) for row in rows} == truth(manager, "vm1")
        assert b"vm1-000001.vmdk" in (tmp_path / "back" / "vm1.vmx").read_bytes()
        (again,) = vcbproxy("backup", "vm1", "--json").json
        assert again["bytes_stored"] == 0


def test_only_what_that_manager_says_has_changed_is_read(tmp_path: Path) -> None:
    """And what it does not say is found by the audit: the simulator is only told of one of two writes."""
    tracked = replace(spec.tiny(6), vms=(replace(spec.tiny(6).vms[0], change_tracking=True),))
    with second(tmp_path / "lab", tracked) as (manager, vcbproxy):
        (first,) = vcbproxy("backup", "vm1", "--json").json
        machine = manager.datacenter.machine("vm1")
        disk = machine.state.disks[0]
        machine.guest_write(disk.node, 3 * MiB, b"changed")
        manager.wrote("vm1", disk.device_key, [3 * MiB], 512)
        (row,) = vcbproxy("backup", "vm1", "--audit", "1", "--json").json
        assert (row["method"], row["disks"][0]["base"]) == ("incremental", first["point_id"])
        assert 0 < row["disks"][0]["bytes_changed"] < MiB
        machine.guest_write(disk.node, 5 * MiB, b"changed")
        (row,) = vcbproxy("backup", "vm1", "--audit", "1", "--json", code=3).json
        assert (row["outcome"], row["method"]) == ("alarm", "full")
        rows = vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", "--json").json
        assert {row["disk"]: sha256(Path(row["file"])) for row in rows} == truth(manager, "vm1")


def test_a_missing_privilege_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with second(tmp_path / "lab", spec.tiny(6)) as (manager, vcbproxy):
        fault = vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot")
        manager.faults.add("CreateSnapshot_Task", fault, where=Where.TASK)
        done = vcbproxy("backup", "vm1", code=1)
        assert "VirtualMachine.State.CreateSnapshot" in done.err
        assert manager.snapshots("vm1") == []
        assert vcbproxy("points", "list", "--json").json == []


def test_what_a_backup_had_to_leave_is_cleaned_up(tmp_path: Path) -> None:
    """The marker is found in other people's inventory; the owner's snapshot stays."""
    with second(tmp_path / "lab", spec.tiny(5, snapshots=1)) as (manager, vcbproxy):
        manager.faults.add("RemoveSnapshot_Task", vim.fault.NoPermission(privilegeId="x"), times=9)
        vcbproxy("backup", "vm1", code=3)
        assert len(manager.snapshots("vm1")) == 2
        manager.faults.clear()
        assert [row["vm"] for row in vcbproxy("cleanup", "--dry-run", "--json").json] == ["vm1"]
        vcbproxy("cleanup")
        assert manager.snapshots("vm1") == ["user 0"]
