"""pyVmomi's objects to our values: the door behind which no managed object is seen.

What we do not understand is kept as such (``DiskKind.OTHER``, refused by name later); what contradicts itself raises.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim
from pyVmomi.VmomiSupport import DataObject, ManagedObject

from vcbproxy.errors import ManagerError
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.manager.disk import Disk, DiskKind, RawLun
from vcbproxy.manager.wire import moref_of
from vcbproxy.units import SECTOR, KiB, MiB

_PARENTS_MAX = 512
_DEPTH_MAX = 100

_device = vim.vm.device
_backing = vim.vm.device.VirtualDisk

# Buses by the controller's type, and how many units each has does not matter here.
_BUSES: tuple[tuple[Any, str], ...] = (
    (_device.VirtualSCSIController, "scsi"),
    (_device.VirtualSATAController, "sata"),
    (_device.VirtualIDEController, "ide"),
    (_device.VirtualNVMEController, "nvme"),
    (_device.VirtualNVDIMMController, "nvdimm"),
)

_DELTA_FORMATS = {
    None: DiskKind.FLAT,
    "redoLogFormat": DiskKind.SPARSE,
    "seSparseFormat": DiskKind.SESPARSE,
    "nativeFormat": DiskKind.NATIVE,
}


def unescaped(name: str) -> str:
    """Undo the manager's own escaping of names: %2f, %5c and %25, nothing else."""
    return re.sub(r"%(2f|5c|25)", lambda match: chr(int(match[1], 16)), name, flags=re.IGNORECASE)


def utc(moment: datetime) -> datetime:
    """A time of the manager's, aware and in UTC; it sends UTC even where it leaves the zone out."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def addresses(guest_ip: str | None, nics: Iterable[Any] | None) -> tuple[str, ...]:
    """All IP addresses the tools report, the main one first."""
    every = [guest_ip, *(address for nic in nics or () for address in nic.ipAddress)]
    return tuple(dict.fromkeys(address for address in every if address))


def disks(config: vim.vm.ConfigInfo) -> tuple[Disk, ...]:
    """The virtual disks of a VM's, or a snapshot's, configuration, in the order of their keys' devices.

    Raises:
        ManagerError: two disks at one place, a disk without a file or of an impossible size.
    """
    devices = config.hardware.device
    controllers: dict[int | None, Any] = {}
    controllers.update((device.key, device) for device in devices if isinstance(device, _device.VirtualController))
    found = [
        _disk(device, controllers.get(device.controllerKey))
        for device in devices
        if isinstance(device, _device.VirtualDisk | _device.VirtualNVDIMM)  # the latter to be refused by name
    ]
    keys = [disk.key for disk in found]
    for key in keys:
        if keys.count(key) > 1:
            raise ManagerError(f"{config.name}: two disks claim to be {key}")
    return tuple(found)


def _disk(device: Any, controller: Any) -> Disk:
    backing = device.backing
    label = device.deviceInfo.label if device.deviceInfo is not None else f"device {device.key}"
    file_name = getattr(backing, "fileName", None) or getattr(backing, "descriptorFileName", None)
    if not file_name:
        raise ManagerError(f"{label}: the manager names no file behind it")
    capacity_bytes = _capacity_bytes(device)
    if capacity_bytes <= 0 or capacity_bytes % SECTOR:
        raise ManagerError(f"{label}: a capacity of {capacity_bytes} bytes cannot be")
    datastore = getattr(backing, "datastore", None)
    return Disk(
        key=_key(device, controller),
        device_key=int(device.key),
        label=str(label),
        path=DatastorePath.parse(file_name),
        capacity_bytes=capacity_bytes,
        kind=_kind(backing),
        mode=str(getattr(backing, "diskMode", None) or "persistent"),
        shared=_shared(backing, controller),
        encrypted=getattr(backing, "keyId", None) is not None
        or any("crypt" in name for name in getattr(device, "iofilter", ())),
        change_id=getattr(backing, "changeId", None) or None,
        datastore=moref_of(datastore) if datastore is not None else None,
        uuid=getattr(backing, "uuid", None),
        thin=getattr(backing, "thinProvisioned", None),
        parents=_parents(backing),
        homes=tuple(dict.fromkeys(_homes(backing, file_name))),
        raw_lun=_raw_lun(backing),
    )


def _capacity_bytes(device: Any) -> int:
    if isinstance(device, _device.VirtualNVDIMM):
        return int(device.capacityInMB) * MiB
    return int(device.capacityInBytes or device.capacityInKB * KiB)


def _key(device: Any, controller: Any) -> str:
    bus = next((bus for kind, bus in _BUSES if isinstance(controller, kind)), None)
    if bus is None or device.unitNumber is None:
        return f"device{device.key}"
    return f"{bus}{controller.busNumber}-{device.unitNumber}"


def _kind(backing: Any) -> DiskKind:
    match backing:
        case _backing.FlatVer2BackingInfo() if backing.deltaDiskFormatVariant == "vsanSparseVariant":
            return DiskKind.VSAN_SPARSE
        case _backing.FlatVer2BackingInfo() | _backing.SeSparseBackingInfo():
            kind = _DELTA_FORMATS.get(backing.deltaDiskFormat or None, DiskKind.OTHER)
            if kind is not DiskKind.FLAT:
                return kind
            if isinstance(backing, _backing.SeSparseBackingInfo):
                return DiskKind.SESPARSE
            return DiskKind.FLAT if backing.parent is None else DiskKind.SPARSE
        case _backing.FlatVer1BackingInfo():
            return DiskKind.FLAT if backing.parent is None else DiskKind.SPARSE
        case _backing.SparseVer1BackingInfo() | _backing.SparseVer2BackingInfo():
            return DiskKind.SPARSE
        case _backing.RawDiskMappingVer1BackingInfo():
            virtual = backing.compatibilityMode == "virtualMode"
            return DiskKind.RDM_VIRTUAL if virtual else DiskKind.RDM_PHYSICAL
        case _backing.RawDiskVer2BackingInfo() | _backing.PartitionedRawDiskVer2BackingInfo():
            return DiskKind.RAW
        case _backing.LocalPMemBackingInfo() | _device.VirtualNVDIMM.BackingInfo():
            return DiskKind.PMEM
    return DiskKind.OTHER


def _raw_lun(backing: Any) -> RawLun | None:
    """A mapping's LUN. Deltas say it too; where one does not, it is that of its base."""
    while isinstance(backing, _backing.RawDiskMappingVer1BackingInfo):
        if backing.lunUuid:
            return RawLun(str(backing.lunUuid).lower())
        backing = backing.parent
    return None


