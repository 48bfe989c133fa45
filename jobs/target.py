"""Where backups go: the seam that a repository fills, and so does an archive on tape.

    target ─▶ lane     as many as VMs can be backed up at once: a drive each, or just the repository
    lane   ─▶ point    begun before the VM snapshot; only ``commit`` makes it a restore point
    point  ─▶ disk     ``whole`` or ``changes``, then ``keep`` once it is proven that the disk stood still

What a disk grows out of is the target's own: it hands out what it knows of an earlier restore point
(``Past.base``), and gets it back in ``audit`` and ``changes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from jobs.manifest import KeptDisk
from vcbproxy.device import MappedDevice
from vcbproxy.errors import CartridgeFailed
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit
from vcbproxy.pipeline.crew import Cancel, Interrupt
from vcbproxy.repository.writer import PointInfo


class PastPoint(Protocol):
    """An earlier restore point in a list."""

    @property
    def id(self) -> str:
        """What it is known by now."""

    @property
    def original(self) -> str:
        """What it was first known by, and what others refer to."""

    @property
    def name(self) -> str:
        """``web01@2026-11-22T01:00:00Z``."""

    @property
    def instance_uuid(self) -> str:
        """Of which VM it is."""

    @property
    def time(self) -> datetime:
        """When it was as it was."""

    @property
    def suspect(self) -> bool:
        """Whether it was found not to be relied upon."""


class Past(Protocol):
    """An earlier restore point that is looked into."""

    @property
    def point(self) -> PastPoint:
        """Which."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the backup recorded then."""

    def has(self, key: str) -> bool:
        """Whether the disk is in it."""

    def base(self, key: str) -> object:
        """What is known of a disk's content in it.

        Raises:
            IntegrityError: that is damaged.
        """


@dataclass(frozen=True, slots=True)
class Effort:
    """How a disk is read.

    Attributes:
        workers: threads that digest and compress.
        progress: called with the number of bytes that are done.
        interrupt: makes a read that hangs come back, if it is one of the threads that it is called with.
        cancel: looked at a few times a second.
    """

    workers: int
    progress: Callable[[int], None]
    interrupt: Interrupt | None = None
    cancel: Cancel | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Which of what did not change is read all the same: a share of it, but at least so many, drawn by the seed."""

    seed: int
    share: float
    least: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What it took to copy a disk.

    Attributes:
        bytes_total: the disk's size.
        bytes_read: read from the LUNs.
        bytes_zero: known to be zero, or found to be.
        bytes_stored: by how much the target grew.
        untold: where something was read around changes that is not the base's, though no change was told of it.
    """

    bytes_total: int
    bytes_read: int
    bytes_zero: int
    bytes_stored: int
    untold: tuple[int, ...] = ()


class DiskInto(Protocol):
    """One disk of a restore point that is being written. A copy begun again takes the place of the one before."""

    def whole(self, source: MappedDevice, effort: Effort) -> Taken:
        """Copy all of it.

        Raises:
            SourceError: it could not be read.
            TargetError: it could not be stored.
        """

    def changes(self, source: MappedDevice, base: object, changed: Areas, effort: Effort) -> Taken:
        """Copy what changed, upon a base.

        Raises:
            SourceError: it could not be read.
            TargetError: it could not be stored.
        """

    def audit(self, source: MappedDevice, base: object, changed: Areas, sample: Sample, effort: Effort) -> Audit:
        """Read some of what did not change, and compare it with the base.

        Raises:
            SourceError: it could not be read.
            IntegrityError: the base is of no use.
        """

    def keep(self) -> None:
        """The disk stood still: what was copied last belongs to the restore point.

        Raises:
            TargetError: it could not be stored.
        """

    def abandon(self) -> None:
        """Leave the disk out.

        Raises:
            TargetError: what others rely on could not be stored.
        """

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What the manifest is to say of how it is kept."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A restore point that is safe now.

    Attributes:
        id: its own.
        media: on which cartridges, how fast, and the like; None in a repository.
    """

    id: str
    media: Mapping[str, Any] | None = None


class PointInto(AbstractContextManager[Any], Protocol):
    """A restore point that is being written. Leaving it without ``commit`` leaves none."""

    def taken_at(self, moment: datetime) -> None:
        """When the VM snapshot was made; told before the first disk."""

    def disk(self, key: str, size_bytes: int) -> DiskInto:
        """Begin a disk."""

    def file(self, name: str, data: bytes) -> None:
        """Keep a small file."""

    def suspect(self, earlier: PastPoint) -> None:
        """An earlier restore point is not to be relied upon.

        Raises:
            TargetError: that could not be noted.
        """

    def commit(self, manifest: Mapping[str, Any], *, partial: bool = False) -> Committed:
        """Make it a restore point.

        Raises:
            TargetError: it could not be stored; there is none then.
        """


class Lane(Protocol):
    """Takes one restore point at a time."""

    def begin(self, info: PointInfo) -> PointInto:
        """Begin a restore point.

        Raises:
            TargetError: it cannot be written to.
            Busy: somebody else holds it.
        """

    def give_up(self, error: CartridgeFailed) -> None:
        """What is written to does not take any more: the next restore point goes elsewhere."""


class Target(Protocol):
    """Where restore points go."""

    @property
    def lanes(self) -> int:
        """How many VMs may be backed up at once."""

    def lane(self) -> AbstractContextManager[Lane]:
        """A way in for one thread.

        Raises:
            CartridgeWanted: there is none to write to.
            Busy: every drive is taken.
        """

    def points(self) -> Sequence[PastPoint]:
        """The restore points that are there, newest last.

        Raises:
            IntegrityError: which there are cannot be told.
        """

    def past(self, point: PastPoint) -> Past:
        """Look into one of them.

        Raises:
            IntegrityError: it is damaged, or what is needed of it is not at hand.
        """

    def unfit(self, kept: KeptDisk) -> str | None:
        """Why a disk, as it was kept then, cannot be built upon; to follow the point's name. None: it can."""
