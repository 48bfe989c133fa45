"""Changed-block incrementals: what is restored is what was frozen, whatever the change tracker says."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from jobs.outcome import Outcome
from tests.jobs.nights import DISK, NODE, Nights
from tests.jobs.rehearsal import VM
from tests.jobs.test_fault_matrix import restic_finds_it_whole
from tests.jobs.test_main_job import assert_restores
from tests.program import served
from vcbproxy.config import Mode, OnCbtLost
from vcbproxy.lab import spec as specification
from vcbproxy.lab.spec import ContentSpec, DiskSpec, Fill, SnapshotSpec
from vcbproxy.lab.tracking import HONEST, Nonsense
from vcbproxy.repository import indexfile, records
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.points import SUSPECT_TAG
from vcbproxy.units import KiB, MiB

AREA = 64 * KiB
SECOND = "scsi0-1"
NIGHTS = 30
TRACKED = replace(specification.tiny(6), vms=(replace(specification.tiny(6).vms[0], change_tracking=True),))


def test_the_command_backs_up_what_changed(tmp_path: Path) -> None:
    with served(tmp_path / "lab", specification.tiny(5)) as lab:
        lab.new_repository()
        (first,) = lab.vcbproxy("backup", "vm1", "--enable-cbt", "--json").json
        assert (first["method"], first["why_full"]) == ("full", "no earlier restore point")
        lab.datacenter.machine("vm1").guest_write(NODE, 3 * MiB, b"changed")
        (second,) = lab.vcbproxy("backup", "vm1", "--audit", "0.5", "--json").json
        (disk,) = second["disks"]
        assert (second["method"], disk["base"], disk["bytes_changed"]) == ("incremental", first["point_id"], AREA)
        assert (disk["audit"]["chunks"] > 0, disk["audit"]["differing"]) == (True, [])
        shown = lab.vcbproxy("points", "show", "vm1@latest", "--json").json
        assert [(disk["method"], disk["base"]) for disk in shown["disks"]] == [("incremental", first["point_id"])]
        assert_restores(lab, "vm1", tmp_path / "back")
        config = lab.directory / "vcbproxy.toml"
        config.write_text(config.read_text() + '\n[backup]\nmode = "auto"\non_cbt_lost = "fail"\n')
        lab.datacenter.machine("vm1").reset_tracking()
        assert "counted anew" in lab.vcbproxy("backup", "vm1", code=1).err


@pytest.mark.parametrize("version", [3, 5, 6])
def test_only_what_changed_is_read(tmp_path: Path, version: int) -> None:
    with Nights.of(tmp_path, version=version) as nights:
        first = nights.backed_up()
        nights.write(3 * MiB, 5 * MiB + 4096)
        second = nights.backed_up()
        (disk,) = second.disks
        assert (disk.base, disk.bytes_changed) == (first.point, 2 * AREA)
        assert disk.audit is not None
        assert disk.audit.chunks
        assert nights.manifest()["disks"][0]["audit"] == disk.audit.as_json()
        assert nights.manifest()["base"] == first.point
        nights.assert_incremental(second)
        assert nights.stage.valid(nights.backend) == 2


@pytest.mark.parametrize(
    "facts",
    [{"per_answer": 3}, {"unchanged": 0.1}, {"ragged": True}, {"beyond_end": True}],
    ids=lambda facts: next(iter(facts)),
)
def test_what_hosts_may_answer_costs_nothing(tmp_path: Path, facts: dict[str, Any]) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(*range(0, 8 * MiB, MiB), 8 * MiB - 512)
        nights.habits(**facts)
        nights.assert_incremental(nights.backed_up(audit_fraction=1))


def test_more_areas_than_an_answer_takes(tmp_path: Path) -> None:
    """The bug that cost others' users their data: only the first 2000 areas were read."""
    size, step = 288 * MiB, 128 * KiB
    with Nights.of(tmp_path, DiskSpec(size, content=ContentSpec(Fill.EMPTY))) as nights:
        nights.write(0, size - 512)
        nights.backed_up()
        nights.write(*range(0, 2100 * step, step), data=b"one of two thousand")
        nights.stage.server.calls.clear()
        result = nights.backed_up()
        assert nights.stage.server.calls["QueryChangedDiskAreas"] == 2
        assert result.disks[0].bytes_changed == 2100 * AREA
        nights.assert_incremental(result)


