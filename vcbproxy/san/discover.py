"""Which LUNs this machine sees, each once: block nodes and configured images in, LunInfo out. Nothing is opened.

    sda ┐
    sdb ┴─▶ dm-0 (mpatha) ─▶ dm-1 (mpatha-part1)     one LUN with two paths: only the map and its partition are listed
    sdc ┐
    sdd ┘                                            one LUN with two paths and no multipathd: listed once, as sdc
    loop0 (udev gave it a WWN)                       listed
    loop1                                            not listed, unless the configuration names it
    /srv/lun0.img (in the configuration)             listed
    dm-5 (LVM), md0, zram0, sr0                      never: not LUNs
    vda (mounted as /), sde (holds an LVM volume)    never: this machine lives on them

Partitions are listed after their LUN. A LUN is opened whole; its partitions are for the eye, and for find().
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcbproxy.san.find import find
from vcbproxy.san.images import ImageLun, NamedImage, absent, by_real_path, image_info, mode
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.node import BlockNode, scan
from vcbproxy.san.table import Table

if TYPE_CHECKING:
    from vcbproxy import config

log = logging.getLogger(__name__)

__all__ = [
    "ImageLun",
    "LunInfo",
    "LunKind",
    "NamedImage",
    "configured",
    "describe",
    "discover",
    "find",
    "listed",
    "whole",
]


def discover(images: Iterable[NamedImage] = ()) -> list[LunInfo]:
    """List the LUNs of this machine, then the configured images; partitions follow their LUN.

    Raises:
        ConfigError: a configured image is not there, or is named twice.
    """
    return describe(scan(), images)


def listed(settings: config.San) -> list[LunInfo]:
    """List what the configuration lets us see: all LUNs of this machine, or its images alone.

    An image that is not there is said, and passed over: what lies on it is then missing, and nothing else.

    Raises:
        ConfigError: a configured image is named twice, or is no such thing.
    """
    gone = absent(settings.images)
    for problem in gone.values():
        log.warning("%s", problem)
    images = [image for image in settings.images if image.path not in gone]
    return discover(images) if settings.discover else configured(images)


def configured(images: Iterable[NamedImage]) -> list[LunInfo]:
    """List the configured images alone, whatever else this machine sees.

    Raises:
        ConfigError: one is not there, or is named twice.
    """
    named = by_real_path(images)
    blocks = {path for path in named if stat.S_ISBLK(mode(path))}
    nodes = scan() if blocks else []
    return [info for info in _described(nodes, named) if _is_named(info, blocks)]


def _is_named(info: LunInfo, blocks: set[Path]) -> bool:
    whole = Path(info.partition_of or info.path).resolve()
    return info.kind is LunKind.IMAGE or whole in blocks


def describe(nodes: Sequence[BlockNode], images: Iterable[NamedImage] = ()) -> list[LunInfo]:
    """As :func:`discover`, of these nodes: the rules, free of this machine."""
    return list(_described(nodes, by_real_path(images)))


def whole(luns: Iterable[LunInfo]) -> list[LunInfo]:
    """Only the LUNs, without their partitions: what to open so that no byte is seen through two devices."""
    return [info for info in luns if info.partition_of is None]


def _described(nodes: Sequence[BlockNode], named: dict[Path, NamedImage]) -> Iterator[LunInfo]:
    table = Table(nodes, named)
    table.check_named()
    for group in table.luns():
        lun = table.lun_info(group)
        yield lun
        for node in table.partitions(group[0]):
            yield table.partition_info(node, lun)
    taken = {Path(node.path).resolve() for node in nodes} if named else set()
    for path, image in named.items():
        if path not in taken:
            yield image_info(path, image)
