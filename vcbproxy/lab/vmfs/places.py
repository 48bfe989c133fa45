"""Where things lie on a volume's images, by its record, and how to overwrite them: the hands of ``corrupt``."""

from __future__ import annotations

import struct
from collections.abc import Callable

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs import hashed, lvm, make
from vcbproxy.lab.vmfs.directory import ENTRY_BYTES
from vcbproxy.lab.vmfs.node import INDIRECT, Node, Zla
from vcbproxy.lab.vmfs.volume import LabVolume


def descriptor(volume: LabVolume, path: str) -> int:
    """The volume offset of a file's descriptor."""
    return volume.store.locate(volume.node(path).address)


def put(volume: LabVolume, path: str, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file's descriptor."""
    volume.store.images.write(descriptor(volume, path) + offset, data)


def put_metadata(volume: LabVolume, path: str, offset: int, data: bytes) -> None:
    """Overwrite bytes of a descriptor's metadata sector."""
    put(volume, path, volume.store.geometry.metadata_offset + offset, data)


def put_volume(volume: LabVolume, offset: int, data: bytes) -> None:
    """Overwrite bytes of the file system's descriptor."""
    volume.store.images.write(make.DESCRIPTOR_OFFSET + offset, data)


def put_device(volume: LabVolume, device: int, offset: int, data: bytes) -> None:
    """Overwrite bytes of a device, counted from its partition."""
    start = lvm.PARTITION_START[volume.store.spec.partition]
    with volume.paths[device].open("r+b") as image:
        image.seek(start + offset)
        image.write(data)


def lvm_entry(volume: LabVolume) -> int:
    """The device offset of the volume table entry."""
    return lvm.HEADER + (0x1000 if volume.store.geometry.lvm_major >= 6 else 0x200)


def lvm_extent(volume: LabVolume) -> int:
    """The device offset of the first entry of the extent table."""
    six = volume.store.geometry.lvm_major >= 6
    return lvm.HEADER + (0x81000 + 0x1000 if six else 0x80200 + 0x400)


def pointer(volume: LabVolume, path: str) -> int:
    """The volume offset of a file's first pointer that is no hole."""
    node = volume.node(path)
    store = volume.store
    for leaf in sorted(node.leaves):
        slots = node.leaves[leaf].nonzero()[0]
        if len(slots):
            skip = int(slots[0]) * store.codec.dtype.itemsize
            if node.zla in INDIRECT:
                return store.locate(node.leaf_addresses[leaf]) + skip
            return store.locate(node.address) + store.geometry.pointers_offset + skip
    raise UsageError(f"{path}: has no block pointers to damage")


def change_pointer(volume: LabVolume, path: str, change: Callable[[int], int]) -> None:
    """Rewrite a file's first pointer."""
    place = pointer(volume, path)
    width = volume.store.codec.dtype.itemsize
    held = int.from_bytes(volume.store.images.read(place, width), "little")
    volume.store.images.write(place, change(held).to_bytes(width, "little"))


def byte_of(volume: LabVolume, node: Node, offset: int) -> int:
    """The volume offset of a byte of a small file or directory."""
    index, skip = divmod(offset, node.block_bytes)
    pointer = int(node.leaves[0][index])
    if node.zla is Zla.SUB_BLOCKS:
        return volume.store.locate(pointer) + skip
    number = volume.store.codec.numbers(node.leaves[0][index : index + 1], node.leaves[0][:1].astype("i8"))[0]
    return int(number) * node.block_bytes + skip


def change_entry(volume: LabVolume, path: str, name: str, field: int, value: int) -> None:
    """Overwrite a u32 of a directory entry: 0 its type, 4 its descriptor's address, 8 its generation."""
    node = volume.node(path)
    content = volume.read(path, 0, node.length)
    if volume.store.geometry.wide:
        wanted = name.encode().ljust(hashed.DIRENT_BYTES - 0x18, b"\0")
        offset = content.index(wanted, hashed.HEADER_BYTES) - 0x18
    else:
        offset = content.index(name.encode().ljust(ENTRY_BYTES - 12, b"\0")) - 12
    place = byte_of(volume, node, offset + field)
    volume.store.images.write(place, struct.pack("<I", value))
