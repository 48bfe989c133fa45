"""The sizes and places that a version and a spec decide. Pure.

Where a host takes totals from the volume's size, so do we, only smaller: a test volume needs hundreds of files, not
sixteen thousand. Header fields carry the totals; a right reader takes them from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs.spec import PE_BYTES, VolumeSpec
from vcbproxy.units import GiB, KiB, MiB, TiB, align_up

HEADER_BYTES = 0x10000
"""What precedes the first cluster group of a resource file, on every volume seen."""


_ROOMY = GiB
_TOTALS = {3: ((256, 128), (1024, 1024)), 5: ((2000, 1024), (2000, 4096)), 6: ((512, 512), (2048, 1024))}
"""Descriptors and sub-blocks of a version, on volumes below and from 1 GiB."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a resource file is laid out: groups of cluster headers, each followed by the items of its clusters."""

    magic: int
    per_cluster: int
    per_group: int
    item_bytes: int
    total: int
    cluster_header_bytes: int

    @property
    def clusters(self) -> int:
        """How many clusters there are, the last perhaps short."""
        return -(-self.total // self.per_cluster)

    @property
    def groups(self) -> int:
        """How many cluster groups, the last perhaps cut short."""
        return -(-self.clusters // self.per_group)

    @property
    def group_bytes(self) -> int:
        """Headers and items of a whole group."""
        return self.per_group * (self.cluster_header_bytes + self.per_cluster * self.item_bytes)

    @property
    def file_bytes(self) -> int:
        """The file's length: it ends with the last item that exists."""
        whole, rest = divmod(self.total, self.per_group * self.per_cluster)
        tail = self.per_group * self.cluster_header_bytes + rest * self.item_bytes if rest else 0
        return HEADER_BYTES + whole * self.group_bytes + tail

    def cluster_offset(self, cluster: int) -> int:
        """Where in the file a cluster's header lies."""
        group, member = divmod(cluster, self.per_group)
        return HEADER_BYTES + group * self.group_bytes + member * self.cluster_header_bytes

    def item_offset(self, cluster: int, item: int) -> int:
        """Where in the file an item lies."""
        group, member = divmod(cluster, self.per_group)
        headers = self.per_group * self.cluster_header_bytes
        start = HEADER_BYTES + group * self.group_bytes + headers
        return start + (member * self.per_cluster + item) * self.item_bytes


@dataclass(frozen=True, slots=True)
class Geometry:
    """Everything about a volume that does not change once it is made."""

    version: int
    lvm_major: int
    fs_major: int
    fs_minor: int
    config: int
    size_bytes: int
    block_bytes: int
    sub_block_bytes: int
    alignment: int
    """Metadata alignment: 0 before VMFS-6."""
    descriptor_bytes: int
    metadata_offset: int
    resident_offset: int
    resident_bytes: int
    """The most that fits into a descriptor; 0 = this version has no resident files."""
    pointers_offset: int
    pointers_direct: int
    pointers_block: int
    fdc_base: int
    heartbeat_bytes: int
    fdc: Shape
    pbc: Shape
    sbc: Shape
    pb2: Shape | None
    jbc: Shape | None
    indirect: bool

    @property
    def blocks(self) -> int:
        """File blocks in the volume; a rest shorter than a block is not used."""
        return self.size_bytes // self.block_bytes

    @property
    def wide(self) -> bool:
        """Whether this is VMFS-6: 64-bit pointers, hashed directories, two sizes of file block."""
        return self.version == 6


def device_bytes(spec: VolumeSpec) -> int:
    """What the volume gets on each device."""
    return align_up(spec.size_bytes, PE_BYTES)


def derive(spec: VolumeSpec, devices: int) -> Geometry:
    """Work a spec out.

    Raises:
        UsageError: no such volume can be.
    """
    size_bytes = device_bytes(spec) * devices
    limit = 64 * TiB
    if size_bytes > limit:
        raise UsageError(f"a volume holds at most 64 TiB, not {size_bytes} bytes")
    return _derive_6(spec, size_bytes) if spec.version == 6 else _derive_3_5(spec, size_bytes)


def _derive_3_5(spec: VolumeSpec, size_bytes: int) -> Geometry:
    five = spec.version == 5
    block_bytes = spec.block_size_bytes or MiB
    sub_block_bytes = spec.sub_block_bytes or (8 * KiB if five else 64 * KiB)
    fdc, pbc, sbc, pb2 = _resources_3_5(spec, size_bytes, block_bytes, sub_block_bytes)
    return Geometry(
        version=spec.version,
        lvm_major=5 if five else 3,
        fs_major=14 if five else 4,
        fs_minor=81 if five else 31,
        config=0x2 | (0x4 if five and spec.dense else 0),
        size_bytes=size_bytes,
        block_bytes=block_bytes,
        sub_block_bytes=sub_block_bytes,
        alignment=0,
        descriptor_bytes=2048,
        metadata_offset=512,
        resident_offset=1024,
        resident_bytes=1024 if five else 0,
        pointers_offset=1024,
        pointers_direct=256,
        pointers_block=1024,
        fdc_base=align_up(4 * MiB, block_bytes),
        heartbeat_bytes=512,
        fdc=fdc,
        pbc=pbc,
        sbc=sbc,
        pb2=pb2,
        jbc=None,
        indirect=bool(spec.indirect_system_files),
    )


def _resources_3_5(
    spec: VolumeSpec, size_bytes: int, block_bytes: int, sub_block_bytes: int
) -> tuple[Shape, Shape, Shape, Shape | None]:
    """Descriptors, pointer blocks, sub-blocks, and VMFS-5's second pointer blocks."""
    five = spec.version == 5
    descriptors, sub_blocks = _TOTALS[spec.version][size_bytes >= _ROOMY]
    headers, group = 1024, 64 if five else 32
    fd_cluster = 200 if five else 32
    sb_cluster = 64 if five and spec.dense else 16
    fds = _whole(spec.descriptors or descriptors, fd_cluster)
    sbs = _whole(spec.sub_blocks or sub_blocks, sb_cluster)
    pbs = _whole(spec.pointer_blocks or max(256, size_bytes // block_bytes // 512), 16)
    return (
        Shape(0x10C00005, fd_cluster, group, 2048, fds, headers),
        Shape(0x10C00004, 16, group, 4096, pbs, headers),
        Shape(0x10C00003, sb_cluster, group, sub_block_bytes, sbs, headers),
        Shape(0x10C00006, 16, 64, 4096, 64, headers) if five else None,
    )


def _derive_6(spec: VolumeSpec, size_bytes: int) -> Geometry:
    alignment = 4096
    blocks = size_bytes // MiB
    descriptors, sub_blocks = _TOTALS[spec.version][size_bytes >= _ROOMY]
    headers = 2 * alignment
    pointer_blocks = 2 * (blocks // 8192)  # they lie among the sub-blocks
    return Geometry(
        version=6,
        lvm_major=6,
        fs_major=24,
        fs_minor=82,
        config=0x4006,
        size_bytes=size_bytes,
        block_bytes=MiB,
        sub_block_bytes=64 * KiB,
        alignment=alignment,
        descriptor_bytes=2 * alignment,
        metadata_offset=alignment,
        resident_offset=alignment + 512,
        resident_bytes=alignment - 512,
        pointers_offset=2 * alignment - 2560,
        pointers_direct=320,
        pointers_block=8192,
        fdc_base=7 * MiB,
        heartbeat_bytes=alignment,
        fdc=Shape(0x10C00005, 256, 8, 2 * alignment, _whole(spec.descriptors or descriptors, 256), headers),
        pbc=Shape(0x10C00004, 1, 8, 0x10000, 0, headers),
        sbc=Shape(0x10C00003, 256, 8, 64 * KiB, _whole(spec.sub_blocks or sub_blocks + pointer_blocks, 256), headers),
        pb2=Shape(0x10C00006, 32, 8, 64 * KiB, 32, headers),
        jbc=Shape(0x10C00007, 8, 4, 2 * MiB, 8, headers),
        indirect=True if spec.indirect_system_files is None else spec.indirect_system_files,
    )


def _whole(total: int, per_cluster: int) -> int:
    return align_up(total, per_cluster)
