"""Guests that do not come to rest: told apart by cause, asked again where that may help, and never hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.manager.late import creation_ending_late
from vcbproxy.clock import ManualClock, SystemClock
from vcbproxy.errors import ManagerError, TaskFailed
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.faults import Where
from vcbproxy.manager import inventory
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.quiesce import Cause
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import Limits, Marker, Quiesce, find_ours, held
from vcbproxy.manager.vm import Power, Vm

MARKER = Marker("run-9", "proxy01")


@pytest.fixture
def vm(session: Session) -> Vm:
    return inventory.find(session, "vm1")


@pytest.fixture(autouse=True)
def nothing_left(server: LabServer, session: Session, vm: Vm) -> Iterator[None]:
    yield
    server.faults.clear()
    assert find_ours(session, vm) == []


def hold(session: Session, vm: Vm, quiesce: Quiesce, **facts: Any) -> Any:
    chosen = {"clock": ManualClock(), **facts}
    return held(session, vm, name="vcbproxy", marker=MARKER, quiesce=quiesce, **chosen)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (vim.fault.ApplicationQuiesceFault(msg="writers"), Cause.APPLICATIONS),
        (vim.fault.FilesystemQuiesceFault(msg="busy"), Cause.FILE_SYSTEMS),
        (vim.fault.ToolsUnavailable(msg="no answer"), Cause.TOOLS_UNAVAILABLE),
        (vim.fault.SnapshotFault(msg="failed"), Cause.SNAPSHOT_FAULT),
        (vmodl.fault.SystemError(reason="msg.snapshot.error-QUIESCINGERROR", msg="quiescing"), Cause.SNAPSHOT_FAULT),
    ],
    ids=lambda value: value.value if isinstance(value, Cause) else "",
)
def test_the_causes_are_told_apart(server: LabServer, session: Session, vm: Vm, fault: Any, cause: Cause) -> None:
    server.faults.add("CreateSnapshot_Task", fault, times=3, where=Where.TASK)
    with hold(session, vm, Quiesce.TRY) as frozen:
        assert not frozen.quiesced
        assert frozen.unquiesced.cause is cause
        assert str(fault.msg) in str(frozen.unquiesced)
    assert server.calls["CreateSnapshot_Task"] == 4


@pytest.mark.parametrize(
    "fault",
    [
        vim.fault.SnapshotDisabled(msg="no snapshots here"),
        vim.fault.TooManySnapshotLevels(msg="too deep"),
        vim.fault.SnapshotLocked(msg="locked"),
        vim.fault.NoDiskSpace(msg="full", datastore="ds1", file="vm1.vmdk"),
    ],
    ids=lambda fault: type(fault).__name__.rpartition(".")[2],
)
def test_what_is_not_the_guests_doing_is_not_asked_again(
    server: LabServer, session: Session, vm: Vm, fault: Any
) -> None:
    server.faults.add("CreateSnapshot_Task", fault, times=9, where=Where.TASK)
    with pytest.raises(TaskFailed, match=fault.msg), hold(session, vm, Quiesce.TRY):
        pytest.fail("the block was entered")
    assert server.calls["CreateSnapshot_Task"] == 1


@pytest.mark.parametrize("quiesce", [Quiesce.TRY, Quiesce.REQUIRE])
def test_a_guest_that_hangs_is_not_asked_twice(server: LabServer, session: Session, vm: Vm, quiesce: Quiesce) -> None:
    """Its task goes on at the manager; it is awaited and what it made removed, before anything else is begun."""
    limits = Limits(create_s=0.5, pause_s=0.1, settle_s=0.1)
    holding = hold(session, vm, quiesce, clock=SystemClock(), limits=limits)
    if quiesce is Quiesce.REQUIRE:
        with creation_ending_late(server), pytest.raises(ManagerError, match="still runs"), holding:
            pytest.fail("the block was entered")
        assert server.calls["CreateSnapshot_Task"] == 1
        return
    with creation_ending_late(server), holding as frozen:
        assert frozen.unquiesced.cause is Cause.TIMEOUT
        assert len(find_ours(session, vm)) == 1
    assert server.calls["CreateSnapshot_Task"] == 2


def switch(server: LabServer, *, on: bool) -> None:
    machine = server.datacenter.machine("vm1")
    machine.set_power(on=on)
    server.datacenter.changed(machine)


@pytest.mark.parametrize(
    ("facts", "cause"),
    [({"tools_running": False}, Cause.NO_TOOLS), ({"powered_on": False}, Cause.POWERED_OFF)],
    ids=["no tools", "off"],
)
def test_try_does_not_ask_in_vain(
    server: LabServer, session: Session, vm: Vm, facts: dict[str, bool], cause: Cause
) -> None:
    machine = server.datacenter.machine("vm1")
    ((fact, value),) = facts.items()
    setattr(machine.state, fact, value)
    server.datacenter.changed(machine)
    try:
        with hold(session, vm, Quiesce.TRY) as frozen:
            assert frozen.unquiesced is not None
            assert frozen.unquiesced.cause is cause
        assert server.calls["CreateSnapshot_Task"] == 1
    finally:
        setattr(machine.state, fact, True)
        server.datacenter.changed(machine)


@pytest.fixture
def off(server: LabServer, session: Session) -> Iterator[Vm]:
    """The VM as it was looked up while it was off; it is on again in the end."""
    switch(server, on=False)
    yield inventory.find(session, "vm1")
    switch(server, on=True)


@pytest.mark.parametrize("wanted", [Quiesce.TRY, Quiesce.REQUIRE])
def test_one_that_was_switched_on_meanwhile_is_quiesced(
    server: LabServer, session: Session, off: Vm, wanted: Quiesce
) -> None:
    """Between the look at it and its snapshot lies the reading of the repository's index."""
    assert off.power_state is Power.OFF
    switch(server, on=True)
    with hold(session, off, wanted) as frozen:
        assert frozen.quiesced


