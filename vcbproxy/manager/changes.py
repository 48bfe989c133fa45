"""Which areas of a disk were written between two snapshots, as the host that tracks them tells; and only that.

    asked from 0 ──▶ [0, a) told ──▶ asked from a ──▶ [a, b) told ──▶ … ──▶ the disk's end

An answer covers ``startOffset … startOffset + length`` and no more: about 2000 areas, then one has to ask again. It may
name what did not change, never omit what did: that is the API's promise, and several releases broke it, which is why
whoever uses the list audits it. Here every answer is held to what must be true of any: it begins where it was asked
to, it gets ahead, its areas are in order and inside of what it covers, and it speaks of a disk of this size. One that
does not is no answer, and none of the others is believed either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyVmomi import vim, vmodl

from vcbproxy.clock import Clock
from vcbproxy.errors import ChangesUnknown, ManagerError
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm
from vcbproxy.units import KiB, MiB

EVERYTHING = "*"
"""In place of a change id: which areas were ever written since tracking began."""
PRIVILEGE = "VirtualMachine.Provisioning.DiskRandomRead"

_AREA_BYTES_MIN = 64 * KiB  # no host tracks finer; answers that cover less on average lead nowhere
_ANSWERS_MORE = 16
_PAST_THE_END_MAX = 4 * MiB  # areas are whole ones to the end, disks are not
_TRIES = 5
_PAUSE_S = 2.0

Ranges = NDArray[np.int64]


class Cause(Enum):
    """Why nobody can tell what changed."""

    FOREIGN = "foreign-change-id"
    """The host does not know the change id: tracking began anew since, or it is another disk."""
    UNTRACKED = "not-tracked"
    """Changes are not tracked, or the file they are tracked in cannot be read."""
    GONE = "gone"
    """The disk or the snapshot is not there any more."""
    PRIVILEGE = "no-privilege"
    NONSENSE = "nonsense"
    """The answers cannot be."""
    OTHER = "other"


_SAYING = {
    Cause.FOREIGN: "the host does not know that change id any more: tracking began anew since, as after a revert, a "
    "Storage vMotion or a host's crash",
    Cause.UNTRACKED: "its changes are not tracked, or the host cannot read where it tracks them",
    Cause.GONE: "the manager does not find the disk or its snapshot any more",
    Cause.PRIVILEGE: f"the privilege {PRIVILEGE} is missing; add it to the user's role (docs/operating.md 3.9)",
}


@dataclass(frozen=True, slots=True)
class ChangeId:
    """A landmark of the change tracker. Its form, ``<uuid>/<number>``, is not documented; other forms are kept whole.

    Attributes:
        text: as the manager told it.
        tracker: what stays the same for as long as one tracker goes on; None when it has another form.
        number: counts up with each snapshot; 0 when it has another form.
    """

    text: str
    tracker: str | None
    number: int

    @classmethod
    def parse(cls, text: str) -> ChangeId:
        """Take it apart, where it looks as expected."""
        tracker, slash, number = text.rpartition("/")
        if not (slash and tracker and number.isdecimal() and number.isascii()):
            return cls(text, None, 0)
        return cls(text, tracker, int(number))

    def follows(self, earlier: ChangeId) -> bool:
        """Whether changes from the earlier one up to this one may be asked for.

        Another tracker, or one that counts less, says that the disk did not simply go on from there. So does one that
        stands still: each snapshot has a landmark of its own, and this one is of a later snapshot. A LUN that its array
        has rolled back holds the tracker as it was then, which gives the same landmarks out again.
        """
        if self.tracker is None or earlier.tracker is None:
            return self.tracker is earlier.tracker and self.text != earlier.text
        return self.tracker == earlier.tracker and self.number > earlier.number


def changed(session: Session, vm: Vm, frozen: VmSnapshot, disk: Disk, since: str, clock: Clock) -> Ranges:
    """The areas of a disk that were written after a landmark, up to the snapshot.

    Args:
        session: the manager.
        vm: whose disk.
        frozen: the snapshot.
        disk: one of its disks.
        since: a change id of an earlier snapshot; EVERYTHING for all areas that are in use.
        clock: paces the attempts when a host has the disk's tracking file in use, or another passing trouble.

    Returns:
        int64 (n, 2): offset and length in bytes, in order, not overlapping, inside the disk; as the host rounded them.

    Raises:
        ChangesUnknown: the manager cannot tell, or tells what cannot be; ``cause`` says why.
    """
    found = [*_pages(session, vm, frozen, disk, since, clock), np.zeros((0, 2), np.int64)]
    return np.concatenate(found)


def _pages(session: Session, vm: Vm, frozen: VmSnapshot, disk: Disk, since: str, clock: Clock) -> Iterator[Ranges]:
    start, told = 0, 0
    answers_max = disk.capacity_bytes // _AREA_BYTES_MIN + _ANSWERS_MORE
    for _ in range(answers_max):
        answer = _asked(session, vm, frozen, disk, start, since, clock)
        page = _held_to_sense(disk, answer, start, told)
        yield page
        start += int(answer.length)
        told = int(page[-1].sum()) if len(page) else told
        if start >= disk.capacity_bytes:
            return
    raise _nonsense(disk, f"after {answers_max} answers they have come no further than {start}")


def _asked(session: Session, vm: Vm, frozen: VmSnapshot, disk: Disk, start: int, since: str, clock: Clock) -> Any:
    """One answer. A tracking file that is in use is waited for a little; to read a whole disk takes longer."""

    def ask(wire: Any) -> Any:
        machine = wire.object(vim.VirtualMachine, vm.moref)
        snapshot = wire.object(vim.vm.Snapshot, frozen.moref)
        return machine.QueryChangedDiskAreas(snapshot, disk.device_key, start, since)

    for attempt in range(1, _TRIES + 1):
        try:
            return session.read(ask)
        except ManagerError as error:
            cause = _cause(error)
            passing = cause is Cause.OTHER or trouble_of(error) is Trouble.BUSY
            if attempt == _TRIES or not passing or trouble_of(error) is Trouble.CONNECTION:  # that was waited for
                saying = _SAYING.get(cause)
                reason = f"{saying} ({error})" if saying else str(error)
                raise ChangesUnknown(disk=disk.key, reason=reason, cause=cause) from error
        clock.sleep(_PAUSE_S)
    raise AssertionError("unreachable")


def _cause(error: ManagerError) -> Cause:
    match error.__cause__:
        case vmodl.fault.InvalidArgument():
            return Cause.FOREIGN
        case vim.fault.FileFault():
            return Cause.UNTRACKED
        case vim.fault.NotFound() | vmodl.fault.ManagedObjectNotFound():
            return Cause.GONE
    return Cause.PRIVILEGE if trouble_of(error) is Trouble.PERMISSION else Cause.OTHER


def _held_to_sense(disk: Disk, answer: Any, start: int, told: int) -> Ranges:
    """The areas of one answer, clipped to the disk.

    Args:
        disk: whose they are.
        answer: the manager's.
        start: from where it was asked.
        told: where the last area of the answers before it ended.

    Raises:
        ChangesUnknown: it cannot be true.
    """
    if not isinstance(answer, vim.VirtualMachine.DiskChangeInfo):
        raise _nonsense(disk, f"asked for areas, the manager sent {type(answer).__name__}")
    size = disk.capacity_bytes
    end = start + int(answer.length)
    if answer.startOffset != start:
        raise _nonsense(disk, f"asked from {start} on, it answers from {answer.startOffset} on")
    if end <= start:
        raise _nonsense(disk, f"an answer of {answer.length} bytes from {start} on leads nowhere")
    if end > size + _PAST_THE_END_MAX:
        raise _nonsense(disk, f"it speaks of a disk of at least {end} bytes, this one has {size}")
    limit = size + _PAST_THE_END_MAX if end >= size else end
    areas = [(int(area.start), int(area.start) + int(area.length)) for area in answer.changedArea or ()]
    position = max(start, told)
    for first, last in areas:
        if not position <= first < last <= limit:
            raise _nonsense(
                disk, f"an area from {first} to {last} does not fit between {position} and {limit}, where it must lie"
            )
        position = last
    clipped = [(first, min(last, size) - first) for first, last in areas if first < size]
    return np.array(clipped, np.int64).reshape(-1, 2)


def _nonsense(disk: Disk, reason: str) -> ChangesUnknown:
    return ChangesUnknown(
        disk=disk.key, reason=f"the list of changed areas makes no sense: {reason}", cause=Cause.NONSENSE
    )
