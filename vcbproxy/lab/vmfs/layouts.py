"""Which layout a new file gets. Pure."""

from __future__ import annotations

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs.geometry import Geometry
from vcbproxy.lab.vmfs.node import Zla
from vcbproxy.lab.vmfs.spec import Allocation, Layout

_ZLA = {
    Layout.RESIDENT: Zla.RESIDENT,
    Layout.SUB_BLOCK: Zla.SUB_BLOCKS,
    Layout.BLOCKS: Zla.BLOCKS,
    Layout.POINTERS: Zla.POINTERS,
    Layout.DOUBLE: Zla.DOUBLE,
}


def choose(geometry: Geometry, size_bytes: int, layout: Layout, allocation: Allocation) -> Zla:
    """The layout asked for, or the smallest that a host would take for the size.

    Raises:
        UsageError: the version has no such layout.
    """
    if layout is Layout.DOUBLE and geometry.version == 3:
        raise UsageError("VMFS-3 has no double indirection")
    if layout is Layout.RESIDENT and not geometry.resident_bytes:
        raise UsageError("VMFS-3 has no resident files")
    if layout is not Layout.AUTO:
        return _ZLA[layout]
    if allocation is Allocation.THIN:
        if size_bytes <= geometry.resident_bytes:
            return Zla.RESIDENT
        if size_bytes <= geometry.sub_block_bytes:
            return Zla.SUB_BLOCKS
    direct = geometry.pointers_direct * geometry.block_bytes
    if size_bytes <= direct:
        return Zla.BLOCKS
    return Zla.POINTERS if size_bytes <= direct * geometry.pointers_block or geometry.version == 3 else Zla.DOUBLE


def smallest(geometry: Geometry) -> Zla:
    """Where a link's target or an empty file goes."""
    return Zla.RESIDENT if geometry.resident_bytes else Zla.SUB_BLOCKS
