"""A held snapshot freezes the disks, and is gone on every exit: normal, failed, interrupted, disconnected."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.beside import Keyboard, beside, until
from tests.manager.managers import BOTH, Manager, snapshots
from vcbproxy.clock import ManualClock, SystemClock
from vcbproxy.errors import Cancelled, Error, ManagerError, TaskFailed
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.faults import Trouble as Ordered
from vcbproxy.lab.vcenter.faults import What, Where
from vcbproxy.manager import inventory, vmconfig
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import Limits, Marker, Quiesce, VmSnapshot, find_ours, held, remove_marked
from vcbproxy.manager.vm import Vm

MANAGERS = BOTH

Hold = Callable[..., AbstractContextManager[VmSnapshot]]
MARKER = Marker("20261123T080000Z-1f", "proxy01")


@pytest.fixture
def vm(session: Session) -> Vm:
    return inventory.find(session, "vm1")


@pytest.fixture
def hold(session: Session, vm: Vm, clock: ManualClock) -> Hold:
    def with_defaults(**facts: Any) -> AbstractContextManager[VmSnapshot]:
        chosen = {"name": "vcbproxy", "marker": MARKER, "quiesce": Quiesce.TRY, "clock": clock, **facts}
        return held(session, chosen.pop("vm", vm), **chosen)

    return with_defaults


@pytest.fixture(autouse=True)
def left_as_found(server: Manager, session: Session, vm: Vm) -> Iterator[None]:
    """However a test ends: no snapshot of ours, the user's own untouched, the disks where they were."""
    yield
    server.faults.clear()
    assert find_ours(session, vm) == []
    assert snapshots(server) == ["user 0"]
    assert inventory.get(session, vm.moref) == vm


def test_the_disks_are_those_of_the_snapshot(server: Manager, session: Session, vm: Vm, hold: Hold) -> None:
    with hold() as frozen:
        assert frozen.quiesced
        assert frozen.not_quiesced_because is None
        assert frozen.disks == vm.disks
        now = inventory.get(session, vm.moref)
        assert {disk.path for disk in now.disks}.isdisjoint(disk.path for disk in frozen.disks)
        (ours,) = find_ours(session, vm)
        assert (ours.moref, ours.name, ours.marker, ours.created) == (
            frozen.moref,
            "vcbproxy",
            MARKER,
            frozen.created,
        )


def test_the_configuration_is_plain_data(session: Session, vm: Vm, hold: Hold) -> None:
    with hold() as frozen:
        captured = vmconfig.capture(session, vm, frozen)
    document = json.loads(json.dumps(captured.document))
    assert document == captured.document
    assert document["instance_uuid"] == vm.instance_uuid
    devices = document["config"]["hardware"]["device"]
    backings = [device["backing"]["fileName"] for device in devices if device["type"] == "vm.device.VirtualDisk"]
    assert backings == [str(disk.path) for disk in vm.disks]
    assert [(file.role.value, file.path) for file in captured.files] == [
        ("vmx", DatastorePath("ds1", "vm1/vm1.vmx")),
        ("nvram", DatastorePath("ds1", "vm1/vm1.nvram")),
        ("vmxf", DatastorePath("ds1", "vm1/vm1.vmxf")),
    ]