def test_a_lie_beside_a_change_that_was_told_costs_nothing_even_without_a_sample(tmp_path: Path) -> None:
    """What lies around a change is read to find the cuts there: bytes in memory are not taken for what they were.

    Where cuts lie differs from repository to repository: a lie is stored with the change, or gives itself away.
    """
    disk = DiskSpec(24 * MiB, content=ContentSpec(Fill.RANDOM))
    with Nights.of(tmp_path, disk) as nights:
        nights.backed_up()
        for night in range(2):
            at = (3 + 9 * night) * MiB
            nights.write(at, at + 300 * KiB)
            nights.habits(omitted=1, seed=night)
            result = nights.any_backup(audit_fraction=0, audit_chunks_min=0)
            nights.assert_restores()
            (disk_result,) = result.disks
            assert disk_result.audit is not None
            assert (result.outcome is Outcome.ALARM) == bool(disk_result.audit.differing)
            assert disk_result.method == ("full" if disk_result.audit.differing else "incremental")


def test_a_lie_is_found_out(tmp_path: Path) -> None:
    """A changed area that is not named: read whole, what rests on lists is suspect, and the exit code says so."""
    with Nights.of(tmp_path, DISK, DISK) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        second = nights.backed_up()
        nights.write(7 * MiB)
        nights.habits(omitted=1)
        result = nights.backed_up(audit_fraction=1, code=3)
        assert result.outcome is Outcome.ALARM
        lied, honest = result.disks
        assert (lied.method, honest.method) == ("full", "incremental")
        assert "ALARM: changed block tracking did not tell all" in str(lied.full_because)
        assert lied.audit is not None
        assert lied.audit.differing[0] <= 7 * MiB < lied.audit.differing[-1] + 2 * MiB
        assert honest.audit is not None
        assert honest.audit.differing == ()
        assert "change tracking had lied about vm1" in nights.said
        assert "now marked suspect" in nights.said
        assert [point.suspect for point in nights.points()] == [False, True, False], "the full one is not"
        assert nights.manifest()["suspects"] == [second.point]
        nights.assert_restores()

        nights.habits()
        nights.write(1 * MiB)
        after = nights.backed_up()
        assert {disk.base for disk in after.disks} == {result.point}
        nights.assert_incremental(after)
        assert nights.stage.valid(nights.backend) == 4


def test_a_suspect_is_restored_and_not_called_good(tmp_path: Path) -> None:
    with served(tmp_path / "lab", TRACKED) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        lab.datacenter.machine("vm1").guest_write(NODE, 3 * MiB, b"changed")
        lab.server.centre.area_habits = replace(HONEST, omitted=1)
        done = lab.vcbproxy("backup", "vm1", "--audit", "1", "--json", code=3)
        assert done.json[0]["suspects"]
        listed = lab.vcbproxy("points", "list", "--json").json
        assert [point["suspect"] for point in listed] == [True, False]
        suspect = listed[0]["point_id"]
        restored = lab.vcbproxy("restore", suspect, "--to", tmp_path / "1", code=3).err
        assert "is suspect; the newest of this VM that is not: " in restored
        assert "restored, but" in restored
        assert (tmp_path / "1" / f"{NODE}.raw").exists()
        assert "is suspect" in lab.vcbproxy("verify", suspect).err
        assert_restores(lab, "vm1", tmp_path / "2")