def _shared(backing: Any, controller: Any) -> bool:
    bus = str(getattr(controller, "sharedBus", None) or "noSharing")
    disk = str(getattr(backing, "sharing", None) or "sharingNone")
    return bus != "noSharing" or disk != "sharingNone"


def _parents(backing: Any) -> tuple[DatastorePath, ...]:
    paths: list[DatastorePath] = []
    parent = getattr(backing, "parent", None)
    while parent is not None:
        paths.append(DatastorePath.parse(parent.fileName))
        if len(paths) > _PARENTS_MAX:
            raise ManagerError(f"{backing.fileName}: more than {_PARENTS_MAX} parents")
        parent = getattr(parent, "parent", None)
    return tuple(paths)


def _homes(backing: Any, file_name: str | None) -> Iterator[tuple[str, str]]:
    while backing is not None and file_name:
        datastore = getattr(backing, "datastore", None)
        if datastore is not None:
            yield DatastorePath.parse(file_name).datastore, moref_of(datastore)
        backing = getattr(backing, "parent", None)
        file_name = getattr(backing, "fileName", None)


def plain(value: Any, depth: int = 0) -> Any:
    """Any answer of the manager as JSON-able data; unset properties are left out.

    Data objects become mappings with their ``type``, references ``{"ref": "Datastore:datastore-11"}``, times ISO 8601
    in UTC, binary values base64.

    Raises:
        ManagerError: nested deeper than anything real.
    """
    if depth > _DEPTH_MAX:
        raise ManagerError(f"the manager's answer is nested deeper than {_DEPTH_MAX} levels")
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case str():
            return str(value)
        case datetime():
            return utc(value).isoformat()
        case list():
            return [plain(item, depth + 1) for item in value]
        case ManagedObject():
            return {"ref": f"{type(value).__name__.rpartition('.')[2]}:{moref_of(value)}"}
        case DataObject():
            return _plain_object(value, depth)
    return str(value)


def _plain_object(value: Any, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": type(value).__name__.rpartition("vim.")[2]}
    for prop in value._GetPropertyList():  # noqa: SLF001  # pyVmomi's way to reflect
        item = getattr(value, prop.name)
        if item is not None and not (isinstance(item, list) and not item):
            found[prop.name] = plain(item, depth + 1)
    return found
