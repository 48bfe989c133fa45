"""A volume that is mounted for reading and appending.

    with LtfsVolume.mount(drive, clock_ns) as volume:
        writer = volume.create("/web01/2026-11-22/scsi0-0.raw.zst")
        taken = writer.write(data)          less than all of it: the volume is full, finish the part
        writer.finish({"ltfs.hash.sha256sum": digest})
        volume.commit()                     only now is it safe

What was not committed is not there after a crash; what was, is. Files are written one after the other, in full blocks;
when the drive announces the end, room is kept for the indexes and no more data are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tape.errors import FilesLost, FormatError, MediumError, PositionLost, TapeError, VerifyFailed, VolumeOverflow
from tape.ltfs import commit as commits
from tape.ltfs import index as model
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.index import Directory, File, Index
from tape.ltfs.interval import Interval
from tape.ltfs.journal import Journal, State
from tape.ltfs.mount import Mounted, mount
from tape.ltfs.protection import Protection, VolumeLock, announce_end, is_write_error, note_write_error
from tape.ltfs.reader import FileReader
from tape.ltfs.room import Room
from tape.ltfs.seat import Seat
from tape.ltfs.verify import read_again
from tape.ltfs.writer import FileWriter
from tape.scsi.transport import Buffer
from tape.sequential import EndWarning, Position, SequentialDrive


class LtfsVolume:
    """One mounted volume. For one thread."""

    def __init__(
        self,
        drive: SequentialDrive,
        mounted: Mounted,
        maker: Maker,
        now_ns: Callable[[], int],
        *,
        journal: Journal | None = None,
        interval: Interval = Interval(),  # noqa: B008  # frozen
        verify: bool = False,
        read_only: str = "",
    ) -> None:
        """Use ``mount``."""
        self.drive = drive
        self.seat = Seat(drive)
        self.layout = mounted.layout
        self.index: Index = mounted.index
        self.by_memory = mounted.by_memory
        self._maker = maker
        self._now_ns = now_ns
        self._journal = journal
        self._interval = interval
        self.verifies = verify
        """Whether what was written is read again before an index lists it."""
        self._unverified: dict[str, tuple[Directory, File, Iterable[int]]] = {}
        self._data_index = mounted.data_index
        self._data_generation = mounted.data_generation
        self._data_end = self._safe_end = mounted.data_end
        self._behind = mounted.index_is_behind
        self._shared = mounted.shared
        self._dirty = False
        self._failed = False  # a write error: nothing more goes onto the data partition
        self._journaling = False
        self._is_ours = False  # the end of the data: whether it was seen where it must be
        self._indexed_ns = now_ns()
        self._writer: FileWriter | None = None
        self._protection = Protection.of(drive, self.index)
        self._protection.reason = self._protection.reason or read_only
        self._room = Room.measure(drive, self.layout, self.index)
        self.full = mounted.full or self._room.data_bytes <= 0
        """No more data find room; the indexes, and small closing files, still do."""
        self.before_index: Callable[[], None] | None = None
        """Told before each new index, so that attributes in it are those of the moment."""

    @staticmethod
    def format(drive: SequentialDrive, naming: Naming, maker: Maker, now_ns: Callable[[], int]) -> None:
        """Make a new volume of the cartridge in the drive: all that is on it is lost.

        Raises:
            TapeError: it failed.
        """
        make_volume(drive, naming, maker, now_ns())

    @classmethod
    def mount(
        cls,
        drive: SequentialDrive,
        maker: Maker,
        now_ns: Callable[[], int],
        *,
        search: bool = False,
        journal: Journal | None = None,
        interval: Interval = Interval(),  # noqa: B008  # frozen
        verify: bool = False,
    ) -> Self:
        """Mount the volume in a drive.

        Args:
            drive: with a cartridge, ready.
            maker: who writes, if anything is written.
            now_ns: the time, in nanoseconds since 1970.
            search: do not believe the cartridge's memory.
            journal: kept while files are written; after a crash ``recover`` finds by it what no index has.
            interval: how much may be written until ``checkpoint`` writes an index.
            verify: read everything again before an index lists it.

        Raises:
            FormatError: no LTFS volume, or its metadata are wrong.
            Inconsistent: its last writer did not finish; ``recover`` rolls it back.
            TapeError: it cannot be read.
        """
        return cls(drive, mount(drive, search=search), maker, now_ns, journal=journal, interval=interval, verify=verify)

    @property
    def uuid(self) -> str:
        """Which volume this is."""
        return self.layout.label.volume_uuid

    @property
    def index_partition_behind(self) -> bool:
        """Whether the index partition's copy is older than the state that is shown; the next commit brings it up."""
        return self._behind

    @property
    def room_bytes(self) -> int:
        """How many bytes of files can surely still be written."""
        return 0 if self.full else max(self._room.data_bytes, 0)

    @property
    def closing_bytes(self) -> int:
        """How many bytes of closing files find room on a volume that is full; 0 when even its physical end was met."""
        return self._room.closing_bytes

    @property
    def read_only(self) -> str:
        """Why it takes no writing: its tab, a lock, a write error; nothing when it does."""
        return self._protection.reason

    # ------------------------------------------------------------------ reading

    def open(self, path: str) -> FileReader:
        """A file, to be read by position.

        Raises:
            FormatError: there is no such file.
        """
        found = self.index.find(path)
        if not isinstance(found, File) or found.symlink is not None:
            raise FormatError(where=f"volume {self.uuid}", reason=f"no file {path}")
        return FileReader(self.drive, self.layout, found, path, self.seat)

    # ------------------------------------------------------------------ writing

    def make_directory(self, path: str) -> Directory:
        """A directory, and those above it.

        Raises:
            FormatError: a file is in the way.
        """
        self._protection.hold_writable(self.drive, self.index)
        before = self.index.highest_uid
        made = self.index.make_directory(path, self._now_ns())
        self._dirty = self._dirty or self.index.highest_uid != before
        return made

    def create(self, path: str, *, closing: bool = False) -> FileWriter:
        """Begin a file; directories above it are made.

        Args:
            path: from the root.
            closing: a small file that makes what lies here understandable, and may use the room that is kept for such
                when the volume is full: ``closing_bytes`` of it, for all of them together.

        Raises:
            FormatError: something is there already, or it cannot be called that.
            WriteProtected: the volume is locked.
        """
        self.seat.hold()
        self._protection.hold_writable(self.drive, self.index)
        if self._writer is not None:
            raise TapeError(f"{self.drive.name}: another file is being written to volume {self.uuid}")
        above, name = model.split(path)
        directory = self.make_directory(above)
        if name in directory.entries:
            raise FormatError(where=f"volume {self.uuid}", reason=f"{path} is there already")
        self._begin_writing()
        self._writer = FileWriter(self, path, directory, name, closing=closing)
        return self._writer

    def secure(self) -> None:
        """Make everything safe that was finished until now: an index on the data partition.

        As safe as ``commit``, without the way to the index partition and back, which takes a minute or two: a mount
        that finds only this index has to search for it. ``unmount`` does the rest.

        Raises:
            TapeError: as ``commit``.
        """
        self._hold_committable()
        if self._dirty:
            self._commit_data()

    def checkpoint(self) -> bool:
        """``secure``, when enough was written, or time has passed, since the last index.

        Gives whether everything that was finished is safe now.

        Raises:
            TapeError: as ``commit``.
        """
        written = self._data_end - self._safe_end
        due = written * self.layout.label.block_bytes >= self._interval.size_bytes
        if self._dirty and (due or self._now_ns() - self._indexed_ns >= self._interval.time_s * 10**9):
            self.secure()
        return not self._dirty

    def commit(self) -> None:
        """Make everything safe that was finished until now: indexes on both partitions.

        Raises:
            PositionLost: the tape does not end where it must; somebody else wrote.
            VerifyFailed: a file did not come back as it was written; it is in no index, the others are safe with the
                next commit.
            FilesLost: a write error took files that were finished, but not safe; what is whole is safe now.
            TapeError: it could not be written; what was committed before is still there.
        """
        self.secure()
        if self._behind and not self.read_only:
            self._commit_small()
        if self._journal is not None and self._journaling:
            self._journal.settle(self.uuid)
            self._journaling = False

    def verify(self) -> None:
        """Read again what was written since the last index, if the volume verifies; ``commit`` does so first of all.

        Raises:
            VerifyFailed: a file did not come back as it was written; it is taken out of the index.
            TapeError: the drive failed.
        """
        if not self._unverified:
            return
        self.drive.flush()
        while self._unverified:
            path, (directory, file, kept) = next(iter(self._unverified.items()))
            try:
                read_again(self.open(path), file, kept)
            except VerifyFailed:
                del directory.entries[file.name], self._unverified[path]
                raise
            del self._unverified[path]

    def _hold_committable(self) -> None:
        if self._writer is not None:
            raise TapeError(f"{self.drive.name}: a file is still being written to volume {self.uuid}")
        if self._dirty or self._behind:
            self.seat.hold()
        if self._dirty and not self._failed:
            self._protection.hold_writable(self.drive, self.index)

    def _commit_data(self) -> None:
        if self._failed:
            self._rescue()
            return
        self.verify()
        self._new_generation()
        try:
            self._data_index, self._data_end = commits.to_data_partition(
                self.drive, self.layout, self.index, self._data_index, self._data_end
            )
        except VolumeOverflow:
            # The last blocks belong to an index that is cut off. The other partition's says what is whole.
            self.full = True
            self._commit_alone()
            return
        except MediumError as error:
            if is_write_error(error):
                self._write_error()
                self._rescue()
            raise
        self._data_generation = self.index.generation
        self._dirty, self._behind = False, True
        self._indexed()
        if self._journaling:
            self._begin_journal()

    def _commit_small(self) -> None:
        try:
            commits.to_index_partition(
                self.drive, self.layout, self.index, self._data_index, self._protection, appended=self._shared
            )
        except MediumError as error:
            if not is_write_error(error):
                raise
            self._protection.reason = "its index partition cannot be written: copy what is on it, and retire it"
            note_write_error(self.drive, VolumeLock.WRITE_ERROR_INDEX)
            raise
        self._behind = False

    def _commit_alone(self) -> None:
        """The data partition takes no index; the index partition's says what is whole."""
        appended = self._shared or self._protection.worm
        commits.to_index_partition_alone(
            self.drive, self.layout, self.index, self._data_index, self._data_generation, appended=appended
        )
        self._data_end = self.drive.locate_end(self.layout.data_partition).block
        self._shared = True
        self._dirty = self._behind = False
        self._indexed()

    def _rescue(self) -> None:
        """After a write error: an index of what is whole, to the other partition.

        Raises:
            FilesLost: files that were finished are not.
            TapeError: the other partition cannot be written either.
        """
        try:
            end = self.drive.locate_end(self.layout.data_partition).block
        except TapeError:
            end = self._safe_end  # whatever came behind the last index, it cannot be said to be there
        lost = model.drop_beyond(self.index, self.layout.label.data_partition, end, self.layout.label.block_bytes)
        self._data_end = end
        self._new_generation()
        try:
            self._commit_alone()
        except MediumError:
            note_write_error(self.drive, VolumeLock.WRITE_ERROR_INDEX)
            raise
        if lost:
            raise FilesLost(where=f"volume {self.uuid}", count=len(lost), paths=", ".join(lost))

    def _write_error(self) -> None:
        """Noted at once, and for ever: a place that failed once is not tried again."""
        self._failed = self.full = self._dirty = True
        self._room.end_met()
        self._protection.reason = "its data partition could not be written: copy what is on it, and retire it"
        note_write_error(self.drive, VolumeLock.WRITE_ERROR_DATA)

    def _new_generation(self) -> None:
        if self.before_index is not None:
            self.before_index()
        self.index.generation += 1
        self.index.update_time_ns = self._now_ns()
        self.index.creator = self._maker.creator

    def _indexed(self) -> None:
        """An index holds all that was written."""
        self._safe_end = self._data_end
        self._indexed_ns = self._now_ns()
        self._room = Room.measure(self.drive, self.layout, self.index)

    def commit_anew(self) -> None:
        """Write the present state as a new one, though nothing of it changed.

        Raises:
            TapeError: as ``commit``.
        """
        self._dirty = True
        self.commit()

    def unmount(self) -> None:
        """Commit, and rewind.

        Raises:
            TapeError: as ``commit``.
        """
        self.commit()
        self.drive.locate(Position(self.layout.index_partition, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount; also after an error that was not the tape's: the next session need then not recover the volume."""
        if error is None:
            self.unmount()
        elif self._failed or not isinstance(error, TapeError):
            with suppress(TapeError, OSError):  # the first error is the one to be told
                if self._writer is not None:
                    self._writer.abort()
                self.unmount()
        if self._journal is not None:
            self._journal.close()

    def _begin_writing(self) -> None:
        expected = Position(self.layout.data_partition, self._data_end)
        if not (self._is_ours and self.drive.expected == expected):
            self._seek_data_end(expected)
        announce_end(self.drive, self._room.warning_mib)
        if self._journal is not None and not self._journaling:
            self._begin_journal()

    def _seek_data_end(self, expected: Position) -> None:
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

    def _begin_journal(self) -> None:
        assert self._journal is not None, "asked for before"
        self._journal.begin(State(self.uuid, self._data_generation, self._data_index, self._data_end))
        self._journaling = True

    # ------------------------------------------------------------------ for FileWriter

    def write_block(self, block: Buffer) -> bool:
        """Write a block at the end of the data; whether it is there. Afterwards ``full`` may be set."""
        self.seat.hold()
        try:
            warning = self.drive.write(block)
        except VolumeOverflow:
            self.full = True
            self._room.end_met()
            return False
        except MediumError:
            self._write_error()
            raise
        self._data_end += 1
        self._dirty = True  # even if no file comes of it: behind the last index nothing may lie
        self._room.take(len(block), full=self.full)
        self.full = self.full or warning is not EndWarning.NONE or self._room.data_bytes <= 0
        return True

    @property
    def data_end(self) -> int:
        """The block that the next one written will be."""
        return self._data_end

    def finished(self, path: str, directory: Directory, file: File | None, kept: Iterable[int]) -> None:
        """The writer is done; with a file, and checksums of its blocks, or without one."""
        self._writer = None
        if file is not None:
            directory.entries[file.name] = file
            self._dirty = True
            if self.verifies:
                self._unverified[path] = (directory, file, kept)
            if self._journal is not None:
                self._journal.note(path, file)

    def now_ns(self) -> int:
        """The time."""
        return self._now_ns()
