"""The inventory: listing virtual machines and datastores, and choosing the VMs that are meant.

A list costs one view and one call a page, whatever the inventory's size, and asks only for what it is needed for:
selecting by name does not make ten thousand VMs tell their addresses. Finding one VM is strict: exactly one, or an
error that names the candidates, since backing up the wrong ``web01`` is noticed on the day it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pyVmomi import vim

from vcbproxy.errors import ManagerError, NothingProtected, UsageError
from vcbproxy.manager import convert, properties, rawlun, tags
from vcbproxy.manager.choice import choose, listed, refuse
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.disk import Disk, DiskKind, refusal
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.listing import LISTED, connection_of, datastore_of, listed_vms, name_of, tools_running
from vcbproxy.manager.selector import Kind, Selector, needs
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Connection, Power, Vm, VmSummary
from vcbproxy.manager.wire import Wire

__all__ = [
    "LISTED",
    "Connection",
    "Datastore",
    "DatastoreKind",
    "DatastorePath",
    "Disk",
    "DiskKind",
    "Power",
    "Vm",
    "VmSummary",
    "VmfsExtent",
    "chosen",
    "datastores",
    "details",
    "find",
    "get",
    "refusal",
    "vms",
]

_FULL = (
    "name",
    "config",
    "snapshot",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "guest.hostName",
    "guest.ipAddress",
    "guest.net",
    "guest.toolsRunningStatus",
)
_BATCH = 50  # configurations are large
_REMEDY = {
    Connection.DISCONNECTED: "its host does not answer: reconnect the host, or let HA restart the VM",
    Connection.ORPHANED: "no host has it any more: register it anew from its .vmx, or remove it from the inventory",
    Connection.INACCESSIBLE: "its host cannot read its files: look at the datastore, then reload the VM",
    Connection.INVALID: "its .vmx is damaged: repair it, then register the VM anew",
    Connection.UNKNOWN: "look at it in the vSphere client",
}


def vms(session: Session, facts: frozenset[Kind] = LISTED) -> list[VmSummary]:
    """All virtual machines, templates included, by name and moref.

    Args:
        session: the manager.
        facts: what must be known of each; by default all but tags.

    Raises:
        UsageError: tags are asked for of a manager that has none.
        ManagerError: it cannot be asked.
    """
    everything = session.read(lambda wire: listed_vms(wire, facts))
    if Kind.TAG in facts:
        known = tags.of_vms(session)
        everything = [replace(vm, tags=known.get(vm.moref, frozenset())) for vm in everything]
    return sorted(everything, key=lambda vm: (vm.name, vm.moref))


def chosen(
    session: Session,
    texts: Iterable[str],
    facts: frozenset[Kind] = frozenset(),
    unmet: Callable[[str, UsageError], None] = refuse,
) -> list[VmSummary]:
    """The VMs that selectors mean now, each once, in the order asked for; without any, all that are workloads.

    Args:
        session: the manager.
        texts: the selectors.
        facts: what must be known of the VMs beside what the selectors look at.
        unmet: as for ``choice.choose``: what to do about a selector that means nothing; else nothing at all is done.

    Raises:
        UsageError: a text is no selector, or means no VM, or several where it must be one.
        NothingProtected: there is no VM at all, or exclusions leave none.
        ManagerError: the manager cannot be asked.
    """
    selectors = [Selector.parse(text) for text in texts]
    everything = vms(session, needs(selectors) | facts)
    if selectors:
        return choose(everything, selectors, unmet)
    found = [vm for vm in everything if vm.workload]
    if not found:
        raise NothingProtected(f"{session} has no virtual machine: nothing was protected")
    return found


def datastores(session: Session) -> list[Datastore]:
    """All datastores, by name and moref."""
    rows = session.read(lambda wire: properties.of_all(wire, vim.Datastore, ("name", "summary", "info")))
    return sorted((datastore_of(row) for row in rows), key=lambda datastore: (datastore.name, datastore.moref))


def find(session: Session, text: str) -> Vm:
    """The one VM that a selector means, whatever its kind; a bare word is a name, moref, UUID, address or host name.

    Raises:
        UsageError: no VM, or several; the message lists them by moref.
        ManagerError: the manager cannot tell its configuration.
    """
    found = chosen(session, [text])
    if len(found) > 1:
        raise UsageError(f"{text!r} stands for {len(found)} virtual machines: {listed(found)}; choose one by its moref")
    return get(session, found[0].moref)


def get(session: Session, moref: str) -> Vm:
    """A VM by its moref, as it is now.

    Raises:
        ManagerError: it is gone, or the manager cannot tell its configuration.
    """
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, moref), _FULL))
    return _vm(session, row)


def details(session: Session, morefs: Sequence[str]) -> list[Vm | ManagerError]:
    """Many VMs as they are now, or why one cannot be told, in no order; in few calls.

    Raises:
        ManagerError: the manager cannot be asked.
    """
    found: list[Vm | ManagerError] = []
    for start in range(0, len(morefs), _BATCH):
        for row in _rows(session, morefs[start : start + _BATCH]):
            try:
                found.append(_vm(session, row))
            except ManagerError as error:
                found.append(error)
    return found


def _rows(session: Session, morefs: Sequence[str]) -> list[properties.Row]:
    """One call for all; one for each when some VM has gone meanwhile, and without those that have."""

    def together(wire: Wire) -> list[properties.Row]:
        return properties.of_some(wire, [wire.object(vim.VirtualMachine, moref) for moref in morefs], _FULL)

    try:
        return session.read(together)
    except ManagerError as error:
        if trouble_of(error) is not Trouble.GONE:
            raise
        return [] if len(morefs) == 1 else [row for moref in morefs for row in _rows(session, [moref])]


def _vm(session: Session, row: properties.Row) -> Vm:
    moref = row.moref
    connection = connection_of(row)
    if row.get("config") is None and connection is not Connection.CONNECTED:
        state = f"it is {connection.value}; {_REMEDY[connection]}"
        raise ManagerError(f"{name_of(row)} ({moref}) cannot be backed up: {state}")
    config = row.need("config")
    if not config.instanceUuid:
        raise ManagerError(f"{name_of(row)} ({moref}) has no instance UUID")
    return Vm(
        moref=row.moref,
        name=name_of(row),
        uuid=config.uuid,
        instance_uuid=config.instanceUuid,
        power_state=_power(row.need("runtime.powerState")),
        connected=connection is Connection.CONNECTED,
        template=bool(config.template),
        tools_running=tools_running(row),
        host_name=row.get("guest.hostName"),
        ip_addresses=convert.addresses(row.get("guest.ipAddress"), row.get("guest.net")),
        vmx=DatastorePath.parse(config.files.vmPathName or ""),
        disks=rawlun.disks(session, moref, config),
        has_snapshots=any(True for _ in properties.snapshot_trees(row.get("snapshot"))),
        change_tracking=bool(config.changeTrackingEnabled),
        consolidation_needed=bool(row.get("runtime.consolidationNeeded")),
        encrypted=config.keyId is not None,
        guest=config.guestFullName,
        hardware_version=config.version,
    )


def _power(state: object) -> Power:
    try:
        return Power(str(state))
    except ValueError as error:
        raise ManagerError(f"unknown power state {str(state)!r}") from error
