"""A view: the system files of a volume, as they were read at one moment. Every opened file gets a fresh one.

Resource files grow while hosts work, so what was read of them is never kept for the next file. A view costs some
ten small reads. They are opened when first needed, in the order in which they can need each other: .pb2.sf stands
alone, .pbc.sf may be reached through it, .sbc.sf through both, and .fdc.sf through all three (VMFS-6 keeps pointer
blocks in .sbc.sf, and a grown .fdc.sf has more blocks than its descriptor has pointers).

In: the volume and its geometry. Out: inodes by address, and where their bytes lie.
"""

from __future__ import annotations

from vcbproxy.device import read
from vcbproxy.errors import VmfsError
from vcbproxy.vmfs import address as addresses
from vcbproxy.vmfs import blocks, inode, resource, runs
from vcbproxy.vmfs.address import DescriptorAddress, Kind
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.inode import Inode
from vcbproxy.vmfs.span import LogicalVolume

ROOT = DescriptorAddress(0, 0).encode()
_SYSTEM_ITEMS = {Kind.DESCRIPTOR: 2, Kind.POINTER_BLOCK: 3, Kind.SUB_BLOCK: 4, Kind.POINTER_BLOCK_2: 6}
_SYSTEM_NAMES = {
    Kind.DESCRIPTOR: ".fdc.sf",
    Kind.POINTER_BLOCK: ".pbc.sf",
    Kind.SUB_BLOCK: ".sbc.sf",
    Kind.POINTER_BLOCK_2: ".pb2.sf",
}
# Who may be needed to open whom; the other way round would be a circle.
_MAY_NEED = {
    Kind.POINTER_BLOCK_2: (),
    Kind.POINTER_BLOCK: (Kind.POINTER_BLOCK_2,),
    Kind.DESCRIPTOR: (Kind.POINTER_BLOCK_2, Kind.POINTER_BLOCK, Kind.SUB_BLOCK),
    Kind.SUB_BLOCK: (Kind.POINTER_BLOCK_2, Kind.POINTER_BLOCK),
}


class View:
    """System files as of now; make a new one for a newer now."""

    def __init__(self, volume: LogicalVolume, fs: FileSystem) -> None:
        self._volume = volume
        self._fs = fs
        self._resources: dict[Kind, resource.Resource] = {}

    def inode(self, address: int, name: str, generation: int | None = None) -> Inode:
        """Read and check the file descriptor at an address.

        Raises:
            VmfsError: not an address, outside .fdc.sf, or a self-check failed.
        """
        decoded = DescriptorAddress.decode(address)
        if decoded is None:
            raise self._error(name, f"{address:#x} is not the address of a file descriptor", 0)
        return inode.load(self._volume, self._fs, self._offset_of(decoded, name), address, name, generation)

    def map_of(self, file: Inode) -> runs.RunMap:
        """Where a file's bytes lie in the volume (device 0)."""
        return blocks.map_of(self._volume, self._fs, file, self._resource)

    def read(self, file: Inode, limit_bytes: int) -> bytes:
        """A whole small file.

        Raises:
            VmfsError: it is longer than ``limit_bytes``.
        """
        if file.length > limit_bytes:
            raise self._error(file.name, f"its length of {file.length} bytes is more than {limit_bytes}", file.offset)
        return read(runs.Mapped(file.name, self.map_of(file), (self._volume,)), 0, file.length)

    def _offset_of(self, where: DescriptorAddress, name: str) -> int:
        """Where in the volume a file descriptor lies."""
        table = self._resource(Kind.DESCRIPTOR)
        place = table.place(where.cluster, where.item, name)
        pieces = list(table.pieces(place, name))
        if len(pieces) != 1:
            raise self._error(name, "its file descriptor is not in one piece", pieces[0].device_offset)
        return pieces[0].device_offset

    def _resource(self, kind: Kind) -> resource.Resource:
        return self._open(kind, tuple(_SYSTEM_ITEMS))

    def _open(self, kind: Kind, allowed: tuple[Kind, ...]) -> resource.Resource:
        """Open a resource file; while it is being opened only those that it may need can be."""
        if kind not in allowed:
            raise self._error(addresses.name_of(kind), "a system file needs itself to be read", 0)
        if kind not in self._resources:
            file = self._system_inode(kind)
            needs = _MAY_NEED[kind]
            map_ = blocks.map_of(self._volume, self._fs, file, lambda needed: self._open(needed, needs))
            loaded = resource.load(self._volume, self._fs, file, map_)
            if kind is Kind.DESCRIPTOR:
                self._check_descriptors(loaded)
            self._resources[kind] = loaded
        return self._resources[kind]

    def _system_inode(self, kind: Kind) -> Inode:
        """System files have fixed places in the first cluster; only .pb2.sf of an upgraded volume may lie elsewhere."""
        fs, name, item = self._fs, _SYSTEM_NAMES[kind], _SYSTEM_ITEMS[kind]
        address, offset = DescriptorAddress(0, item).encode(), fs.fd_base + item * fs.fd_bytes
        if kind is Kind.POINTER_BLOCK_2:
            if fs.major == 3:
                raise self._error(name, "VMFS-3 has no second-level pointer blocks", 0)
            if fs.pb2_offset:
                address, offset = fs.pb2_address, fs.pb2_offset
        file = inode.load(self._volume, fs, offset, address, name)
        if file.type is not inode.FileType.SYSTEM:
            raise self._error(name, f"is a {file.type.name}, not a system file", offset)
        return file

    def _check_descriptors(self, table: resource.Resource) -> None:
        """The way by .fdc.sf and the fixed place must lead to the same root directory."""
        fs = self._fs
        if table.item_bytes != fs.fd_bytes:
            raise self._error(table.name, f"its items have {table.item_bytes} bytes, file descriptors {fs.fd_bytes}", 0)
        pieces = list(table.pieces(table.place(0, 0, "/"), "/"))
        if [piece.device_offset for piece in pieces] != [fs.fd_base]:
            where = pieces[0].device_offset
            raise self._error(table.name, f"it puts the root directory at {where:#x}, not at {fs.fd_base:#x}", where)

    def _error(self, file: str, reason: str, offset: int) -> VmfsError:
        return VmfsError(volume=self._fs.name, file=file, reason=reason, offset=offset)
