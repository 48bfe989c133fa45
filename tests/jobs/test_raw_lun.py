"""Virtual raw device mappings: the base is a whole LUN, and a VM snapshot freezes it like any other disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyVmomi import vim

from tests.jobs.test_main_job import assert_restores
from tests.manager.managers import address
from tests.program import Lab, Program, served
from vcbproxy.errors import UsageError
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.vcenter.faults import Where
from vcbproxy.manager import inventory
from vcbproxy.manager.session import connect
from vcbproxy.units import GiB, MiB

RAW = DiskSpec(8 * MiB, content=ContentSpec(Fill.RANDOM), mapping="virtual")


def spec(version: int) -> LabSpec:
    return LabSpec(
        datastores=(DatastoreSpec("ds1", version, lun_size_bytes=GiB),),
        vms=(
            VmSpec("db01", "ds1", disks=(DiskSpec(4 * MiB), RAW)),
            VmSpec("kept", "ds1", disks=(RAW,), snapshots=(SnapshotSpec("mine", writes=20),)),
            VmSpec("tracked", "ds1", disks=(RAW,), change_tracking=True),
            VmSpec("cluster", "ds1", disks=(DiskSpec(4 * MiB), DiskSpec(4 * MiB, mapping="physical"))),
        ),
        truth=Truth.DIGEST,
    )


@pytest.fixture(scope="module", params=[3, 5, 6])
def lab(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with served(tmp_path_factory.mktemp("raw") / "lab", spec(request.param)) as lab:
        lab.new_repository()
        yield lab


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with served(tmp_path_factory.mktemp("raw6") / "lab", spec(6)) as lab:
        lab.new_repository()
        yield lab


@pytest.fixture(autouse=True)
def _no_calls_yet(request: pytest.FixtureRequest) -> None:
    for name in {"lab", "six"} & set(request.fixturenames):
        request.getfixturevalue(name).server.calls.clear()


@pytest.mark.parametrize("vm", ["db01", "kept"])
def test_what_is_restored_is_what_was_frozen(lab: Lab, tmp_path: Path, vm: str) -> None:
    """With deltas of a user's snapshot over the LUN, too; afterwards the deltas are merged into the LUN."""
    with lab.server.guest_writer(writes_per_s=200):
        (row,) = lab.vcbproxy("backup", vm, "--json").json
    assert row["outcome"] == "ok"
    assert_restores(lab, vm, tmp_path / "back")
    manifest = lab.vcbproxy("points", "show", f"{vm}@latest", "--json").json["manifest"]
    assert len(manifest["disks"][-1]["links"]) == (2 if vm == "kept" else 1)
    node = manifest["disks"][-1]["key"]
    live = lab.datacenter.machine(vm).guest_read(node, 0, RAW.size_bytes)
    on_lun = lab.datacenter.raw_lun(vm, node).read_bytes()
    assert (on_lun == live) == (vm == "db01"), "what the guest wrote meanwhile came to lie on the LUN itself"


def test_a_second_backup_of_it_stores_what_changed(six: Lab, tmp_path: Path) -> None:
    six.vcbproxy("backup", "db01")
    six.datacenter.machine("db01").guest_write("scsi0-1", 5 * MiB, b"\xa5" * 4096)
    (row,) = six.vcbproxy("backup", "db01", "--json").json
    assert 0 < row["bytes_stored"] < 3 * MiB
    assert_restores(six, "db01", tmp_path / "back")


def test_changes_of_it_are_tracked(lab: Lab, tmp_path: Path) -> None:
    """Hosts track a virtual mapping as any disk; the areas that changed are read off the LUN."""
    machine = lab.datacenter.machine("tracked")
    rows = []
    for number in range(2):
        machine.guest_write("scsi0-0", 5 * MiB, bytes([number + 1]) * 4096)
        [row] = lab.vcbproxy("backup", "tracked", "--json").json
        rows.append(row)
        assert_restores(lab, "tracked", tmp_path / f"back{number}")
    assert [row["method"] for row in rows] == ["full", "incremental"]
    assert rows[1]["disks"][0]["bytes_changed"] < MiB


def without(lab: Lab, vm: str, node: str) -> Program:
    """The program on a proxy that does not see a disk's LUN."""
    hidden = lab.datacenter.raw_lun(vm, node).name
    config = lab.directory / f"without-{hidden}.toml"
    lines = (lab.directory / "vcbproxy.toml").read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if hidden not in line))
    return Program(config)


def naa(lab: Lab, vm: str, node: str) -> str:
    raw = lab.datacenter.machine(vm).state.disk(node).raw
    assert raw is not None
    return f"naa.{raw.wwn}"


