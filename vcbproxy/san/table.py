"""What the block nodes of one scan are to each other: which are LUNs, which lead to the same one, which are partitions.

The rules only: no device is opened, and the machine is not asked again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vcbproxy.errors import ConfigError
from vcbproxy.san import naa
from vcbproxy.san.images import NamedImage
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.node import BlockNode

_MAP = re.compile(r"mpath-(?P<wwid>.+)")
_MAP_PARTITION = re.compile(r"part(?P<number>\d+)-mpath-(?P<wwid>.+)")

# Drives with exchangeable media are behind hardware too, and are no LUNs.
_NOT_LUNS = ("sr", "fd", "mtdblock")


class Table:
    """The nodes of one scan, and what they are to each other."""

    def __init__(self, nodes: Sequence[BlockNode], named: Mapping[Path, NamedImage]) -> None:
        self._nodes = nodes
        self._by_name = {node.sys_name: node for node in nodes}
        self._named = named
        self._in_maps = {slave for node in nodes if _is_map(node) for slave in node.slaves}
        self._partitions: dict[str, list[BlockNode]] = {}
        for node in nodes:
            for disk in _disks_of(node):
                self._partitions.setdefault(disk, []).append(node)

    def luns(self) -> list[list[BlockNode]]:
        """Whole LUNs, each as the list of nodes that lead to it, the one to open first."""
        groups: dict[object, list[BlockNode]] = {}
        for node in self._nodes:
            if self._is_lun(node):
                groups.setdefault(self._same_lun_key(node), []).append(node)
        return [sorted(group, key=_preference) for group in groups.values()]

    def _same_lun_key(self, node: BlockNode) -> object:
        """Equal for nodes that are paths of one LUN: one identity and one size, on real hardware or as its map."""
        wwn = self._wwn(node)
        if wwn and (node.has_hardware or _is_map(node)):
            return wwn, node.size_bytes
        return node.sys_name

    def _is_lun(self, node: BlockNode) -> bool:
        if node.size_bytes == 0 or node.parent is not None or node.sys_name in self._in_maps:
            return False
        if self._image(node) is not None:
            return True
        if self._is_ours(node):
            return False
        if _is_map(node):
            return True
        if node.backing_file:
            return self._has_identity(node) and Path(node.backing_file) not in self._named
        return node.has_hardware and not node.sys_name.startswith(_NOT_LUNS)

    def _is_ours(self, node: BlockNode) -> bool:
        """Whether this machine itself lives on it: VMFS cannot be mounted here, nor be part of LVM, crypt or md."""
        return any(
            part.mounted or any(self._is_foreign(holder) for holder in part.holders)
            for part in (node, *self.partitions(node))
        )

    def _is_foreign(self, holder: str) -> bool:
        """Whether a device made of it is not multipath's.

        One that the scan has not seen came up while it ran (in the guest: kpartx, after the paths of a map came back),
        and what it is cannot be told. The LUN stays listed: it is only read, and without it a backup fails.
        """
        if holder not in self._by_name:
            return False
        uuid = self._by_name[holder].dm_uuid
        return not (_MAP.fullmatch(uuid) or _MAP_PARTITION.fullmatch(uuid))

    def _has_identity(self, node: BlockNode) -> bool:
        return bool(self._wwn(node) or node.properties.get("ID_SERIAL"))

    def _image(self, node: BlockNode) -> NamedImage | None:
        return self._named.get(Path(node.path).resolve()) if self._named else None

    def check_named(self) -> None:
        """Refuse a configured block device that would be left out, or be read through two nodes."""
        for node in self._nodes:
            image = self._image(node)
            if image is None or self._is_lun(node):
                continue
            if node.sys_name in self._in_maps:
                reason = "is one path of a multipath map; name the map, or leave it to be found"
            elif node.parent is not None:
                reason = f"is a partition; name the whole device {node.parent}"
            else:
                reason = "has nothing behind it; attach its image, or remove the entry"
            raise ConfigError(f"san.images: {image.path} {reason}")

    def _wwn(self, node: BlockNode) -> str:
        image = self._image(node)
        if image is not None and image.wwn:
            return naa.bare(image.wwn)
        return _identity(node)

    def partitions(self, lun: BlockNode) -> list[BlockNode]:
        """Partitions that the kernel or multipath made of a LUN, by number."""
        return sorted(self._partitions.get(lun.sys_name, ()), key=lambda node: _partition_number(node) or 0)

    def lun_info(self, group: list[BlockNode]) -> LunInfo:
        """Describe a LUN by its first node."""
        node = group[0]
        single = [self._by_name[name] for name in node.slaves if name in self._by_name] if _is_map(node) else [node]
        paths = [path.path for path in (*single, *group[1:])]
        described = (node, *single)  # udev tells vendor and model of the paths, not of the map
        return LunInfo(
            path=_node_path(node),
            name=node.dm_name or node.sys_name,
            kind=_kind(node),
            size_bytes=node.size_bytes,
            sector_bytes=node.sector_bytes,
            wwn=self._wwn(node),
            serial=_first(described, "ID_SERIAL_SHORT", "ID_SERIAL", "DM_SERIAL") or node.serial,
            model=" ".join(filter(None, (_first(described, "ID_VENDOR"), _first(described, "ID_MODEL")))),
            read_only=node.read_only,
            content=_first((node,), "ID_FS_TYPE"),
            paths=tuple(paths) if len(paths) > 1 or _is_map(node) else (),
            links=node.links,
        )

    def partition_info(self, node: BlockNode, lun: LunInfo) -> LunInfo:
        """Describe a partition of a LUN."""
        return replace(
            lun,
            path=_node_path(node),
            name=node.dm_name or node.sys_name,
            kind=LunKind.PARTITION,
            size_bytes=node.size_bytes,
            read_only=node.read_only,
            partition_of=lun.path,
            partition=_partition_number(node),
            start_bytes=node.start_bytes,
            partition_type=_first((node,), "ID_PART_ENTRY_TYPE").lower(),
            content=_first((node,), "ID_FS_TYPE"),
            paths=(),
            links=node.links,
        )


def _identity(node: BlockNode) -> str:
    """The key of a LUN's identity, from whoever states it most fully.

    udev's ID_WWN is not asked: it holds the first 64 bits only, and these are the same for all LUNs of an array.
    """
    match = _MAP.fullmatch(node.dm_uuid)
    stated = (
        match["wwid"] if match else "",
        node.wwid,
        *(node.properties.get(key, "") for key in ("ID_WWN_WITH_EXTENSION", "SCSI_IDENT_LUN_NAA_REGEXT", "DM_WWN")),
    )
    for name in stated:
        if name:
            return naa.bare(name)
    serial = naa.bare(node.properties.get("ID_SERIAL", ""))
    return serial if naa.is_naa(serial) else ""


def _disks_of(node: BlockNode) -> tuple[str, ...]:
    """For a partition, what it is a partition of: the kernel knows the disk, multipath the map."""
    if node.parent is not None:
        return (node.parent,)
    return node.slaves if _MAP_PARTITION.fullmatch(node.dm_uuid) else ()


def _is_map(node: BlockNode) -> bool:
    return _MAP.fullmatch(node.dm_uuid) is not None


def _preference(node: BlockNode) -> tuple[bool, bool]:
    """Sorts first what to open: a map before single paths, a path in service before one that is not."""
    return not _is_map(node), node.state not in ("", "running")


def _kind(node: BlockNode) -> LunKind:
    if _is_map(node):
        return LunKind.MULTIPATH
    return LunKind.LOOP if node.backing_file else LunKind.DISK


def _partition_number(node: BlockNode) -> int | None:
    match = _MAP_PARTITION.fullmatch(node.dm_uuid)
    return int(match["number"]) if match else node.partition


def _node_path(node: BlockNode) -> str:
    """A map by its own name, which does not change from boot to boot, when udev has made that node."""
    if node.dm_name and f"/dev/mapper/{node.dm_name}" in node.links:
        return f"/dev/mapper/{node.dm_name}"
    return node.path


def _first(nodes: Sequence[BlockNode], *keys: str) -> str:
    """The first of these properties that any of the nodes has."""
    return next((node.properties[key].strip() for key in keys for node in nodes if node.properties.get(key)), "")