def test_one_that_was_switched_off_meanwhile_is_at_rest(server: LabServer, session: Session, vm: Vm) -> None:
    switch(server, on=False)
    try:
        with hold(session, vm, Quiesce.REQUIRE) as frozen:
            assert frozen.unquiesced is not None
            assert frozen.unquiesced.cause is Cause.POWERED_OFF
    finally:
        switch(server, on=True)


@pytest.mark.parametrize("wanted", [Quiesce.TRY, Quiesce.REQUIRE])
def test_one_that_is_just_being_switched_on_is_not_called_at_rest(
    server: LabServer, session: Session, off: Vm, wanted: Quiesce
) -> None:
    """It is off when it is looked at, and busy when its snapshot is asked for: with being switched on."""

    def switched_on() -> Exception:
        switch(server, on=True)
        return vim.fault.TaskInProgress(msg="it is being switched on")

    server.faults.add("CreateSnapshot_Task", switched_on)
    with hold(session, off, wanted) as frozen:
        assert frozen.quiesced
    assert server.calls["CreateSnapshot_Task"] == 3


def test_one_that_was_switched_on_after_all_is_named(server: LabServer, session: Session, off: Vm) -> None:
    """It is off whenever it is looked at first, and runs whenever it has been frozen."""

    def switched_on() -> Exception:
        switch(server, on=True)
        return vim.fault.TaskInProgress(msg="it is being switched on")

    def switched_off() -> Exception:
        switch(server, on=False)
        return vim.fault.TaskInProgress(msg="it is being switched off")

    server.faults.add("CreateSnapshot_Task", switched_on)
    server.faults.add("RemoveSnapshot_Task", switched_off)
    server.faults.add("CreateSnapshot_Task", switched_on, after=1)
    with pytest.raises(ManagerError, match="ran right after it") as refused, hold(session, off, Quiesce.REQUIRE):
        pytest.fail("nobody knows whether it is at rest")
    assert trouble_of(refused.value) is Trouble.QUIESCE
