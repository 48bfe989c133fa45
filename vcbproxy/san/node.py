"""Block devices as the kernel and udev describe them: one frozen value each, and nothing opened to make it.

What comes in: sysfs, and udev's database where a udevd is running. What goes out: :class:`BlockNode`. Without a running
udevd there are no properties, only what sysfs knows; that suffices for sizes, partitions, multipath maps and the WWID.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyudev

# sysfs counts in 512-byte units, whatever the device's own sector is.
_SYSFS_SECTOR = 512


@dataclass(frozen=True, slots=True)
class BlockNode:
    """One block device: a whole disk, a partition, a map or a loop device.

    Attributes:
        sys_name: the kernel's name: sda, sda1, dm-3, loop0.
        path: its node in /dev.
        size_bytes: 0 when nothing is behind it (an unused loop device).
        sector_bytes: the logical sector.
        read_only: whether the kernel refuses writes.
        has_hardware: whether a real device (SCSI, NVMe, virtio) is behind it, not another block device or a file.
        parent: for a partition that the kernel made, the sys_name of its disk.
        partition: its number there.
        start_bytes: where it starts there.
        wwid: what sysfs calls the LUN; ESXi's canonical name in most cases.
        state: of a SCSI device: running, offline, blocked, ...; empty for others.
        serial: of the device, where sysfs has one.
        dm_name: for a device-mapper device, its name.
        dm_uuid: for a device-mapper device, who made it for what.
        slaves: the sys_names of the devices it is made of.
        holders: the sys_names of the devices that are made of it.
        mounted: whether this machine has a file system of it mounted, or swaps to it.
        backing_file: for a loop device, the file behind it.
        properties: udev's.
        links: udev's other names for it in /dev.
    """

    sys_name: str
    path: str
    size_bytes: int
    sector_bytes: int = 512
    read_only: bool = False
    has_hardware: bool = False
    parent: str | None = None
    partition: int | None = None
    start_bytes: int = 0
    wwid: str = ""
    state: str = ""
    serial: str = ""
    dm_name: str = ""
    dm_uuid: str = ""
    slaves: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    mounted: bool = False
    backing_file: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()


def scan(proc: Path = Path("/proc")) -> list[BlockNode]:
    """All block devices of this machine that have a node, in the order of their kernel names."""
    context = pyudev.Context()
    mounted = in_use(proc)
    found = [node for device in context.list_devices(subsystem="block") for node in _described(device, mounted)]
    return sorted(found, key=lambda node: (len(node.sys_name), node.sys_name))


def _described(device: pyudev.Device, mounted: set[str]) -> Iterator[BlockNode]:
    """Yield one node, or none for a device that hides itself or was unplugged while we looked."""
    folder = Path(device.sys_path)
    size = _text(folder / "size")
    if not size or not device.device_node or _text(folder / "hidden") == "1":
        return
    number = _text(folder / "partition")
    disk = folder.parent if number else folder
    yield BlockNode(
        sys_name=device.sys_name,
        path=device.device_node,
        size_bytes=int(size) * _SYSFS_SECTOR,
        sector_bytes=int(_text(disk / "queue/logical_block_size") or 512),
        read_only=_text(folder / "ro") == "1",
        has_hardware=(disk / "device").exists(),
        parent=disk.name if number else None,
        partition=int(number) if number else None,
        start_bytes=int(_text(folder / "start") or 0) * _SYSFS_SECTOR,
        wwid=_text(disk / "device/wwid") or _text(disk / "wwid"),
        state=_text(disk / "device/state"),
        serial=_text(disk / "serial") or _text(disk / "device/serial"),
        dm_name=_text(folder / "dm/name"),
        dm_uuid=_text(folder / "dm/uuid"),
        slaves=_names(folder / "slaves"),
        holders=_names(folder / "holders"),
        mounted=_text(folder / "dev") in mounted or device.device_node in mounted,
        backing_file=_text(folder / "loop/backing_file"),
        properties=dict(device.properties),
        links=tuple(sorted(device.device_links)),
    )


def in_use(proc: Path) -> set[str]:
    """What is mounted here, by device number, and what is swapped to, by node; proc(5) tells the fields.

    Inside a chroot or a mount namespace our own table leaves out what the machine itself lives on. Its first process
    has it; where that one may not be looked at, ours must do.
    """
    tables = (_text(proc / whose / "mountinfo") for whose in ("self", "1"))
    mounts = (line.split(" ") for table in tables for line in table.splitlines())
    swaps = (line.split() for line in _text(proc / "swaps").splitlines()[1:])
    return {fields[2] for fields in mounts if len(fields) > 2} | {fields[0] for fields in swaps if fields}


def _text(path: Path) -> str:
    """An attribute's text without the newline; empty when there is none."""
    try:
        return path.read_bytes().decode("utf-8", "replace").rstrip("\n").strip("\0 ")
    except OSError:
        return ""


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir()))
    except OSError:
        return ()
