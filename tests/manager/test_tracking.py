"""Switching changed block tracking on, and the snapshot that makes it so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pyVmomi import vim, vmodl

from tests.manager.managers import Manager
from vcbproxy.clock import ManualClock
from vcbproxy.errors import ManagerError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import tiny
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.faults import Trouble, What, Where
from vcbproxy.manager import inventory, tracking
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import Limits, Marker, Quiesce, held
from vcbproxy.manager.vm import Vm


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    with (
        Datacenter.create(tmp_path_factory.mktemp("lab") / "dc", tiny(5)) as datacenter,
        LabServer(datacenter) as server,
    ):
        yield server


@pytest.fixture
def vm(session: Session, server: LabServer) -> Iterator[Vm]:
    yield inventory.find(session, "vm1")
    machine = server.datacenter.machine("vm1")
    machine.set_tracking(on=False)
    server.datacenter.changed(machine)


def enable(session: Session, vm: Vm) -> None:
    tracking.enable(session, vm, clock=ManualClock(), limits=Limits(busy_s=120, settle_s=100))


def test_the_next_snapshot_has_landmarks(session: Session, vm: Vm) -> None:
    assert not vm.change_tracking
    enable(session, vm)
    assert inventory.get(session, vm.moref).change_tracking
    marker = Marker("run-1", "proxy01")
    with held(session, vm, name="x", marker=marker, quiesce=Quiesce.OFF, clock=ManualClock()) as frozen:
        assert frozen.disks[0].change_id


def test_other_tasks_are_waited_for(server: Manager, session: Session, vm: Vm) -> None:
    busy = vim.fault.TaskInProgress(task=vim.Task("task-0", None), msg="busy")
    server.faults.add("ReconfigVM_Task", busy, times=3)
    enable(session, vm)
    assert server.calls["ReconfigVM_Task"] == 4


def test_an_answer_that_is_lost_is_no_failure(server: LabServer, session: Session, vm: Vm) -> None:
    server.faults.order(Trouble("ReconfigVM_Task", What.DROP, Where.ANSWER))
    enable(session, vm)
    assert inventory.get(session, vm.moref).change_tracking


def test_a_refusal_is_an_error(server: Manager, session: Session, vm: Vm) -> None:
    server.faults.add("ReconfigVM_Task", vmodl.fault.NotSupported(msg="not on this host"))
    with pytest.raises(ManagerError, match="not on this host"):
        enable(session, vm)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"hardware_version": "vmx-04"}, "upgrade it to version 7"),
        ({"has_snapshots": True}, "it has snapshots"),
    ],
)
def test_what_stands_in_the_way(session: Session, vm: Vm, facts: dict[str, object], reason: str) -> None:
    hindered = replace(vm, **facts)
    assert reason in str(tracking.hindrance(hindered))
    with pytest.raises(ManagerError, match=reason):
        enable(session, hindered)
    assert tracking.hindrance(replace(hindered, change_tracking=True)) is None
