"""Resource files: the volume's tables of descriptors, sub-blocks and pointer blocks, and the bitmaps of what is taken.

    file   0            64 KiB
           ├─ header ───┼─ cluster headers ─┬─ items of cluster 0 ─┬─ items of cluster 1 ─┬─ ... │ next group
                          lock │ bitmap

A cluster header is a lock sector and a bitmap sector, each as large as the metadata alignment. The caller holds a lock.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.lab.vmfs.address import LARGE_BLOCKS
from vcbproxy.lab.vmfs.geometry import HEADER_BYTES, Geometry, Shape
from vcbproxy.lab.vmfs.image import Images
from vcbproxy.lab.vmfs.space import Space
from vcbproxy.units import TiB, align_up

FBB_CLUSTER = 200
FBB_MAGIC = 0x10C00002
LFB_MAGIC = 0x10C00008
LFB_CLUSTER = 16
LFB_GROUP = 8
_SIGNATURE = 0x72666D64
_CLUSTER_SIGNATURE = 0x72636D64
_BROKEN = 4
"""A large block broken up into small ones: so is every one on the volumes seen, used or free."""
_LAZY_ABOVE = 4 * TiB
"""Larger volumes leave the headers of untouched block clusters unwritten, or the sparse image would fill the disk."""


class Mapped:
    """Bytes of a system file by their offset in it: all its blocks are allocated when the volume is made."""

    def __init__(self, images: Images, block_bytes: int, blocks: Sequence[int]) -> None:
        self._images = images
        self._block_bytes = block_bytes
        self.blocks = list(blocks)

    def volume_offset(self, offset: int) -> int:
        """Where in the volume a file offset lies."""
        index, skip = divmod(offset, self._block_bytes)
        return self.blocks[index] * self._block_bytes + skip

    def write(self, offset: int, data: bytes) -> None:
        """Write at a file offset, across blocks."""
        done = 0
        while done < len(data):
            step = min(len(data) - done, self._block_bytes - (offset + done) % self._block_bytes)
            self._images.write(self.volume_offset(offset + done), data[done : done + step])
            done += step


def header(shape: Shape, *, six: bool, flags: int = 4) -> bytes:
    """The resource file header of everything but the file blocks."""
    per_cluster, group_bytes = shape.per_cluster, shape.group_bytes
    if shape.total == 0:
        per_cluster, group_bytes = 0, shape.per_group * shape.cluster_header_bytes
    data = _header(per_cluster, shape.per_group, shape.item_bytes, group_bytes, shape.total, shape.groups)
    if not six:
        return data
    affinity = 0x10000 | min(per_cluster, 0x100)
    return data + struct.pack("<IIIIII", _SIGNATURE, 1, flags, affinity, 1, 0)


def _header(per_cluster: int, per_group: int, item_bytes: int, group_bytes: int, total: int, groups: int) -> bytes:
    return struct.pack("<8I", per_cluster, per_group, HEADER_BYTES, item_bytes, group_bytes, total, groups, 0)


def lock_sector(magic: int, volume_offset: int) -> bytes:
    """A cluster's lock, free."""
    return struct.pack("<IQQQQ", magic, volume_offset, 0, 0, 1).ljust(128, b"\0")


def bitmap_sector(number: int, states: NDArray[np.uint8], bits: int, free: int, *, six: bool) -> bytes:
    """A cluster's bitmap: ``states`` are item values of ``bits`` bits each, least significant first."""
    total = len(states)
    available = np.flatnonzero(states & 1)
    first = int(available[0]) if len(available) else 0
    expanded = ((states[:, None] >> np.arange(bits, dtype=np.uint8)) & 1).reshape(-1)
    bitmap = np.packbits(expanded, bitorder="little").tobytes()
    if not six:
        return (struct.pack("<IIII", number, total, free, first) + bitmap).ljust(512, b"\0")
    start = struct.pack("<16xIIQHH", _CLUSTER_SIGNATURE, 0, number, total, free).ljust(0x7C, b"\0")
    return (start + struct.pack("<I", first) + bitmap).ljust(512, b"\0")


