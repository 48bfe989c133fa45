"""The inventory: listing virtual machines and datastores, and choosing the VMs that are meant.

A list costs one view and one call a page, whatever the inventory's size, and asks only for what it is needed for:
selecting by name does not make ten thousand VMs tell their addresses. Finding one VM is strict: exactly one, or an
error that names the candidates, since backing up the wrong ``web01`` is noticed on the day it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyVmomi import vim

from vcbproxy.errors import ManagerError, NothingProtected, UsageError
from vcbproxy.manager import convert, places, properties, rawlun, tags
from vcbproxy.manager.choice import choose, listed, refuse
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.disk import Disk, DiskKind, refusal
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.selector import Kind, Selector, needs
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Connection, Power, Vm, VmSummary
from vcbproxy.manager.wire import Wire, moref_of

__all__ = [
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

LISTED = frozenset(Kind) - {Kind.TAG}
"""What a list for people shows."""

_MANAGED_BY = ("config.managedBy.extensionKey", "config.managedBy.type")
_ALWAYS = ("name", "config.template", "runtime.connectionState", *_MANAGED_BY)
_ADDRESSES = ("guest.hostName", "guest.ipAddress", "guest.net")
_UUIDS = ("config.uuid", "config.instanceUuid")
_FACTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.WORD: (*_ADDRESSES, *_UUIDS),
    Kind.IPADDR: _ADDRESSES,
    Kind.UUID: _UUIDS,
    Kind.POWERSTATE: ("runtime.powerState",),
    Kind.FOLDER: ("parent", "parentVApp"),
    Kind.DATASTORE: ("datastore",),
}
_DETAILS = ("config.changeTrackingEnabled", "config.files.vmPathName", "guest.toolsRunningStatus")
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
_POWER_STATES = {state.value for state in Power}
_REMEDY = {
    Connection.DISCONNECTED: "its host does not answer: reconnect the host, or let HA restart the VM",
    Connection.ORPHANED: "no host has it any more: register it anew from its .vmx, or remove it from the inventory",
    Connection.INACCESSIBLE: "its host cannot read its files: look at the datastore, then reload the VM",
    Connection.INVALID: "its .vmx is damaged: repair it, then register the VM anew",
    Connection.UNKNOWN: "look at it in the vSphere client",
}
_DATASTORE_KINDS = {
    "VMFS": DatastoreKind.VMFS,
    "NFS": DatastoreKind.NFS,
    "NFS41": DatastoreKind.NFS41,
    "VSAN": DatastoreKind.VSAN,
    "VVOL": DatastoreKind.VVOL,
    "PMEM": DatastoreKind.PMEM,
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
    everything = session.read(lambda wire: _listed(wire, facts))
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
    return sorted((_datastore(row) for row in rows), key=lambda datastore: (datastore.name, datastore.moref))


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
    connection = _connection(row)
    if row.get("config") is None and connection is not Connection.CONNECTED:
        state = f"it is {connection.value}; {_REMEDY[connection]}"
        raise ManagerError(f"{_name(row)} ({moref}) cannot be backed up: {state}")
    config = row.need("config")
    if not config.instanceUuid:
        raise ManagerError(f"{_name(row)} ({moref}) has no instance UUID")
    return Vm(
        moref=row.moref,
        name=_name(row),
        uuid=config.uuid,
        instance_uuid=config.instanceUuid,
        power_state=_power(row.need("runtime.powerState")),
        connected=connection is Connection.CONNECTED,
        template=bool(config.template),
        tools_running=_tools_running(row),
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


def _listed(wire: Wire, facts: frozenset[Kind]) -> list[VmSummary]:
    """All VMs, and in the same pages what they lie in and on, where that is asked for."""
    paths = {path: None for kind, wanted in _FACTS.items() if kind in facts for path in wanted}
    details = _DETAILS if facts >= LISTED else ()
    wanted: dict[Any, Sequence[str]] = {vim.VirtualMachine: (*_ALWAYS, *paths, *details)}
    if Kind.FOLDER in facts:
        wanted.update(places.ABOVE)
    if Kind.DATASTORE in facts:
        wanted[vim.Datastore] = ("name",)
    rows = properties.of_kinds(wire, wanted)
    tree = places.Places(
        (row for row in rows if isinstance(row.subject, tuple(places.ABOVE))), moref_of(wire.content.rootFolder)
    )
    stores = {row.moref: _name(row) for row in rows if isinstance(row.subject, vim.Datastore)}
    return [
        _summary(
            row,
            folder=_folder(row, tree) if Kind.FOLDER in facts else None,
            datastores=_datastores(row, stores) if Kind.DATASTORE in facts else None,
        )
        for row in rows
        if isinstance(row.subject, vim.VirtualMachine)
    ]


def _folder(row: properties.Row, tree: places.Places) -> tuple[str, ...] | None:
    above = row.get("parentVApp") or row.get("parent")
    return tree.path(None if above is None else moref_of(above))


def _datastores(row: properties.Row, names: Mapping[str, str]) -> tuple[str, ...] | None:
    """Names of the datastores a VM uses; one that we are not shown goes by its moref."""
    used = row.get("datastore")
    if used is None:
        return None
    return tuple(sorted(names.get(moref_of(store), moref_of(store)) for store in used))


def _summary(row: properties.Row, *, folder: tuple[str, ...] | None, datastores: tuple[str, ...] | None) -> VmSummary:
    return VmSummary(
        moref=row.moref,
        name=_name(row),
        template=bool(row.get("config.template")),
        managed_by=(row.get(_MANAGED_BY[0]), row.get(_MANAGED_BY[1])),
        connection=_connection(row),
        power_state=_power_if_known(row),
        uuid=row.get("config.uuid"),
        instance_uuid=row.get("config.instanceUuid"),
        host_name=row.get("guest.hostName"),
        ip_addresses=convert.addresses(row.get("guest.ipAddress"), row.get("guest.net")),
        tools_running=_tools_running(row),
        change_tracking=row.get("config.changeTrackingEnabled"),
        vmx=_vmx(row.get("config.files.vmPathName")),
        folder=folder,
        datastores=datastores,
    )


def _name(row: properties.Row) -> str:
    """Its name; of an object that is too broken to tell, its moref: it is listed all the same."""
    return convert.unescaped(row.get("name") or row.moref)


def _power(state: object) -> Power:
    try:
        return Power(str(state))
    except ValueError as error:
        raise ManagerError(f"unknown power state {str(state)!r}") from error


def _power_if_known(row: properties.Row) -> Power | None:
    state = str(row.get("runtime.powerState"))
    return Power(state) if state in _POWER_STATES else None


def _vmx(text: str | None) -> DatastorePath | None:
    """Where the .vmx lies; a VM whose datastore is lost says ``[] /vmfs/…``, and may still be listed."""
    try:
        return DatastorePath.parse(text or "")
    except ManagerError:
        return None


def _connection(row: properties.Row) -> Connection:
    try:
        return Connection(str(row.get("runtime.connectionState")))
    except ValueError:
        return Connection.UNKNOWN


def _tools_running(row: properties.Row) -> bool:
    return str(row.get("guest.toolsRunningStatus")) == "guestToolsRunning"


def _datastore(row: properties.Row) -> Datastore:
    """One that we may not look into is listed as such: disks on it are refused, and the others are none the worse."""
    summary = row.get("summary")
    info = row.get("info")
    if summary is None:
        return Datastore(row.moref, _name(row), DatastoreKind.UNTOLD, "", 0, 0, accessible=False)
    vmfs: Any = info.vmfs if isinstance(info, vim.host.VmfsDatastoreInfo) else None
    nas: Any = info.nas if isinstance(info, vim.host.NasDatastoreInfo) else None
    kind = _DATASTORE_KINDS.get(str(summary.type).upper(), DatastoreKind.OTHER)
    extents = vmfs.extent if vmfs is not None else ()
    return Datastore(
        moref=row.moref,
        name=_name(row),
        kind=kind,
        url=summary.url or "",
        capacity_bytes=int(summary.capacity or 0),
        free_bytes=int(summary.freeSpace or 0),
        accessible=bool(summary.accessible),
        vmfs_uuid=vmfs.uuid if vmfs is not None else None,
        vmfs_version=vmfs.version if vmfs is not None else None,
        extents=tuple(VmfsExtent(extent.diskName, int(extent.partition)) for extent in extents),
        nfs_host=nas.remoteHost if nas is not None else None,
        nfs_path=nas.remotePath if nas is not None else None,
    )
