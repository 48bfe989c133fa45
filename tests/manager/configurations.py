"""A VM's configuration as a manager sends it, made of pyVmomi's own types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim

_device: Any = vim.vm.device


def flat(name: str = "[san0] web01/web01.vmdk", **facts: Any) -> Any:
    facts.setdefault("diskMode", "persistent")
    datastore = vim.Datastore("datastore-1", None)
    return _device.VirtualDisk.FlatVer2BackingInfo(fileName=name, datastore=datastore, **facts)


def mapping(**facts: Any) -> Any:
    return _device.VirtualDisk.RawDiskMappingVer1BackingInfo(fileName="[san0] web01/web01_1.vmdk", **facts)


def disk(backing: Any, unit: int = 0, key: int = 2000, **facts: Any) -> Any:
    facts.setdefault("capacityInBytes", 1 << 20)
    facts.setdefault("capacityInKB", 1 << 10)
    label = vim.Description(label=f"Hard disk {key - 1999}", summary="")
    return _device.VirtualDisk(key=key, controllerKey=1000, unitNumber=unit, deviceInfo=label, backing=backing, **facts)


def controller(kind: Any = None, bus: int = 0, **facts: Any) -> Any:
    return (kind or _device.ParaVirtualSCSIController)(key=1000, busNumber=bus, **facts)


def config(*devices: Any) -> Any:
    return vim.vm.ConfigInfo(
        name="web01",
        uuid="564d0000-0000-0000-0000-000000000001",
        instanceUuid="52000000-0000-0000-0000-000000000001",
        modified=datetime(2026, 11, 22, 1, tzinfo=UTC),
        hardware=vim.vm.VirtualHardware(numCPU=2, memoryMB=2048, device=list(devices)),
        files=vim.vm.FileInfo(vmPathName="[san0] web01/web01.vmx"),
    )
