"""Opening the files of a link: what is a descriptor, what is an extent, and which reader reads it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NoReturn

from vcbproxy.device import MappedDevice, read
from vcbproxy.errors import VmdkError
from vcbproxy.units import SECTOR
from vcbproxy.vmdk import c_vmdk, descriptor
from vcbproxy.vmdk.descriptor import ExtentLine, ExtentType
from vcbproxy.vmdk.files import Files
from vcbproxy.vmdk.flat import FlatLayer, ZeroLayer
from vcbproxy.vmdk.layer import Layer
from vcbproxy.vmdk.link import Link


class Opener:
    """Opens links; whatever it opened is closed with the stack."""

    def __init__(self, files: Files, stack: ExitStack) -> None:
        self._files = files
        self._stack = stack
        self.opened: list[MappedDevice] = []

    def link(self, path: str) -> Link:
        """Open the VMDK at ``path`` and its extents."""
        file = self._open(path)
        if file.size_bytes > c_vmdk.DESCRIPTOR_MAX_BYTES:
            self._refuse(file, "not a VMDK descriptor: too large for one")
        parsed = descriptor.parse(read(file, 0, file.size_bytes), file.name)
        return Link(path, parsed, [self._layer(path, line) for line in parsed.extents])

    def _layer(self, path: str, line: ExtentLine) -> Layer:
        size_bytes = line.sectors * SECTOR
        if line.type is ExtentType.ZERO:
            return ZeroLayer(size_bytes)
        file = self._open(self._files.resolve(path, line.file_name))
        if line.type in {ExtentType.FLAT, ExtentType.VMFS}:
            return FlatLayer(file, line.offset_sectors * SECTOR, size_bytes)
        raise VmdkError(file=file.name, reason="sparse extents are not read yet")

    def _open(self, path: str) -> MappedDevice:
        file = self._files.open(path)
        close = getattr(file, "close", None)
        if close is not None:
            self._stack.callback(close)
        self.opened.append(file)
        return file

    def _refuse(self, file: MappedDevice, reason: str) -> NoReturn:
        raise VmdkError(file=file.name, reason=reason)
