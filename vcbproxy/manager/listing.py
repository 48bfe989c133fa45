"""Rows of the inventory as values: what is asked of every VM and datastore for a list, and what comes of the answer.

A list asks only for what it is needed for: selecting by name does not make ten thousand VMs tell their addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyVmomi import vim

from vcbproxy.errors import ManagerError
from vcbproxy.manager import convert, places, properties
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.selector import Kind
from vcbproxy.manager.vm import Connection, Power, VmSummary
from vcbproxy.manager.wire import Wire, moref_of

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
_POWER_STATES = {state.value for state in Power}
_DATASTORE_KINDS = {
    "VMFS": DatastoreKind.VMFS,
    "NFS": DatastoreKind.NFS,
    "NFS41": DatastoreKind.NFS41,
    "VSAN": DatastoreKind.VSAN,
    "VVOL": DatastoreKind.VVOL,
    "PMEM": DatastoreKind.PMEM,
}


def listed_vms(wire: Wire, facts: frozenset[Kind]) -> list[VmSummary]:
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
    stores = {row.moref: name_of(row) for row in rows if isinstance(row.subject, vim.Datastore)}
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
        name=name_of(row),
        template=bool(row.get("config.template")),
        managed_by=(row.get(_MANAGED_BY[0]), row.get(_MANAGED_BY[1])),
        connection=connection_of(row),
        power_state=_power_if_known(row),
        uuid=row.get("config.uuid"),
        instance_uuid=row.get("config.instanceUuid"),
        host_name=row.get("guest.hostName"),
        ip_addresses=convert.addresses(row.get("guest.ipAddress"), row.get("guest.net")),
        tools_running=tools_running(row),
        change_tracking=row.get("config.changeTrackingEnabled"),
        vmx=_vmx(row.get("config.files.vmPathName")),
        folder=folder,
        datastores=datastores,
    )


def datastore_of(row: properties.Row) -> Datastore:
    """One that we may not look into is listed as such: disks on it are refused, and the others are none the worse."""
    summary = row.get("summary")
    info = row.get("info")
    if summary is None:
        return Datastore(row.moref, name_of(row), DatastoreKind.UNTOLD, "", 0, 0, accessible=False)
    vmfs: Any = info.vmfs if isinstance(info, vim.host.VmfsDatastoreInfo) else None
    nas: Any = info.nas if isinstance(info, vim.host.NasDatastoreInfo) else None
    kind = _DATASTORE_KINDS.get(str(summary.type).upper(), DatastoreKind.OTHER)
    extents = vmfs.extent if vmfs is not None else ()
    return Datastore(
        moref=row.moref,
        name=name_of(row),
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


def name_of(row: properties.Row) -> str:
    """Its name; of an object that is too broken to tell, its moref: it is listed all the same."""
    return convert.unescaped(row.get("name") or row.moref)


def connection_of(row: properties.Row) -> Connection:
    """Whether the manager reaches it."""
    try:
        return Connection(str(row.get("runtime.connectionState")))
    except ValueError:
        return Connection.UNKNOWN


def tools_running(row: properties.Row) -> bool:
    """Whether the guest's tools run."""
    return str(row.get("guest.toolsRunningStatus")) == "guestToolsRunning"


def _power_if_known(row: properties.Row) -> Power | None:
    state = str(row.get("runtime.powerState"))
    return Power(state) if state in _POWER_STATES else None


def _vmx(text: str | None) -> DatastorePath | None:
    """Where the .vmx lies; a VM whose datastore is lost says ``[] /vmfs/…``, and may still be listed."""
    try:
        return DatastorePath.parse(text or "")
    except ManagerError:
        return None
