"""What is known of a LUN before it is opened: LunInfo, the value that discovery makes and people see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vcbproxy.san import naa


class LunKind(Enum):
    """What a LUN is to this machine."""

    DISK = "disk"
    MULTIPATH = "multipath"
    LOOP = "loop"
    IMAGE = "image"
    PARTITION = "partition"


@dataclass(frozen=True, slots=True)
class LunInfo:
    """One LUN, or one partition of one, as it can be opened.

    Attributes:
        path: what to open.
        name: short, for people: sda, mpatha, lun0.img.
        kind: what it is to this machine.
        size_bytes: as the kernel says.
        sector_bytes: the logical sector.
        wwn: the key of its identity as made by :func:`vcbproxy.san.naa.bare`; empty when it has none. A partition has
            its LUN's.
        serial: what udev calls its serial, or the device itself.
        model: vendor and model, for people.
        read_only: whether this machine refuses to write it, as it should for a LUN that hosts use.
        partition_of: for a partition, the path of its LUN.
        partition: its number.
        start_bytes: where it starts on its LUN.
        partition_type: GUID or MBR type as udev found it; empty when unknown.
        content: what udev found on it (VMFS_volume_member, ...); empty when nothing, or no udevd is running.
        paths: the nodes of all single paths to it, when it has several.
        links: its other names in /dev.
    """

    path: str
    name: str
    kind: LunKind
    size_bytes: int
    sector_bytes: int
    wwn: str = ""
    serial: str = ""
    model: str = ""
    read_only: bool = False
    partition_of: str | None = None
    partition: int | None = None
    start_bytes: int = 0
    partition_type: str = ""
    content: str = ""
    paths: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def canonical_name(self) -> str:
        """Its identity as vCenter prints it: ``naa.…``; empty when it has none."""
        return naa.canonical(self.wwn)