@pytest.mark.parametrize(
    "error", [ManagerError("boom"), Cancelled(), KeyboardInterrupt(), SystemExit(1), ZeroDivisionError()]
)
def test_gone_after_an_error(server: Manager, hold: Hold, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, hold():
        raise error
    assert caught.value is error
    assert snapshots(server) == ["user 0"]


def fail_with(error: BaseException | None) -> None:
    if error is not None:
        raise error


def read_on() -> None:
    """Read until the interrupt comes."""
    time.sleep(120)
    pytest.fail("no interrupt came")


def test_gone_after_ctrl_c_while_reading(server: Manager, hold: Hold) -> None:
    def press() -> None:
        until(lambda: len(snapshots(server)) > 1)
        os.kill(os.getpid(), signal.SIGINT)

    with beside(press), pytest.raises(KeyboardInterrupt), hold():
        read_on()
    assert snapshots(server) == ["user 0"]


def ctrl_c_during(method: str, server: Manager, keyboard: Keyboard) -> AbstractContextManager[None]:
    """Press Ctrl-C while its task runs, which ends only then."""
    server.faults.order(Ordered(method, What.HANG, Where.TASK))

    def press() -> None:
        until(lambda: server.calls[method])
        keyboard.ctrl_c()
        server.faults.clear()

    return beside(press)


def test_gone_after_ctrl_c_while_it_is_being_created(server: Manager, hold: Hold, keyboard: Keyboard) -> None:
    creating = ctrl_c_during("CreateSnapshot_Task", server, keyboard)
    with creating, pytest.raises(KeyboardInterrupt), hold():
        pytest.fail("the block was entered")
    assert server.calls["RemoveSnapshot_Task"] == 1
    assert snapshots(server) == ["user 0"]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), ManagerError("boom")], ids=["fine", "ctrl-c", "failed"])
def test_gone_after_ctrl_c_while_it_is_being_removed(
    server: Manager, hold: Hold, keyboard: Keyboard, error: BaseException | None
) -> None:
    """An interrupt even comes before an error, else it would be taken for one failed VM and the job would go on."""
    removing = ctrl_c_during("RemoveSnapshot_Task", server, keyboard)
    with removing, pytest.raises(KeyboardInterrupt) as caught, hold():
        fail_with(error)
    assert caught.value.__cause__ is (error if isinstance(error, ManagerError) else None)
    assert snapshots(server) == ["user 0"]


def test_a_cancelled_job_creates_nothing(server: Manager, hold: Hold) -> None:
    with pytest.raises(Cancelled), hold(cancelled=lambda: True):
        pytest.fail("the block was entered")
    assert server.calls["CreateSnapshot_Task"] == 0


def test_a_job_cancelled_while_it_is_being_created(server: Manager, hold: Hold) -> None:
    answers = iter([False, True])
    with pytest.raises(Cancelled), hold(cancelled=lambda: next(answers, True)):
        pytest.fail("the block was entered")
    assert server.calls["CreateSnapshot_Task"] == 1


# Quiescing


def test_try_ends_crash_consistent_and_says_so(server: Manager, hold: Hold) -> None:
    fault = vim.fault.ApplicationQuiesceFault(msg="The guest OS has reported an error during quiescing.")
    server.faults.add("CreateSnapshot_Task", fault, times=3, where=Where.TASK)
    with hold(quiesce=Quiesce.TRY) as frozen:
        assert not frozen.quiesced
        assert "reported an error during quiescing" in str(frozen.not_quiesced_because)
    assert server.calls["CreateSnapshot_Task"] == 4


def test_try_succeeds_at_the_second_attempt(server: Manager, hold: Hold) -> None:
    server.faults.add("CreateSnapshot_Task", vim.fault.SnapshotFault(), where=Where.TASK)
    with hold(quiesce=Quiesce.TRY) as frozen:
        assert frozen.quiesced
        assert frozen.not_quiesced_because is None


def test_require_fails_when_the_guest_does_not_come_to_rest(server: Manager, hold: Hold) -> None:
    server.faults.add("CreateSnapshot_Task", vim.fault.FilesystemQuiesceFault(), times=9, where=Where.TASK)
    with pytest.raises(TaskFailed) as caught, hold(quiesce=Quiesce.REQUIRE):
        pytest.fail("the block was entered")
    assert trouble_of(caught.value) is Trouble.QUIESCE
    assert server.calls["CreateSnapshot_Task"] == 3


def test_off_never_asks(hold: Hold) -> None:
    with hold(quiesce=Quiesce.OFF) as frozen:
        assert not frozen.quiesced
        assert frozen.not_quiesced_because == "not asked for"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"tools_running": False}, "VMware Tools do not run"),
        ({"template": True}, "template"),
        ({"connected": False}, "lost its host"),
    ],
)
def test_refused_before_anything_is_touched(
    server: Manager, vm: Vm, hold: Hold, facts: dict[str, Any], why: str
) -> None:
    with pytest.raises(ManagerError, match=why), hold(vm=dataclasses.replace(vm, **facts), quiesce=Quiesce.REQUIRE):
        pytest.fail("the block was entered")
    assert server.calls["CreateSnapshot_Task"] == 0


