"""Moves: locks that change hands, files that really move, snapshots on a branch, disks that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vcbproxy.errors import Busy, UsageError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.machine import HostLost, Machine
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.vmfs import LabVolume
from vcbproxy.units import GiB, KiB, MiB

NODE = "scsi0-0"


@pytest.fixture(params=[5, 6])
def datacenter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Datacenter]:
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", request.param, lun_size_bytes=GiB), DatastoreSpec("nfs1", 0)),
        vms=(
            VmSpec("vm1", "ds1", disks=(DiskSpec(8 * MiB),), snapshots=(SnapshotSpec("first"), SnapshotSpec("second"))),
            VmSpec("clone", "nfs1", clone_of="vm1"),
        ),
        truth=Truth.DIGEST,
    )
    with Datacenter.create(tmp_path / "lab", spec) as made:
        yield made


def content(machine: Machine, node: str = NODE) -> bytes:
    return machine.guest_read(node, 0, machine.state.disk(node).size_bytes)


def locks(datacenter: Datacenter, machine: Machine) -> list[tuple[int, int, int]]:
    """(mode, token, time of modification) of each extent, the base's first."""
    store = datacenter.store(machine.state.datastore)
    assert isinstance(store, LabVolume)
    nodes = [store.node(link.extent_path) for link in machine.state.disk(NODE).links]
    return [(node.lock_mode, node.token, node.modified_s) for node in nodes]


def test_a_running_vm_locks_its_live_link_alone_and_the_others_for_reading(datacenter: Datacenter) -> None:
    machine = datacenter.machine("vm1")
    assert [mode for mode, _, _ in locks(datacenter, machine)] == [2, 2, 1]
    machine.set_power(on=False)
    assert [mode for mode, _, _ in locks(datacenter, machine)] == [0, 0, 0]


def test_vmotion_raises_the_tokens_and_nothing_else(datacenter: Datacenter) -> None:
    machine = datacenter.machine("vm1")
    before, held = locks(datacenter, machine), content(machine)
    datacenter.moves.vmotion("vm1")
    assert locks(datacenter, machine) == [(mode, token + 1, modified) for mode, token, modified in before]
    assert content(machine) == held
    assert machine.state.host == "esx2.lab"


def test_tasks_on_a_lost_host_fail_until_ha_restarts_it(datacenter: Datacenter) -> None:
    datacenter.moves.lose_host("vm1")
    with pytest.raises(HostLost, match=r"esx1\.lab is not connected"):
        datacenter.take_snapshot("vm1", "new")
    datacenter.moves.ha_restart("vm1")
    datacenter.take_snapshot("vm1", "new")


def test_storage_vmotion_moves_every_file_and_overwrites_what_it_left(datacenter: Datacenter) -> None:
    machine = datacenter.machine("vm1")
    held = content(machine)
    old = datacenter.store("ds1")
    datacenter.machine("clone").state.disks.clear()  # whose parents would be gone
    datacenter.moves.storage_vmotion("vm1", "nfs1")
    assert old.list("/vm1") == []
    assert content(machine) == held
    assert old.size("/another-file") > 8 * MiB
    datacenter.take_snapshot("vm1", "after the move")
    datacenter.remove_snapshot("vm1", machine.state.snapshots[0].moref, children=True)
    assert content(machine) == held
    assert not machine.state.consolidation_needed


def test_a_revert_begins_a_branch_and_its_removal_leaves_nothing(datacenter: Datacenter) -> None:
    machine = datacenter.machine("vm1")
    first, second = machine.state.snapshots
    then = machine.chain(NODE).read(0, 8 * MiB, level=0)
    files = set(datacenter.store("ds1").list("/vm1"))
    datacenter.moves.revert("vm1", "first")
    assert content(machine) == then
    assert machine.state.current == first.moref
    machine.guest_write(NODE, 0, b"new branch".ljust(4 * KiB))
    with pytest.raises(UsageError, match="one branch"):
        datacenter.moves.revert("vm1", "first")
    datacenter.remove_snapshot("vm1", second.moref)
    assert not machine.state.consolidation_needed
    assert machine.state.disk(NODE).aside == []
    datacenter.remove_snapshot("vm1", first.moref)
    assert content(machine)[:10] == b"new branch"
    assert content(machine)[4 * KiB :] == then[4 * KiB :]
    assert len(machine.state.disk(NODE).links) == 1
    assert not {name for name in datacenter.store("ds1").list("/vm1") if name.endswith(".vmdk")} - files


def test_the_fork_is_never_merged_while_both_branches_need_it(datacenter: Datacenter) -> None:
    machine = datacenter.machine("vm1")
    first, second = machine.state.snapshots
    datacenter.moves.revert("vm1", "first")
    held = content(machine)
    datacenter.remove_snapshot("vm1", first.moref)
    assert content(machine) == held
    assert not machine.state.consolidation_needed
    datacenter.remove_snapshot("vm1", second.moref)
    datacenter.consolidate("vm1")
    assert content(machine) == held
    assert len(machine.state.disk(NODE).links) == 1


def test_disks_come_and_go_beside_snapshots(datacenter: Datacenter) -> None:
    machine = datacenter.machine("vm1")
    datacenter.moves.add_disk("vm1", "scsi0-3", DiskSpec(4 * MiB))
    mine = datacenter.take_snapshot("vm1", "with it")
    assert set(mine.frozen) == {NODE, "scsi0-3"}
    datacenter.moves.remove_disk("vm1", "scsi0-3")
    assert [disk.node for disk in machine.state.taken_away] == ["scsi0-3"]
    datacenter.remove_snapshot("vm1", mine.moref)
    assert machine.state.taken_away == []
    assert not machine.state.consolidation_needed


def test_a_disk_with_snapshots_is_not_resized(datacenter: Datacenter) -> None:
    with pytest.raises(UsageError, match="has snapshots"):
        datacenter.moves.resize("vm1", NODE, 16 * MiB)
    datacenter.moves.add_disk("vm1", "scsi0-3", DiskSpec(4 * MiB))
    datacenter.moves.resize("vm1", "scsi0-3", 6 * MiB)
    assert len(content(datacenter.machine("vm1"), "scsi0-3")) == 6 * MiB


def test_a_linked_clone_never_writes_to_its_parents(datacenter: Datacenter) -> None:
    original, clone = datacenter.machine("vm1"), datacenter.machine("clone")
    assert content(clone) == content(original)
    held = content(original)
    clone.guest_write(NODE, 0, b"clone".ljust(4 * KiB))
    datacenter.take_snapshot("clone", "one")
    clone.guest_write(NODE, MiB, b"clone".ljust(4 * KiB))
    datacenter.remove_snapshot("clone", clone.state.snapshots[0].moref)
    datacenter.consolidate("clone")
    assert content(original) == held
    assert content(clone)[:5] == content(clone)[MiB : MiB + 5] == b"clone"
    assert not clone.state.consolidation_needed


def test_a_move_waits_for_nobody(datacenter: Datacenter) -> None:
    with datacenter.machine("vm1").operation("something long"), pytest.raises(Busy):
        datacenter.moves.vmotion("vm1")


def test_whoever_watches_is_told(datacenter: Datacenter) -> None:
    seen: list[str] = []
    datacenter.watch(seen.append)
    datacenter.moves.vmotion("vm1")
    assert seen == [datacenter.machine("vm1").state.moref]
