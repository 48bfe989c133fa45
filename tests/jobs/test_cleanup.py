"""What a killed backup left is removed; a running one's, another proxy's and other people's snapshots are not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim, vmodl

from jobs.cleanup import Action, Cleanup, Rules
from jobs.ownership import FrozenVm, Registry
from tests.beside import beside, until
from tests.manager.managers import address
from tests.program import Lab, served
from vcbproxy.clock import ManualClock
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.vcenter.faults import Trouble, What, Where
from vcbproxy.manager import inventory
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session, connect
from vcbproxy.units import GiB, MiB

PROXY = "proxy01"
SPEC = LabSpec(
    datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=GiB),),
    vms=tuple(VmSpec(name, "ds1", (DiskSpec(8 * MiB),), (SnapshotSpec("before upgrade"),)) for name in ("vm1", "vm2")),
    truth=Truth.NONE,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Lab]:
    with served(tmp_path_factory.mktemp("cleanup") / "lab", SPEC) as lab:
        lab.new_repository()
        yield lab


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    """Nothing of ours is there before a test, nor after it; the user's snapshots always are."""
    yield running
    running.server.faults.clear()
    running.vcbproxy("cleanup", "--foreign", PROXY, "--foreign", "proxy02", "--min-age", 0)
    for vm in ("vm1", "vm2"):
        assert running.snapshots(vm) == ["before upgrade"]
        assert not running.datacenter.machine(vm).state.consolidation_needed


@pytest.fixture
def session(lab: Lab) -> Iterator[Session]:
    with connect(address(lab.server), lab.server.username, lab.server.password) as opened:
        yield opened


@pytest.fixture
def registry(lab: Lab) -> Registry:
    """The very one that the program uses."""
    import socket

    return Registry(lab.directory / "proxy", socket.gethostname())


def moref(lab: Lab, vm: str) -> str:
    return lab.datacenter.machine(vm).state.moref


def leave(lab: Lab, vm: str, marker: Marker) -> None:
    """A snapshot of ours, as a job run makes it."""
    lab.datacenter.take_snapshot(moref(lab, vm), f"vcbproxy {marker.job_run_id}", marker.description, quiesced=False)
    lab.server.centre.refresh(lab.server.centre.inventory.get(vim.VirtualMachine(moref(lab, vm), None)))


def rows(lab: Lab, *options: object, code: int = 0) -> list[tuple[str, str]]:
    return [(row["vm"], row["action"]) for row in lab.vcbproxy("cleanup", *options, "--json", code=code).json]


def test_nothing_left_is_no_work(lab):
    done = lab.vcbproxy("cleanup")
    assert done.out == ""
    assert "nothing" in done.err
    assert rows(lab) == []


def test_a_killed_backup_is_cleaned_up_after(lab):
    """Killed while it waits to be told that the snapshot was made: it is there by then, and none of it was read."""
    lab.server.faults.order(Trouble("CreateSnapshot_Task", What.LATE, Where.ANSWER, delay_s=120))
    process = lab.vcbproxy.start("backup", "vm1")
    deadline = time.monotonic() + 60
    while len(lab.snapshots("vm1")) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    assert rows(lab) == [("vm1", "keep")]
    process.kill()
    process.communicate()
    lab.server.faults.clear()
    assert rows(lab, "--dry-run") == [("vm1", "remove")]
    assert len(lab.snapshots("vm1")) == 2
    assert rows(lab, "vm2") == []
    (row,) = lab.vcbproxy("cleanup", "--json").json
    assert (row["vm"], row["action"]) == ("vm1", "removed")
    assert row["snapshot"] == f"vcbproxy {row['job_run']}"
    assert lab.snapshots("vm1") == ["before upgrade"]
    assert list((lab.directory / "proxy" / "runs").iterdir()) == []


def test_a_snapshot_that_appears_only_after_the_kill_is_waited_for(lab):
    """Its creation goes on in the manager, whoever asked for it."""
    before = lab.server.calls["CreateSnapshot_Task"]
    lab.server.faults.order(Trouble("CreateSnapshot_Task", What.HANG, Where.TASK))
    process = lab.vcbproxy.start("backup", "vm1")
    until(lambda: lab.server.calls["CreateSnapshot_Task"] > before)
    process.kill()
    process.communicate()
    assert lab.snapshots("vm1") == ["before upgrade"]
    waits = lab.server.calls["WaitForUpdatesEx"]

    def arrive() -> None:
        until(lambda: lab.server.calls["WaitForUpdatesEx"] > waits)
        lab.server.faults.clear()

    with beside(arrive):
        assert rows(lab) == [("vm1", "removed")]
    assert lab.snapshots("vm1") == ["before upgrade"]