def test_what_is_suspect_reaches_back_to_the_last_full_read(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        for mode in (Mode.FULL, Mode.AUTO, Mode.FULL, Mode.AUTO, Mode.AUTO):
            nights.write(4 * MiB)
            nights.backed_up(mode=mode)
        nights.write(7 * MiB)
        nights.habits(omitted=1)
        nights.backed_up(audit_fraction=1, code=3)
        assert [point.suspect for point in nights.points()] == [False, False, False, True, True, False]


def test_a_base_that_was_read_whole_is_suspect_when_it_differs(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(7 * MiB)
        nights.habits(omitted=1)
        result = nights.backed_up(audit_fraction=1, code=3)
        assert [point.suspect for point in nights.points()] == [True, False]
        assert len(result.suspects) == 1
        nights.assert_restores()


def test_suspects_are_built_upon_no_more(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        first = nights.backed_up()
        nights.write(4 * MiB)
        nights.backed_up()
        nights.write(7 * MiB)
        repository = nights.target().repository
        with repository.locked() as held:
            records.mark(repository, held, nights.points()[-1], SUSPECT_TAG)
        result = nights.backed_up()
        assert (result.disks[0].base, result.disks[0].bytes_changed) == (first.point, 2 * AREA)
        nights.assert_incremental(result)


@pytest.mark.parametrize("kind", [Nonsense.STUCK, Nonsense.OUTSIDE, Nonsense.LARGER], ids=lambda kind: kind.name)
def test_answers_that_cannot_be_cost_a_full_read(tmp_path: Path, kind: Nonsense) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        nights.habits(nonsense=kind)
        nights.assert_full(nights.backed_up(), "makes no sense")


def test_lost_landmarks_cost_a_full_read_and_say_so(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        nights.machine.reset_tracking()
        nights.write(5 * MiB)
        nights.assert_full(nights.backed_up(), "counted anew")
        assert "scsi0-0 is read whole: its changes are counted anew" in nights.said
        nights.write(6 * MiB)
        nights.assert_incremental(nights.backed_up())


@pytest.mark.parametrize("wanted", [{"mode": Mode.INCREMENTAL}, {"on_lost": OnCbtLost.FAIL}], ids=["mode", "on_lost"])
def test_where_lost_landmarks_are_not_to_be_borne(tmp_path: Path, wanted: dict[str, Any]) -> None:
    with Nights.of(tmp_path, DISK, DISK) as nights:
        nights.backed_up()
        nights.machine.reset_tracking()
        nights.backed_up(code=1, **wanted)
        assert "counted anew" in nights.said
        assert "--mode full reads it whole" in nights.said
        assert len(nights.points()) == 1
        nights.backed_up(mode=Mode.FULL)
        nights.assert_incremental(nights.backed_up(**wanted))


def test_incremental_or_nothing_fails_before_any_snapshot(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up(mode=Mode.INCREMENTAL, code=1)
        assert "scsi0-0: no earlier restore point; --mode auto reads it whole" in nights.said
        assert nights.stage.server.calls["CreateSnapshot_Task"] == 0


def test_tracking_is_switched_on_when_asked_for(tmp_path: Path) -> None:
    with Nights.of(tmp_path, tracked=False) as nights:
        nights.assert_full(nights.backed_up(), "not tracked")
        nights.assert_full(nights.backed_up(enable=True), "changes were not tracked")
        nights.write(4 * MiB)
        nights.assert_incremental(nights.backed_up())


def test_tracking_is_not_begun_under_snapshots(tmp_path: Path) -> None:
    with Nights.of(tmp_path, tracked=False, snapshots=(SnapshotSpec(writes=3),)) as nights:
        nights.assert_full(nights.backed_up(enable=True), "it has snapshots, and tracking must not begin under one")
        assert not nights.machine.state.change_tracking


def test_tracking_that_was_switched_off(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.machine.set_tracking(on=False)
        nights.stage.datacenter.changed(nights.machine)
        nights.assert_full(nights.backed_up(), "not tracked (--enable-cbt lets them be)")
        nights.assert_full(nights.backed_up(enable=True), "was made while its changes were not tracked")
        nights.assert_incremental(nights.backed_up())


def test_no_list_reaches_over_a_time_without_tracking(tmp_path: Path) -> None:
    """Not even of a host that goes on with the tracker it had before."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        state = nights.machine.state.disk(NODE)
        resumed = state.tracking_id, state.epoch
        nights.machine.set_tracking(on=False)
        nights.write(4 * MiB)
        nights.machine.set_tracking(on=True)
        state.tracking_id, state.epoch = resumed
        nights.machine.state.change_tracking = False
        nights.stage.datacenter.changed(nights.machine)
        nights.assert_full(
            nights.backed_up(enable=True, audit_fraction=0, audit_chunks_min=0), "not tracked all the time"
        )


def test_a_vm_with_snapshots_of_its_own(tmp_path: Path) -> None:
    with Nights.of(tmp_path, snapshots=(SnapshotSpec(writes=30), SnapshotSpec("second", writes=30))) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        nights.assert_incremental(nights.backed_up())
        nights.stage.datacenter.remove_snapshot(VM, nights.machine.state.snapshots[0].moref)
        nights.stage.datacenter.changed(nights.machine)
        nights.write(5 * MiB)
        nights.assert_incremental(nights.backed_up())


def test_a_disk_that_was_added_and_one_that_was_removed(tmp_path: Path) -> None:
    with Nights.of(tmp_path, DISK, DISK) as nights:
        first = nights.backed_up()
        nights.stage.datacenter.moves.add_disk(VM, "scsi0-5", DISK)
        nights.stage.datacenter.moves.remove_disk(VM, SECOND)
        nights.write(4 * MiB)
        result = nights.backed_up()
        assert {disk.key: disk.method for disk in result.disks} == {NODE: "incremental", "scsi0-5": "full"}
        assert result.disks[0].base == first.point
        assert nights.manifest()["method"] == "mixed"
        nights.assert_restores()


def test_a_disk_is_recognised_wherever_it_hangs(tmp_path: Path) -> None:
    """One comes to where the other was, and that one goes to another controller: each grows out of itself."""
    with Nights.of(tmp_path, DISK, DISK) as nights:
        nights.backed_up()
        moves = nights.stage.datacenter.moves
        moves.replug(VM, SECOND, "nvme0-0")
        moves.replug(VM, NODE, SECOND)
        nights.write(4 * MiB, node=SECOND)
        result = nights.backed_up()
        assert {disk.key: disk.bytes_changed for disk in result.disks} == {SECOND: AREA, "nvme0-0": 0}
        nights.assert_incremental(result)


def test_another_disk_in_its_place_is_another_disk(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        moves = nights.stage.datacenter.moves
        removed = moves.remove_disk(VM, NODE)
        moves.add_disk(VM, SECOND, DISK)
        moves.replug(VM, SECOND, NODE)
        nights.assert_full(nights.backed_up(), "no earlier restore point has this disk")
        moves.attach_disk(VM, removed, "scsi0-3")
        result = nights.backed_up()
        assert {disk.key: disk.bytes_changed for disk in result.disks} == {NODE: 0, "scsi0-3": 0}
        assert len({disk.base for disk in result.disks}) == 2, "the re-attached one grew out of the older point"
        nights.assert_incremental(result)


@pytest.mark.parametrize("size_bytes", [4 * MiB, 24 * MiB])
def test_a_resized_disk_is_read_whole(tmp_path: Path, size_bytes: int) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.stage.datacenter.moves.resize(VM, NODE, size_bytes)
        nights.assert_full(nights.backed_up(), f"it was resized to {size_bytes}")
        nights.assert_incremental(nights.backed_up())


def test_a_disk_resized_just_before_the_snapshot(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        moves = nights.stage.datacenter.moves
        result = nights.backed_up(plans={"freezing": lambda: moves.resize(VM, NODE, 12 * MiB)})
        nights.assert_full(result, "changed as the snapshot was made")


def test_storage_vmotion_between_backups(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        nights.stage.datacenter.moves.storage_vmotion(VM, "ds2")
        nights.assert_full(nights.backed_up(), "counted anew")
        nights.assert_incremental(nights.backed_up())


def test_storage_vmotion_while_it_is_read(tmp_path: Path) -> None:
    """What changed up to the snapshot is still what changed; the next backup starts anew."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(*range(0, 8 * MiB, MiB))
        moves = nights.stage.datacenter.moves
        result = nights.backed_up(plans={"disk 1 read": lambda: moves.storage_vmotion(VM, "ds2")})
        assert [(disk.method, disk.attempts) for disk in result.disks] == [("incremental", 2)]
        nights.assert_restores()
        nights.write(4 * MiB)
        nights.assert_full(nights.backed_up(), "counted anew")


def test_a_disk_moved_during_its_audit_raises_no_alarm(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        moves = nights.stage.datacenter.moves
        result = nights.backed_up(plans={"audit": lambda: moves.storage_vmotion(VM, "ds2")}, audit_fraction=1)
        assert result.outcome is Outcome.OK, nights.said
        assert result.disks[0].attempts == 2
        assert not any(point.suspect for point in nights.points())
        nights.assert_restores()


def test_a_revert_between_backups(tmp_path: Path) -> None:
    with Nights.of(tmp_path, snapshots=(SnapshotSpec("user", writes=30),)) as nights:
        nights.backed_up()
        nights.write(4 * MiB)
        nights.stage.datacenter.moves.revert(VM, "user")
        nights.assert_full(nights.backed_up(), "counted anew")


def test_a_lun_that_the_array_rolled_back(tmp_path: Path) -> None:
    """The disk and its tracking file as they were a day ago: the landmarks of the last night are given out again."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        disk = nights.machine.state.disks[0]
        before = nights.machine.guest_read(NODE, 4 * MiB, AREA)
        tracked = disk.epoch, {epoch: set(areas) for epoch, areas in disk.changes.items()}
        nights.write(4 * MiB)
        nights.backed_up()
        nights.machine.guest_write(NODE, 4 * MiB, before)
        disk.epoch, disk.changes = tracked
        nights.write(6 * MiB)
        result = nights.backed_up(audit_fraction=0, audit_chunks_min=0)
        nights.assert_full(result, "counted anew")


def test_a_copy_at_another_site_is_not_built_upon_the_original(tmp_path: Path) -> None:
    """Replicated LUNs, tried out under another vCenter: same VM, same disk, same tracker, and a life of its own."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        about = nights.stage.server.centre.inventory.all_of(vim.ServiceInstance)[0].properties["content"].about
        disk = nights.machine.state.disks[0]
        before = nights.machine.guest_read(NODE, 4 * MiB, AREA)
        tracked = disk.epoch, {epoch: set(areas) for epoch, areas in disk.changes.items()}
        nights.write(4 * MiB)
        nights.backed_up()
        nights.machine.guest_write(NODE, 4 * MiB, before)
        disk.epoch, disk.changes = tracked[0] + 5, tracked[1]  # it was tried out with snapshots
        about.instanceUuid = "5f1d0c9b-0000-4000-8000-00000000beef"
        nights.write(6 * MiB)
        nights.assert_full(nights.backed_up(audit_fraction=0, audit_chunks_min=0), "another vCenter")


def test_chunks_of_the_base_that_are_lost_are_read_again(tmp_path: Path) -> None:
    """A pack is gone: what it held counts as changed, which mends the older restore point, too."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        largest = max(nights.backend.list(FileKind.PACK), key=lambda stored: stored.size_bytes)
        nights.backend.remove(largest.name)
        nights.assert_incremental(nights.backed_up())
        for point, truth in zip(nights.points(), nights.stage.truths(), strict=True):
            assert nights.stage.restored(nights.backend, point.id) == truth


def test_a_base_whose_list_is_lost_costs_a_full_read(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        smallest = min(nights.backend.list(FileKind.PACK), key=lambda stored: stored.size_bytes)
        nights.backend.remove(smallest.name)
        nights.assert_full(nights.backed_up(), "is damaged")


def test_an_incremental_heals_what_a_check_found_damaged(tmp_path: Path) -> None:
    """Nothing changed on the disk; the damaged chunks are read again all the same, and both points restore."""
    with served(tmp_path / "lab", TRACKED) as lab:
        lab.new_repository()
        (first,) = lab.vcbproxy("backup", "vm1", "--json").json
        pack = max((lab.repo / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
        damaged = bytearray(pack.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(damaged)
        lab.vcbproxy("repo", "check", "--read-data", code=4)
        assert pack.name in lab.vcbproxy("repo", "prune", code=4).err

        (second,) = lab.vcbproxy("backup", "vm1", "--json").json
        assert second["method"] == "incremental"
        lab.vcbproxy("verify", first["point_id"])
        assert "healed" in lab.vcbproxy("repo", "check", "--read-data").err
        lab.vcbproxy("repo", "prune")
        assert not pack.exists()
        lab.vcbproxy("repo", "check", "--read-data")
        assert_restores(lab, "vm1", tmp_path / "back")


def test_a_base_whose_disk_failed_is_no_base(tmp_path: Path) -> None:
    """A partial restore point: the disk that is in it is built upon, the one that is not grows out of an older one."""
    with Nights.of(tmp_path, DISK, DISK) as nights:
        first = nights.backed_up()
        nights.machine.state.disk(SECOND).multi_writer = True
        nights.stage.datacenter.changed(nights.machine)
        second = nights.backed_up(partial=True, code=3)
        nights.machine.state.disk(SECOND).multi_writer = False
        nights.stage.datacenter.changed(nights.machine)
        nights.write(4 * MiB, node=SECOND)
        third = nights.backed_up()
        assert {disk.key: disk.base for disk in third.disks} == {NODE: second.point, SECOND: first.point}
        nights.assert_incremental(third)


def test_what_is_in_use_is_read_and_the_rest_audited(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        result = nights.backed_up(allocated_only=True)
        (disk,) = result.disks
        assert (result.outcome, disk.method) == (Outcome.OK, "full")
        assert disk.bytes_changed is not None
        assert 0 < disk.bytes_changed < DISK.size_bytes
        nights.assert_restores()
        nights.write(4 * MiB)
        nights.assert_incremental(nights.backed_up(allocated_only=True))


def test_what_is_in_use_is_not_believed_either(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.habits(omitted=1)
        result = nights.backed_up(allocated_only=True, audit_fraction=1, code=3)
        assert "the list of what is in use was not whole" in str(result.disks[0].full_because)
        assert result.suspects == ()
        nights.assert_restores()


def test_thirty_incrementals(tmp_path: Path) -> None:
    """Each is restored and compared; stock restic finds the whole repository sound in the end."""
    chance = random.Random(30)
    with Nights.of(tmp_path, DiskSpec(4 * MiB, content=ContentSpec(used=0.6))) as nights:
        for number in range(NIGHTS + 1):
            nights.habits(ragged=number % 3 == 1, unchanged=0.05 * (number % 2), per_answer=chance.choice([2, 2000]))
            result = nights.backed_up(plans={"disk 1 begins": lambda: nights.write(chance.randrange(4 * MiB - 512))})
            assert result.disks[0].method == ("incremental" if number else "full"), nights.said
            for _ in range(chance.randrange(8)):
                length = chance.choice([512, 4096, 65536, 200_000])
                nights.write(chance.randrange(4 * MiB - length), data=chance.randbytes(length))
        points, truths = nights.points(), nights.stage.truths()
        assert len(points) == len(truths) == NIGHTS + 1
        for point, truth in zip(points, truths, strict=True):
            assert nights.stage.restored(nights.backend, point.id) == truth, point.name
        assert nights.stage.valid(nights.backend) == NIGHTS + 1
        restic_finds_it_whole(nights.backend, tmp_path)


def test_an_alarm_outlasts_a_move(tmp_path: Path) -> None:
    """Found to lie, the disk is moved while it is read whole: the second time it is read whole at once, too.

    Another sample, drawn from another seed, might miss what the first one met, and the lie would be spliced in.
    """
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(7 * MiB)
        nights.habits(omitted=1)
        moves = nights.stage.datacenter.moves
        plans = {"disk 1 read": lambda: moves.storage_vmotion(VM, "ds2")}
        result = nights.backed_up(plans=plans, audit_fraction=1, code=3)
        assert result.outcome is Outcome.ALARM
        (disk,) = result.disks
        assert (disk.method, disk.attempts) == ("full", 2)
        assert nights.said.count("it is read whole now") == 1, "audited once more"
        assert disk.audit is not None
        assert disk.audit.differing
        assert [point.suspect for point in nights.points()] == [True, False]
        nights.assert_restores()


def test_a_base_whose_index_is_lost_is_read_again(tmp_path: Path) -> None:
    """Its packs are there, and in no index: that is found out before the splice, and mends the older one, too."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        repository = nights.target().repository
        for stored in list(nights.backend.list(FileKind.INDEX)):
            listed = indexfile.decode(repository.files.load_sealed(stored.name), "an index file")
            if not any(columns.tree.any() for _, columns in listed):
                nights.backend.remove(stored.name)
        nights.assert_incremental(nights.backed_up())
        for point, truth in zip(nights.points(), nights.stage.truths(), strict=True):
            assert nights.stage.restored(nights.backend, point.id) == truth


def test_what_was_read_as_in_use_is_suspect_too(tmp_path: Path) -> None:
    """A full read that left out what the tracker did not name rests on its word as an incremental does."""
    with Nights.of(tmp_path) as nights:
        nights.habits(omitted=1)
        nights.backed_up(allocated_only=True, audit_fraction=0, audit_chunks_min=0)
        nights.habits()
        nights.write(4 * MiB)
        nights.backed_up(audit_fraction=0, audit_chunks_min=0)
        nights.write(4 * MiB)
        nights.backed_up(audit_fraction=1, code=3)
        assert [point.suspect for point in nights.points()] == [True, True, False]
        nights.assert_restores()


def test_a_damaged_record_costs_a_full_read(tmp_path: Path) -> None:
    """It may have been the one that says which restore point is suspect: none is built upon, and no night is lost."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        (record,) = [stored.name for stored in nights.backend.list(FileKind.SNAPSHOT)]
        whole = nights.backend.files()[record]
        nights.backend.remove(record)
        nights.backend.save(record, [whole[:-1]])
        result = nights.backed_up()
        (disk,) = result.disks
        assert (result.outcome, disk.method) == (Outcome.OK, "full")
        assert "which restore points there are cannot be told" in str(disk.full_because)
        assert record.stem in nights.said
        nights.backed_up(mode=Mode.INCREMENTAL, code=1)

        nights.backend.remove(record)
        nights.backend.save(record, [whole])
        nights.assert_incremental(nights.backed_up())


@pytest.mark.parametrize("wanted", [{}, {"mode": Mode.INCREMENTAL}, {"on_lost": OnCbtLost.FAIL}], ids=str)
def test_landmarks_that_a_move_takes_away(tmp_path: Path, wanted: dict[str, Any]) -> None:
    """Read whole the second time, but not where that was not to be borne."""
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.write(4 * MiB)

        def moved() -> None:
            nights.stage.datacenter.moves.storage_vmotion(VM, "ds2")
            nights.machine.state.snapshots[-1].change_ids[NODE] = "another/1"
            nights.stage.datacenter.changed(nights.machine)

        result = nights.backed_up(plans={"disk 1 read": moved}, code=1 if wanted else 0, **wanted)
        if wanted:
            assert "counted anew since it was moved; --mode full reads it whole" in nights.said
            assert len(nights.points()) == 1
        else:
            nights.assert_full(result, "counted anew since it was moved")
            assert nights.manifest()["disks"][0]["change_id"] is None


def test_nothing_in_use_is_no_answer_of_a_disk_with_data(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.habits(omitted=1000)
        result = nights.backed_up(allocated_only=True, audit_fraction=0, audit_chunks_min=0)
        assert "its map says otherwise" in nights.said
        assert result.disks[0].bytes_changed is None
        nights.assert_restores()


def test_tracking_that_somebody_switched_off_is_lost_too(tmp_path: Path) -> None:
    with Nights.of(tmp_path) as nights:
        nights.backed_up()
        nights.machine.set_tracking(on=False)
        nights.stage.datacenter.changed(nights.machine)
        nights.backed_up(on_lost=OnCbtLost.FAIL, code=1)
        assert "its changes are tracked no more" in nights.said
        nights.backed_up(mode=Mode.FULL, on_lost=OnCbtLost.FAIL)
        nights.assert_full(nights.backed_up(on_lost=OnCbtLost.FAIL), "not tracked")
