"""Switching changed block tracking on for a VM: a setting that the host obeys at the VM's next stun.

    ReconfigVM(changeTrackingEnabled) ──▶ the snapshot that follows is the stun: tracking begins ──▶ the next backup
                                                                                     can be incremental

Our own snapshot is the stun, so that a running guest is not stopped once more for it. It is done before the snapshot
and never while the VM has one: hosts then refuse it, or track from the wrong moment on (VMware KB 1020128).
"""

from __future__ import annotations

import logging
import re
from typing import Any

from pyVmomi import vim

from vcbproxy.clock import Clock
from vcbproxy.errors import ManagerError
from vcbproxy.manager import properties, task
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.removal import PAUSE_MAX_S, Limits
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Vm

log = logging.getLogger(__name__)

PRIVILEGE = "VirtualMachine.Config.ChangeTracking"
_HARDWARE_MIN = 7
_SETTING = "config.changeTrackingEnabled"
_TASK_MAX_S = 300.0
_Spec: Any = vim.vm.ConfigSpec


def hindrance(vm: Vm) -> str | None:
    """Why tracking cannot be switched on for a VM now; None when it can, or is on."""
    if vm.change_tracking:
        return None
    version = re.fullmatch(r"vmx-(\d+)", vm.hardware_version)
    if version is not None and int(version[1]) < _HARDWARE_MIN:
        return f"virtual hardware {vm.hardware_version} cannot track changes: upgrade it to version {_HARDWARE_MIN}"
    if vm.has_snapshots:
        return "it has snapshots, and tracking must not begin under one: delete them first"
    return None


def enable(session: Session, vm: Vm, *, clock: Clock, limits: Limits) -> None:
    """Let the VM's changes be tracked from its next snapshot on.

    Raises:
        ManagerError: it cannot be, or was refused; the VM is as before.
    """
    reason = hindrance(vm)
    if reason is not None:
        raise ManagerError(f"{vm.name}: {reason}")
    settled = clock.monotonic()
    try:
        _reconfigure(session, vm, clock, limits)
    except ManagerError as error:
        if trouble_of(error) not in (Trouble.CONNECTION, Trouble.GONE):
            raise
        log.info("whether changes of %s are tracked is asked again: %s", vm.name, error)
        settled = clock.monotonic() + limits.settle_s  # its answer was lost, or its task forgotten: it may be under way
    while not _enabled(session, vm):
        if clock.monotonic() >= settled:
            raise ManagerError(f"{vm.name}: the manager was asked to track its changes, and does not")
        clock.sleep(1)


def _reconfigure(session: Session, vm: Vm, clock: Clock, limits: Limits) -> None:
    def reconfigure(wire: Any) -> Any:
        spec: Any = _Spec(changeTrackingEnabled=True)
        return wire.object(vim.VirtualMachine, vm.moref).ReconfigVM_Task(spec)

    deadline = clock.monotonic() + limits.busy_s
    pause_s = limits.pause_s
    while True:
        try:
            started = task.start(session, "ReconfigVM", vm.name, reconfigure)
            task.wait(session, started, clock=clock, limit_s=_TASK_MAX_S)
        except ManagerError as error:
            if trouble_of(error) is not Trouble.BUSY or clock.monotonic() >= deadline:
                raise
            log.info("waiting: %s", error)
        else:
            return
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


def _enabled(session: Session, vm: Vm) -> bool:
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), [_SETTING]))
    return bool(row.get(_SETTING))
