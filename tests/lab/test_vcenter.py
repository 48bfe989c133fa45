"""The lab's vCenter, spoken to by stock pyVmomi over verified TLS, and by hand where a client would not do it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ssl
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import SoapStubAdapter, vim, vmodl

from tests.beside import until
from tests.lab.clients import BROKEN, connected, disks, find, snapshot_of
from vcbproxy.errors import UsageError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.tracking import Habits
from vcbproxy.lab.vcenter import LabServer, wire
from vcbproxy.lab.vcenter.faults import Trouble, What, Where
from vcbproxy.units import GiB, KiB, MiB

SPEC = LabSpec(
    datastores=(DatastoreSpec("san6", 6, luns=2, lun_size_bytes=1 * GiB), DatastoreSpec("nfs1", 0)),
    vms=(
        VmSpec("web01", "san6", (DiskSpec(8 * MiB), DiskSpec(4 * MiB, node="nvme0-1")), ip="192.0.2.7"),
        VmSpec("db01", "nfs1", (DiskSpec(8 * MiB),), snapshots=(SnapshotSpec("mine"),)),
        VmSpec("off01", "nfs1", (DiskSpec(4 * MiB),), powered_on=False),
        VmSpec("dumb01", "nfs1", (DiskSpec(4 * MiB),), tools_running=False),
    ),
    truth=Truth.DIGEST,
)
Collector = vmodl.query.PropertyCollector


@pytest.fixture
def datacenter(tmp_path):
    with Datacenter.create(tmp_path / "lab", SPEC) as datacenter:
        yield datacenter


@pytest.fixture
def server(datacenter):
    with LabServer(datacenter) as server:
        yield server


@pytest.fixture
def client(server):
    with connected(server) as instance:
        yield instance


def test_login_is_refused_and_sessions_end(server):
    with pytest.raises(vim.fault.InvalidLogin), connected(server, "wrong"):
        pass
    with connected(server) as client:
        assert client.content.about.apiType == "VirtualCenter"
        assert client.content.sessionManager.currentSession.userName == "lab"
        vm = find(client, "web01")
        server.expire_sessions()
        with pytest.raises(vim.fault.NotAuthenticated):
            _ = vm.name


def test_the_version_is_agreed_upon(server):
    context = ssl.create_default_context(cafile=str(server.ca_file))
    client = SmartConnect(
        host=server.host, port=server.port, user=server.username, pwd=server.password, sslContext=context
    )
    assert client._stub.version == "vim.version.v8_0_3_0"
    Disconnect(client)
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = client.content.rootFolder.name
    client._stub.DropConnections()


def test_a_client_that_does_not_trust_it_learns_nothing(server):
    with pytest.raises(ssl.SSLCertVerificationError):
        SmartConnect(host=server.host, port=server.port, user="lab", pwd="x", sslContext=ssl.create_default_context())


def test_a_datastore_names_its_luns(datacenter, client):
    stores = {store.name: store.info for store in client.content.rootFolder.childEntity[0].datastore}
    vmfs = stores["san6"].vmfs
    known = datacenter.state.datastores[0]
    assert vmfs.uuid == known.uuid
    assert vmfs.majorVersion == 6
    assert [(extent.diskName, extent.partition) for extent in vmfs.extent] == [
        (f"naa.{lun.wwn}", 1) for lun in known.luns
    ]
    assert stores["nfs1"].nas.remotePath == "/export/nfs1"


def test_a_vm_shows_its_disks(client):
    vm = find(client, "web01")
    assert vm.config.files.vmPathName == "[san6] web01/web01.vmx"
    shown = disks(vm.config)
    assert shown[2000].backing.fileName == "[san6] web01/web01.vmdk"
    assert shown[32001].capacityInBytes == 4 * MiB
    assert shown[32001].controllerKey == 31000
    assert shown[2000].backing.parent is None
    assert vm.summary.config.numVirtualDisks == 2
    db = find(client, "db01")
    assert disks(db.config)[2000].backing.parent.fileName == "[nfs1] db01/db01.vmdk"
    assert disks(db.config)[2000].backing.deltaDiskFormat == "redoLogFormat"


def test_one_name_twice_and_a_disk_that_snapshots_leave_out(tmp_path):
    spec = LabSpec(
        (DatastoreSpec("nfs1", 0),),
        (
            VmSpec("twin", "nfs1", inventory_folder="left"),
            VmSpec("twin", "nfs1", (DiskSpec(4 * MiB), DiskSpec(4 * MiB, independent=True)), inventory_folder="right"),
        ),
    )
    with Datacenter.create(tmp_path / "twins", spec) as datacenter, LabServer(datacenter) as server:
        with connected(server) as client:
            left, right = find(client, "left/twin"), find(client, "right/twin")
            assert left.config.uuid != right.config.uuid
            assert left.config.files.vmPathName == "[nfs1] twin/twin.vmx"
            assert right.config.files.vmPathName == "[nfs1] twin_1/twin.vmx"
            snapshot = snapshot_of(right)
            assert disks(right.config)[2001].backing.diskMode == "independent_persistent"
            assert disks(right.config)[2000].backing.parent is not None
            assert disks(right.config)[2001].backing.parent is None
            assert disks(snapshot.config)[2001].backing.fileName == "[nfs1] twin_1/twin_1.vmdk"
            assert list(datacenter.truths()[-1].disks) == ["scsi0-0"]
            WaitForTask(right.RemoveAllSnapshots_Task())
            assert not right.runtime.consolidationNeeded
        with pytest.raises(UsageError, match="vm-20, vm-21"):
            datacenter.machine("twin")


def test_vms_are_found_every_way(client):
    index, vm = client.content.searchIndex, find(client, "web01")
    assert index.FindByIp(None, "192.0.2.7", True) == vm
    assert index.FindByDnsName(None, "web01.lab", True) == vm
    assert index.FindByUuid(None, vm.config.uuid, True, False) == vm
    assert index.FindByUuid(None, vm.config.instanceUuid, True, True) == vm
    assert index.FindAllByUuid(None, vm.config.uuid, True, True) == []
    assert index.FindByInventoryPath("DC0/vm/none") is None
    assert index.FindByIp(None, "192.0.2.99", True) is None


def test_a_snapshot_freezes_and_its_removal_merges(datacenter, client):
    vm, machine = find(client, "web01"), datacenter.machine("web01")
    held = machine.guest_read("scsi0-0", 0, 8 * MiB)
    snapshot = snapshot_of(vm, quiesce=True)
    frozen, live = disks(snapshot.config)[2000].backing, disks(vm.config)[2000].backing
    assert frozen.fileName == "[san6] web01/web01.vmdk"
    assert live.fileName == "[san6] web01/web01-000001.vmdk"
    assert live.parent.fileName == frozen.fileName
    assert live.deltaDiskFormat == "seSparseFormat"
    tree = vm.snapshot.rootSnapshotList[0]
    assert (tree.snapshot, tree.name, tree.description, tree.quiesced) == (snapshot, "backup", "marker", True)
    machine.guest_write("scsi0-0", 64 * KiB, b"after" * 1000)
    flat = datacenter.store("san6").read("/web01/web01-flat.vmdk", 0, 8 * MiB)
    assert flat == held
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True))
    assert vm.snapshot is None
    assert not vm.runtime.consolidationNeeded
    assert disks(vm.config)[2000].backing.fileName == frozen.fileName
    assert machine.guest_read("scsi0-0", 64 * KiB, 5000) == b"after" * 1000
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = snapshot.config


def test_removing_the_middle_of_a_chain(client):
    vm = find(client, "db01")
    theirs = vm.snapshot.currentSnapshot
    ours = snapshot_of(vm)
    assert disks(ours.config)[2000].backing.fileName == "[nfs1] db01/db01-000001.vmdk"
    assert vm.snapshot.rootSnapshotList[0].childSnapshotList[0].snapshot == ours
    WaitForTask(theirs.RemoveSnapshot_Task(removeChildren=False))
    # What our snapshot froze is now in the base: its backing moved there.
    assert disks(ours.config)[2000].backing.fileName == "[nfs1] db01/db01.vmdk"
    assert disks(ours.config)[2000].backing.parent is None
    assert vm.snapshot.rootSnapshotList[0].snapshot == ours
    assert disks(vm.config)[2000].backing.fileName == "[nfs1] db01/db01-000002.vmdk"


def test_consolidation_is_asked_for_separately(client):
    vm = find(client, "db01")
    WaitForTask(vm.snapshot.currentSnapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=False))
    assert vm.snapshot is None
    assert vm.runtime.consolidationNeeded
    WaitForTask(vm.ConsolidateVMDisks_Task())
    assert not vm.runtime.consolidationNeeded
    assert disks(vm.config)[2000].backing.parent is None


def test_all_snapshots_at_once_and_the_newer_call(client):
    vm = find(client, "db01")
    spec = vim.vm.GuestQuiesceSpec(timeout=5)
    task = vm.CreateSnapshotEx_Task(name="ex", description="", memory=False, quiesceSpec=spec)
    WaitForTask(task)
    assert task.info.descriptionId == "VirtualMachine.createSnapshot"
    assert task in vm.recentTask
    assert task.info.result == vm.snapshot.currentSnapshot
    WaitForTask(vm.RemoveAllSnapshots_Task())
    assert vm.snapshot is None


def test_quiescing_needs_tools(client):
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        snapshot_of(find(client, "dumb01"), quiesce=True)
    assert find(client, "dumb01").snapshot is None
    off = find(client, "off01")
    snapshot_of(off, quiesce=True)
    assert not off.snapshot.rootSnapshotList[0].quiesced
    WaitForTask(off.PowerOnVM_Task())
    assert off.runtime.powerState == "poweredOn"
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(off.PowerOnVM_Task())


def test_changed_areas(datacenter, client):
    vm, machine = find(client, "web01"), datacenter.machine("web01")
    snapshot = snapshot_of(vm)
    with pytest.raises(vim.fault.FileFault):
        vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    first = snapshot_of(vm)
    base = disks(first.config)[2000].backing.changeId
    WaitForTask(first.RemoveSnapshot_Task(removeChildren=False))
    machine.guest_write("scsi0-0", 100 * KiB, bytes(KiB) + b"x" * KiB)
    machine.guest_write("scsi0-0", 8 * MiB - 512, b"y" * 512)
    second = snapshot_of(vm)
    machine.guest_write("scsi0-0", 3 * MiB, b"too late" * 64)
    found = vm.QueryChangedDiskAreas(second, 2000, 0, base)
    assert (found.startOffset, found.length) == (0, 8 * MiB)
    assert [(area.start // KiB, area.length // KiB) for area in found.changedArea] == [(64, 64), (8192 - 64, 64)]
    later = vm.QueryChangedDiskAreas(second, 2000, 4 * MiB, base)
    assert [(area.start // KiB) for area in later.changedArea] == [8192 - 64]
    assert vm.QueryChangedDiskAreas(second, 2000, 0, "*").changedArea
    for wrong in ("", "nonsense", base.replace("/", "/x"), "00 11/1"):
        with pytest.raises(vmodl.fault.InvalidArgument):
            vm.QueryChangedDiskAreas(second, 2000, 0, wrong)


def test_changed_areas_by_habit_and_ids_that_are_lost(datacenter, server, client):
    vm, machine = find(client, "web01"), datacenter.machine("web01")
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    first = snapshot_of(vm)
    base = disks(first.config)[2000].backing.changeId
    WaitForTask(first.RemoveSnapshot_Task(removeChildren=False))
    for at in range(0, 8 * MiB, 256 * KiB):
        machine.guest_write("scsi0-0", at, b"x" * KiB)
    server.centre.area_habits = Habits(per_answer=5)
    second = snapshot_of(vm)
    start, pages = 0, 0
    while start < 8 * MiB:
        page = vm.QueryChangedDiskAreas(second, 2000, start, base)
        assert len(page.changedArea) <= 5
        start, pages = page.startOffset + page.length, pages + 1
    assert pages == 7
    machine.reset_tracking()
    WaitForTask(second.RemoveSnapshot_Task(removeChildren=False))
    third = snapshot_of(vm)
    assert disks(third.config)[2000].backing.changeId.split("/")[0] != base.split("/")[0]
    with pytest.raises(vmodl.fault.InvalidArgument):
        vm.QueryChangedDiskAreas(third, 2000, 0, base)


def all_vms(client, names, page=None):
    content = client.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    along = Collector.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
    spec = Collector.FilterSpec(
        objectSet=[Collector.ObjectSpec(obj=view, skip=True, selectSet=[along])],
        propSet=[Collector.PropertySpec(type=vim.VirtualMachine, pathSet=names)],
    )
    found, collector = [], content.propertyCollector
    result = collector.RetrievePropertiesEx([spec], Collector.RetrieveOptions(maxObjects=page))
    pages = 1
    while True:
        found += [{prop.name: prop.val for prop in one.propSet} for one in result.objects]
        if result.token is None:
            view.DestroyView()
            return found, pages
        result = collector.ContinueRetrievePropertiesEx(result.token)
        pages += 1


def test_properties_come_in_pages(client):
    found, pages = all_vms(client, ["name", "config.uuid", "snapshot", "guest.ipAddress"], page=1)
    assert [one["name"] for one in found] == ["web01", "db01", "off01", "dumb01"]
    assert pages == 4
    assert ["snapshot" in one for one in found] == [False, True, False, False]
    assert "guest.ipAddress" not in found[1]
    with pytest.raises(vmodl.query.InvalidProperty):
        all_vms(client, ["name", "nonsense.at.all"])
    with pytest.raises(vmodl.fault.InvalidArgument):
        client.content.propertyCollector.ContinueRetrievePropertiesEx("no such token")


def test_updates_are_waited_for(server, client):
    """A filter on a task: first all of it, then the change when it comes, not before."""
    server.faults.order(Trouble("CreateSnapshot_Task", What.HANG, Where.TASK))
    task = find(client, "web01").CreateSnapshot_Task("x", "", memory=False, quiesce=False)
    collector = client.content.propertyCollector.CreatePropertyCollector()
    spec = Collector.FilterSpec(
        objectSet=[Collector.ObjectSpec(obj=task)],
        propSet=[Collector.PropertySpec(type=vim.Task, pathSet=["info.state", "info.error"])],
    )
    collector.CreateFilter(spec, True)
    version, states = "", []
    while states[-1:] not in (["success"], ["error"]):
        if states == ["running"]:
            assert collector.WaitForUpdatesEx(version, Collector.WaitOptions(maxWaitSeconds=1)) is None
            server.faults.clear()
        update = collector.WaitForUpdatesEx(version, Collector.WaitOptions(maxWaitSeconds=60))
        version = update.version
        states += [change.val for one in update.filterSet[0].objectSet for change in one.changeSet]
    assert states[-2:] == ["running", "success"]
    assert collector.WaitForUpdatesEx(version, Collector.WaitOptions(maxWaitSeconds=0)) is None
    collector.DestroyPropertyCollector()


def test_faults_on_demand(server, client):
    vm = find(client, "web01")
    server.faults.add("CreateSnapshot_Task", vim.fault.SnapshotFault(msg="on demand"), where=Where.TASK)
    with pytest.raises(vim.fault.SnapshotFault, match="on demand"):
        snapshot_of(vm)
    server.faults.add("CreateSnapshot_Task", vim.fault.TaskInProgress, times=2)
    for _ in range(2):
        with pytest.raises(vim.fault.TaskInProgress):
            vm.CreateSnapshot_Task("x", "", memory=False, quiesce=False)
    server.faults.add("Fetch", drop=True, after=1)
    assert vm.name == "web01"
    with pytest.raises(BROKEN):
        _ = vm.name
    assert vm.name == "web01"
    # The snapshot is made, and nobody is told.
    server.faults.add("CreateSnapshot_Task", drop=True, where=Where.ANSWER)
    with pytest.raises(BROKEN):
        vm.CreateSnapshot_Task("lost", "", memory=False, quiesce=False)
    server.centre.tasks.join()
    assert vm.snapshot.rootSnapshotList[0].name == "lost"
    assert server.calls["CreateSnapshot_Task"] == 4


def test_a_second_task_is_refused(datacenter, client):
    vm = find(client, "web01")
    with datacenter.machine("web01").operation("something long"), pytest.raises(vim.fault.TaskInProgress):
        snapshot_of(vm)
    snapshot_of(vm)


def test_methods_that_nobody_wrote(client):
    with pytest.raises(vmodl.fault.NotSupported):
        find(client, "web01").ResetVM_Task()


def test_a_fault_that_lacks_what_it_needs_is_told_as_such(server, client):
    server.faults.add("ReconfigVM_Task", vim.fault.InvalidPowerState)
    with pytest.raises(vmodl.fault.SystemError, match="cannot be sent"):
        find(client, "web01").ReconfigVM_Task(vim.vm.ConfigSpec())


def post(server, body, headers):
    context = ssl.create_default_context(cafile=str(server.ca_file))
    connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=10)
    try:
        connection.request("POST", "/sdk", body, headers, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


ENVELOPE = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    "{}</soapenv:Body></soapenv:Envelope>"
)
CONTENT = (
    '<RetrieveServiceContent xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this>'
    "</RetrieveServiceContent>"
)
PROPERTIES = (
    '<RetrievePropertiesEx xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    '<_this type="PropertyCollector">propertyCollector</_this><specSet>'
    "<propSet><type>VirtualMachine</type><pathSet>name</pathSet><pathSet>config</pathSet></propSet>"
    '<objectSet><obj type="ContainerView">v</obj><skip>true</skip><selectSet xsi:type="TraversalSpec">'
    "<name>view</name><type>ContainerView</type><path>view</path></selectSet></objectSet></specSet>"
    "<options><maxObjects>1</maxObjects></options></RetrievePropertiesEx>"
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mangled_requests_are_malformed_or_fine(data):
    """Whatever is cut out, doubled or overwritten, the parser says so in its own words."""
    body = bytearray(ENVELOPE.format(PROPERTIES).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        length = data.draw(st.integers(0, 40))
        body[at : at + length] = data.draw(
            st.sampled_from([b"", b"<", b"x", b'"', b"&", b"ManagedObject", b"</type>", b"9"])
        )
    with contextlib.suppress(wire.MalformedRequest):
        assert wire.parse(bytes(body)).method


@pytest.mark.parametrize("version", ["vim.version.version11", "vim.version.v7_0", "vim.version.v8_0_0_0"])
def test_older_clients(server, version):
    """What their schema does not know is not sent to them."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    stub = SoapStubAdapter(server.host, server.port, version=version, sslContext=context)
    content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    content.sessionManager.Login(server.username, server.password)
    vm = content.searchIndex.FindByInventoryPath("DC0/vm/db01")
    assert disks(vm.config)[2000].backing.parent.fileName == "[nfs1] db01/db01.vmdk"
    stub.DropConnections()


