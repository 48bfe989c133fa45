"""Removals and waits that do not go as planned: consolidation, limits, a VM that is gone, an operator who insists."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pyVmomi import vim, vmodl

from tests.beside import Keyboard, beside, until
from tests.manager.late import creation_ending_late
from tests.manager.managers import BOTH, Manager, address
from vcbproxy.clock import ManualClock, SystemClock
from vcbproxy.errors import CredentialsError, ManagerError
from vcbproxy.lab.vcenter.faults import Trouble as Ordered
from vcbproxy.lab.vcenter.faults import What, Where
from vcbproxy.manager import inventory, task
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session, connect
from vcbproxy.manager.snapshot import Limits, Marker, Quiesce, find_ours, held, remove_marked
from vcbproxy.manager.vm import Vm

MANAGERS = BOTH

MARKER = Marker("run-7", "proxy01")


@pytest.fixture
def vm(session: Session) -> Vm:
    return inventory.find(session, "vm1")


@pytest.fixture(autouse=True)
def nothing_left(server: Manager, session: Session, vm: Vm) -> Iterator[None]:
    yield
    server.faults.clear()
    remove_marked(session, vm, MARKER, clock=ManualClock(), limits=Limits(), unsure=True)
    assert find_ours(session, vm) == []


def leave_a_link_nobody_needs(session: Session, vm: Vm) -> None:
    """Remove a snapshot without merging what it froze, as a host does whose merge failed."""
    clock = ManualClock()
    create = task.start(
        session,
        "CreateSnapshot",
        vm.name,
        lambda wire: wire.object(vim.VirtualMachine, vm.moref).CreateSnapshot_Task("other", "", False, False),
    )
    snapshot = task.wait(session, create, clock=clock, limit_s=60)
    remove = task.start(
        session, "RemoveSnapshot", vm.name, lambda wire: snapshot.RemoveSnapshot_Task(False, consolidate=False)
    )
    task.wait(session, remove, clock=clock, limit_s=60)


def test_disks_that_need_it_are_consolidated(server: Manager, session: Session, vm: Vm, clock: ManualClock) -> None:
    leave_a_link_nobody_needs(session, vm)
    assert inventory.get(session, vm.moref).consolidation_needed
    with held(session, vm, name="vcbproxy", marker=MARKER, quiesce=Quiesce.OFF, clock=clock):
        pass
    assert server.calls["ConsolidateVMDisks_Task"] == 1
    assert not inventory.get(session, vm.moref).consolidation_needed


def test_a_consolidation_that_keeps_failing_says_what_to_do(
    server: Manager, session: Session, vm: Vm, clock: ManualClock
) -> None:
    leave_a_link_nobody_needs(session, vm)
    server.faults.add("ConsolidateVMDisks_Task", vim.fault.FileFault(msg="lock"), times=99, where=Where.TASK)
    holding = held(session, vm, name="vcbproxy", marker=MARKER, quiesce=Quiesce.OFF, clock=clock)
    with pytest.raises(ManagerError, match="Consolidate in the vSphere client"), holding:
        pass
    assert find_ours(session, vm) == []


def test_a_creation_that_takes_too_long_leaves_nothing(server: Manager, session: Session, vm: Vm) -> None:
    """Its task goes on behind our back; it is waited for, and what it made is removed."""
    clock = SystemClock()
    limits = Limits(create_s=0.5, pause_s=0.1, settle_s=0.1)
    holding = held(session, vm, name="vcbproxy", marker=MARKER, quiesce=Quiesce.OFF, clock=clock, limits=limits)
    with creation_ending_late(server), pytest.raises(ManagerError, match="still runs") as caught, holding:
        pytest.fail("the block was entered")
    assert trouble_of(caught.value) is Trouble.UNFINISHED
    assert server.calls["RemoveSnapshot_Task"] == 1
    assert find_ours(session, vm) == []


def test_a_vm_that_is_gone_is_not_asked_for_again(
    server: Manager, session: Session, vm: Vm, clock: ManualClock
) -> None:
    gone = vim.VirtualMachine(vm.moref, None)
    holding = held(session, vm, name="vcbproxy", marker=MARKER, quiesce=Quiesce.OFF, clock=clock)
    with pytest.raises(ManagerError, match="is not removed"), holding:
        server.faults.add("RetrievePropertiesEx", vmodl.fault.ManagedObjectNotFound(obj=gone), times=99)
    assert clock.monotonic() == 0


def test_an_operator_who_insists_need_not_wait(
    server: Manager, session: Session, vm: Vm, clock: ManualClock, keyboard: Keyboard
) -> None:
    """The second Ctrl-C during a removal without end is obeyed, and no thread of ours stays behind."""
    server.faults.order(Ordered("RemoveSnapshot_Task", What.HANG, Where.TASK))

    def insist() -> None:
        until(lambda: server.calls["RemoveSnapshot_Task"])
        keyboard.insist()

    before = set(threading.enumerate())
    holding = held(session, vm, name="vcbproxy", marker=MARKER, quiesce=Quiesce.OFF, clock=clock)
    with beside(insist), pytest.raises(KeyboardInterrupt), holding:
        pass
    server.faults.clear()
    for thread in set(threading.enumerate()) - before:
        if "removal" in thread.name:
            thread.join(60)
            assert not thread.is_alive()


def test_a_login_refused_while_it_is_being_created_leaves_nothing(server: Manager, vm: Vm) -> None:
    """The session ends, and the password is another one for a moment; the task goes on all the same."""
    passwords = iter([server.password, "not this one"])
    asked: list[str] = []
    clock = SystemClock()
    server.faults.order(Ordered("CreateSnapshot_Task", What.HANG, Where.TASK))

    def password() -> str:
        asked.append(next(passwords, server.password))
        return asked[-1]

    def end_session() -> None:
        until(lambda: server.calls["CreateSnapshot_Task"])
        server.expire_sessions()
        until(lambda: len(asked) > 2)  # refused, and now in again
        server.faults.clear()

    with connect(address(server), server.username, password, clock=clock) as session:
        limits = Limits(settle_s=0.1, pause_s=0.1)
        holding = held(session, vm, name="vcbproxy", marker=MARKER, quiesce=Quiesce.OFF, clock=clock, limits=limits)
        with beside(end_session), pytest.raises(CredentialsError), holding:
            pytest.fail("the block was entered")
        assert server.calls["RemoveSnapshot_Task"] == 1
        assert find_ours(session, vm) == []
