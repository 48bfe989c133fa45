"""Which LUN a raw device mapping leads to, by what the manager says of it.

    backing.lunUuid        02 00 0000 00 600144f0…  4c41424c554e         kind, device type, LUN number, -, id, model
    host's list of LUNs    uuid 0200000000600144f0…4c41424c554e ◀──▶ canonicalName naa.600144f0…

The host's own name for it counts; the id inside the uuid must agree with it, and stands in where the host does not tell
(it is lost, or we may not look). The number in it is by which LUN number the host that made the mapping saw it.

Sources: VirtualDiskRawDiskMappingVer1BackingInfo and ScsiLun in the vSphere API reference; Broadcom KB 320217 and
379673 on the parts of a ``vml.`` name, which is the same digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pyVmomi import vim

from vcbproxy.errors import ManagerError
from vcbproxy.manager import convert, properties
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session
from vcbproxy.manager.wire import moref_of

_UNTOLD = (Trouble.GONE, Trouble.PERMISSION)
_LUNS = "config.storageDevice.scsiLun"


def disks(session: Session, vm: str, config: vim.vm.ConfigInfo) -> tuple[Disk, ...]:
    """The disks of a VM's, or its snapshot's, configuration; raw LUNs by the name that the VM's host has for them.

    Args:
        session: where the VM is.
        vm: its moref.
        config: the configuration.

    Raises:
        ManagerError: the configuration contradicts itself, or the manager cannot be asked.
    """
    found = convert.disks(config)
    if all(disk.raw_lun is None for disk in found):
        return found
    names = _names(session, vm)
    return tuple(
        replace(disk, raw_lun=replace(disk.raw_lun, told=names.get(disk.raw_lun.uuid)))
        if disk.raw_lun is not None
        else disk
        for disk in found
    )


def _names(session: Session, vm: str) -> Mapping[str, str]:
    """What the VM's host calls its LUNs, by their uuids; empty when it does not tell."""
    try:
        host = session.read(
            lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm), ["runtime.host"])
        ).get("runtime.host")
        if host is None:
            return {}
        row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.HostSystem, moref_of(host)), [_LUNS]))
    except ManagerError as error:
        if trouble_of(error) not in _UNTOLD:
            raise
        return {}
    return {lun.uuid.lower(): lun.canonicalName for lun in row.get(_LUNS) or () if lun.uuid and lun.canonicalName}
