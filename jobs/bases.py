"""Which earlier restore point a disk can grow out of: the newest of its VM that has that very disk, in good order.

    newest ──▶ … ──▶ oldest      suspect? ─▶ passed over
      has the disk (by its uuid, wherever it is plugged in now), with a landmark of the change tracker,
      of this size, cut by this rule ─▶ its base

A disk that was added has no base, one that was detached for a week has one of a week ago, one that was moved to
another controller is recognised by what it is and not by where it hangs. That the disk in that restore point really is
what this one was at its landmark is for the change tracker to say: the landmark names the tracker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobs.manifest import KeptDisk, kept_disks, recorded_manager
from jobs.target import Past, PastPoint, Target
from vcbproxy.errors import IntegrityError
from vcbproxy.manager.changes import ChangeId
from vcbproxy.manager.disk import Disk

POINTS_MAX = 32
"""So many restore points are looked into, at most, for a disk that the newest ones do not have."""


@dataclass(frozen=True, slots=True)
class DiskBase:
    """A disk in an earlier restore point.

    Attributes:
        past: the restore point.
        key: what the disk was called there.
        change_id: its landmark then.
    """

    past: Past
    key: str
    change_id: ChangeId

    @property
    def id(self) -> str:
        """The restore point's first id, which it keeps when stock restic rewrites its record."""
        return self.past.point.original

    @property
    def name(self) -> str:
        """The restore point's name."""
        return self.past.point.name

    def load(self) -> object:
        """What its target knows of the disk's content then.

        Raises:
            IntegrityError: that is damaged.
        """
        return self.past.base(self.key)


class History:
    """The restore points that were there when the job run began; the records are read once, when first asked for."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def of(self, instance_uuid: str, manager: str | None = None) -> VmHistory:
        """Those of one VM. The index has to be loaded before any of them is read.

        Args:
            instance_uuid: which VM.
            manager: the identity of the manager that has it now; None where it has none, as a single host.
        """
        points, unknown = self._points
        found = [point for point in points if point.instance_uuid == instance_uuid]
        return VmHistory(self._target, found[::-1], unknown, manager)

    @cached_property
    def _points(self) -> tuple[Sequence[PastPoint], str]:
        """All of them; none, and why, when one cannot be read: it may have been the one that says which is suspect."""
        try:
            return self._target.points(), ""
        except IntegrityError as error:
            return [], f"which restore points there are cannot be told: {error}"


class VmHistory:
    """The restore points of one VM, newest first; ``unknown`` says why they are not known, if they are not."""

    def __init__(
        self, target: Target, newest_first: Sequence[PastPoint], unknown: str = "", manager: str | None = None
    ) -> None:
        self.unknown = unknown
        self._manager = manager
        self._target = target
        self._points = newest_first
        self._readers: dict[str, Past] = {}

    def base_for(self, disk: Disk, disks: Sequence[Disk]) -> DiskBase | str:
        """The base of a disk, or why it has none.

        Args:
            disk: as it is now.
            disks: all of the VM's: two of them may claim one uuid, as copies do.
        """
        unambiguous = disk.uuid is not None and Counter(other.uuid for other in disks)[disk.uuid] == 1
        first_reason = self.unknown
        for point in self._points[:POINTS_MAX]:
            if point.suspect:
                first_reason = first_reason or f"{point.name} is suspect, by an earlier audit"
                continue
            try:
                reader = self._reader(point)
            except IntegrityError as error:
                first_reason = first_reason or f"{point.name} is damaged: {error}"
                continue
            found = _same(disk, kept_disks(reader.manifest), by_uuid_alone=unambiguous)
            if found is None or not reader.has(found.key):
                continue
            reason = _unfit(found, disk) or self._target.unfit(found) or self._elsewhere(reader.manifest)
            if reason is None and found.change_id is not None:
                return DiskBase(reader, found.key, ChangeId.parse(found.change_id))
            first_reason = first_reason or f"{point.name} {reason}"
            if found.change_id is None:
                break  # what was written then is in no list, so that none reaches back beyond it
        return first_reason or f"no earlier restore point{' has this disk' if self._points else ''}"

    def _elsewhere(self, manifest: Mapping[str, Any]) -> str | None:
        """Why a restore point may be of another VM after all; to follow its name.

        A LUN that the array replicates, brought up at another site beside the original, has a VM with the same uuids
        and the same tracker, which counts on for itself.
        """
        then = recorded_manager(manifest)
        if self._manager is None or then is None or then == self._manager:
            return None
        return "was made through another vCenter: its change ids may be those of a copy"

    def chain(self, base: DiskBase) -> list[PastPoint]:
        """A base and those before it whose content of the disk rests, too, on what the change tracker told.

        Newest first; the base is the first of them, however it was read.
        """
        keys = {point.id for point in self._points}
        assert base.past.point.id in keys, "a base of another VM"
        found: list[PastPoint] = []
        uuid = next((disk.uuid for disk in kept_disks(base.past.manifest) if disk.key == base.key), None)
        for point in self._points:
            if not found and point.id != base.past.point.id:
                continue
            kept = self._kept(point, uuid, base.key)
            if not found or (kept is not None and kept.on_trust):
                found.append(point)
            if kept is not None and kept.method == "full":
                break
        return found

    def _kept(self, point: PastPoint, uuid: str | None, key: str) -> KeptDisk | None:
        """What a restore point recorded of a disk; None when it is not in it, or the point cannot be read."""
        try:
            kept = kept_disks(self._reader(point).manifest)
        except IntegrityError:
            return None
        same = [disk for disk in kept if (disk.uuid == uuid if uuid else disk.key == key)]
        return next((disk for disk in same if disk.key == key), same[0] if same else None)  # copies share a uuid

    def _reader(self, point: PastPoint) -> Past:
        if point.id not in self._readers:
            self._readers[point.id] = self._target.past(point)
        return self._readers[point.id]


def _same(disk: Disk, kept: Sequence[KeptDisk], *, by_uuid_alone: bool) -> KeptDisk | None:
    """The same disk among those of a restore point, by what it is; None when there is none for certain."""
    if disk.uuid is None:
        file = str((disk.path, *disk.parents)[-1])
        return next((one for one in kept if not one.uuid and one.key == disk.key and one.paths[-1:] == (file,)), None)
    named = [one for one in kept if one.uuid == disk.uuid]
    if by_uuid_alone and len(named) == 1:
        return named[0]
    return next((one for one in named if one.key == disk.key), None)


def _unfit(kept: KeptDisk, disk: Disk) -> str | None:
    """Why a disk in a restore point cannot be built upon; to follow the point's name."""
    if kept.change_id is None:
        return "was made while its changes were not tracked"
    if kept.capacity_bytes != disk.capacity_bytes:
        return f"has it with {kept.capacity_bytes} bytes; it was resized to {disk.capacity_bytes}"
    return None
