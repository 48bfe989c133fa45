"""Whether a volume may be written to, and if not, why; and whether what lies on it may be written over.

    the cartridge's tab           the drive says so, in the head of its mode pages
    WORM                          appended to; an index takes no other's place, on the index partition neither
    a write error, once           kept in the cartridge's memory (1623h), and never tried again: copy off, and retire
    locked by somebody            in its memory, or in its index

Drives can be set to append only (mode page 10h/01h): they want to be told of each place that is to be written over.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from tape import memory
from tape.errors import DeviceFailure, RefusedCommand, TapeError, WriteProtected
from tape.ltfs.index import Index, Lock
from tape.memory import Attribute, Form, Id
from tape.scsi import cdb
from tape.scsi.unit import Unit
from tape.sequential import SequentialDrive

_ANSWER_BYTES = 255
_DEVICE_CONFIGURATION_EXTENSION = (0x10, 0x01)
_WORM = 0x80
_APPEND_ONLY = 1
_WRITE_FAILED = {0x0C, 0x50, 0x51}


class VolumeLock(IntEnum):
    """What attribute 1623h says."""

    UNLOCKED = 0
    LOCKED = 1
    WRITE_ERROR = 2
    PERMANENT = 3
    WRITE_ERROR_DATA = 4
    WRITE_ERROR_INDEX = 5
    WRITE_ERROR_BOTH = 6


_REASONS = {
    VolumeLock.LOCKED: "it is locked",
    VolumeLock.WRITE_ERROR: "it could once not be written: copy what is on it, and retire it",
    VolumeLock.PERMANENT: "it is locked for ever",
    VolumeLock.WRITE_ERROR_DATA: "its data partition could once not be written: copy what is on it, and retire it",
    VolumeLock.WRITE_ERROR_INDEX: "its index partition could once not be written: copy what is on it, and retire it",
    VolumeLock.WRITE_ERROR_BOTH: "neither of its partitions could be written: copy what is on it, and retire it",
}


@dataclass(slots=True)
class Protection:
    """How a cartridge in a drive takes writing.

    Attributes:
        reason: why it takes none; nothing when it does.
        worm: what is written stays.
        asks: the drive wants to be asked before anything is written over.
    """

    reason: str = ""
    worm: bool = False
    asks: bool = False

    @classmethod
    def of(cls, drive: SequentialDrive, index: Index) -> Protection:
        """Look at it.

        Raises:
            TapeError: the drive does not answer.
        """
        head, page = _mode_page(drive.unit)
        medium = memory.read(drive, 0, Id.MEDIUM_TYPE)
        return cls(
            reason=_reason(head, drive, index),
            worm=medium is not None and medium.number == _WORM,
            asks=len(page) > 5 and page[5] & 0x0F == _APPEND_ONLY,
        )

    def may_write_over(self, drive: SequentialDrive, partition: int, block: int) -> None:
        """Tell the drive, where it wants to be told, that from here on may be written over. The tape stands there."""
        if self.asks:
            drive.unit.run(cdb.allow_overwrite(partition, block), "allow overwrite")

    def hold_writable(self, drive: SequentialDrive, index: Index) -> None:
        """Refuse to write.

        Raises:
            WriteProtected: it may not be written to; why is said.
        """
        reason = self.reason or _locked(index)
        if reason:
            told = f"volume {index.volume_uuid} takes no writing: {reason}"
            raise WriteProtected(device=drive.name, command="write", reason=told, key=7, asc=0x27, ascq=0)


def is_write_error(error: DeviceFailure) -> bool:
    """Whether the cartridge could not be written; what is merely not found, or not read, may be tried again."""
    command = str(error.command)
    return error.asc in _WRITE_FAILED or command.startswith("write") or "earlier command" in command


def note_write_error(drive: SequentialDrive, lock: VolumeLock) -> None:
    """Keep in the cartridge's memory that it could not be written; a memory that takes nothing is borne."""
    with suppress(TapeError):
        before = memory.read(drive, 0, Id.VOLUME_LOCK)
        both = {VolumeLock.WRITE_ERROR_DATA, VolumeLock.WRITE_ERROR_INDEX}
        if before is not None and before.number in both - {lock}:
            lock = VolumeLock.WRITE_ERROR_BOTH
        memory.write(drive, 0, [Attribute(Id.VOLUME_LOCK, Form.BINARY, bytes((lock,)))])


def announce_end(drive: SequentialDrive, mib: int) -> None:
    """Have the drive warn so many MiB before its early warning; one that cannot is borne.

    Raises:
        TapeError: the drive does not answer.
    """
    head, page = _mode_page(drive.unit)
    if len(page) < 8 or int.from_bytes(page[6:8], "big") == min(mib, 0xFFFF):
        return
    changed = bytes((page[0] & 0x7F,)) + page[1:6] + min(mib, 0xFFFF).to_bytes(2, "big") + page[8:]
    data = bytes(2) + bytes((0, head[3] & 0x70)) + bytes(4) + changed
    with suppress(RefusedCommand):
        drive.unit.tell(cdb.mode_select(len(data)), "mode select, early warning", data)


def _reason(head: bytes, drive: SequentialDrive, index: Index) -> str:
    if head[3] & 0x80:
        return "the cartridge's tab is set"
    kept = memory.read(drive, 0, Id.VOLUME_LOCK)
    if kept is not None and kept.value and kept.number:
        known = kept.number in set(VolumeLock)
        return _REASONS[VolumeLock(kept.number)] if known else f"its memory has lock {kept.number}, of unknown meaning"
    return _locked(index)


def _locked(index: Index) -> str:
    if index.lock is Lock.PERMANENT:
        return _REASONS[VolumeLock.PERMANENT]
    return _REASONS[VolumeLock.LOCKED] if index.lock is Lock.LOCKED else ""


def _mode_page(unit: Unit) -> tuple[bytes, bytes]:
    """The head of the drive's mode pages, and the page of its extended configuration; nothing where it has none."""
    for page, subpage in (_DEVICE_CONFIGURATION_EXTENSION, (0, 0)):
        command = cdb.mode_sense(page, _ANSWER_BYTES, subpage)
        try:
            data = unit.ask(command, "mode sense", _ANSWER_BYTES)
        except RefusedCommand:
            continue
        if len(data) >= 8:
            start = 8 + int.from_bytes(data[6:8], "big")
            return data[:8], data[start:] if page else b""
    return bytes(8), b""