def test_a_vm_that_tells_nothing_is_not_forgotten_and_hides_no_other(lab, registry, session):
    with registry.begin() as run:
        for vm in ("vm1", "vm2"):
            run.freezing(FrozenVm(session.instance_uuid, moref(lab, vm), vm))
    leave(lab, "vm2", run.marker)
    trouble = vmodl.fault.SystemError(reason="trouble on demand")
    lab.server.faults.add("RetrievePropertiesEx", trouble, times=1, moref=moref(lab, "vm1"))
    assert rows(lab) == [("vm2", "removed")]
    assert run.marker in registry.left_behind()
    assert rows(lab) == []
    assert registry.left_behind() == {}


def test_a_running_backup_keeps_its_snapshot(lab, registry):
    with registry.begin() as run:
        leave(lab, "vm1", run.marker)
        (row,) = lab.vcbproxy("cleanup", "--json").json
        assert (row["action"], row["reason"]) == ("keep", "its backup is running")
        assert len(lab.snapshots("vm1")) == 2
    assert rows(lab) == [("vm1", "removed")]


def test_the_lock_is_looked_at_once_more_right_before_the_removal(lab, registry, session):
    """Between the survey and the removal the lock is taken: nothing that happened meanwhile may be overlooked."""
    with registry.begin() as run:
        run.freezing(FrozenVm(session.instance_uuid, moref(lab, "vm1"), "vm1"))  # so that its file stays
        leave(lab, "vm1", run.marker)
    cleanup = Cleanup(session, registry, Rules(), ManualClock())
    findings = cleanup.survey()
    assert [finding.action for finding in findings] == [Action.REMOVE]
    import fcntl

    with (registry.directory / "runs" / run.marker.job_run_id).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [finding.action for finding in cleanup.carry_out(findings)] == [Action.KEEP]
        assert len(lab.snapshots("vm1")) == 2


@pytest.mark.parametrize("host", ["proxy02", "here"])
def test_snapshots_of_elsewhere_are_removed_only_when_their_host_is_named(lab, registry, host):
    """... be it another host, or another state directory of this one."""
    name = registry.host if host == "here" else host
    leave(lab, "vm1", Marker("0badcafe-00000001", name))
    (row,) = lab.vcbproxy("cleanup", "--json").json
    assert row["action"] == "keep"
    assert f"--foreign {name}" in row["reason"]
    assert rows(lab, "--foreign", "proxy03") == [("vm1", "keep")]
    (row,) = lab.vcbproxy("cleanup", "--foreign", name, "--json").json
    assert row["action"] == "keep"
    assert "--min-age" in row["reason"]
    assert len(lab.snapshots("vm1")) == 2
    assert rows(lab, "--min-age", 0, code=3) == [("vm1", "keep")], "so old that somebody should look"
    assert rows(lab, "--foreign", name, "--min-age", 0) == [("vm1", "removed")]


def test_other_peoples_snapshots_are_not_looked_at(lab):
    centre = lab.server.centre
    text = "not vcbproxy:0badcafe-00000001@proxy01"
    taken = lab.datacenter.take_snapshot(moref(lab, "vm1"), "vcbproxy 1", text, quiesced=False)
    centre.refresh(centre.inventory.get(vim.VirtualMachine(moref(lab, "vm1"), None)))
    try:
        assert rows(lab, "--foreign", PROXY, "--min-age", 0) == []
        assert lab.server.calls["RemoveAllSnapshots_Task"] == 0
    finally:
        lab.datacenter.remove_snapshot(moref(lab, "vm1"), taken.moref, children=False, consolidate=True)
        centre.refresh(centre.inventory.get(vim.VirtualMachine(moref(lab, "vm1"), None)))


def test_a_removal_that_fails_is_code_3_and_hides_no_other(lab, registry):
    with registry.begin() as run:
        leave(lab, "vm1", run.marker)
        leave(lab, "vm2", run.marker)
    fault = vim.fault.NoPermission(
        object=vim.Folder("group-d1", None), privilegeId="VirtualMachine.State.RemoveSnapshot"
    )
    (snapshot,) = lab.datacenter.machine("vm1").state.snapshots[1:]
    lab.server.faults.add("RemoveSnapshot_Task", fault, times=99, moref=snapshot.moref)
    done = lab.vcbproxy("cleanup", "--json", code=3)
    assert [(row["vm"], row["action"]) for row in done.json] == [("vm1", "FAILED"), ("vm2", "removed")]
    assert "VirtualMachine.State.RemoveSnapshot" in done.json[0]["reason"]


