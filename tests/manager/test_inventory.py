"""Listing and finding, against the lab's vCenter with pages of two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.manager.managers import BOTH, Manager, Need, address, serving
from vcbproxy.clock import ManualClock
from vcbproxy.errors import ManagerError, UsageError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.schema import vim
from vcbproxy.manager import inventory
from vcbproxy.manager.datastore import DatastoreKind, DatastorePath
from vcbproxy.manager.disk import DiskKind, refusal
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session, connect
from vcbproxy.manager.vm import Power
from vcbproxy.units import GiB, MiB

MANAGERS = BOTH

EMPTY = ContentSpec(fill=Fill.EMPTY)
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(
        DatastoreSpec("old", 3, lun_size_bytes=1 * GiB),
        DatastoreSpec("wide", 5, luns=2, lun_size_bytes=1 * GiB),
        DatastoreSpec("share", 0),
    ),
    vms=(
        VmSpec(
            "web01",
            "old",
            disks=(
                DiskSpec(4 * MiB, content=EMPTY),
                DiskSpec(8 * MiB, content=EMPTY, node="sata0-1"),
                DiskSpec(4 * MiB, content=EMPTY, node="nvme0-0", datastore="wide"),
            ),
            ip="192.0.2.1",
        ),
        VmSpec("web02", "old", disks=(DiskSpec(4 * MiB, content=EMPTY),), powered_on=False, ip="192.0.2.2"),
        VmSpec("db01", "wide", disks=(DiskSpec(4 * MiB, content=EMPTY),), snapshots=(SnapshotSpec(writes=1),)),
        VmSpec("nfs01", "share", disks=(DiskSpec(4 * MiB, content=EMPTY),), tools_running=False),
        VmSpec("cbt01", "wide", disks=(DiskSpec(4 * MiB, content=EMPTY),), change_tracking=True),
    ),
)


@pytest.fixture(scope="module")
def running(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, SPEC) as datacenter, serving(which, datacenter) as manager:
        if isinstance(manager, LabServer):
            manager.centre.collectors.page_max = 2
        yield manager


@pytest.fixture
def session(server: Manager, clock: ManualClock) -> Iterator[Session]:
    with connect(address(server), server.username, server.password, clock=clock) as opened:
        yield opened


@pytest.mark.needs(Need.PAGES)
@pytest.mark.needs(Need.INSIDE)
def test_all_vms_are_listed_page_by_page(server: Manager, session: Session) -> None:
    assert isinstance(server, LabServer)
    inventory.vms(session)
    objects = 5 + 3 + 1 + 4  # VMs, datastores, a datacenter and its folders, all in one sequence of pages
    assert server.calls["RetrievePropertiesEx"] == 1
    assert server.calls["ContinueRetrievePropertiesEx"] == (objects - 1) // 2
    assert server.calls["Fetch"] == 0
    assert server.centre.inventory.all_of(vim.view.ContainerView) == []


def test_all_vms_are_listed(session: Session) -> None:
    listed = inventory.vms(session)
    assert [vm.name for vm in listed] == ["cbt01", "db01", "nfs01", "web01", "web02"]
    web02 = listed[-1]
    assert web02.power_state is Power.OFF
    assert web02.connected
    assert not web02.template
    assert web02.vmx == DatastorePath("old", "web02/web02.vmx")


def test_datastores_say_on_which_luns_they_lie(server: Manager, session: Session) -> None:
    old, share, wide = inventory.datastores(session)
    assert (old.name, old.kind, len(old.extents)) == ("old", DatastoreKind.VMFS, 1)
    assert (wide.name, wide.kind, len(wide.extents)) == ("wide", DatastoreKind.VMFS, 2)
    assert (share.name, share.kind, share.extents, share.vmfs_uuid) == ("share", DatastoreKind.NFS, (), None)
    assert share.nfs_host
    assert share.nfs_path
    assert all(extent.disk_name.startswith("naa.") for extent in (*old.extents, *wide.extents))
    assert len({*old.extents, *wide.extents}) == 3
    assert len({old.vmfs_uuid, wide.vmfs_uuid, None}) == 3
    assert old.accessible


@pytest.mark.parametrize("kind", ["name", "moref", "uuid", "instance_uuid", "ip"])
def test_a_vm_is_found_by_each_of_its_names(session: Session, kind: str) -> None:
    web01 = inventory.find(session, "web01")
    selector = web01.ip_addresses[0] if kind == "ip" else getattr(web01, kind)
    assert inventory.find(session, selector) == web01


def test_what_a_vm_says(session: Session) -> None:
    web01 = inventory.find(session, "web01")
    assert [(disk.key, disk.capacity_bytes) for disk in web01.disks] == [
        ("scsi0-0", 4 * MiB),
        ("sata0-1", 8 * MiB),
        ("nvme0-0", 4 * MiB),
    ]
    assert [disk.path.datastore for disk in web01.disks] == ["old", "old", "wide"]
    assert all(disk.kind is DiskKind.FLAT and refusal(disk) is None for disk in web01.disks)
    morefs = {datastore.moref for datastore in inventory.datastores(session)}
    assert {disk.datastore for disk in web01.disks} <= morefs
    assert not web01.has_snapshots
    assert web01.tools_running
    assert not inventory.find(session, "nfs01").tools_running
    assert inventory.find(session, "cbt01").change_tracking


def test_a_vm_with_snapshots_lives_on_a_delta(session: Session) -> None:
    db01 = inventory.find(session, "db01")
    assert db01.has_snapshots
    (disk,) = db01.disks
    assert disk.kind is DiskKind.SPARSE
    assert disk.path.name == "db01-000001.vmdk"
    assert [parent.name for parent in disk.parents] == ["db01.vmdk"]


@pytest.mark.parametrize("selector", ["web1", "web", "WEB01", "vm-9999", "192.0.2.99", "name:192.0.2.1"])
def test_what_stands_for_no_vm_is_an_error(session: Session, selector: str) -> None:
    with pytest.raises(UsageError, match="no virtual machine"):
        inventory.find(session, selector)


def test_a_near_miss_is_named(session: Session) -> None:
    with pytest.raises(UsageError, match="there is web0"):
        inventory.find(session, "web1")


def test_a_vm_that_is_gone(session: Session) -> None:
    with pytest.raises(ManagerError) as caught:
        inventory.get(session, "vm-9999")
    assert trouble_of(caught.value) is Trouble.GONE
