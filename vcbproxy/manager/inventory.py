"""The inventory: listing virtual machines and datastores, and finding the one VM that is meant.

A list costs one view and one call a page, whatever the inventory's size. Finding is strict: exactly one VM, or an error
that names the candidates, since backing up the wrong ``web01`` is noticed on the day it is needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from vcbproxy.errors import ManagerError, UsageError
from vcbproxy.manager import convert, properties
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.disk import Disk, DiskKind, refusal
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Power, Vm, VmSummary

__all__ = [
    "Datastore",
    "DatastoreKind",
    "DatastorePath",
    "Disk",
    "DiskKind",
    "Power",
    "Vm",
    "VmSummary",
    "VmfsExtent",
    "datastores",
    "find",
    "get",
    "matching",
    "refusal",
    "vms",
]

_SUMMARY = (
    "name",
    "runtime.powerState",
    "runtime.connectionState",
    "config.uuid",
    "config.instanceUuid",
    "config.template",
    "config.changeTrackingEnabled",
    "config.files.vmPathName",
    "guest.hostName",
    "guest.ipAddress",
    "guest.net",
    "guest.toolsRunningStatus",
)
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
_DATASTORE_KINDS = {
    "VMFS": DatastoreKind.VMFS,
    "NFS": DatastoreKind.NFS,
    "NFS41": DatastoreKind.NFS41,
    "VSAN": DatastoreKind.VSAN,
    "VVOL": DatastoreKind.VVOL,
    "PMEM": DatastoreKind.PMEM,
}


def vms(session: Session) -> list[VmSummary]:
    """All virtual machines, templates included, by name and moref."""
    rows = session.read(lambda wire: properties.of_all(wire, vim.VirtualMachine, _SUMMARY))
    return sorted((_summary(row) for row in rows), key=lambda vm: (vm.name, vm.moref))


def datastores(session: Session) -> list[Datastore]:
    """All datastores, by name and moref."""
    rows = session.read(lambda wire: properties.of_all(wire, vim.Datastore, ("name", "summary", "info")))
    return sorted((_datastore(row) for row in rows), key=lambda datastore: (datastore.name, datastore.moref))


def find(session: Session, selector: str) -> Vm:
    """The one VM that a name, moref, UUID (BIOS or instance), IP address or guest host name stands for.

    A prefix says which is meant: ``name:``, ``moref:``, ``uuid:``, ``ip:``. Names are taken exactly, case and all.

    Raises:
        UsageError: no VM, or several; the message lists them by moref.
        ManagerError: the manager cannot tell its configuration.
    """
    everything = vms(session)
    found = matching(everything, selector)
    if not found:
        near = difflib.get_close_matches(selector, [vm.name for vm in everything], n=3)
        hint = f"; there is {', '.join(near)}" if near else f" among the {len(everything)} at {session}"
        raise UsageError(f"no virtual machine {selector!r}{hint}")
    if len(found) > 1:
        listed = ", ".join(f"{vm.name} (moref:{vm.moref})" for vm in found)
        raise UsageError(f"{selector!r} stands for {len(found)} virtual machines: {listed}; choose one by its moref")
    return get(session, found[0].moref)


def matching(candidates: Sequence[VmSummary], selector: str) -> list[VmSummary]:
    """Those VMs that a selector stands for, by any of its meanings."""
    kind, colon, rest = selector.partition(":")
    if colon and kind in ("name", "moref", "uuid", "ip"):
        kinds, text = {kind}, rest
    else:
        kinds, text = {"name", "moref", "uuid", "ip"}, selector
    return [vm for vm in candidates if text and _matches(vm, kinds, text)]


def _matches(vm: VmSummary, kinds: set[str], text: str) -> bool:
    if "name" in kinds and vm.name == text:
        return True
    if "moref" in kinds and vm.moref == text:
        return True
    if "ip" in kinds and (text in vm.ip_addresses or (vm.host_name or "").lower() == text.lower()):
        return True
    wanted = _uuid_digits(text)
    return "uuid" in kinds and len(wanted) == 32 and wanted in (_uuid_digits(vm.uuid), _uuid_digits(vm.instance_uuid))


def _uuid_digits(text: str | None) -> str:
    """A UUID as 32 digits: the manager writes 8-4-4-4-12, a .vmx file pairs with blanks."""
    digits = re.sub(r"[\s{}-]", "", text or "").lower()
    return digits if re.fullmatch("[0-9a-f]{32}", digits) else ""


def get(session: Session, moref: str) -> Vm:
    """A VM by its moref, as it is now.

    Raises:
        ManagerError: it is gone, or the manager cannot tell its configuration.
    """
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, moref), _FULL))
    config = row.need("config")
    if not config.instanceUuid:
        raise ManagerError(f"{convert.unescaped(row.need('name'))} ({moref}) has no instance UUID")
    return Vm(
        moref=row.moref,
        name=convert.unescaped(row.need("name")),
        uuid=config.uuid,
        instance_uuid=config.instanceUuid,
        power_state=_power(row),
        connected=_connected(row),
        template=bool(config.template),
        tools_running=_tools_running(row),
        host_name=row.get("guest.hostName"),
        ip_addresses=convert.addresses(row.get("guest.ipAddress"), row.get("guest.net")),
        vmx=DatastorePath.parse(config.files.vmPathName or ""),
        disks=convert.disks(config),
        has_snapshots=any(True for _ in properties.snapshot_trees(row.get("snapshot"))),
        change_tracking=bool(config.changeTrackingEnabled),
        consolidation_needed=bool(row.get("runtime.consolidationNeeded")),
        encrypted=config.keyId is not None,
        guest=config.guestFullName,
        hardware_version=config.version,
    )


def _summary(row: properties.Row) -> VmSummary:
    return VmSummary(
        moref=row.moref,
        name=convert.unescaped(row.need("name")),
        uuid=row.get("config.uuid"),
        instance_uuid=row.get("config.instanceUuid"),
        power_state=_power(row),
        connected=_connected(row),
        template=bool(row.get("config.template")),
        host_name=row.get("guest.hostName"),
        ip_addresses=convert.addresses(row.get("guest.ipAddress"), row.get("guest.net")),
        tools_running=_tools_running(row),
        change_tracking=row.get("config.changeTrackingEnabled"),
        vmx=_vmx(row.get("config.files.vmPathName")),
    )


def _power(row: properties.Row) -> Power:
    state = str(row.need("runtime.powerState"))
    try:
        return Power(state)
    except ValueError as error:
        raise ManagerError(f"{row.moref}: unknown power state {state!r}") from error


def _vmx(text: str | None) -> DatastorePath | None:
    """Where the .vmx lies; a VM whose datastore is lost says ``[] /vmfs/…``, and may still be listed."""
    try:
        return DatastorePath.parse(text or "")
    except ManagerError:
        return None


def _connected(row: properties.Row) -> bool:
    return str(row.get("runtime.connectionState")) == "connected"


def _tools_running(row: properties.Row) -> bool:
    return str(row.get("guest.toolsRunningStatus")) == "guestToolsRunning"


def _datastore(row: properties.Row) -> Datastore:
    summary = row.need("summary")
    info = row.get("info")
    vmfs: Any = info.vmfs if isinstance(info, vim.host.VmfsDatastoreInfo) else None
    nas: Any = info.nas if isinstance(info, vim.host.NasDatastoreInfo) else None
    kind = _DATASTORE_KINDS.get(str(summary.type).upper(), DatastoreKind.OTHER)
    extents = vmfs.extent if vmfs is not None else ()
    return Datastore(
        moref=row.moref,
        name=convert.unescaped(row.need("name")),
        kind=kind,
        url=summary.url,
        capacity_bytes=int(summary.capacity),
        free_bytes=int(summary.freeSpace),
        accessible=bool(summary.accessible),
        vmfs_uuid=vmfs.uuid if vmfs is not None else None,
        vmfs_version=vmfs.version if vmfs is not None else None,
        extents=tuple(VmfsExtent(extent.diskName, int(extent.partition)) for extent in extents),
        nfs_host=nas.remoteHost if nas is not None else None,
        nfs_path=nas.remotePath if nas is not None else None,
    )