def leave_unconsolidated(lab: Lab, vm: str) -> None:
    taken = lab.datacenter.take_snapshot(moref(lab, vm), "other", "", quiesced=False)
    lab.datacenter.remove_snapshot(moref(lab, vm), taken.moref, children=False, consolidate=False)
    lab.server.centre.refresh(lab.server.centre.inventory.get(vim.VirtualMachine(moref(lab, vm), None)))


def test_disks_are_consolidated_where_a_dead_job_run_left_them_so(lab, registry, session):
    manager = session.instance_uuid
    with registry.begin() as run:
        run.freezing(FrozenVm(manager, moref(lab, "vm1"), "vm1"))
    leave_unconsolidated(lab, "vm1")
    leave_unconsolidated(lab, "vm2")
    assert rows(lab, "--dry-run") == [("vm1", "consolidate")]
    assert rows(lab) == [("vm1", "consolidated")]
    assert lab.datacenter.machine("vm2").state.consolidation_needed, "somebody else's: none of our business"
    assert registry.left_behind() == {}
    lab.datacenter.consolidate(moref(lab, "vm2"))
    lab.server.centre.refresh(lab.server.centre.inventory.get(vim.VirtualMachine(moref(lab, "vm2"), None)))


def test_the_next_backup_cleans_up_by_itself_and_says_so(lab, registry):
    with registry.begin() as run:
        leave(lab, "vm1", run.marker)
    leave(lab, "vm1", Marker("0badcafe-00000001", "proxy02"))
    done = lab.vcbproxy("backup", "vm1", "--json")
    assert done.json[0]["outcome"] == "ok"
    assert f"vm1: the snapshot 'vcbproxy {run.marker.job_run_id}' that a backup had left behind: removed" in done.err
    assert "another backup" in done.err
    assert "proxy02" in done.err
    assert lab.snapshots("vm1") == ["before upgrade", "vcbproxy 0badcafe-00000001"]


def test_a_leftover_that_cannot_be_removed_does_not_stop_the_backup_and_is_told(lab, registry):
    with registry.begin() as run:
        leave(lab, "vm1", run.marker)
    (old,) = lab.datacenter.machine("vm1").state.snapshots[1:]
    lab.server.faults.add("RemoveSnapshot_Task", vim.fault.RestrictedVersion(), times=99, moref=old.moref)
    (row,) = lab.vcbproxy("backup", "vm1", "--json", code=3).json
    assert row["outcome"] == "partial"
    assert run.marker.job_run_id in row["snapshot_left"]
    assert row["point_id"]


def test_a_clean_up_that_cannot_look_costs_nobody_the_night(lab):
    """The list of all VMs' snapshots is refused, as for one of them that the manager trips over."""
    lab.server.faults.add("CreateContainerView", vmodl.fault.SystemError(reason="", msg="a VM's snapshots"), after=2)
    done = lab.vcbproxy("backup", "vm1", "--json")
    assert done.json[0]["outcome"] == "ok"
    assert "what earlier backups may have left is not known" in done.err


def test_a_backup_whose_snapshot_stays_is_cleaned_up_after(lab):
    """It ended by itself, so its lock is free; what it could not remove is removed later."""
    lab.server.faults.add("RemoveSnapshot_Task", vim.fault.RestrictedVersion(), times=99, where=Where.TASK)
    lab.vcbproxy("backup", "vm1", code=3)
    lab.server.faults.clear()
    assert rows(lab) == [("vm1", "removed")]


def test_vm_names_narrow_it_down(lab, registry, session):
    with registry.begin() as run:
        for vm in ("vm1", "vm2"):
            run.freezing(FrozenVm(session.instance_uuid, moref(lab, vm), vm))
            leave(lab, vm, run.marker)
    assert rows(lab, "vm2") == [("vm2", "removed")]
    assert len(lab.snapshots("vm1")) == 2
    assert run.marker in registry.left_behind(), "vm1 is not forgotten"
    assert inventory.find(session, "vm1").has_snapshots
    assert rows(lab) == [("vm1", "removed")]
    assert registry.left_behind() == {}


def test_a_state_directory_that_cannot_be_used_stops_before_anything_is_frozen(lab, tmp_path: Path):
    config = lab.directory / "nowhere.toml"
    text = (lab.directory / "vcbproxy.toml").read_text()
    (tmp_path / "file").write_text("")
    config.write_text(text.replace('directory = "proxy"', f'directory = "{tmp_path / "file"}"'))
    before = lab.server.calls["CreateSnapshot_Task"]
    assert "[state] directory" in lab.vcbproxy("backup", "vm1", "--config", config, code=2).err
    assert lab.server.calls["CreateSnapshot_Task"] == before
