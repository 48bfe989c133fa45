"""Named ways to damage a volume, for tests of readers. The record tells where to hit; the record itself stays true.

Three tables: ``FILE_DAMAGES`` take a volume and the path of a file, ``DIRECTORY_DAMAGES`` that of a directory,
``VOLUME_DAMAGES`` the volume alone. After any of them a reader of what was hit has one right answer: a typed error,
never a wrong byte and never an endless walk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs import lvm, places
from vcbproxy.lab.vmfs.address import Kind
from vcbproxy.lab.vmfs.node import INDIRECT
from vcbproxy.lab.vmfs.volume import LabVolume

FileDamage = Callable[[LabVolume, str], None]
VolumeDamage = Callable[[LabVolume], None]


# files


def pointer_type(volume: LabVolume, path: str) -> None:
    """The file's first block pointer becomes the address of a journal block."""
    places.change_pointer(volume, path, lambda pointer: pointer & ~7 | Kind.JOURNAL)


def pointer_beyond_volume(volume: LabVolume, path: str) -> None:
    """The first block pointer leads far behind the volume's end."""
    wide = volume.store.geometry.wide
    places.change_pointer(volume, path, lambda pointer: pointer | (0x7FFF_FFFF << 15 if wide else 0x3FF_FFFF << 6))


def pointer_vanished(volume: LabVolume, path: str) -> None:
    """The first block pointer is zero: a hole, but numBlocks still counts it."""
    places.change_pointer(volume, path, lambda _: 0)


def pointer_twice(volume: LabVolume, path: str) -> None:
    """The second block pointer equals the first: two blocks of the file overlap."""
    place = places.pointer(volume, path)
    width = volume.store.codec.dtype.itemsize
    volume.store.images.write(place + width, volume.store.images.read(place, width))


def pointer_block_garbage(volume: LabVolume, path: str) -> None:
    """The first pointer block holds text."""
    node = volume.node(path)
    if node.zla not in INDIRECT or not node.leaf_addresses:
        raise UsageError(f"{path}: has no pointer block")
    address = node.leaf_addresses[min(node.leaf_addresses)]
    volume.store.images.write(volume.store.locate(address), b"not pointers at all. " * 40)


def pointer_block_address(volume: LabVolume, path: str) -> None:
    """The address of the first pointer block names a cluster that does not exist."""
    node = volume.node(path)
    if node.zla not in INDIRECT:
        raise UsageError(f"{path}: has no pointer block")
    width = volume.store.codec.dtype.itemsize
    place = volume.store.locate(node.address) + volume.store.geometry.pointers_offset
    held = int.from_bytes(volume.store.images.read(place, width), "little")
    volume.store.images.write(place, (held | 0x3FFFFF << 6).to_bytes(width, "little"))


def partly_to_be_zeroed(volume: LabVolume, path: str) -> None:
    """VMFS-6: the first pointer's eight to-be-zeroed bits say 00001111, which nobody knows how to read."""
    if not volume.store.geometry.wide:
        raise UsageError("only VMFS-6 has eight to-be-zeroed bits")
    places.change_pointer(volume, path, lambda pointer: pointer & ~(0xFF << 7) | 0x0F << 7)


def descriptor_magic(volume: LabVolume, path: str) -> None:
    """The lock's magic is that of another resource."""
    places.put(volume, path, 0, struct.pack("<I", 0x10C00003))


def descriptor_offset(volume: LabVolume, path: str) -> None:
    """The lock says that it lies somewhere else."""
    places.put(volume, path, 4, struct.pack("<Q", volume.store.locate(volume.node(path).address) + 0x800))


def descriptor_address(volume: LabVolume, path: str) -> None:
    """The metadata name another descriptor's address."""
    places.put_metadata(volume, path, 0, struct.pack("<I", volume.node(path).address ^ 0x400000))


