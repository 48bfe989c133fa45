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

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tape.errors import FormatError, PositionLost, TapeError, VolumeOverflow, WriteProtected
from tape.ltfs import commit as commits
from tape.ltfs import index as model
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.index import Directory, File, Index, Lock
from tape.ltfs.mount import Mounted, mount
from tape.ltfs.reader import FileReader
from tape.ltfs.room import Room
from tape.ltfs.writer import FileWriter
from tape.scsi.transport import Buffer
from tape.sequential import EndWarning, Position, SequentialDrive


class LtfsVolume:
    """One mounted volume. For one thread."""

    def __init__(self, drive: SequentialDrive, mounted: Mounted, maker: Maker, now_ns: Callable[[], int]) -> None:
        """Use ``mount``."""
        self.drive = drive
        self.layout = mounted.layout
        self.index: Index = mounted.index
        self.by_memory = mounted.by_memory
        self._maker = maker
        self._now_ns = now_ns
        self._data_index = mounted.data_index
        self._data_end = mounted.data_end
        self._behind = mounted.index_is_behind
        self._dirty = False
        self._writer: FileWriter | None = None
        self._room = Room.measure(drive, self.layout, self.index)
        self.full = mounted.full or self._room.data_bytes <= 0
        """No more data find room; the indexes, and small closing files, still do."""

    @staticmethod
    def format(drive: SequentialDrive, naming: Naming, maker: Maker, now_ns: Callable[[], int]) -> None:
        """Make a new volume of the cartridge in the drive: all that is on it is lost.

        Raises:
            TapeError: it failed.
        """
        make_volume(drive, naming, maker, now_ns())

    @classmethod
    def mount(cls, drive: SequentialDrive, maker: Maker, now_ns: Callable[[], int], *, search: bool = False) -> Self:
        """Mount the volume in a drive.

        Args:
            drive: with a cartridge, ready.
            maker: who writes, if anything is written.
            now_ns: the time, in nanoseconds since 1970.
            search: do not believe the cartridge's memory.

        Raises:
            FormatError: no LTFS volume, or its metadata are wrong.
            Inconsistent: its last writer did not finish; ``recover`` rolls it back.
            TapeError: it cannot be read.
        """
        return cls(drive, mount(drive, search=search), maker, now_ns)

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

    # ------------------------------------------------------------------ reading

    def open(self, path: str) -> FileReader:
        """A file, to be read by position.

        Raises:
            FormatError: there is no such file.
        """
        found = self.index.find(path)
        if not isinstance(found, File) or found.symlink is not None:
            raise FormatError(where=f"volume {self.uuid}", reason=f"no file {path}")
        return FileReader(self.drive, self.layout, found, path)

    # ------------------------------------------------------------------ writing

    def make_directory(self, path: str) -> Directory:
        """A directory, and those above it.

        Raises:
            FormatError: a file is in the way.
        """
        self._hold_writable()
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
        self._hold_writable()
        if self._writer is not None:
            raise TapeError(f"{self.drive.name}: another file is being written to volume {self.uuid}")
        above, name = model.split(path)
        directory = self.make_directory(above)
        if name in directory.entries:
            raise FormatError(where=f"volume {self.uuid}", reason=f"{path} is there already")
        self._at_data_end()
        self._writer = FileWriter(self, directory, name, closing=closing)
        return self._writer

    def commit(self) -> None:
        """Make everything safe that was finished until now: indexes on both partitions.

        Raises:
            PositionLost: the tape does not end where it must; somebody else wrote.
            TapeError: it could not be written; what was committed before is still there.
        """
        if self._writer is not None:
            raise TapeError(f"{self.drive.name}: a file is still being written to volume {self.uuid}")
        if not (self._dirty or self._behind):
            return
        if self._behind and not self._dirty:
            commits.write_small(self.drive, self.layout, self.index, self._data_index)
            self._behind = False
            return
        self.index.generation += 1
        self.index.update_time_ns = self._now_ns()
        self.index.creator = self._maker.creator
        self._data_index, self._data_end = commits.commit(
            self.drive, self.layout, self.index, self._data_index, self._data_end
        )
        self._dirty = self._behind = False
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
        elif not isinstance(error, TapeError):
            with suppress(TapeError):  # the first error is the one to be told
                if self._writer is not None:
                    self._writer.abort()
                self.unmount()

    def _hold_writable(self) -> None:
        if self.index.lock in (Lock.LOCKED, Lock.PERMANENT):
            raise WriteProtected(
                device=self.drive.name, command="write", reason=f"volume {self.uuid} is locked", key=7, asc=0x27, ascq=0
            )

    def _at_data_end(self) -> None:
        end = self.drive.locate_end(self.layout.data_partition)
        expected = Position(self.layout.data_partition, self._data_end)
        if end != expected:
            raise PositionLost(device=self.drive.name, expected=expected, found=end)

    # ------------------------------------------------------------------ for FileWriter

    def write_block(self, block: Buffer) -> bool:
        """Write a block at the end of the data; whether it is there. Afterwards ``full`` may be set."""
        try:
            warning = self.drive.write(block)
        except VolumeOverflow:
            self.full = True
            self._room.end_met()
            return False
        self._data_end += 1
        self._dirty = True  # even if no file comes of it: behind the last index nothing may lie
        self._room.take(len(block), full=self.full)
        self.full = self.full or warning is not EndWarning.NONE or self._room.data_bytes <= 0
        return True

    @property
    def data_end(self) -> int:
        """The block that the next one written will be."""
        return self._data_end

    def finished(self, directory: Directory, file: File | None) -> None:
        """The writer is done; with a file, or without one."""
        self._writer = None
        if file is not None:
            directory.entries[file.name] = file
            self._dirty = True

    def now_ns(self) -> int:
        """The time."""
        return self._now_ns()
