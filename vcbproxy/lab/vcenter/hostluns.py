"""A host's LUNs as it lists them: those of the datastores, and those that VMs have raw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vcbproxy.lab.state import LunState, State, lun_uuid
from vcbproxy.lab.vcenter.schema import vim

_SECTOR_BYTES = 512


def config(state: State, host: Any, product: Any) -> Any:
    """A host's configuration, as far as it is about storage."""
    datastores = {known.name: known for known in state.spec.datastores}
    luns = [(lun, datastores[known.name].lun_size_bytes) for known in state.datastores for lun in known.luns]
    luns += [(disk.raw, disk.size_bytes) for vm in state.vms for disk in vm.disks if disk.raw is not None]
    storage = vim.host.StorageDeviceInfo(scsiLun=list(_disks(luns)), softwareInternetScsiEnabled=True)
    return vim.host.ConfigInfo(host=host, product=product, storageDevice=storage)


def _disks(luns: Iterable[tuple[LunState, int]]) -> Iterable[Any]:
    for lun, size_bytes in luns:
        name = f"naa.{lun.wwn}"
        yield vim.host.ScsiDisk(
            key=f"key-vim.host.ScsiDisk-{lun_uuid(lun.wwn)}",
            uuid=lun_uuid(lun.wwn),
            canonicalName=name,
            displayName=f"LAB Fibre Channel Disk ({name})",
            deviceName=f"/vmfs/devices/disks/{name}",
            devicePath=f"/vmfs/devices/disks/{name}",
            deviceType="disk",
            lunType="disk",
            vendor="LAB     ",
            model="Virtual LUN     ",
            operationalState=["ok"],
            capacity=vim.host.DiskDimensions.Lba(block=size_bytes // _SECTOR_BYTES, blockSize=_SECTOR_BYTES),
        )
