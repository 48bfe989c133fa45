"""What two managers say of changed areas, asked raw: the contract that incremental backups will stand on.

No client of ours asks for them yet. Two independent answers to the same writes show which of their properties are the
API's, and which are one simulator's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyVmomi import vim

from tests.manager.managers import BOTH, Manager, serving
from tests.second.vcsim import Vcsim
from vcbproxy.clock import ManualClock
from vcbproxy.errors import ManagerError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.manager import inventory
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import Marker, Quiesce, VmSnapshot, held
from vcbproxy.units import KiB, MiB

MANAGERS = BOTH
SIZE = 280 * MiB  # room for more areas than one answer takes
TRACKED, UNTRACKED = "vm1", "vm2"
EMPTY = ContentSpec(fill=Fill.EMPTY)
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("share", 0),),
    vms=(
        VmSpec(TRACKED, "share", disks=(DiskSpec(SIZE, content=EMPTY),), change_tracking=True),
        VmSpec(UNTRACKED, "share", disks=(DiskSpec(4 * MiB, content=EMPTY),)),
    ),
)


@pytest.fixture(scope="module")
def running(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, SPEC) as datacenter, serving(which, datacenter) as manager:
        yield manager


def guest_writes(server: Manager, *offsets: int, length: int = 512) -> None:
    machine = server.datacenter.machine(TRACKED)
    disk = machine.state.disks[0]
    if isinstance(server, Vcsim):
        server.wrote(TRACKED, disk.device_key, offsets, length)
        return
    for offset in offsets:
        machine.guest_write(disk.node, offset, b"x" * length)


class Asking:
    """Snapshots of a VM, and what changed up to each."""

    def __init__(self, session: Session, vm: str = TRACKED) -> None:
        self.session = session
        self.vm = inventory.find(session, vm)

    def frozen(self) -> Any:
        marker = Marker("run-3", "proxy01")
        return held(self.session, self.vm, name="x", marker=marker, quiesce=Quiesce.OFF, clock=ManualClock())

    def page(self, at: VmSnapshot, since: str, start: int) -> Any:
        def ask(wire: Any) -> Any:
            machine = wire.object(vim.VirtualMachine, self.vm.moref)
            snapshot = wire.object(vim.vm.Snapshot, at.moref)
            return machine.QueryChangedDiskAreas(snapshot, at.disks[0].device_key, start, since)

        return self.session.read(ask)

    def areas(self, at: VmSnapshot, since: str) -> list[tuple[int, int]]:
        """(offset, end) of all pages, held to what must be true of each."""
        start, found = 0, list[tuple[int, int]]()
        while start < at.disks[0].capacity_bytes:
            page = self.page(at, since, start)
            assert page.startOffset == start
            assert page.length > 0
            for area in page.changedArea:
                assert start <= area.start < area.start + area.length <= start + page.length
                assert not found or found[-1][1] <= area.start
                found.append((int(area.start), int(area.start + area.length)))
            start += page.length
        return found


def covers(areas: list[tuple[int, int]], offset: int) -> bool:
    return any(first <= offset < end for first, end in areas)


def test_only_what_was_written_since_is_named(server: Manager, session: Session) -> None:
    asking = Asking(session)
    guest_writes(server, 0)
    with asking.frozen() as first:
        landmark = first.disks[0].change_id
        assert landmark
        assert asking.areas(first, landmark) == []
        assert covers(asking.areas(first, "*"), 0)
    guest_writes(server, 5 * MiB, SIZE - 512)
    with asking.frozen() as second:
        guest_writes(server, 200 * MiB)
        areas = asking.areas(second, landmark)
        assert second.disks[0].change_id != landmark
    assert covers(areas, 5 * MiB)
    assert covers(areas, SIZE - 512)
    assert not covers(areas, 0)
    assert not covers(areas, 200 * MiB), "written after the snapshot"


def test_more_than_one_answer_takes(server: Manager, session: Session) -> None:
    asking = Asking(session)
    with asking.frozen() as first:
        landmark = first.disks[0].change_id
    guest_writes(server, *(number * 128 * KiB for number in range(2100)))
    with asking.frozen() as second:
        assert len(asking.page(second, landmark, 0).changedArea) == 2000
        areas = asking.areas(second, landmark)
    assert len(areas) == 2100


@pytest.mark.parametrize("landmark", ["", "nonsense", "52 de c0/7", "*/1"])
def test_a_landmark_of_nobodys_is_refused(session: Session, landmark: str) -> None:
    asking = Asking(session)
    with asking.frozen() as frozen, pytest.raises(ManagerError, match="InvalidArgument"):
        asking.page(frozen, landmark, 0)


def test_without_tracking_there_is_no_landmark_and_no_answer(session: Session) -> None:
    asking = Asking(session, UNTRACKED)
    with asking.frozen() as frozen:
        assert frozen.disks[0].change_id is None
        with pytest.raises(ManagerError, match="FileFault"):
            asking.page(frozen, "*", 0)
