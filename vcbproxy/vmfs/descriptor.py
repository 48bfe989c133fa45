"""Reads the file system's own descriptor, 2 MiB into the volume: version, label, block sizes, where things start.

In: a logical volume. Out: ``FileSystem``, the geometry everything else is computed from. Promised: an unknown
version or an impossible size raises; nothing is taken for granted that the descriptor says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vcbproxy.device import Device, read
from vcbproxy.errors import VmfsError
from vcbproxy.units import KiB, MiB, align_down
from vcbproxy.vmfs import c_vmfs, layout

_ALIGNMENTS = tuple(4096 << shift for shift in range(5))  # a smaller one has no room for the pointers


@dataclass(frozen=True, slots=True)
class FileSystem:
    """One volume's geometry. Sizes in bytes, offsets in the volume."""

    label: str
    uuid: str
    lv_uuid: str
    major: int  # 3, 5 or 6
    version: str  # "5.81"
    local: bool  # VMFS-L
    dense: bool  # sub-block addresses use six item bits
    block_size_bytes: int
    large_block_bytes: int  # 0 before VMFS-6
    sub_block_bytes: int
    alignment: int  # of metadata on VMFS-6, else 0
    pointer_block_bytes: int  # as the descriptor says; 0: it does not
    tbz_bytes: int  # on VMFS-6, how much of a block one bit of a TBZ bitmap stands for; 0: it does not say
    fd_base: int
    pb2_offset: int  # where the descriptor of .pb2.sf lies; 0: there is none
    pb2_address: int
    size_bytes: int

    @property
    def name(self) -> str:
        """What messages call the volume; always one line."""
        return " ".join(self.label.splitlines()) or self.uuid

    @property
    def fd_bytes(self) -> int:
        """The size of a file descriptor."""
        return 2 * self.alignment if self.alignment else c_vmfs.FS3_FD_SIZE

    @property
    def metadata_offset(self) -> int:
        """Where a file descriptor's metadata block starts inside it."""
        return self.alignment or c_vmfs.FS3_FD_METADATA_OFFSET

    @property
    def resident_offset(self) -> int:
        """Where a file descriptor holds a small file's bytes."""
        return self.alignment + 512 if self.alignment else c_vmfs.FS3_FD_DATA_OFFSET

    @property
    def pointers_offset(self) -> int:
        """Where a file descriptor's pointer array starts; it reaches to the end on VMFS-6."""
        if not self.alignment:
            return c_vmfs.FS3_FD_DATA_OFFSET
        return self.fd_bytes - (c_vmfs.FS6_FD_POINTERS_SIZE if self.alignment <= 4096 else self.alignment // 2)

    @property
    def pointer_bytes(self) -> int:
        """The size of one pointer."""
        return 8 if self.alignment else 4

    @property
    def cluster_header_bytes(self) -> int:
        """The size of a cluster header in a resource file."""
        return 2 * self.alignment if self.alignment else c_vmfs.FS3_CLUSTER_HEADER_SIZE


def present(device: Device) -> bool:
    """Whether a file system (not an LVM device) starts at offset 0."""
    return _magic(device) in (c_vmfs.FS3_MAGIC, c_vmfs.FS3_MAGIC_LOCAL)


def _magic(device: Device) -> int:
    if device.size_bytes < c_vmfs.FS3_DESCRIPTOR_OFFSET + 512:
        return 0
    return int.from_bytes(read(device, c_vmfs.FS3_DESCRIPTOR_OFFSET, 512)[:4], "little")


def load(volume: Device) -> FileSystem:
    """Read and check the descriptor.

    Raises:
        VmfsError: no VMFS, an unknown version, or sizes that cannot be.
    """
    at = c_vmfs.FS3_DESCRIPTOR_OFFSET

    def fail(reason: str) -> VmfsError:
        return VmfsError(volume=volume.name, file="file system descriptor", reason=reason, offset=at)

    if not present(volume):
        raise fail("there is no VMFS file system here")
    fields = layout.Fields(c_vmfs.FS3_Descriptor, read(volume, at, 512))
    major = _major(fields)
    if major is None:
        raise fail(f"VMFS version code {fields['majorVersion']} is unknown; known are VMFS-3, -5 and -6")
    alignment = fields["mdAlignment"] if major == 6 else 0
    if major == 6 and alignment not in _ALIGNMENTS:
        raise fail(f"a metadata alignment of {alignment} bytes cannot be")
    block = fields["fileBlockSize"]
    _check_power(fail, "file block size", block, 64 * KiB, 512 * MiB)
    _check_power(fail, "sub-block size", fields["subBlockSize"], 512, block)
    shift = fields["sfbToLfbShift"] if major == 6 else 0
    if block << shift > 1 << 40:
        raise fail(f"large blocks of 2^{shift} blocks cannot be")
    pointer_shift = fields["ptrBlockShift"] if major == 6 else 0
    if pointer_shift not in (0, *range(9, 21)):
        raise fail(f"pointer blocks of 2^{pointer_shift} bytes cannot be")
    if volume.size_bytes // block >= 1 << 32:
        raise fail(f"{volume.size_bytes // block} blocks are more than can be")
    return FileSystem(
        label=layout.text(fields.raw("fsLabel")),
        uuid=layout.uuid_text(fields.raw("uuid")),
        lv_uuid=layout.uuid_text(fields.raw("lvUUID")),
        major=major,
        version=_version(fields["minorVersion"], major),
        local=fields["magic"] == c_vmfs.FS3_MAGIC_LOCAL,
        dense=bool(fields["config"] & c_vmfs.FS3_CONFIG_DENSE_SBPC),
        block_size_bytes=block,
        large_block_bytes=block << shift if shift else 0,
        sub_block_bytes=fields["subBlockSize"],
        alignment=alignment,
        pointer_block_bytes=1 << pointer_shift if pointer_shift else 0,
        tbz_bytes=fields["tbzGranularity"] if major == 6 else 0,
        fd_base=_fd_base(alignment, block, fields),
        pb2_offset=fields["pb2VolAddr"] if major > 3 else 0,
        pb2_address=fields["pb2FDAddr"] if major > 3 else 0,
        size_bytes=volume.size_bytes,
    )


def _major(fields: layout.Fields) -> int | None:
    """What people call the version; None when it is unknown.

    Releases between those seen here share one layout, in all public readers too; .pb2.sf came with VMFS-5.
    """
    code = fields["majorVersion"]
    if 0 < code < c_vmfs.FS3_MAJOR_6:
        return c_vmfs.FS3_MAJORS.get(code, 5 if fields["pb2VolAddr"] else 3)
    return c_vmfs.FS3_MAJORS.get(code)


def _version(minor: int, major: int) -> str:
    """``3.31``: on disk, the minor number of every version made so far holds both parts in decimal."""
    return f"{major}.{minor % 100:02d}" if minor else str(major)


def _check_power(fail: Callable[[str], VmfsError], what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most or value & (value - 1):
        raise fail(f"a {what} of {value} bytes cannot be")


def _fd_base(alignment: int, block: int, fields: layout.Fields) -> int:
    """Where file descriptor 0 of cluster 0, the root directory's, lies in the volume."""
    if alignment:
        start = align_down((alignment << 10) + 4 * MiB - 1, MiB)
        header = 2 * alignment
    else:
        start = max(1, c_vmfs.FS3_FDC_BASE // block) * block
        header = c_vmfs.FS3_CLUSTER_HEADER_SIZE
    return start + fields["fdcClusterGroupOffset"] + fields["fdcClustersPerGroup"] * header
