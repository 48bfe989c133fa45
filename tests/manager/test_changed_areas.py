"""Changed areas, asked for by our client of two managers: the contract that incremental backups stand on.

Two independent answers to the same writes show which of their properties are the API's, and which are one simulator's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from tests.manager.managers import BOTH, Manager, serving
from tests.second.vcsim import Vcsim
from vcbproxy.clock import ManualClock
from vcbproxy.errors import ChangesUnknown
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.lab.tracking import HONEST, Habits, Nonsense
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.manager import changes, inventory
from vcbproxy.manager.changes import Cause, ChangeId
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

    def areas(self, at: VmSnapshot, since: str) -> list[tuple[int, int]]:
        """(offset, end) of all areas, held to what must be true of any list."""
        ranges = changes.changed(self.session, self.vm, at, at.disks[0], since, ManualClock())
        found = [(int(start), int(start + length)) for start, length in ranges]
        position = 0
        for first, end in found:
            assert position <= first < end <= at.disks[0].capacity_bytes
            position = end
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
        assert covers(asking.areas(first, changes.EVERYTHING), 0)
    guest_writes(server, 5 * MiB, SIZE - 512)
    with asking.frozen() as second:
        guest_writes(server, 200 * MiB)
        areas = asking.areas(second, landmark)
        assert second.disks[0].change_id != landmark
        assert ChangeId.parse(second.disks[0].change_id).follows(ChangeId.parse(landmark))
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
        server.calls.clear()
        areas = asking.areas(second, landmark)
        assert server.calls["QueryChangedDiskAreas"] == 2
    assert len(areas) == 2100


@pytest.mark.parametrize("landmark", ["", "nonsense", "52 de c0/7", "*/1"])
def test_a_landmark_of_nobodys_is_refused(session: Session, landmark: str) -> None:
    asking = Asking(session)
    with asking.frozen() as frozen, pytest.raises(ChangesUnknown, match="tracking began anew since") as refused:
        asking.areas(frozen, landmark)
    assert refused.value.cause is Cause.FOREIGN


def test_without_tracking_there_is_no_landmark_and_no_answer(session: Session) -> None:
    asking = Asking(session, UNTRACKED)
    with asking.frozen() as frozen:
        assert frozen.disks[0].change_id is None
        with pytest.raises(ChangesUnknown, match=r"scsi0-0.*not tracked.*FileFault") as refused:
            asking.areas(frozen, changes.EVERYTHING)
    assert refused.value.cause is Cause.UNTRACKED


def test_a_disk_that_is_not_there(session: Session) -> None:
    asking = Asking(session)
    with asking.frozen() as frozen:
        other = replace(frozen.disks[0], device_key=2999)
        with pytest.raises(ChangesUnknown) as refused:
            changes.changed(session, asking.vm, frozen, other, changes.EVERYTHING, ManualClock())
    assert refused.value.cause in (Cause.GONE, Cause.FOREIGN)


def test_a_privilege_that_is_missing_is_named(server: Manager, session: Session) -> None:
    asking = Asking(session)
    with asking.frozen() as frozen:
        server.faults.add(
            "QueryChangedDiskAreas",
            vim.fault.NoPermission(object=vim.VirtualMachine("vm-1", None), privilegeId=changes.PRIVILEGE),
        )
        with pytest.raises(ChangesUnknown, match=r"DiskRandomRead is missing; add it") as refused:
            asking.areas(frozen, str(frozen.disks[0].change_id))
    assert refused.value.cause is Cause.PRIVILEGE


def test_a_tracking_file_in_use_is_waited_for(server: Manager, session: Session) -> None:
    asking = Asking(session)
    with asking.frozen() as frozen:
        server.faults.add("QueryChangedDiskAreas", vim.fault.FileLocked(file="x-ctk.vmdk"), times=4)
        assert asking.areas(frozen, str(frozen.disks[0].change_id)) == []
        server.faults.add("QueryChangedDiskAreas", vim.fault.FileLocked(file="x-ctk.vmdk"), times=5)
        with pytest.raises(ChangesUnknown) as refused:
            asking.areas(frozen, str(frozen.disks[0].change_id))
    assert refused.value.cause is Cause.UNTRACKED


@contextmanager
def habits(server: Manager, taken: Habits) -> Iterator[None]:
    if not isinstance(server, LabServer):
        pytest.skip("vcsim has good habits only")
    server.centre.area_habits = taken
    try:
        yield
    finally:
        server.centre.area_habits = HONEST


@pytest.mark.parametrize(
    "taken",
    [Habits(per_answer=3), Habits(ragged=True), Habits(beyond_end=True), Habits(unchanged=0.1, per_answer=50)],
    ids=str,
)
def test_what_is_allowed_to_hosts_is_borne(server: Manager, session: Session, taken: Habits) -> None:
    asking = Asking(session)
    with asking.frozen() as first:
        landmark = str(first.disks[0].change_id)
    written = [*range(0, 20 * MiB, MiB), SIZE - 512]
    guest_writes(server, *written)
    with asking.frozen() as second, habits(server, taken):
        areas = asking.areas(second, landmark)
    assert all(covers(areas, offset) for offset in written)


@pytest.mark.parametrize("kind", [kind for kind in Nonsense if kind is not Nonsense.NONE], ids=lambda kind: kind.name)
def test_what_cannot_be_is_no_answer(server: Manager, session: Session, kind: Nonsense) -> None:
    asking = Asking(session)
    with asking.frozen() as first:
        landmark = str(first.disks[0].change_id)
    guest_writes(server, 0, MiB, 5 * MiB)
    with (
        asking.frozen() as second,
        habits(server, Habits(nonsense=kind)),
        pytest.raises(ChangesUnknown, match="makes no sense") as refused,
    ):
        asking.areas(second, landmark)
    assert refused.value.cause is Cause.NONSENSE


@pytest.mark.parametrize(
    ("earlier", "later", "follows"),
    [
        ("52 de c0/7", "52 de c0/8", True),
        ("52 de c0/7", "52 de c0/7", False),
        ("52 de c0/7", "52 de c0/6", False),
        ("52 de c0/7", "52 de c1/8", False),
        ("52 de c0/7", "another form", False),
        ("one form", "another form", True),
        ("one form", "one form", False),
    ],
)
def test_landmarks_of_one_tracker_follow_each_other(earlier: str, later: str, *, follows: bool) -> None:
    assert ChangeId.parse(later).follows(ChangeId.parse(earlier)) is follows
