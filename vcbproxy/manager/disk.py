"""A virtual disk as the manager describes it, and why some cannot be read off the SAN.

The same value describes a disk of the live VM and a disk as a snapshot froze it; only the latter may be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vcbproxy.manager.datastore import Datastore, DatastorePath


class DiskKind(Enum):
    """What the manager says lies behind a virtual disk. The descriptor on the datastore has the last word."""

    FLAT = "flat"
    SPARSE = "sparse"  # a redo log (vmfsSparse), or a hosted sparse disk
    SESPARSE = "sesparse"
    NATIVE = "native"  # a snapshot made by the storage array
    VSAN_SPARSE = "vsan-sparse"
    RDM_VIRTUAL = "rdm-virtual"
    RDM_PHYSICAL = "rdm-physical"
    RAW = "raw"
    PMEM = "pmem"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Disk:
    """One virtual disk.

    Attributes:
        key: bus, controller and unit (``scsi0-0``): the name of the disk in restore points.
        device_key: the manager's number for the device.
        parents: the files it depends on, nearest first, as the manager tells; empty for a base disk.
        shared: the disk, or its controller, may be written by several VMs at once.
        change_id: the change tracker's landmark; set in snapshots of VMs that track changes.
    """

    key: str
    device_key: int
    label: str
    path: DatastorePath
    capacity_bytes: int
    kind: DiskKind
    mode: str
    shared: bool
    encrypted: bool
    change_id: str | None
    datastore: str | None
    uuid: str | None = None
    thin: bool | None = None
    parents: tuple[DatastorePath, ...] = ()


_UNREADABLE_KINDS = {
    DiskKind.NATIVE: "its snapshots are made by the storage array, not as files",
    DiskKind.VSAN_SPARSE: "it lies on vSAN",
    # Its base could be read off the mapped LUN, but that carries a guest's own file systems and volume groups, which a
    # proxy had better never see; and nothing on a volume would tell afterwards whether it stood still.
    DiskKind.RDM_VIRTUAL: "it is a raw device mapping (virtual mode): its data lie on a LUN of its own; back it up "
    "from inside the guest, or migrate it to a virtual disk",
    DiskKind.RDM_PHYSICAL: "it is a raw device mapping (physical mode), which snapshots leave out; back it up from "
    "inside the guest",
    DiskKind.RAW: "it is a physical disk of the host",
    DiskKind.PMEM: "it lies in the host's persistent memory",
    DiskKind.OTHER: "its kind is unknown",
}


def refusal(disk: Disk, datastore: Datastore | None = None) -> str | None:
    """Say why a disk cannot be read off the SAN under a snapshot, or None when it can.

    Args:
        disk: the disk.
        datastore: where it lies, if known: vSAN and vVol have no files on LUNs.
    """
    reason = _UNREADABLE_KINDS.get(disk.kind)
    if reason is not None:
        return reason
    if disk.mode.startswith("independent"):
        return f"its mode is {disk.mode}: snapshots leave it out; make it dependent in the VM's settings"
    if disk.mode != "persistent":
        return f"its mode is {disk.mode}, which is not understood here"
    if disk.shared:
        return "it, or its controller, is shared between VMs: a snapshot of one does not freeze it"
    if disk.encrypted:
        return "it is encrypted: the file holds only ciphertext"
    if datastore is not None and not datastore.kind.readable:
        return f"it lies on datastore {datastore.name}, and {datastore.kind.why_not}"
    if datastore is not None and not datastore.accessible:
        return f"its datastore {datastore.name} is not accessible to the manager"
    return None