# Trouble on the way


@pytest.mark.parametrize("where", [Where.CALL, Where.TASK])
def test_a_busy_vm_is_waited_for(server: Manager, hold: Hold, where: Where) -> None:
    server.faults.add("CreateSnapshot_Task", vim.fault.TaskInProgress(), times=4, where=where)
    server.faults.add("RemoveSnapshot_Task", vim.fault.TaskInProgress(), times=4, where=where)
    with hold() as frozen:
        assert frozen.quiesced


def test_a_vm_that_stays_busy_is_an_error(server: Manager, hold: Hold, clock: ManualClock) -> None:
    server.faults.add("CreateSnapshot_Task", vim.fault.TaskInProgress(), times=999)
    with pytest.raises(ManagerError) as caught, hold(limits=Limits(busy_s=300)):
        pytest.fail("the block was entered")
    assert trouble_of(caught.value) is Trouble.BUSY
    assert 300 <= clock.monotonic() < 400


def test_a_missing_privilege_is_named_at_once(server: Manager, hold: Hold) -> None:
    fault = vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot")
    server.faults.add("CreateSnapshot_Task", fault, times=9)
    with pytest.raises(ManagerError, match=r"VirtualMachine\.State\.CreateSnapshot"), hold():
        pytest.fail("the block was entered")
    assert server.calls["CreateSnapshot_Task"] == 1


@pytest.mark.parametrize("delay_s", [0.0, 0.5])
@pytest.mark.parametrize("what", [What.DROP, What.BREAK])
def test_a_creation_whose_answer_was_lost_leaves_nothing(
    server: Manager, hold: Hold, what: What, delay_s: float
) -> None:
    """The manager heard it; nobody knows the task. It is waited for, and what it made is removed."""
    server.faults.order(Ordered("CreateSnapshot_Task", what, Where.ANSWER))
    server.faults.add("CreateSnapshot_Task", delay_s=delay_s, where=Where.TASK)
    with pytest.raises(ManagerError) as caught, hold():
        pytest.fail("the block was entered")
    assert trouble_of(caught.value) is Trouble.CONNECTION
    assert server.calls["RemoveSnapshot_Task"] == 1
    assert snapshots(server) == ["user 0"]


def test_a_creation_that_began_although_a_fault_came_back_leaves_nothing(server: Manager, hold: Hold) -> None:
    """What a manager answers is not always what it did."""
    fault = vmodl.fault.SystemError(reason="trouble", msg="trouble")
    server.faults.add("CreateSnapshot_Task", fault, where=Where.ANSWER)
    server.faults.add("CreateSnapshot_Task", delay_s=0.5, where=Where.TASK)
    with pytest.raises(ManagerError, match="trouble"), hold():
        pytest.fail("the block was entered")
    assert snapshots(server) == ["user 0"]


def test_a_manager_that_restarts_while_it_is_created_leaves_nothing(server: Manager, hold: Hold) -> None:
    """The task is forgotten; what it did is not. What is still on its way is given real time to arrive."""
    server.faults.order(Ordered("WaitForUpdatesEx", What.RESTART))
    with suppress(ManagerError), hold(clock=SystemClock(), limits=Limits(pause_s=0.1, settle_s=1.0)):
        pass
    assert server.calls["CreateSnapshot_Task"] == 1
    assert snapshots(server) == ["user 0"]


def test_a_manager_that_restarts_while_it_is_removed(server: Manager, hold: Hold) -> None:
    with hold():
        server.faults.order(Ordered("WaitForUpdatesEx", What.RESTART))
    assert snapshots(server) == ["user 0"]
    if isinstance(server, LabServer):
        server.centre.tasks.join()  # the hosts go on merging, and nobody can wait for that by its task any more


