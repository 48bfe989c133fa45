"""What a manager tells of its whole inventory at once: leftovers of ours, its time, what our user may do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyVmomi import vim

from tests.manager.managers import BOTH, Manager, serving
from vcbproxy.clock import ManualClock
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.manager import inventory, overview, privileges
from vcbproxy.manager.removal import Limits, consolidate
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import Marker, Quiesce, held
from vcbproxy.manager.task import start, wait
from vcbproxy.manager.wire import Wire
from vcbproxy.units import MiB

MANAGERS = BOTH
MARKER = Marker("run-9", "proxy01")
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("share", 0),),
    vms=tuple(
        VmSpec(name, "share", disks=(DiskSpec(4 * MiB),), snapshots=(SnapshotSpec("vcbproxy", "not ours"),))
        for name in ("vm1", "vm2", "vm3")
    ),
)


@pytest.fixture(scope="module")
def running(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, SPEC) as datacenter, serving(which, datacenter) as manager:
        yield manager


def test_a_name_like_ours_is_not_our_marker(session: Session) -> None:
    assert overview.leftovers(session) == []


def test_leftovers_of_the_whole_inventory(session: Session, clock: ManualClock) -> None:
    vm = inventory.find(session, "vm2")
    with held(session, vm, name="x", marker=MARKER, quiesce=Quiesce.OFF, clock=clock) as frozen:
        (left,) = overview.leftovers(session)
        assert (left.name, left.moref, left.consolidation_needed, left.untold) == ("vm2", vm.moref, False, None)
        (snapshot,) = left.snapshots
        assert (snapshot.name, snapshot.marker, snapshot.created) == ("x", MARKER, frozen.created)
    assert overview.leftovers(session) == []


def test_links_that_nobody_needs_are_left_over_too(session: Session, clock: ManualClock) -> None:
    vm = inventory.find(session, "vm3")

    def create(wire: Wire) -> Any:
        return wire.object(vim.VirtualMachine, vm.moref).CreateSnapshot_Task("other", "", False, False)

    snapshot = wait(session, start(session, "CreateSnapshot", "vm3", create), clock=clock, limit_s=60)
    remove = start(session, "RemoveSnapshot", "vm3", lambda wire: snapshot.RemoveSnapshot_Task(False, False))
    wait(session, remove, clock=clock, limit_s=60)
    (left,) = overview.leftovers(session)
    assert (left.name, left.snapshots, left.consolidation_needed) == ("vm3", (), True)
    consolidate(session, vm, clock=clock, limits=Limits())
    assert overview.leftovers(session) == []
    assert inventory.get(session, vm.moref) == vm


def test_the_time(session: Session) -> None:
    assert abs(overview.current_time(session) - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_administrator_lacks_nothing(session: Session) -> None:
    morefs = [vm.moref for vm in inventory.vms(session)]
    assert privileges.missing(session, morefs) == {}
