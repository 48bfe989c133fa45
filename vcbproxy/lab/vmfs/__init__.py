"""The lab's VMFS: LUN images with real volumes on them, and a simulated host that keeps changing them.

Comes in: a ``VolumeSpec``, then calls as a file system would get them. Goes out: bytes on the image files, written in
the order a host writes them, so that a reader on the same files sees what it would see on a shared LUN.
"""

from vcbproxy.lab.vmfs.spec import Allocation, Layout, Partition, VolumeSpec
from vcbproxy.lab.vmfs.volume import LabVolume

__all__ = ["Allocation", "LabVolume", "Layout", "Partition", "VolumeSpec"]
