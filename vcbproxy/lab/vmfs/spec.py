"""What a lab volume is asked to be: its version, size, devices, and the ways it may differ.

Every field has a default that the version decides, so that most tests name only the version. Sizes are what *this
volume* gets on each device; the image file is larger by the partition's start, 17 MiB of LVM metadata per 16 TiB, and
room for a backup partition table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from vcbproxy.errors import UsageError
from vcbproxy.units import GiB, KiB, MiB

Version = Literal[3, 5, 6]

PE_BYTES = 256 * MiB
"""A physical extent, the unit in which a device is given to a volume."""


class Partition(Enum):
    """What lies before the volume on each device."""

    NONE = "none"
    MBR = "mbr"
    GPT = "gpt"


class Layout(Enum):
    """Where a file's bytes lie. ``AUTO`` is what a host would choose for the size."""

    AUTO = "auto"
    RESIDENT = "resident"
    SUB_BLOCK = "sub-block"
    BLOCKS = "blocks"
    POINTERS = "pointers"
    DOUBLE = "double"


class Allocation(Enum):
    """When a file's blocks are allocated and zeroed."""

    THIN = "thin"
    """On the first write."""
    ZEROEDTHICK = "zeroedthick"
    """Allocated at creation, to be zeroed (TBZ): the disk underneath holds stale bytes that must never be seen."""
    EAGER = "eagerzeroedthick"
    """Allocated and zeroed at creation."""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume to make. The zero of an optional size means: as a host would choose for this version."""

    version: Version = 5
    label: str = "lab"
    seed: int = 1
    size_bytes: int = 4 * GiB
    """Per device, rounded up to whole physical extents of 256 MiB."""
    block_size_bytes: int = 0
    sub_block_bytes: int = 0
    dense: bool = True
    """VMFS-5: 64 instead of 16 sub-blocks in a cluster, and the flag that says so."""
    partition: Partition = Partition.NONE
    wwns: tuple[str, ...] = ()
    """NAA names, one a device (bare hex or ``naa.``...); made from the seed when left out."""
    scatter: bool = False
    """Hand out blocks in a seeded random order instead of one after the other."""
    scatter_run_blocks: int = 1
    """With ``scatter``: the longest run of neighbours still handed out together."""
    shuffle_extents: bool = False
    """Before LVM-6: physical extents lie on their device in a seeded random order; only the extent table tells."""
    descriptors: int = 0
    """How many files fit; 0 = by the volume's size."""
    sub_blocks: int = 0
    pointer_blocks: int = 0
    indirect_system_files: bool | None = None
    """Address .fdc.sf and .sbc.sf (VMFS-6: .sbc.sf) through pointer blocks, as hosts do on some geometries."""

    def __post_init__(self) -> None:
        """Refuse what no host would make."""
        blocks = {3: (1, 2, 4, 8), 5: (0.5, 1, 2, 4, 8), 6: (1,)}[self.version]
        if self.block_size_bytes and self.block_size_bytes / MiB not in blocks:
            raise UsageError(f"VMFS-{self.version} has no {self.block_size_bytes // KiB} KiB blocks")
        if self.size_bytes < PE_BYTES:
            raise UsageError(f"a volume needs at least {PE_BYTES // MiB} MiB on each device")
        if len(self.label.encode()) > 127:
            raise UsageError(f"label too long: {self.label!r}; at most 127 bytes of UTF-8")
