"""A virtual disk as the manager describes it, and why some cannot be read off the SAN.

The same value describes a disk of the live VM and a disk as a snapshot froze it; only the latter may be read.
"""

from __future__ import annotations

import re
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


# Bytes of an NAA name by its type, its first four bits (SPC-4, 7.8.6.6).
_NAA_BYTES = {2: 8, 3: 8, 5: 8, 6: 16}
_UUID_ID_AT = 5
_UUID_KIND_NAA = 2


@dataclass(frozen=True, slots=True)
class RawLun:
    """The LUN behind a raw device mapping; see ``rawlun``.

    Attributes:
        uuid: what the manager calls it, in lower case: hex digits.
        told: what the VM's host calls it (``naa.…``); None when it did not tell.
    """

    uuid: str
    told: str | None = None

    @property
    def id(self) -> bytes:
        """The SCSI id in the uuid, with the model at its end; empty when the uuid is of another form."""
        return bytes.fromhex(self.uuid)[_UUID_ID_AT:] if re.fullmatch(r"(?:[0-9a-f]{2}){6,}", self.uuid) else b""

    @property
    def decoded(self) -> str | None:
        """The NAA name in the uuid, as ``naa.…``; None when it holds another kind of id."""
        found = self.id
        length = _NAA_BYTES.get(found[0] >> 4, 0) if found else 0
        if not found or int(self.uuid[:2], 16) != _UUID_KIND_NAA:
            return None
        return f"naa.{found[:length].hex()}" if 0 < length <= len(found) else None

    @property
    def name(self) -> str | None:
        """Its name by the host, or else by its uuid; None when neither tells."""
        return self.told or self.decoded


@dataclass(frozen=True, slots=True)
class Disk:
    """One virtual disk.

    Attributes:
        key: bus, controller and unit (``scsi0-0``): the name of the disk in restore points.
        device_key: the manager's number for the device.
        parents: the files it depends on, nearest first, as the manager tells; empty for a base disk.
        shared: the disk, or its controller, may be written by several VMs at once.
        change_id: the change tracker's landmark; set in snapshots of VMs that track changes.
        homes: datastores of its own file and of those it depends on, as (name, moref): names are not unique.
        raw_lun: of a raw device mapping, the LUN that its base is.
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
    homes: tuple[tuple[str, str], ...] = ()
    raw_lun: RawLun | None = None


_UNREADABLE_KINDS = {
    DiskKind.NATIVE: "its snapshots are made by the storage array, not as files",
    DiskKind.VSAN_SPARSE: "it lies on vSAN",
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
    if disk.kind is DiskKind.RDM_VIRTUAL and disk.raw_lun is None:
        return "it is a raw device mapping, and the manager does not tell of which LUN: is that LUN lost to its host?"
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