def descriptor_generation(volume: LabVolume, path: str) -> None:
    """The descriptor was used again: its generation is not the directory entry's."""
    places.put_metadata(volume, path, 4, struct.pack("<I", volume.node(path).generation + 7))


def descriptor_deleted(volume: LabVolume, path: str) -> None:
    """Nobody links to the file, and yet a directory does."""
    places.put_metadata(volume, path, 8, struct.pack("<I", 0))


def descriptor_type(volume: LabVolume, path: str) -> None:
    """A file of a type that does not exist."""
    places.put_metadata(volume, path, 0x0C, struct.pack("<I", 9))


def length_absurd(volume: LabVolume, path: str) -> None:
    """A length near 2**63."""
    places.put_metadata(volume, path, 0x14, struct.pack("<Q", (1 << 63) - 4096))


def block_size_zero(volume: LabVolume, path: str) -> None:
    """A block size of nothing, in both of the places where it stands."""
    places.put_metadata(volume, path, 0x1C, struct.pack("<Q", 0))
    places.put_metadata(volume, path, 0x89, b"\0")


def block_count(volume: LabVolume, path: str) -> None:
    """The count of blocks is one more than there are pointers."""
    places.put_metadata(volume, path, 0x24, struct.pack("<Q", volume.node(path).blocks + 1))


def tbz_count(volume: LabVolume, path: str) -> None:
    """The count of blocks to be zeroed is one more than there are."""
    places.put_metadata(volume, path, 0x48, struct.pack("<I", volume.node(path).tbz + 1))


def zla_unknown(volume: LabVolume, path: str) -> None:
    """A way to read the pointer array that nobody knows."""
    places.put_metadata(volume, path, 0x44, struct.pack("<I", 0x10D2))


FILE_DAMAGES: Mapping[str, FileDamage] = MappingProxyType(
    {
        damage.__name__: damage
        for damage in (
            pointer_type,
            pointer_beyond_volume,
            pointer_vanished,
            pointer_twice,
            pointer_block_garbage,
            pointer_block_address,
            partly_to_be_zeroed,
            descriptor_magic,
            descriptor_offset,
            descriptor_address,
            descriptor_generation,
            descriptor_deleted,
            descriptor_type,
            length_absurd,
            block_size_zero,
            block_count,
            tbz_count,
            zla_unknown,
        )
    }
)


# directories


def symlink_cycle(volume: LabVolume, path: str) -> None:
    """Two links in the directory, ``loop-a`` and ``loop-b``, lead to each other."""
    volume.symlink(f"{path.rstrip('/')}/loop-a", "loop-b")
    volume.symlink(f"{path.rstrip('/')}/loop-b", "loop-a")


def directory_cycle(volume: LabVolume, path: str) -> None:
    """The directory has a subdirectory ``cycle`` that is itself again: each path is right, a walk never ends."""
    volume.mkdir(f"{path.rstrip('/')}/cycle")
    node = volume.node(path)
    places.change_entry(volume, path, "cycle", 4, node.address)
    places.change_entry(volume, path, "cycle", 8, node.generation)


def entry_to_nowhere(volume: LabVolume, path: str) -> None:
    """An entry ``lost`` leads to a descriptor in a cluster that does not exist."""
    volume.create_file(f"{path.rstrip('/')}/lost", data=b"lost")
    places.change_entry(volume, path, "lost", 4, Kind.DESCRIPTOR | 0xFFFF << 6)


def entry_type(volume: LabVolume, path: str) -> None:
    """An entry ``posing`` says directory and leads to a file."""
    volume.create_file(f"{path.rstrip('/')}/posing", data=b"a file")
    places.change_entry(volume, path, "posing", 0, 2)


def directory_length(volume: LabVolume, path: str) -> None:
    """The directory's length is not a whole number of entries or blocks."""
    places.put_metadata(volume, path, 0x14, struct.pack("<Q", volume.node(path).length - 3))


