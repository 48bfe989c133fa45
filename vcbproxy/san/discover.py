"""Which LUNs this machine sees, each once: block nodes and configured images in, LunInfo out. Nothing is opened.

    sda ┐
    sdb ┴─▶ dm-0 (mpatha) ─▶ dm-1 (mpatha-part1)     one LUN with two paths: only the map and its partition are listed
    sdc ┐
    sdd ┘                                            one LUN with two paths and no multipathd: listed once, as sdc
    loop0 (udev gave it a WWN)                       listed
    loop1                                            not listed, unless the configuration names it
    /srv/lun0.img (in the configuration)             listed
    dm-5 (LVM), md0, zram0, sr0                      never: not LUNs

Partitions are listed after their LUN. A LUN is opened whole; its partitions are for the eye, and for find().
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vcbproxy.errors import ConfigError
from vcbproxy.san import naa
from vcbproxy.san.find import find
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.node import BlockNode, scan

__all__ = ["ImageLun", "LunInfo", "LunKind", "NamedImage", "configured", "describe", "discover", "find", "whole"]

_MAP = re.compile(r"mpath-(?P<wwid>.+)")
_MAP_PARTITION = re.compile(r"part(?P<number>\d+)-mpath-(?P<wwid>.+)")

# Drives with exchangeable media are behind hardware too, and are no LUNs.
_NOT_LUNS = ("sr", "fd", "mtdblock")


class NamedImage(Protocol):
    """A file or block device that the configuration names as a LUN."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def wwn(self) -> str:
        """The identity it stands for; empty to keep the one it has."""


@dataclass(frozen=True, slots=True)
class ImageLun:
    """A :class:`NamedImage` made by hand."""

    path: Path
    wwn: str = ""


def discover(images: Iterable[NamedImage] = ()) -> list[LunInfo]:
    """List the LUNs of this machine, then the configured images; partitions follow their LUN.

    Raises:
        ConfigError: a configured image is not there, or is named twice.
    """
    return describe(scan(), images)


def configured(images: Iterable[NamedImage]) -> list[LunInfo]:
    """List the configured images alone, whatever else this machine sees.

    Raises:
        ConfigError: one is not there, or is named twice.
    """
    named = _by_real_path(images)
    blocks = {path for path in named if stat.S_ISBLK(_mode(path))}
    nodes = scan() if blocks else []
    return [info for info in _described(nodes, named) if _is_named(info, blocks)]


def _is_named(info: LunInfo, blocks: set[Path]) -> bool:
    whole = Path(info.partition_of or info.path).resolve()
    return info.kind is LunKind.IMAGE or whole in blocks


def describe(nodes: Sequence[BlockNode], images: Iterable[NamedImage] = ()) -> list[LunInfo]:
    """As :func:`discover`, of these nodes: the rules, free of this machine."""
    return list(_described(nodes, _by_real_path(images)))


def whole(luns: Iterable[LunInfo]) -> list[LunInfo]:
    """Only the LUNs, without their partitions: what to open so that no byte is seen through two devices."""
    return [info for info in luns if info.partition_of is None]


def _by_real_path(images: Iterable[NamedImage]) -> dict[Path, NamedImage]:
    named: dict[Path, NamedImage] = {}
    for image in images:
        path = Path(image.path).resolve()
        mode = _mode(path)
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise ConfigError(f"san.images: {image.path} is neither a file nor a block device")
        if path in named:
            raise ConfigError(f"san.images: {image.path} is named twice; remove one entry")
        named[path] = image
    return named


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"san.images: {path}: {error.strerror}; correct the path or remove the entry") from error


def _described(nodes: Sequence[BlockNode], named: dict[Path, NamedImage]) -> Iterator[LunInfo]:
    table = _Nodes(nodes, named)
    table.check_named()
    for group in table.luns():
        lun = table.lun_info(group)
        yield lun
        for node in table.partitions(group[0]):
            yield table.partition_info(node, lun)
    taken = {Path(node.path).resolve() for node in nodes} if named else set()
    for path, image in named.items():
        if path not in taken:
            yield _image_info(path, image)


def _image_info(path: Path, image: NamedImage) -> LunInfo:
    """A plain file, or a block device that has no entry in sysfs that we can see."""
    mode = _mode(path)
    if not stat.S_ISREG(mode):
        raise ConfigError(f"san.images: {image.path}: the kernel does not know this block device any more")
    return LunInfo(
        path=str(image.path),
        name=path.name,
        kind=LunKind.IMAGE,
        size_bytes=path.stat().st_size,
        sector_bytes=512,
        wwn=naa.bare(image.wwn),
        read_only=not mode & 0o222,
    )


class _Nodes:
    """The nodes of one scan, and what they are to each other."""

    def __init__(self, nodes: Sequence[BlockNode], named: dict[Path, NamedImage]) -> None:
        self._nodes = nodes
        self._by_name = {node.sys_name: node for node in nodes}
        self._named = named
        self._in_maps = {slave for node in nodes if _is_map(node) for slave in node.slaves}

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
        if self._image(node) is not None or _is_map(node):
            return True
        if node.backing_file:
            return self._has_identity(node) and Path(node.backing_file) not in self._named
        return node.has_hardware and not node.sys_name.startswith(_NOT_LUNS)

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
        found = [node for node in self._nodes if self._is_partition_of(node, lun)]
        return sorted(found, key=lambda node: _partition_number(node) or 0)

    def _is_partition_of(self, node: BlockNode, lun: BlockNode) -> bool:
        if node.parent is not None:
            return node.parent == lun.sys_name
        return _MAP_PARTITION.fullmatch(node.dm_uuid) is not None and lun.sys_name in node.slaves

    def lun_info(self, group: list[BlockNode]) -> LunInfo:
        """Describe a LUN by its first node."""
        node = group[0]
        single = [self._by_name[name] for name in node.slaves if name in self._by_name] if _is_map(node) else [node]
        paths = [path.path for path in (*single, *group[1:])]
        return LunInfo(
            path=_node_path(node),
            name=node.dm_name or node.sys_name,
            kind=_kind(node),
            size_bytes=node.size_bytes,
            sector_bytes=node.sector_bytes,
            wwn=self._wwn(node),
            serial=_first(node, "ID_SERIAL_SHORT", "ID_SERIAL", "DM_SERIAL") or node.serial,
            model=" ".join(filter(None, (_first(node, "ID_VENDOR"), _first(node, "ID_MODEL", "DM_MODEL")))),
            read_only=node.read_only,
            content=_first(node, "ID_FS_TYPE"),
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
            partition_type=_first(node, "ID_PART_ENTRY_TYPE").lower(),
            content=_first(node, "ID_FS_TYPE"),
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


def _first(node: BlockNode, *keys: str) -> str:
    return next((node.properties[key].strip() for key in keys if node.properties.get(key)), "")