def test_chunked_requests(server):
    """As Go's clients send them."""
    text = ENVELOPE.format(CONTENT).encode()
    status, body = post(server, iter([text[:100], text[100:]]), {"Transfer-Encoding": "chunked"})
    assert status == 200
    assert b"<instanceUuid>" in body


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not xml",
        ENVELOPE.format(""),
        ENVELOPE.format('<NoSuchMethod xmlns="urn:vim25"/>'),
        ENVELOPE.format(CONTENT.replace("ServiceInstance</_this>", "Nobody</_this>")),
        ENVELOPE.format(CONTENT.replace('type="ServiceInstance"', "")),
        ENVELOPE.format(CONTENT.replace("</RetrieveServiceContent>", "<more/></RetrieveServiceContent>")),
        ENVELOPE.format(CONTENT)[:-20],
    ],
)
def test_nonsense_gets_a_fault(server, body):
    status, answer = post(server, body.encode(), {})
    assert status == 500
    assert b"<faultstring>" in answer
    status, _ = post(server, ENVELOPE.format(CONTENT).encode(), {})
    assert status == 200


def test_a_body_without_end_is_refused(server):
    status, _ = post(server, b"", {"Content-Length": str(1 << 40)})
    assert status == 413
    status, _ = post(server, b"", {"Content-Length": "many"})
    assert status == 400


def test_guests_write_while_snapshots_come_and_go(datacenter, server, client):
    """The truth of each snapshot stays what its chain reads, whatever the guests do."""
    vm, machine = find(client, "web01"), datacenter.machine("web01")
    with server.guest_writer(writes_per_s=300, seed=5) as writer:
        for _ in range(3):
            snapshot = snapshot_of(vm)
            time.sleep(0.1)
            frozen = machine.chain("scsi0-0").read(0, 8 * MiB, 0)
            WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
            assert datacenter.truths()[-1].disks["scsi0-0"].sha256 == hashlib.sha256(frozen).hexdigest()
        until(lambda: writer.writes)


def test_it_starts_and_stops_clean(datacenter):
    before = set(threading.enumerate())
    server = LabServer(datacenter)
    server.start()
    context = ssl.create_default_context(cafile=str(server.ca_file))
    idle = http.client.HTTPSConnection(server.host, server.port, context=context)
    idle.connect()
    with pytest.raises(UsageError, match="cannot listen"):
        LabServer(datacenter, port=server.port).start()
    began = time.monotonic()
    server.stop()
    server.stop()
    assert time.monotonic() - began < 60, "a connection that is idle is ended after 300 s"
    assert set(threading.enumerate()) == before
    idle.close()