def directory_version(volume: LabVolume, path: str) -> None:
    """VMFS-6: a directory format that nobody knows."""
    if not volume.store.geometry.wide:
        raise UsageError("only VMFS-6 directories have a version")
    volume.store.images.write(places.byte_of(volume, volume.node(path), 0), struct.pack("<I", 0xF50002))


DIRECTORY_DAMAGES: Mapping[str, FileDamage] = MappingProxyType(
    {
        damage.__name__: damage
        for damage in (
            symlink_cycle,
            directory_cycle,
            entry_to_nowhere,
            entry_type,
            directory_length,
            directory_version,
        )
    }
)


# the volume and its devices


def volume_magic(volume: LabVolume) -> None:
    """The file system's magic is gone."""
    places.put_volume(volume, 0, bytes(4))


def volume_version(volume: LabVolume) -> None:
    """A file system of a version to come."""
    places.put_volume(volume, 4, struct.pack("<I", 34))


def volume_lvm_uuid(volume: LabVolume) -> None:
    """The file system belongs to another logical volume."""
    places.put_volume(volume, 0xB1, bytes(16))


def volume_block_size(volume: LabVolume) -> None:
    """A file block size that is no power of two."""
    places.put_volume(volume, 0xA1, struct.pack("<Q", 1_000_000))


def resource_header(volume: LabVolume) -> None:
    """The descriptors' resource file says that it has no descriptors in a cluster."""
    volume.store.mapped[Kind.DESCRIPTOR].write(0, bytes(4))


def lvm_magic(volume: LabVolume) -> None:
    """The last device has no LVM header."""
    places.put_device(volume, -1, lvm.HEADER, bytes(4))


def lvm_version(volume: LabVolume) -> None:
    """LVM of a version to come."""
    places.put_device(volume, -1, lvm.HEADER + 4, struct.pack("<I", 9))


def lvm_uuid(volume: LabVolume) -> None:
    """The last device belongs to another logical volume."""
    places.put_device(volume, -1, places.lvm_entry(volume) + 0x54, bytes(range(16)))


def lvm_device_count(volume: LabVolume) -> None:
    """Every device says that there is one more."""
    for device in range(len(volume.paths)):
        places.put_device(volume, device, places.lvm_entry(volume) + 0x90, struct.pack("<I", len(volume.paths) + 1))


def lvm_extent_unused(volume: LabVolume) -> None:
    """The first device's first extent is marked unused: a gap at the volume's start."""
    places.put_device(volume, 0, places.lvm_extent(volume), bytes(1))


def lvm_extent_beyond_device(volume: LabVolume) -> None:
    """The first device's first extent lies behind the device's end."""
    places.put_device(volume, 0, places.lvm_extent(volume) + 9, struct.pack("<Q", 1 << 46))


def lvm_extent_overlap(volume: LabVolume) -> None:
    """The first extent of the last device starts in the middle of another in the volume."""
    places.put_device(volume, -1, places.lvm_extent(volume) + 17, struct.pack("<Q", 64 << 20))


VOLUME_DAMAGES: Mapping[str, VolumeDamage] = MappingProxyType(
    {
        damage.__name__: damage
        for damage in (
            volume_magic,
            volume_version,
            volume_lvm_uuid,
            volume_block_size,
            resource_header,
            lvm_magic,
            lvm_version,
            lvm_uuid,
            lvm_device_count,
            lvm_extent_unused,
            lvm_extent_beyond_device,
            lvm_extent_overlap,
        )
    }
)


def cut_device(volume: LabVolume, device: int, size_bytes: int) -> None:
    """Cut an image file short, as a LUN that shrank or a copy that broke off."""
    with volume.paths[device].open("r+b") as image:
        image.truncate(size_bytes)


def flip_bit(volume: LabVolume, volume_offset: int, bit: int) -> None:
    """Flip one bit anywhere in the volume."""
    byte = volume.store.images.read(volume_offset, 1)[0]
    volume.store.images.write(volume_offset, bytes([byte ^ 1 << bit]))