def test_a_lun_that_is_not_seen_is_named_before_any_snapshot(six: Lab) -> None:
    program, name = without(six, "db01", "scsi0-1"), naa(six, "db01", "scsi0-1")
    error = program("backup", "db01", code=1).err
    assert f"Hard disk 2 (scsi0-1): it is a raw device mapping of LUN {name}, which is not seen here" in error
    assert "--partial" in error
    plan = program("backup", "db01", "--dry-run", "--json", code=3).json
    assert [row["readable"] for row in plan] == [True, False]
    assert name in plan[1]["reason"]
    assert six.server.calls["CreateSnapshot_Task"] == 0
    found = {row["check"]: row for row in program("check", "--json", code=1).json}
    assert name in found["VM db01"]["detail"]
    (row,) = program("backup", "db01", "--partial", "--json", code=3).json
    assert [disk["error"] is None for disk in row["disks"]] == [True, False]


def test_a_lun_of_another_size_is_refused(six: Lab) -> None:
    """It grew on the array and nobody told the mapping, or it is another LUN altogether."""
    lun = six.datacenter.raw_lun("db01", "scsi0-1")
    os.truncate(lun, RAW.size_bytes + MiB)
    try:
        error = six.vcbproxy("backup", "db01", code=1).err
        assert f"which has {RAW.size_bytes + MiB} bytes here, and the manager says {RAW.size_bytes}" in error
        assert six.server.calls["CreateSnapshot_Task"] == 0
    finally:
        os.truncate(lun, RAW.size_bytes)


def test_physical_mode_stays_refused(six: Lab) -> None:
    assert "raw device mapping (physical mode)" in six.vcbproxy("backup", "cluster", code=1).err
    assert six.server.calls["CreateSnapshot_Task"] == 0


def test_what_the_manager_shows_of_it(six: Lab) -> None:
    disks = six.vcbproxy("vm", "show", "db01", "--json").json["disks"]
    assert [(disk["kind"], disk["readable"]) for disk in disks] == [("flat", True), ("rdm-virtual", True)]


@contextmanager
def untold(lab: Lab) -> Iterator[None]:
    """The hosts do not tell their configuration."""
    known = lab.server.centre.inventory
    before = {host.moref: host.properties["config"] for host in known.all_of(vim.HostSystem)}
    for host in known.all_of(vim.HostSystem):
        known.set(host, config=None)
    try:
        yield
    finally:
        for host in known.all_of(vim.HostSystem):
            known.set(host, config=before[host.moref])


def test_the_host_tells_its_name_for_the_lun(six: Lab) -> None:
    """The live disk's, and that of a delta over it; where the host may not be looked at, none."""
    moref = six.datacenter.machine("kept").state.moref
    with connect(address(six.server), six.server.username, six.server.password) as session:
        [disk] = inventory.get(session, moref).disks
        assert disk.raw_lun is not None
        assert disk.raw_lun.told == disk.raw_lun.decoded == naa(six, "kept", "scsi0-0")
        assert len(disk.parents) == 1
        with untold(six):
            [disk] = inventory.get(session, moref).disks
        assert disk.raw_lun is not None
        assert (disk.raw_lun.told, disk.raw_lun.name) == (None, naa(six, "kept", "scsi0-0"))


def test_the_lab_moves_no_lun(six: Lab) -> None:
    moves = six.datacenter.moves
    for refused in (
        lambda: moves.storage_vmotion("db01", "ds1"),
        lambda: moves.resize("db01", "scsi0-1", 16 * MiB),
        lambda: moves.add_disk("db01", "scsi0-5", RAW),
    ):
        with pytest.raises(UsageError):
            refused()


def test_a_host_that_does_not_list_its_luns_leaves_the_name_in_the_uuid(six: Lab, tmp_path: Path) -> None:
    """It is lost, or we may not look at it: the uuid of the backing holds the name as well."""
    with untold(six):
        assert six.vcbproxy("backup", "db01", "--json").json[0]["outcome"] == "ok"
        assert_restores(six, "db01", tmp_path / "back")


def test_a_snapshot_that_fails_leaves_the_lun_alone(six: Lab) -> None:
    before = six.datacenter.raw_lun("kept", "scsi0-0").read_bytes()
    six.server.faults.add("CreateSnapshot_Task", vim.fault.SnapshotFault(), where=Where.TASK)
    six.vcbproxy("backup", "kept", "--quiesce", "off", code=1)
    six.server.faults.clear()
    assert six.datacenter.raw_lun("kept", "scsi0-0").read_bytes() == before
