"""What the catalog keeps of restore points on tape, as everybody else sees it.

    point web01@2026-11-27T01:00:00Z
    └─ file scsi0-0.raw.zst     part 1 on TAP001L8 · part 2 on TAP002L8
       file vm.json             part 1 on TAP002L8

All of it can be read off the cartridges again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ArchivedPart:
    """One file on one cartridge: a whole file of a restore point, or a part of one.

    Attributes:
        file: what all its parts together are called: ``scsi0-0.raw.zst``.
        number: from 1, in the order in which they are joined.
        path: of the part, on its LTFS volume.
        barcode: of the cartridge.
        volume_uuid: of the LTFS volume on it; a cartridge formatted anew has another.
        size_bytes: of the part.
        sha256: of the part, in hex.
    """

    file: str
    number: int
    path: str
    barcode: str
    volume_uuid: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ArchivedPoint:
    """One restore point on tape.

    Attributes:
        id: 32 hex digits, given when it was written; in its ``vm.json``, too.
        vm: the VM's name.
        vm_uuid: its instance uuid.
        time: when it was frozen, UTC.
        pool: the pool that it was written to.
        media_set: the cartridges that are kept and expire together.
        base: the id of the restore point that its delta images build on; None when it stands alone.
        parts: everything that it consists of, by file and number.
        size_bytes: of its disks, as the VM has them; None where an older version noted it.
        partial: whether some disk of the VM is not in it; None likewise.
        suspect_because: why it may hold what the VM did not have; nothing, where nobody found that.
        pinned: whether no rule gives up the cartridges that it needs.
        pinned_because: why, where somebody said so.
    """

    id: str
    vm: str
    vm_uuid: str
    time: datetime
    pool: str
    media_set: str
    base: str | None
    parts: tuple[ArchivedPart, ...]
    size_bytes: int | None = None
    partial: bool | None = None
    suspect_because: str = ""
    pinned: bool = False
    pinned_because: str = ""

    @property
    def suspect(self) -> bool:
        """Whether it is not to be relied upon."""
        return bool(self.suspect_because)

    @property
    def ids(self) -> tuple[str, ...]:
        """All that it goes by."""
        return (self.id,)

    @property
    def instance_uuid(self) -> str:
        """Which VM it is of, in the words of ``pointname``."""
        return self.vm_uuid

    @property
    def name(self) -> str:
        """What people call it: ``web01@2026-11-27T01:00:00Z``."""
        return f"{self.vm}@{self.time:%Y-%m-%dT%H:%M:%SZ}"

    @property
    def barcodes(self) -> tuple[str, ...]:
        """The cartridges that it lies on, in the order in which they were written."""
        return tuple(dict.fromkeys(part.barcode for part in self.parts))


@dataclass(frozen=True, slots=True)
class Pin:
    """Whether a restore point is pinned.

    Attributes:
        point: its id.
        name: what people call it.
        holds: whether it is; else it was, and was unpinned.
        reason: why, where somebody said so.
        changed: when that was said.
    """

    point: str
    name: str
    holds: bool
    reason: str
    changed: datetime


@dataclass(frozen=True, slots=True)
class Outline:
    """As much of a restore point as says what must be kept for it.

    Attributes:
        id: the restore point's.
        name: what people call it.
        base: the id of the one that it builds on.
        barcodes: the cartridges that it lies on, in any order.
    """

    id: str
    name: str
    base: str | None
    barcodes: tuple[str, ...]


class Outlined(Protocol):
    """What an outline and a whole record have in common."""

    @property
    def id(self) -> str:
        """The restore point's."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def base(self) -> str | None:
        """The id of the one that it builds on."""

    @property
    def barcodes(self) -> tuple[str, ...]:
        """The cartridges that it lies on."""
