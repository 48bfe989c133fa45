"""Trouble on demand, as stock pyVmomi sees it on the wire."""

from __future__ import annotations

import threading
import time
from xml.parsers.expat import ExpatError

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from tests.lab.clients import BROKEN, connected, find, snapshot_of
from vcbproxy.clock import ManualClock
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import tiny
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.faults import Faults, Trouble, What, Where

Collector = vmodl.query.PropertyCollector


@pytest.fixture(scope="module")
def clock():
    return ManualClock()


@pytest.fixture(scope="module")
def running(tmp_path_factory, clock):
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, tiny(6)) as datacenter, LabServer(datacenter, clock=clock) as server:
        yield server


@pytest.fixture
def server(running):
    yield running
    running.faults.clear()
    running.centre.tasks.join()
    running.centre.sessions.calls_max = 0
    assert running.datacenter.machine("vm1").state.snapshots == []


@pytest.fixture
def vm(server):
    with connected(server, timeout_s=5) as client:
        yield find(client, "vm1")


def test_an_answer_that_breaks_off_was_carried_out(server, vm):
    server.faults.order(Trouble("CreateSnapshot_Task", What.BREAK))
    with pytest.raises(ExpatError):
        vm.CreateSnapshot_Task("half told", "", memory=False, quiesce=False)
    server.centre.tasks.join()
    assert vm.snapshot.currentSnapshot is not None
    WaitForTask(vm.RemoveAllSnapshots_Task())


def test_an_answer_that_trickles_arrives_whole(server, vm):
    server.faults.order(Trouble("Fetch", What.TRICKLE, delay_s=0.3))
    began = time.monotonic()
    assert vm.name == "vm1"
    assert time.monotonic() - began > 0.25


def test_a_manager_that_starts_is_unavailable(server, vm):
    server.faults.order(Trouble("Fetch", What.UNAVAILABLE))
    with pytest.raises(BROKEN, match="503"):
        _ = vm.name
    assert vm.name == "vm1"


def test_sessions_end_on_demand_by_idle_time_and_by_calls(server, clock):
    with connected(server) as client:
        vm = find(client, "vm1")
        server.faults.order(Trouble("Fetch", What.EXPIRE, after=1))
        assert vm.name == "vm1"
        with pytest.raises(vim.fault.NotAuthenticated):
            _ = vm.name
    with connected(server) as client:
        vm = find(client, "vm1")
        clock.sleep(29 * 60)
        assert vm.name == "vm1"
        clock.sleep(29 * 60)
        assert client.content.sessionManager.currentSession.callCount == 2
        clock.sleep(31 * 60)
        with pytest.raises(vim.fault.NotAuthenticated):
            _ = vm.name
    with connected(server) as client:
        server.centre.sessions.calls_max = 3
        vm = find(client, "vm1")
        assert [vm.name for _ in range(2)] == ["vm1", "vm1"]
        with pytest.raises(vim.fault.NotAuthenticated):
            _ = vm.name


def test_a_restart_forgets_what_only_the_manager_knew(server, clock, vm):
    task = vm.CreateSnapshot_Task("before", "", memory=False, quiesce=False)
    server.centre.tasks.join()
    server.faults.order(Trouble("Fetch", What.RESTART, delay_s=60))
    with pytest.raises(BROKEN):
        _ = vm.name
    with pytest.raises(BROKEN, match="503"):
        _ = vm.name
    clock.sleep(60)
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = vm.name
    with connected(server) as client:
        again = find(client, "vm1")
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            _ = vim.Task(task._moId, again._stub).info
        assert again.recentTask == []
        assert again.snapshot.rootSnapshotList[0].name == "before"
        WaitForTask(again.RemoveAllSnapshots_Task())


