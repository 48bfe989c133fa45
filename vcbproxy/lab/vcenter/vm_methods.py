"""The methods on VMs and snapshots: what they ask of the machine, and how its refusals sound on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from vcbproxy.lab import tracking
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.state import DiskState, SnapshotState
from vcbproxy.lab.vcenter.inventory import Managed
from vcbproxy.lab.vcenter.methods import Call, Method
from vcbproxy.lab.vcenter.schema import moid, vim, vmodl

_Change = vim.VirtualMachine.DiskChangeInfo


def _create_snapshot(
    call: Call,
    name: str,
    memory: bool,  # the lab's guests have none
    quiesce: bool,
    description: str = "",
) -> Any:
    return _begin_snapshot(call, "CreateSnapshot_Task", name, description, quiesced=quiesce)


def _create_snapshot_ex(
    call: Call,
    name: str,
    memory: bool,
    description: str = "",
    quiesceSpec: Any = None,  # noqa: N803
) -> Any:
    return _begin_snapshot(call, "CreateSnapshotEx_Task", name, description, quiesced=quiesceSpec is not None)


def _begin_snapshot(call: Call, method: str, name: str, description: str, *, quiesced: bool) -> Any:
    machine = call.centre.machine(call.this)

    def work() -> SnapshotState:
        state = machine.state
        if quiesced and state.powered_on and not state.tools_running:
            raise vim.fault.ApplicationQuiesceFault(
                msg="An error occurred while quiescing the virtual machine. VMware Tools is not running."
            )
        # A VM that is off is at rest by itself, and hosts do not call that quiesced.
        return taken(at_rest=quiesced and state.powered_on)

    def taken(*, at_rest: bool = False) -> SnapshotState:
        return call.centre.datacenter.take_snapshot(machine.state.moref, name, description, quiesced=at_rest)

    return call.centre.task(method, call.this, work, half=taken)  # half: the guest did not come to rest


def _vm_of(call: Call) -> Managed:
    return call.centre.inventory.get(call.this.properties["vm"])


def _remove_snapshot(
    call: Call,
    removeChildren: bool,  # noqa: N803
    consolidate: bool = True,
) -> Any:
    vm = _vm_of(call)
    centre, name = call.centre, call.this.moref
    remove = partial(centre.datacenter.remove_snapshot, vm.moref, name, children=removeChildren)
    return centre.task(
        "RemoveSnapshot_Task",
        vm,
        partial(remove, consolidate=consolidate),
        half=partial(remove, consolidate=False),  # gone from the list, its deltas are not
    )


def _remove_all_snapshots(call: Call, consolidate: bool = True, spec: Any = None) -> Any:
    centre, vm = call.centre, call.this
    machine = centre.machine(vm)

    def work() -> None:
        if machine.state.snapshots:
            first = machine.state.snapshots[0].moref
            centre.datacenter.remove_snapshot(vm.moref, first, children=True, consolidate=consolidate)

    return centre.task("RemoveAllSnapshots_Task", vm, work)


def _consolidate(call: Call) -> Any:
    vm = call.this
    return call.centre.task("ConsolidateVMDisks_Task", vm, lambda: call.centre.datacenter.consolidate(vm.moref))


def _reconfigure(call: Call, spec: Any) -> Any:
    machine = call.centre.machine(call.this)

    def work() -> None:
        with machine.operation("reconfigure"):
            if spec.changeTrackingEnabled is not None:
                machine.set_tracking(on=spec.changeTrackingEnabled)

    return call.centre.task("ReconfigVM_Task", call.this, work)


def _power_on(call: Call, host: Any = None) -> Any:
    return _power(call, "PowerOnVM_Task", on=True)


def _power_off(call: Call) -> Any:
    return _power(call, "PowerOffVM_Task", on=False)


def _power(call: Call, method: str, *, on: bool) -> Any:
    machine = call.centre.machine(call.this)

    def work() -> None:
        if machine.state.powered_on == on:
            state = "poweredOn" if on else "poweredOff"
            raise vim.fault.InvalidPowerState(
                existingState=state, msg="The attempted operation cannot be performed in the current state."
            )
        machine.set_power(on=on)

    return call.centre.task(method, call.this, work)


def _query_changed_disk_areas(
    call: Call,
    deviceKey: int,  # noqa: N803
    startOffset: int,  # noqa: N803
    changeId: str,  # noqa: N803
    snapshot: Any = None,
) -> Any:
    machine = call.centre.machine(call.this)
    disk = next((disk for disk in machine.state.disks if disk.device_key == deviceKey), None)
    if disk is None:
        raise vim.fault.NotFound(msg=f"no disk with key {deviceKey}")
    if not 0 <= startOffset <= disk.size_bytes:
        raise vmodl.fault.InvalidArgument(
            invalidProperty="startOffset", msg="A specified parameter was not correct: startOffset"
        )
    with machine.still:
        answer = _changed(machine, disk, snapshot, startOffset, changeId, call.centre.area_habits)
    areas = [_Change.DiskChangeExtent(start=start, length=length) for start, length in answer.areas]
    return _Change(startOffset=answer.start, length=answer.length, changedArea=areas)


def _changed(
    machine: Machine, disk: DiskState, snapshot: Any, start: int, since: str, habits: tracking.Habits
) -> tracking.Answer:
    frozen = None if snapshot is None else machine.snapshot(moid(snapshot))
    until = frozen.change_ids.get(disk.node, "") if frozen is not None else ""
    if not disk.tracking_id or (frozen is not None and not until):
        raise vim.fault.FileFault(
            file=f"[{disk.datastore}] {disk.live.path[1:]}", msg="Change tracking is not active on this disk."
        )
    if since == "*":
        chain = machine.chain(disk.node)
        level = chain.level_of(frozen.frozen[disk.node]) if frozen is not None else None
        return tracking.answer(disk, chain.ranges(level), start, habits)
    try:
        return tracking.changed(disk, since, until, start, habits)
    except tracking.UnknownChangeId as error:
        raise vmodl.fault.InvalidArgument(
            invalidProperty="changeId", msg="A specified parameter was not correct: changeId"
        ) from error


VM_METHODS: Mapping[str, Method] = {
    "CreateSnapshot_Task": _create_snapshot,
    "CreateSnapshotEx_Task": _create_snapshot_ex,
    "RemoveSnapshot_Task": _remove_snapshot,
    "RemoveAllSnapshots_Task": _remove_all_snapshots,
    "ConsolidateVMDisks_Task": _consolidate,
    "ReconfigVM_Task": _reconfigure,
    "PowerOnVM_Task": _power_on,
    "PowerOffVM_Task": _power_off,
    "QueryChangedDiskAreas": _query_changed_disk_areas,
}
