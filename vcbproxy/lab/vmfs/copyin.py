"""Copying a whole device or local file into a file on the volume."""

from __future__ import annotations

from vcbproxy.device import Device
from vcbproxy.lab.vmfs.files import Files
from vcbproxy.lab.vmfs.node import Node, Zla
from vcbproxy.units import MiB

_STEP_BYTES = 8 * MiB
"""A multiple of every block size, so that blocks are written whole."""


def copy_in(files: Files, node: Node, source: Device, *, keep_holes: bool) -> None:
    """Write all of ``source`` from offset 0; with ``keep_holes``, zeroes where zeroes are read already are left out."""
    buffer = memoryview(bytearray(_STEP_BYTES))
    zeroes = bytes(_STEP_BYTES)
    for offset in range(0, source.size_bytes, _STEP_BYTES):
        part = buffer[: min(_STEP_BYTES, source.size_bytes - offset)]
        source.read_into(offset, part)
        if keep_holes and node.zla not in (Zla.RESIDENT, Zla.SUB_BLOCKS):
            _write_data(files, node, offset, part, zeroes)
        else:
            files.write(node, offset, part)
    if source.size_bytes > node.length:
        files.truncate(node, source.size_bytes)


def _write_data(files: Files, node: Node, offset: int, part: memoryview, zeroes: bytes) -> None:
    """Write each stretch of blocks that has data, or that would not read as zeroes if left alone."""
    step = node.block_bytes
    start: int | None = None
    for low in range(0, len(part), step):
        piece = part[low : low + step]
        empty = piece == zeroes[: len(piece)] and not files.has_data(node, (offset + low) // step)
        if empty and start is not None:
            files.write(node, offset + start, part[start:low])
            start = None
        elif not empty and start is None:
            start = low
    if start is not None:
        files.write(node, offset + start, part[start:])
