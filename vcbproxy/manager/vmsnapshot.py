"""What a VM snapshot froze: its disks by the files that it names, and the VM's configuration at that moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pyVmomi import vim

from vcbproxy.errors import ManagerError
from vcbproxy.manager import convert, properties, rawlun
from vcbproxy.manager.disk import Disk, refusal
from vcbproxy.manager.quiesce import Cause, Unquiesced
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Power, Vm
from vcbproxy.manager.wire import moref_of

_POWER, _TOOLS = "runtime.powerState", "guest.toolsRunningStatus"


@dataclass(frozen=True, slots=True)
class VmSnapshot:
    """A VM frozen at one moment.

    Attributes:
        created: when, by the manager's clock.
        quiesced: the guest had come to rest; else ``unquiesced`` says why not.
        disks: what may be read: the snapshot's own backings.
        config: the VM's configuration at that moment, as plain data.
    """

    moref: str
    name: str
    created: datetime
    quiesced: bool
    unquiesced: Unquiesced | None
    disks: tuple[Disk, ...]
    config: dict[str, Any]

    @property
    def not_quiesced_because(self) -> str | None:
        """In words; None when it is quiesced."""
        return None if self.unquiesced is None else str(self.unquiesced)


def read(session: Session, vm: Vm, moref: str, unquiesced: Unquiesced | None) -> VmSnapshot:
    """Read what a snapshot froze, and make sure that the VM has moved on to other files.

    Args:
        session: where the VM is.
        vm: whose snapshot.
        moref: the snapshot's.
        unquiesced: why it was asked for without coming to rest; None: it was asked for with. Should the manager not
            confirm that, the cause is ``UNCONFIRMED``; ``SWITCHED_ON`` if it is said to be off and runs.

    Raises:
        ManagerError: it is not there, or does not freeze the disks.
    """
    config = session.read(lambda wire: properties.of_one(wire, wire.object(vim.vm.Snapshot, moref), ["config"])).need(
        "config"
    )
    live = session.read(
        lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), ["config", "snapshot", _POWER])
    )
    trees = properties.snapshot_trees(live.get("snapshot"))
    tree = next((tree for tree in trees if moref_of(tree.snapshot) == moref), None)
    if tree is None:
        raise ManagerError(f"the new snapshot of {vm.name} is not among its snapshots")
    disks = rawlun.disks(session, vm.moref, config)
    written = {disk.path for disk in convert.disks(live.need("config"))}
    for disk in disks:
        if refusal(disk) is None and disk.path in written:
            raise ManagerError(f"{vm.name}: {disk.key} is not frozen: the snapshot left {disk.path} in use")
    if unquiesced is None and not tree.quiesced:
        unquiesced = Unquiesced(Cause.UNCONFIRMED)
    if unquiesced is not None and unquiesced.cause is Cause.POWERED_OFF and _runs(live):
        unquiesced = Unquiesced(Cause.SWITCHED_ON)  # in between: whether it was at rest nobody knows
    return VmSnapshot(
        moref=moref,
        name=tree.name,
        created=convert.utc(tree.createTime),
        quiesced=unquiesced is None,
        unquiesced=unquiesced,
        disks=disks,
        config=convert.plain(config),
    )


def as_it_runs(session: Session, vm: Vm) -> Vm:
    """The VM with its power and its tools as they are now: since it was looked up, minutes may have passed.

    Raises:
        ManagerError: it is gone, or the manager does not tell.
    """
    row = session.read(
        lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), [_POWER, _TOOLS])
    )
    try:
        power = Power(str(row.need(_POWER)))
    except ValueError as error:
        raise ManagerError(f"{vm.name}: {error}, for its power state") from error
    return replace(vm, power_state=power, tools_running=str(row.get(_TOOLS)) == "guestToolsRunning")


def _runs(live: properties.Row) -> bool:
    return str(live.get(_POWER)) != Power.OFF.value
