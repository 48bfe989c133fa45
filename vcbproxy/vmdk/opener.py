"""Opening the files of a link: what is a descriptor, what is an extent, and which reader reads it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn

from vcbproxy.device import MappedDevice, read
from vcbproxy.errors import VmdkError
from vcbproxy.units import SECTOR
from vcbproxy.vmdk import c_vmdk, descriptor
from vcbproxy.vmdk.cache import Cache
from vcbproxy.vmdk.cowd import open_cowd
from vcbproxy.vmdk.descriptor import Descriptor, ExtentLine, ExtentType
from vcbproxy.vmdk.files import Files
from vcbproxy.vmdk.flat import FlatLayer, ZeroLayer
from vcbproxy.vmdk.hosted import embedded_descriptor, open_hosted
from vcbproxy.vmdk.layer import Layer
from vcbproxy.vmdk.link import Link
from vcbproxy.vmdk.sesparse import open_sesparse

CACHE_BYTES = 16 << 20
"""For one disk: some 400 tables of 4096 grains. A sequential read needs one a link."""


RawLunOpener = Callable[[str], MappedDevice]
"""By the path of a raw device mapping: the LUN that it leads to, whole."""


def no_raw_lun(path: str) -> MappedDevice:
    """Where there are only files, there is no LUN to follow a mapping to.

    Raises:
        VmdkError: always.
    """
    raise VmdkError(file=path, reason=f"{c_vmdk.RDM}, and no LUN is known for it here")


class Opener:
    """Opens links; whatever it opened is closed with the stack."""

    def __init__(self, files: Files, stack: ExitStack, raw_lun: RawLunOpener = no_raw_lun) -> None:
        self._files = files
        self._raw_lun = raw_lun
        self._stack = stack
        self._cache = Cache(CACHE_BYTES)
        self._descriptors: set[str] = set()
        self._extents: dict[str, MappedDevice] = {}
        self.opened: list[MappedDevice] = []

    def link(self, path: str) -> Link:
        """Open the VMDK at ``path`` and its extents."""
        file = self._open(path)
        self._descriptors.add(path)
        if _magic(file) == c_vmdk.HOSTED_MAGIC:
            return self._monolithic(path, file)
        if file.size_bytes > c_vmdk.DESCRIPTOR_MAX_BYTES:
            self._refuse(file, "not a VMDK descriptor: too large for one")

        def look() -> Descriptor:
            return descriptor.parse(read(file, 0, file.size_bytes), file.name)

        parsed = look()
        return Link(path, parsed, [self._layer(path, line) for line in parsed.extents], look)

    def _monolithic(self, path: str, file: MappedDevice) -> Link:
        """One file that holds its own descriptor. The name in its extent line may be from before it was renamed."""

        def look() -> Descriptor:
            return descriptor.parse(embedded_descriptor(file), file.name)

        parsed = look()
        if [line.type for line in parsed.extents] != [ExtentType.SPARSE]:
            self._refuse(file, "the descriptor inside it is not of a disk in one file")
        return Link(path, parsed, [open_hosted(file, parsed.sectors, self._cache)], look)

    def _layer(self, path: str, line: ExtentLine) -> Layer:
        size_bytes = line.sectors * SECTOR
        if line.type is ExtentType.ZERO:
            return ZeroLayer(size_bytes)
        file = self._extent_file(path, line)
        if line.type in {ExtentType.FLAT, ExtentType.VMFS}:
            return FlatLayer(file, line.offset_sectors * SECTOR, size_bytes)
        if line.type is ExtentType.RAW_MAP:
            return self._whole_lun(file, size_bytes)
        if line.type is ExtentType.SE_SPARSE:
            return open_sesparse(file, line.sectors, self._cache)
        if line.type is ExtentType.VMFS_SPARSE or _magic(file) == c_vmdk.COWD_MAGIC:
            return open_cowd(file, line.sectors, self._cache)
        return open_hosted(file, line.sectors, self._cache)

    def _whole_lun(self, lun: MappedDevice, size_bytes: int) -> Layer:
        """A mapping is of all of its LUN. One of another size is another LUN, or the mapping is older than its size."""
        if lun.size_bytes != size_bytes:
            reason = (
                f"the descriptor maps a LUN of {size_bytes} bytes, this one has {lun.size_bytes}; rescan it here, or"
                " remove and add the disk in the VM's settings if the LUN was resized"
            )
            self._refuse(lun, reason)
        return FlatLayer(lun, 0, size_bytes)

    def _extent_file(self, path: str, line: ExtentLine) -> MappedDevice:
        """Open an extent's file. Only FLAT extents, which say where they begin, may share one."""
        extent_path = self._files.resolve(path, line.file_name)
        if extent_path in self._extents and line.type is ExtentType.FLAT:
            return self._extents[extent_path]
        if extent_path in self._extents or extent_path in self._descriptors:
            raise VmdkError(file=path, reason=f"its extent {line.file_name!r} is used twice in the chain")
        opens = self._raw_lun if line.type is ExtentType.RAW_MAP else self._files.open
        self._extents[extent_path] = self._kept(opens(extent_path))
        return self._extents[extent_path]

    def _open(self, path: str) -> MappedDevice:
        return self._kept(self._files.open(path))

    def _kept(self, file: MappedDevice) -> MappedDevice:
        close = getattr(file, "close", None)
        if close is not None:
            self._stack.callback(close)
        self.opened.append(file)
        return file

    def _refuse(self, file: MappedDevice, reason: str) -> NoReturn:
        raise VmdkError(file=file.name, reason=reason)


def _magic(file: MappedDevice) -> bytes:
    return read(file, 0, min(4, file.size_bytes))