class Resource:
    """One resource file: hands out items and keeps the bitmaps on disk right."""

    def __init__(self, geometry: Geometry, shape: Shape, what: str, chance: random.Random | None) -> None:
        self.shape = shape
        self.used = np.zeros(shape.total, dtype=np.bool_)
        self.touched: set[int] = set()
        self._six = geometry.wide
        self._what = what
        self._chance = chance
        self._sector = shape.cluster_header_bytes // 2

    def take(self) -> tuple[int, int]:
        """Hand out an item: (cluster, item).

        Raises:
            TargetError: none is left.
        """
        if self._chance is None:
            number = int(np.argmin(self.used)) if self.shape.total else 0
        else:
            free = np.flatnonzero(~self.used)
            number = int(free[self._chance.randrange(len(free))]) if len(free) else 0
        if self.shape.total == 0 or self.used[number]:
            raise self._none_left()
        self.mark(number, used=True)
        return divmod(number, self.shape.per_cluster)

    def require(self, count: int) -> None:
        """Refuse to begin what cannot be finished.

        Raises:
            TargetError: fewer items are left.
        """
        if count and count > self.shape.total - int(np.count_nonzero(self.used)):
            raise self._none_left()

    def _none_left(self) -> TargetError:
        return TargetError(f"the lab volume has no {self._what} left; ask for more when making it")

    def give_back(self, cluster: int, item: int) -> None:
        """Free an item; its bytes stay."""
        self.mark(cluster * self.shape.per_cluster + item, used=False)

    def mark(self, number: int, *, used: bool) -> None:
        """Set one item's state."""
        self.used[number] = used
        self.touched.add(number // self.shape.per_cluster)

    def format(self, file: Mapped, flags: int = 4) -> None:
        """Write the header and every cluster header."""
        file.write(0, header(self.shape, six=self._six, flags=flags))
        for cluster in range(self.shape.clusters):
            offset = self.shape.cluster_offset(cluster)
            file.write(offset, lock_sector(self.shape.magic, file.volume_offset(offset)))
        self.touched.update(range(self.shape.clusters))
        self.flush(file)

    def flush(self, file: Mapped) -> None:
        """Write the bitmaps that changed."""
        for cluster in sorted(self.touched):
            first = cluster * self.shape.per_cluster
            states = (~self.used[first : first + self.shape.per_cluster]).astype(np.uint8)
            sector = bitmap_sector(cluster, states, 1, int(states.sum()), six=self._six)
            file.write(self.shape.cluster_offset(cluster) + self._sector, sector)
        self.touched.clear()


class BlockBitmap:
    """.fbb.sf: the bitmaps of file blocks. In VMFS-6 those of large blocks, and inside their groups those of small."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._total = geometry.blocks
        self._lazy = geometry.size_bytes > _LAZY_ABOVE
        header_bytes = 2 * geometry.alignment if geometry.wide else 1024
        per_cluster, per_group = (LARGE_BLOCKS, 8) if geometry.wide else (FBB_CLUSTER, geometry.fdc.per_group)
        self.small = Shape(FBB_MAGIC, per_cluster, per_group, 0, self._total, header_bytes)
        self._large_total = -(-self._total // LARGE_BLOCKS)
        per_parent = LFB_CLUSTER * LFB_GROUP
        self._parent_bytes = LFB_GROUP * header_bytes + per_parent * header_bytes
        self._per_parent = per_parent

    @property
    def cluster_blocks(self) -> int:
        """Blocks in a cluster."""
        return self.small.per_cluster

    @property
    def file_bytes(self) -> int:
        """The file's length."""
        if not self._geometry.wide:
            return self.small.file_bytes
        whole, rest = divmod(self._large_total, self._per_parent)
        header_bytes = self.small.cluster_header_bytes
        tail = (LFB_GROUP + rest) * header_bytes if rest else 0
        return HEADER_BYTES + whole * self._parent_bytes + tail

    def format(self, file: Mapped, space: Space) -> None:
        """Write headers and, unless the volume is huge, every cluster header."""
        if self._geometry.wide:
            self._format_wide_headers(file)
        else:
            file.write(0, header(self.small, six=False))
        if not self._lazy:
            space.touched.update(range(self.small.clusters))
        self.flush(file, space)

    def flush(self, file: Mapped, space: Space) -> None:
        """Write the bitmaps of clusters whose blocks changed hands."""
        six = self._geometry.wide
        for cluster in sorted(space.touched):
            first = cluster * self.small.per_cluster
            free = ~space.used[first : first + self.small.per_cluster]
            whole = six and bool(space.large[cluster])
            count = 0 if whole else int(np.count_nonzero(free))
            self._write(
                file,
                self._small_offset(cluster),
                FBB_MAGIC,
                cluster,
                free.astype(np.uint8),
                2 if six else 1,
                count,
            )
        if six:
            for cluster in sorted({cluster // LFB_CLUSTER for cluster in space.touched}):
                first = cluster * LFB_CLUSTER
                given = space.large[first : first + LFB_CLUSTER]
                states = np.where(given, 0, _BROKEN).astype(np.uint8)
                self._write(file, self._large_offset(cluster), LFB_MAGIC, cluster, states, 3, 0)
        space.touched.clear()

    def _write(
        self,
        file: Mapped,
        offset: int,
        magic: int,
        cluster: int,
        states: NDArray[np.uint8],
        bits: int,
        free: int,
    ) -> None:
        file.write(offset, lock_sector(magic, file.volume_offset(offset)))
        sector = self.small.cluster_header_bytes // 2
        file.write(offset + sector, bitmap_sector(cluster, states, bits, free, six=self._geometry.wide))

    def _small_offset(self, cluster: int) -> int:
        if not self._geometry.wide:
            return self.small.cluster_offset(cluster)
        group, member = divmod(cluster, self._per_parent)
        return HEADER_BYTES + group * self._parent_bytes + (LFB_GROUP + member) * self.small.cluster_header_bytes

    def _large_offset(self, cluster: int) -> int:
        group, member = divmod(cluster, LFB_GROUP)
        return HEADER_BYTES + group * self._parent_bytes + member * self.small.cluster_header_bytes

    def _format_wide_headers(self, file: Mapped) -> None:
        alignment = self._geometry.alignment
        parents = -(-self._large_total // self._per_parent)
        large = _header(LFB_CLUSTER, LFB_GROUP, 2 * alignment, self._parent_bytes, self._large_total, parents)
        file.write(0, large + struct.pack("<IIIIII", _SIGNATURE, 1, 0x35, 0x340348, 3, alignment))
        clusters = align_up(self.small.clusters, 8)
        small = _header(LARGE_BLOCKS, 8, 0, 8 * self.small.cluster_header_bytes, self._total, clusters // 8)
        child = struct.pack("<IIIIII", _SIGNATURE, 1, 0x2A, 0x100D8, 2, 0)
        parent = struct.pack("<III", LFB_CLUSTER, LFB_GROUP, self._parent_bytes)
        converted = struct.pack("<IIIIII", 0, 0, 0, 0, self._large_total, 0)
        file.write(alignment, small + child + parent + converted)


def runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(position in ``numbers``, first number, count) of each stretch of consecutive numbers."""
    if len(numbers) == 0:
        return
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    starts = np.concatenate([[0], breaks])
    ends = np.append(breaks, len(numbers))
    firsts = numbers[starts]
    for start, end, first in zip(starts.tolist(), ends.tolist(), firsts.tolist(), strict=True):
        yield start, first, end - start
