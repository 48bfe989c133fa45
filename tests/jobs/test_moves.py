"""What others do to a VM while it is backed up: nothing that costs a wrong byte, and little that costs a backup."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from jobs.outcome import Outcome, VmResult
from tests.jobs.meddling import Meddler, backed_up
from tests.jobs.test_main_job import assert_restores
from tests.program import Lab, served
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB


@contextmanager
def lab_with(folder: Path, *, version: int = 6, snapshots: int = 1, disks: int = 1) -> Iterator[Lab]:
    spec = LabSpec(
        datastores=(
            DatastoreSpec("ds1", version, lun_size_bytes=GiB, scatter=True),
            DatastoreSpec("ds2", 5, lun_size_bytes=GiB),
        ),
        vms=(
            VmSpec(
                "vm1",
                "ds1",
                disks=tuple(DiskSpec(8 * MiB) for _ in range(disks)),
                snapshots=tuple(SnapshotSpec(f"user {number}", writes=12) for number in range(snapshots)),
            ),
        ),
        truth=Truth.DIGEST,
    )
    with served(folder / "lab", spec) as lab:
        lab.new_repository()
        with lab.server.guest_writer(writes_per_s=100):
            yield lab


def ours(lab: Lab) -> list[str]:
    return [name for name in lab.snapshots("vm1") if name.startswith("vcbproxy")]


def assert_failed_cleanly(lab: Lab, result: VmResult, why: str) -> None:
    assert result.outcome is Outcome.FAILED
    assert why in str(result.error)
    assert result.point is None
    assert result.snapshot_left is None
    assert ours(lab) == []
    assert lab.vcbproxy("points", "list", "--json").json == []
    lab.vcbproxy("repo", "check", "--read-data")


def assert_right(lab: Lab, result: VmResult, to: Path, attempts: int = 1) -> None:
    assert result.error is None
    assert result.outcome is Outcome.OK, result.warnings
    assert {disk.attempts for disk in result.disks} == {attempts}, result.warnings
    assert ours(lab) == []
    assert_restores(lab, "vm1", to)


@pytest.mark.parametrize("version", [3, 5, 6])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_vmotion_costs_nothing(tmp_path: Path, version: int, moment: str) -> None:
    with lab_with(tmp_path, version=version) as lab:
        meddler = Meddler(**{moment: partial(lab.datacenter.moves.vmotion, "vm1")})
        assert_right(lab, backed_up(lab, meddler), tmp_path / "back")
        assert lab.datacenter.machine("vm1").state.host == "esx2.lab"


def test_a_host_that_is_lost_and_a_restart_by_ha(tmp_path: Path) -> None:
    """While the host is away nothing can be removed: it is waited for."""
    with lab_with(tmp_path) as lab:
        moves = lab.datacenter.moves
        restart = threading.Timer(3, moves.ha_restart, ["vm1"])

        def crash() -> None:
            moves.lose_host("vm1")
            restart.start()

        result = backed_up(lab, Meddler(after=crash))
        restart.join()
        assert_right(lab, result, tmp_path / "back")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_storage_vmotion_is_read_again_where_it_went(tmp_path: Path, moment: str) -> None:
    with lab_with(tmp_path) as lab:
        meddler = Meddler(**{moment: partial(lab.datacenter.moves.storage_vmotion, "vm1", "ds2")})
        result = backed_up(lab, meddler)
        assert_right(lab, result, tmp_path / "back", attempts=2)
        assert any("read again" in line for line in result.warnings)


def test_storage_vmotion_without_end_fails_the_vm(tmp_path: Path) -> None:
    with lab_with(tmp_path) as lab:
        places = iter(["ds2", "ds1", "ds2"])
        meddler = Meddler(before=lambda: lab.datacenter.moves.storage_vmotion("vm1", next(places)), again=True)
        assert_failed_cleanly(lab, backed_up(lab, meddler), "changed while it was read")


def test_a_revert_to_another_snapshot_fails_the_vm(tmp_path: Path) -> None:
    with lab_with(tmp_path) as lab:
        meddler = Meddler(after=partial(lab.datacenter.moves.revert, "vm1", "user 0"))
        assert_failed_cleanly(lab, backed_up(lab, meddler), "was it reverted?")
        assert lab.snapshots("vm1") == ["user 0"]
        assert_right(lab, backed_up(lab, Meddler()), tmp_path / "back")


def test_a_revert_to_our_snapshot_changes_nothing_that_was_frozen(tmp_path: Path) -> None:
    with lab_with(tmp_path) as lab:
        meddler = Meddler(before=lambda: lab.datacenter.moves.revert("vm1", ours(lab)[0]))
        assert_right(lab, backed_up(lab, meddler), tmp_path / "back")


def remove_ours(lab: Lab) -> None:
    (snapshot,) = [known for known in lab.datacenter.machine("vm1").state.snapshots if known.name in ours(lab)]
    lab.datacenter.remove_snapshot("vm1", snapshot.moref)
    lab.datacenter.changed(lab.datacenter.machine("vm1"))


@pytest.mark.parametrize("partial_too", [False, True])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_snapshot_that_somebody_removed_fails_the_vm(tmp_path: Path, moment: str, *, partial_too: bool) -> None:
    with lab_with(tmp_path, disks=2) as lab:
        meddler = Meddler(**{moment: partial(remove_ours, lab)})
        result = backed_up(lab, meddler, partial=partial_too)
        assert_failed_cleanly(lab, result, "somebody removed the snapshot")


def test_an_older_snapshot_that_is_removed_meanwhile_costs_a_second_read(tmp_path: Path) -> None:
    """Its link is merged into the parent of what we read: other files, the same content."""
    with lab_with(tmp_path) as lab:

        def remove() -> None:
            machine = lab.datacenter.machine("vm1")
            lab.datacenter.remove_snapshot("vm1", machine.state.snapshots[0].moref)
            lab.datacenter.changed(machine)

        assert_right(lab, backed_up(lab, Meddler(after=remove)), tmp_path / "back", attempts=2)


@pytest.mark.parametrize("partial_too", [False, True])
def test_a_disk_taken_away_is_no_longer_vouched_for(tmp_path: Path, *, partial_too: bool) -> None:
    with lab_with(tmp_path, disks=2) as lab:
        meddler = Meddler(before=partial(lab.datacenter.moves.remove_disk, "vm1", "scsi0-1"))
        result = backed_up(lab, meddler, partial=partial_too)
        if not partial_too:
            assert_failed_cleanly(lab, result, "taken from the VM")
            return
        assert result.outcome is Outcome.PARTIAL
        assert [disk.error is None for disk in result.disks] == [True, False]
        assert ours(lab) == []


def test_a_disk_that_comes_after_the_snapshot_is_told(tmp_path: Path) -> None:
    with lab_with(tmp_path) as lab:
        add = partial(lab.datacenter.moves.add_disk, "vm1", "scsi0-5", DiskSpec(4 * MiB))
        result = backed_up(lab, Meddler(before=add))
        assert result.outcome is Outcome.PARTIAL
        assert any("scsi0-5 was added" in line for line in result.warnings)
        assert_restores(lab, "vm1", tmp_path / "back")
        again = backed_up(lab, Meddler())
        assert {disk.key for disk in again.disks} == {"scsi0-0", "scsi0-5"}
        assert_right(lab, again, tmp_path / "again")


def test_a_disk_that_comes_just_before_the_snapshot(tmp_path: Path) -> None:
    with lab_with(tmp_path) as lab:
        add = partial(lab.datacenter.moves.add_disk, "vm1", "scsi0-5", DiskSpec(4 * MiB))
        assert_failed_cleanly(lab, backed_up(lab, Meddler(freezing=add)), "its disks changed as the snapshot was made")


@pytest.mark.parametrize("size_bytes", [4 * MiB, 24 * MiB])
def test_a_disk_resized_just_before_the_snapshot_has_its_new_size(tmp_path: Path, size_bytes: int) -> None:
    with lab_with(tmp_path, snapshots=0) as lab:
        resize = partial(lab.datacenter.moves.resize, "vm1", "scsi0-0", size_bytes)
        result = backed_up(lab, Meddler(freezing=resize))
        assert [disk.size_bytes for disk in result.disks] == [size_bytes]
        assert_right(lab, result, tmp_path / "back")
