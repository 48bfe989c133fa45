"""Resource files: the system files that hold file descriptors, sub-blocks and pointer blocks by (cluster, item).

    header │ group 0: cluster headers │ data of its clusters │ group 1: ...
           └ first group offset                              └ + group size

    item r of cluster c, with R items to a cluster and C clusters to a group, lies in the file at
        first group + (c div C) · group size + C · header size + ((c mod C) · R + r) · item size

In: the resource file's runs. Out: where in the volume an item lies. Promised: an item outside the header's totals
raises. All geometry is the header's: totals and cluster sizes differ from volume to volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vcbproxy.device import Device, read
from vcbproxy.errors import VmfsError
from vcbproxy.vmfs import c_vmfs, layout, runs
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.inode import Inode
from vcbproxy.vmfs.layout import Offsets


@dataclass(frozen=True, slots=True)
class Resource:
    """An opened resource file. ``map`` has the volume as its only device."""

    name: str
    volume_name: str
    per_cluster: int
    clusters_per_group: int
    first_group: int
    item_bytes: int
    group_bytes: int
    total: int
    cluster_header_bytes: int
    map: runs.RunMap

    def offsets(self, cluster: Offsets, item: Offsets, file: str) -> Offsets:
        """Where in the resource file items lie.

        Raises:
            VmfsError: ``file`` refers to an item that does not exist.
        """
        bad = (item >= self.per_cluster) | (cluster * self.per_cluster + item >= self.total)
        if bad.any():
            worst = int(np.argmax(bad))
            where = f"cluster {int(cluster[worst])} item {int(item[worst])}"
            raise self._error(file, f"refers to {where} of {self.name}, which has {self.total} items", 0)
        group, inside = np.divmod(cluster, self.clusters_per_group)
        start = self.first_group + group * self.group_bytes + self.clusters_per_group * self.cluster_header_bytes
        place: Offsets = start + (inside * self.per_cluster + item) * self.item_bytes
        past = place + self.item_bytes > self.map.size_bytes
        if past.any():
            raise self._error(file, f"refers to an item past the end of {self.name}", int(place[np.argmax(past)]))
        return place

    def place(self, cluster: int, item: int, file: str) -> int:
        """Where in the resource file one item lies."""
        return int(self.offsets(np.array([cluster], np.int64), np.array([item], np.int64), file)[0])

    def pieces(self, place: int, file: str) -> Iterator[runs.Run]:
        """Where in the volume one item lies; ``file_offset`` is from the item's start.

        Raises:
            VmfsError: in a hole of the resource file.
        """
        for run in self.map.between(place, self.item_bytes):
            if run.is_zero:
                raise self._error(file, f"refers to an item in a hole of {self.name}", place)
            yield runs.Run(run.file_offset - place, run.length, 0, run.device_offset)

    def _error(self, file: str, reason: str, offset: int) -> VmfsError:
        return VmfsError(volume=self.volume_name, file=file, reason=reason, offset=offset)


def load(volume: Device, fs: FileSystem, inode: Inode, map_: runs.RunMap) -> Resource:
    """Read a resource file's header.

    Raises:
        VmfsError: it holds no usable geometry.
    """
    size = c_vmfs.FS3_ResourceHeader.itemsize
    if map_.size_bytes < size:
        raise VmfsError(volume=fs.name, file=inode.name, reason="it is too short for its header", offset=inode.offset)
    raw = read(runs.Mapped(inode.name, map_, (volume,)), 0, size)
    header = layout.Fields(c_vmfs.FS3_ResourceHeader, raw)
    if fs.alignment and header["signature"] != c_vmfs.FS6_RFMD_SIGNATURE:
        reason = f"no resource file header: signature {header['signature']:#x}"
        raise VmfsError(volume=fs.name, file=inode.name, reason=reason, offset=inode.offset)
    resource = Resource(
        name=inode.name,
        volume_name=fs.name,
        per_cluster=header["resourcesPerCluster"],
        clusters_per_group=header["clustersPerGroup"],
        first_group=header["clusterGroupOffset"],
        item_bytes=header["resourceSize"],
        group_bytes=header["clusterGroupSize"],
        total=header["numResourcesLo"] | header["numResourcesHi"] << 32,
        cluster_header_bytes=fs.cluster_header_bytes,
        map=map_,
    )
    _check(resource, fs, inode)
    return resource


def _check(resource: Resource, fs: FileSystem, inode: Inode) -> None:
    if resource.total == 0:
        return  # .pbc.sf of VMFS-6: nobody may refer to it, and `offsets` lets nobody
    group = resource.clusters_per_group * (resource.cluster_header_bytes + resource.per_cluster * resource.item_bytes)
    sane = (
        1 <= resource.per_cluster <= 1 << 16
        and 1 <= resource.clusters_per_group <= 1 << 16
        and 512 <= resource.item_bytes <= 1 << 24
        and resource.item_bytes % 512 == 0
        and resource.group_bytes >= group
        and resource.total // (resource.per_cluster * resource.clusters_per_group) * resource.group_bytes < 1 << 60
    )
    if not sane:
        reason = (
            f"its header cannot be: {resource.total} items of {resource.item_bytes} bytes, "
            f"{resource.per_cluster} a cluster, "
            f"{resource.clusters_per_group} clusters a group of {resource.group_bytes} bytes"
        )
        raise VmfsError(volume=fs.name, file=inode.name, reason=reason, offset=inode.offset)
