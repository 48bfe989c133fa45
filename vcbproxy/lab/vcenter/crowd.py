"""Many VMs, cheaply: they fill the inventory, as thousands do in a large one, and have neither disks nor files.

Each has what a list of VMs asks for and differs from the next; what no list asks for they share, or do not have.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vcbproxy.lab.spec import CrowdSpec
from vcbproxy.lab.vcenter.schema import vim

_FIRST = 100_000
_OFF_EVERY = 10


@dataclass(frozen=True, slots=True)
class Extra:
    """One of them."""

    moref: str
    name: str
    folder: str
    properties: dict[str, Any]


_MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)
_FLAGS = vim.vm.FlagInfo(diskUuidEnabled=False, snapshotDisabled=False, snapshotLocked=False)
_POWER_OPS = vim.vm.DefaultPowerOpInfo(powerOffType="soft", suspendType="hard", resetType="soft")


def members(crowd: CrowdSpec, number: int, datastore: Any, host: Any) -> Iterator[Extra]:
    """The VMs of one crowd; ``number`` tells crowds apart."""
    runtimes = {on: _runtime(host, on=on) for on in (True, False)}
    for at in range(crowd.count):
        on = at % _OFF_EVERY != 0
        name = f"{crowd.name}-{at:05}"
        folder = f"{crowd.inventory_folder}/{at % crowd.folders:03}" if crowd.folders else crowd.inventory_folder
        yield Extra(
            moref=f"vm-{_FIRST * (number + 1) + at}",
            name=name,
            folder=folder,
            properties={
                "name": name,
                "datastore": [datastore],
                "config": _config(name, crowd.datastore, number, at),
                "runtime": runtimes[on],
                "guest": _guest(name, at, on=on),
            },
        )


def _config(name: str, datastore: str, number: int, at: int) -> Any:
    home = f"[{datastore}] {name}"
    return vim.vm.ConfigInfo(
        name=name,
        modified=_MODIFIED,
        changeVersion="1",
        version="vmx-13",
        guestId="debian12_64Guest",
        guestFullName="Debian GNU/Linux 12 (64-bit)",
        alternateGuestName="",
        flags=_FLAGS,
        defaultPowerOps=_POWER_OPS,
        uuid=str(uuid.UUID(int=(number << 64) + at + 1)),
        instanceUuid=str(uuid.UUID(int=(number + 1 << 96) + at + 1)),
        template=False,
        changeTrackingEnabled=False,
        files=vim.vm.FileInfo(vmPathName=f"{home}/{name}.vmx"),
        hardware=vim.vm.VirtualHardware(numCPU=1, memoryMB=1024, device=[]),
    )


def _runtime(host: Any, *, on: bool) -> Any:
    return vim.vm.RuntimeInfo(
        host=host,
        connectionState="connected",
        powerState="poweredOn" if on else "poweredOff",
        consolidationNeeded=False,
    )


def _guest(name: str, at: int, *, on: bool) -> Any:
    if not on:
        return vim.vm.GuestInfo(toolsRunningStatus="guestToolsNotRunning", guestState="notRunning")
    address = f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"
    stack = [
        vim.net.IpConfigInfo.IpAddress(ipAddress=address, prefixLength=24, state="preferred"),
        vim.net.IpConfigInfo.IpAddress(ipAddress=f"fe80::{at:x}", prefixLength=64, state="unknown"),
    ]
    nic = vim.vm.GuestInfo.NicInfo(
        network="VM Network",
        ipAddress=[found.ipAddress for found in stack],
        macAddress=f"00:50:56:{at >> 16:02x}:{at >> 8 & 255:02x}:{at & 255:02x}",
        connected=True,
        deviceConfigId=4000,
        ipConfig=vim.net.IpConfigInfo(ipAddress=stack),
    )
    return vim.vm.GuestInfo(
        toolsRunningStatus="guestToolsRunning",
        guestState="running",
        hostName=f"{name}.lab",
        ipAddress=address,
        net=[nic],
    )