def test_a_removal_that_is_done_by_half_is_brought_to_its_end(server: Manager, hold: Hold) -> None:
    """The lab leaves links behind, vcsim the snapshot itself; the tasks end well."""
    server.faults.order(Ordered("RemoveSnapshot_Task", What.HALF, Where.TASK))
    with hold():
        pass
    assert server.calls["RemoveSnapshot_Task"] + server.calls["ConsolidateVMDisks_Task"] == 2
    assert snapshots(server) == ["user 0"]


def test_a_session_that_ends_while_it_is_held(server: Manager, hold: Hold) -> None:
    with hold():
        server.expire_sessions()
    assert snapshots(server) == ["user 0"]


@pytest.mark.parametrize(
    "call", ["WaitForUpdatesEx", "CreateFilter", "CreatePropertyCollector", "RetrievePropertiesEx"]
)
@pytest.mark.parametrize("after", range(3))
def test_connections_dropped_while_waiting(server: Manager, hold: Hold, call: str, after: int) -> None:
    server.faults.add(call, drop=True, times=2, after=after)
    with hold():
        server.faults.add(call, drop=True, times=2, after=after)
    assert snapshots(server) == ["user 0"]


@pytest.mark.parametrize("where", Where)
def test_a_removal_that_fails_is_tried_again(server: Manager, hold: Hold, where: Where) -> None:
    lost = where is Where.ANSWER
    fault = None if lost else vmodl.fault.SystemError(reason="disk is locked", msg="disk is locked")
    server.faults.add("RemoveSnapshot_Task", fault, times=1 if lost else 3, where=where, drop=lost)
    with hold():
        pass
    assert snapshots(server) == ["user 0"]


def removable_again(server: Manager, session: Session, vm: Vm, clock: ManualClock) -> None:
    server.faults.clear()
    remove_marked(session, vm, MARKER, clock=clock, limits=Limits())


def test_a_removal_that_keeps_failing_says_what_to_do(
    server: Manager,
    session: Session,
    vm: Vm,
    hold: Hold,
    clock: ManualClock,
) -> None:
    server.faults.add("RemoveSnapshot_Task", vim.fault.FileFault(msg="lock"), times=99, where=Where.TASK)
    with pytest.raises(ManagerError, match="delete the snapshot in the vSphere client") as caught, hold():
        pass
    assert str(MARKER) in str(caught.value)
    removable_again(server, session, vm, clock)


def test_a_failed_removal_does_not_hide_the_first_error(
    server: Manager,
    session: Session,
    vm: Vm,
    hold: Hold,
    clock: ManualClock,
) -> None:
    server.faults.add("RemoveSnapshot_Task", vim.fault.FileFault(msg="lock"), times=99, where=Where.TASK)
    first = Error("the disk could not be read")
    with pytest.raises(Error) as caught, hold():
        raise first
    assert caught.value is first
    assert any("is not removed" in note for note in first.__notes__)
    removable_again(server, session, vm, clock)


def test_a_missing_privilege_to_remove_is_not_retried(
    server: Manager,
    session: Session,
    vm: Vm,
    hold: Hold,
    clock: ManualClock,
) -> None:
    fault = vim.fault.NoPermission(privilegeId="VirtualMachine.State.RemoveSnapshot")
    server.faults.add("RemoveSnapshot_Task", fault, times=99)
    with pytest.raises(ManagerError, match=r"VirtualMachine\.State\.RemoveSnapshot"), hold():
        pass
    assert server.calls["RemoveSnapshot_Task"] == 1
    removable_again(server, session, vm, clock)


def test_snapshots_of_others_stay(server: Manager, session: Session, vm: Vm, hold: Hold, clock: ManualClock) -> None:
    """One of another job run, and one that somebody takes on top of ours."""
    other = Marker("another-run", "proxy01")
    with hold(marker=other):
        with hold():
            names = [snapshot.marker for snapshot in find_ours(session, vm)]
            assert names == [other, MARKER]
        assert [snapshot.marker for snapshot in find_ours(session, vm)] == [other]
    assert find_ours(session, vm) == []
