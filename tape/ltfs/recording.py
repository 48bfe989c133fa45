"""What lies on the tape of a mounted volume, and how a new state of its index gets there.

    append  ──▶ data_end moves, the state is ``dirty``
    secure  ──▶ index on the data partition: safe; the index partition is ``behind``
    settle  ──▶ index on the index partition, too

A write error ends the writing for good: ``rescue`` puts an index of what is whole onto the other partition. What each
step leaves when the power fails is told in ``commit.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from tape.errors import FilesLost, MediumError, PositionLost, TapeError, VolumeOverflow
from tape.ltfs import commit
from tape.ltfs import index as model
from tape.ltfs.index import Index
from tape.ltfs.layout import Layout
from tape.ltfs.mount import Mounted
from tape.ltfs.protection import Protection, VolumeLock, announce_end, is_write_error, note_write_error
from tape.ltfs.room import Room
from tape.ltfs.seat import Seat
from tape.scsi.transport import Buffer
from tape.sequential import EndWarning, Position, SequentialDrive

_RETIRE = "copy what is on it, and retire it"


class Recording:
    """One volume's. For one thread."""

    def __init__(
        self, drive: SequentialDrive, mounted: Mounted, next_state: Callable[[], None], read_only: str
    ) -> None:
        """Take over what a mount found.

        Args:
            drive: the drive.
            mounted: what it found.
            next_state: makes the index one of a new generation; called before each new index.
            read_only: why nothing may be written, if nothing may.

        Raises:
            TapeError: the drive does not answer.
        """
        self.drive = drive
        self.seat = Seat(drive)
        self.layout: Layout = mounted.layout
        self.index: Index = mounted.index
        self.protection = Protection.of(drive, self.index)
        self.protection.reason = self.protection.reason or read_only
        self.room = Room.measure(drive, self.layout, self.index)
        self.full = mounted.full or self.room.data_bytes <= 0
        self.dirty = False
        """There is something that no index has."""
        self.behind = mounted.index_is_behind
        """The index partition has an older state than the data partition."""
        self.failed = False
        """A write error: nothing more goes onto the data partition."""
        self.shared = mounted.shared
        """The index partition holds more than one index: the next goes behind it."""
        self.data_index = mounted.data_index
        self.data_generation = mounted.data_generation
        self.data_end = self.safe_end = mounted.data_end
        self._next_state = next_state
        self._is_ours = False  # the end of the data: whether it was seen where it must be

    # ------------------------------------------------------------------ data

    def begin(self) -> None:
        """Go where the next data belong.

        Raises:
            PositionLost: the data do not end there: somebody else wrote.
            TapeError: it cannot be found.
        """
        expected = Position(self.layout.data_partition, self.data_end)
        if not (self._is_ours and self._stands_at(expected)):
            self._seek(expected)
        announce_end(self.drive, self.room.warning_mib)

    def _stands_at(self, expected: Position) -> bool:
        """Not by our own count alone: no drive tells one initiator that another has moved the tape."""
        return self.drive.expected == expected and self.drive.position() == expected

    def _seek(self, expected: Position) -> None:
        """Behind all that is recorded; once seen there, and not left, one need not look again."""
        try:
            end = self.drive.locate_end(self.layout.data_partition)
        except MediumError as error:
            if is_write_error(error):  # of blocks that the drive had taken before
                self._write_error()
            raise
        if end != expected:
            raise PositionLost(device=self.drive.name, expected=expected, found=end)
        self._is_ours = True

    def append(self, block: Buffer) -> bool:
        """Write a block at the end of the data; whether it is there. Afterwards ``full`` may be set.

        Raises:
            TapeError: it could not be written.
        """
        self.seat.hold()
        try:
            warning = self.drive.write(block)
        except VolumeOverflow:
            self.full = True
            self.room.end_met()
            return False
        except MediumError:
            self._write_error()
            raise
        self.data_end += 1
        self.dirty = True  # even if no file comes of it: behind the last index nothing may lie
        self.room.take(len(block), full=self.full)
        self.full = self.full or warning is not EndWarning.NONE or self.room.data_bytes <= 0
        return True

    # ------------------------------------------------------------------ indexes

    def hold_committable(self) -> None:
        """Refuse to write an index, should one have to be written.

        Raises:
            MediumChanged: it may be another cartridge.
            WriteProtected: it takes no writing.
        """
        if self.dirty or self.behind:
            self.seat.hold()
        if self.dirty and not self.failed:
            self.protection.hold_writable(self.drive, self.index)

    def secure(self) -> None:
        """Write an index to the data partition; where it finds no room, or fails, to the other one alone.

        Raises:
            FilesLost: a write error took files; what is whole is safe.
            TapeError: it could not be written.
        """
        if self.failed:
            self._rescue()
            return
        self._next_state()
        try:
            self.data_index, self.data_end = commit.to_data_partition(
                self.drive, self.layout, self.index, self.data_index, self.data_end
            )
        except VolumeOverflow:
            # The last blocks belong to an index that is cut off. The other partition's says what is whole: blocks that
            # the drive had taken may have found no room either.
            self.full = True
            lost = self._drop_what_is_not_there()
            self._secure_alone()
            self._hold_none_lost(lost)
            return
        except MediumError as error:
            if is_write_error(error):
                self._write_error()
                self._rescue()
            raise
        self.data_generation = self.index.generation
        self.dirty, self.behind = False, True
        self._indexed()

    def settle(self) -> None:
        """Bring the index partition up to date, if it may be written to.

        Raises:
            TapeError: it could not be written; the data partition's index is there.
        """
        if not self.behind or self.protection.reason:
            return
        try:
            commit.to_index_partition(
                self.drive, self.layout, self.index, self.data_index, self.protection, appended=self.shared
            )
        except MediumError as error:
            if is_write_error(error):
                self.protection.reason = f"its index partition cannot be written: {_RETIRE}"
                note_write_error(self.drive, VolumeLock.WRITE_ERROR_INDEX)
            raise
        self.behind = False

    def _secure_alone(self) -> None:
        """The data partition takes no index; the index partition's says what is whole."""
        commit.to_index_partition_alone(
            self.drive,
            self.layout,
            self.index,
            self.data_index,
            self.data_generation,
            self.protection,
            appended=self.shared,
        )
        self.data_end = self.drive.locate_end(self.layout.data_partition).block
        self.shared = True
        self.dirty = self.behind = False
        self._indexed()

    def _rescue(self) -> None:
        lost = self._drop_what_is_not_there()
        self._next_state()
        try:
            self._secure_alone()
        except MediumError:
            note_write_error(self.drive, VolumeLock.WRITE_ERROR_INDEX)
            raise
        self._hold_none_lost(lost)

    def _drop_what_is_not_there(self) -> list[str]:
        """Files that the index lists and the tape does not have are listed no more; their paths."""
        try:
            end = self.drive.locate_end(self.layout.data_partition).block
        except TapeError:
            end = self.safe_end  # whatever came behind the last index, it cannot be said to be there
        self.data_end = end
        return model.drop_beyond(self.index, self.layout.label.data_partition, end, self.layout.label.block_bytes)

    def _hold_none_lost(self, lost: list[str]) -> None:
        if lost:
            raise FilesLost(where=f"volume {self.index.volume_uuid}", count=len(lost), paths=", ".join(lost))

    def _write_error(self) -> None:
        """Noted at once, and for ever: a place that failed once is not tried again."""
        self.failed = self.full = self.dirty = True
        self.room.end_met()
        self.protection.reason = f"its data partition could not be written: {_RETIRE}"
        note_write_error(self.drive, VolumeLock.WRITE_ERROR_DATA)

    def _indexed(self) -> None:
        """An index holds all that was written."""
        self.safe_end = self.data_end
        self.room = Room.measure(self.drive, self.layout, self.index)
