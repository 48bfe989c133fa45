"""Puts the devices of a volume together: one range of bytes from 0 to the volume's size.

    logical   0          2 GiB        4 GiB                rows: logical start, device, device offset
              ├─ dev 0 ──┼─ dev 1 ────┤

In: members (``lvm``) in any order. Out: ``LogicalVolume``, a device whose runs name the real devices. Promised:
every device of the volume is there exactly once, all agree on the volume, and their parts leave no gap; else
``LvmError`` names the device to add or to take away.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from vcbproxy.device import Device
from vcbproxy.errors import LvmError
from vcbproxy.vmfs import lvm, runs
from vcbproxy.vmfs.layout import Offsets
from vcbproxy.vmfs.runs import Columns

Rows = tuple[Offsets, Offsets, Columns, Offsets]


class LogicalVolume(runs.Mapped):
    """The bytes of a volume, wherever they lie; ``members`` are in the order of ``devices``."""

    def __init__(
        self, name: str, devices: Sequence[Device], layout: runs.RunMap, members: Sequence[lvm.Member] = ()
    ) -> None:
        super().__init__(name, layout, devices)
        self.members = tuple(members)

    def recheck(self) -> None:
        """Read the devices' headers again.

        A path that was not checked, or an array, may have put another LUN in the place of one; where metadata and data
        lie on two devices, the metadata tell nothing of the data's.

        Raises:
            LvmError: a device is another one than it was.
            DeviceError: it cannot be read.
        """
        for member in self.members:
            if not lvm.is_member(member.device, member.start):
                raise LvmError(
                    device=member.device.name, reason="it has no LVM header any more: another LUN lies there"
                )
            now = lvm.parse(member.device, member.start, member.length)
            if (now.device_uuid, now.volume_uuid) != (member.device_uuid, member.volume_uuid):
                reason = f"it was device {member.device_uuid} of volume {member.volume_uuid},"
                reason += f" now it is {now.device_uuid} of {now.volume_uuid}"
                raise LvmError(device=member.device.name, reason=reason)

    def place(self, file: runs.RunMap) -> runs.RunMap:
        """Turn runs whose device 0 is this volume into runs on the real devices."""
        build = runs.Builder()
        edges, devices, places = self._runs.file_offset, self._runs.device, self._runs.device_offset
        for starts, lengths, wheres, inside in file.chunks():
            starts, lengths, wheres, inside = self._cut(starts, lengths, wheres, inside)
            row = np.searchsorted(edges, inside, side="right") - 1
            zero = wheres == runs.ZERO
            build.add(starts, lengths, np.where(zero, wheres, devices[row]), places[row] + inside - edges[row])
        return build.finish(file.size_bytes)

    def _cut(self, starts: Offsets, lengths: Offsets, wheres: Columns, inside: Offsets) -> Rows:
        """Cut runs that cross from one piece of the volume to the next; they are few."""
        edges = self._runs.file_offset
        last = np.searchsorted(edges, inside + lengths - 1, side="right") - 1
        crossing = (last > np.searchsorted(edges, inside, side="right") - 1) & (wheres != runs.ZERO)
        for row in np.flatnonzero(crossing)[::-1].tolist():
            begin, end = int(inside[row]), int(inside[row] + lengths[row])
            cuts = edges[(edges > begin) & (edges < end)]
            starts = np.insert(starts, row + 1, starts[row] + cuts - begin)
            inside = np.insert(inside, row + 1, cuts)
            wheres = np.insert(wheres, row + 1, np.repeat(wheres[row], len(cuts)))
            pieces = np.diff(np.concatenate(([begin], cuts, [end])))
            lengths = np.concatenate((lengths[:row], pieces, lengths[row + 1 :]))
        return starts, lengths, wheres, inside


def whole(device: Device) -> LogicalVolume:
    """A device that is itself a logical volume: a file system without LVM, as in a copy of ``/dev/lvm/<volume>``."""
    return LogicalVolume(device.name, (device,), runs.of_one(0, 0, device.size_bytes))


def assemble(members: Sequence[lvm.Member]) -> LogicalVolume:
    """Put the members of one volume together, whatever order they come in.

    Raises:
        LvmError: a device is missing, foreign, given twice or damaged.
    """
    _check_agreement(members)
    parts = sorted(((member, lvm.extents_of(member)) for member in members), key=lambda part: part[1].first)
    _check_complete(parts)
    logical = np.concatenate([part.logical for _, part in parts])
    physical = np.concatenate([part.physical for _, part in parts])
    length = np.concatenate([part.length for _, part in parts])
    device = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part.logical) for _, part in parts])
    order = np.argsort(logical, kind="stable")
    logical, physical, length, device = logical[order], physical[order], length[order], device[order]
    name, size_bytes = members[0].volume_name, members[0].volume_size_bytes
    _check_tiling(name, logical, length, size_bytes)
    build = runs.Builder()
    build.add(logical, length, device, physical)
    layout = build.finish(size_bytes)
    ordered = [member for member, _ in parts]
    return LogicalVolume(name, [member.device for member in ordered], layout, ordered)


def _check_agreement(members: Sequence[lvm.Member]) -> None:
    first = members[0]
    for member in members[1:]:
        if member.volume_uuid != first.volume_uuid:
            reason = f"belongs to volume {member.volume_uuid}, but {first.device.name} to {first.volume_uuid}"
            raise LvmError(device=member.device.name, reason=reason)
        for what, mine, theirs in (
            ("LVM version", member.major, first.major),
            ("volume size", member.volume_size_bytes, first.volume_size_bytes),
            ("number of devices", member.devices, first.devices),
            ("volume generation", member.volume_generation, first.volume_generation),
        ):
            if mine != theirs:
                reason = f"its {what} is {mine}, but that of {first.device.name} is {theirs}: they are not of one time"
                raise LvmError(device=member.device.name, reason=reason)


def _check_complete(parts: Sequence[tuple[lvm.Member, lvm.PhysicalExtents]]) -> None:
    first = parts[0][0]
    for (before, extents), (member, others) in itertools.pairwise(parts):
        if extents.first == others.first:
            reason = f"holds the same part of volume {first.volume_name} as {before.device.name}; give one of the two"
            raise LvmError(device=member.device.name, reason=reason)
    if len(parts) < first.devices:
        covered = [(extents.first, extents.end) for _, extents in parts]
        missing = missing_text(covered, first.devices, first.volume_size_bytes)
        raise LvmError(device=first.device.name, reason=f"of volume {first.volume_name}, {missing}; all are needed")
    if len(parts) > first.devices:
        reason = f"volume {first.volume_name} has {first.devices} devices, but {len(parts)} were given"
        raise LvmError(device=parts[-1][0].device.name, reason=reason)


def missing_positions(covered: Sequence[tuple[int, int]], devices: int, size: int) -> list[int]:
    """Which devices (1, 2, ...) are missing, told from the gaps between what the others cover, in order.

    Empty when nothing is missing, or when several gaps could each hide several devices.
    """
    lacking = devices - len(covered)
    gaps: list[int] = []  # before which of the present ones
    reached = 0
    for index, (start, end) in enumerate([*covered, (size, size)]):
        if start > reached:
            gaps.append(index)
        reached = max(reached, end)
    if lacking <= 0 or not gaps or (len(gaps) > 1 and lacking != len(gaps)):
        return []
    each = lacking if len(gaps) == 1 else 1
    return [gap + 1 + number * each + step for number, gap in enumerate(gaps) for step in range(each)]


def missing_text(covered: Sequence[tuple[int, int]], devices: int, size: int) -> str:
    """``device 2 of 3 is missing``."""
    positions = missing_positions(covered, devices, size)
    if len(positions) == 1:
        return f"device {positions[0]} of {devices} is missing"
    if positions:
        return f"devices {', '.join(map(str, positions))} of {devices} are missing"
    return f"{devices - len(covered)} of {devices} devices are missing"


def _check_tiling(name: str, logical: Offsets, length: Offsets, size_bytes: int) -> None:
    reached = np.concatenate((np.zeros(1, np.int64), logical + length))
    wrong = np.flatnonzero(logical != reached[:-1])
    if len(wrong):
        at = int(reached[wrong[0]])
        kind = "overlap" if logical[wrong[0]] < at else "leave a gap"
        raise LvmError(device=name, reason=f"its physical extents {kind} at volume offset {at:#x}")
    if reached[-1] < size_bytes:
        raise LvmError(device=name, reason=f"its devices hold {int(reached[-1])} bytes of {size_bytes}")