def test_a_restart_wakes_who_waits(server, vm):
    woken = threading.Event()

    def wait() -> None:
        with connected(server) as client:
            collector = client.content.propertyCollector.CreatePropertyCollector()
            spec = Collector.FilterSpec(
                objectSet=[Collector.ObjectSpec(obj=find(client, "vm1"))],
                propSet=[Collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
            )
            collector.CreateFilter(spec, False)
            version = collector.WaitForUpdatesEx("", None).version
            with pytest.raises(BROKEN):
                collector.WaitForUpdatesEx(version, None)
            woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while server.calls["WaitForUpdatesEx"] < 2:
        time.sleep(0.01)
    server.restart()
    thread.join(10)
    assert woken.is_set()


def test_after_a_restart_the_manager_s_own_collector_is_as_new(server, vm):
    def first_update() -> None:
        with connected(server) as client:
            collector = client.content.propertyCollector
            spec = Collector.FilterSpec(
                objectSet=[Collector.ObjectSpec(obj=find(client, "vm1"))],
                propSet=[Collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
            )
            collector.CreateFilter(spec, False)
            update = collector.WaitForUpdatesEx("", Collector.WaitOptions(maxWaitSeconds=5))
            assert [known.objectSet[0].changeSet[0].val for known in update.filterSet] == ["vm1"]

    first_update()
    server.restart()
    first_update()


def test_a_task_hangs_until_it_is_let_go(server, vm):
    server.faults.order(Trouble("CreateSnapshot_Task", What.HANG, Where.TASK))
    task = vm.CreateSnapshot_Task("late", "", memory=False, quiesce=False)
    time.sleep(0.1)
    assert task.info.state == "running"
    assert vm.snapshot is None
    server.faults.clear()
    WaitForTask(task)
    assert vm.snapshot.rootSnapshotList[0].name == "late"
    WaitForTask(vm.RemoveAllSnapshots_Task())


def test_tasks_that_end_well_and_did_not_do_all(server, vm):
    server.faults.order(
        Trouble("CreateSnapshot_Task", What.HALF, Where.TASK),
        Trouble("RemoveSnapshot_Task", What.HALF, Where.TASK),
        Trouble("ConsolidateVMDisks_Task", What.HALF, Where.TASK, times=2),
    )
    snapshot = snapshot_of(vm, quiesce=True)
    assert vm.snapshot.rootSnapshotList[0].quiesced is False
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True))
    assert vm.snapshot is None
    for _ in range(2):
        assert vm.runtime.consolidationNeeded
        WaitForTask(vm.ConsolidateVMDisks_Task())
    assert vm.runtime.consolidationNeeded
    WaitForTask(vm.ConsolidateVMDisks_Task())
    assert not vm.runtime.consolidationNeeded


def test_trouble_may_be_about_one_kind_of_object(server, vm):
    snapshot = snapshot_of(vm)
    fault = lambda: vmodl.fault.SystemError(reason="x", msg="x")  # noqa: E731
    server.faults.order(Trouble("Fetch", fault=fault, on="VirtualMachineSnapshot", times=0))
    assert vm.name == "vm1"
    for _ in range(2):
        with pytest.raises(vmodl.fault.SystemError):
            _ = snapshot.config
    server.faults.clear()
    collector = vim.ServiceInstance("ServiceInstance", vm._stub).content.propertyCollector
    spec = Collector.FilterSpec(
        objectSet=[Collector.ObjectSpec(obj=snapshot)],
        propSet=[Collector.PropertySpec(type=vim.vm.Snapshot, pathSet=["config"])],
    )
    server.faults.order(Trouble("RetrievePropertiesEx", fault=fault, on=snapshot._moId))
    with pytest.raises(vmodl.fault.SystemError):
        collector.RetrievePropertiesEx([spec], Collector.RetrieveOptions())
    WaitForTask(vm.RemoveAllSnapshots_Task())


def hits(seed: int) -> list[bool]:
    faults = Faults()
    faults.seed(seed)
    faults.order(Trouble("Fetch", What.LATE, times=0, chance=0.3))
    return [faults.strike("Fetch", Where.CALL) is not None for _ in range(200)]


def test_one_seed_one_sequence_of_chances():
    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 30 < sum(hits(1)) < 90


def test_what_is_spent_strikes_no_more():
    faults = Faults()
    faults.order(Trouble("*", What.LATE, times=2, after=1), Trouble("Login", What.LATE, times=1))
    struck = [faults.strike("Login", Where.CALL) for _ in range(5)]
    assert [trouble and trouble.method for trouble in struck] == ["Login", "*", "*", None, None]
    assert faults.stock() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"what": What.FAULT},
        {"what": What.DROP, "where": Where.TASK},
        {"what": What.HANG},
        {"what": What.LATE, "chance": 0},
        {"what": What.LATE, "times": -1},
    ],
)
def test_impossible_trouble_is_refused(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        Trouble("Fetch", **wrong)
