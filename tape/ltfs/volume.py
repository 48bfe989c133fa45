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
from functools import partial
from types import TracebackType
from typing import Self

from tape.errors import FormatError, TapeError, VerifyFailed
from tape.ltfs import index as model
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.index import Directory, File, Index
from tape.ltfs.interval import Interval
from tape.ltfs.journal import Journal, State
from tape.ltfs.mount import Mounted, hold_end, mount
from tape.ltfs.reader import FileReader
from tape.ltfs.recording import Recording
from tape.ltfs.verify import read_again
from tape.ltfs.writer import FileWriter
from tape.sequential import Position, SequentialDrive

_LEVELS_MAX = 500  # of directories: an index with more would be refused when it is read


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
        self.layout = mounted.layout
        self.index: Index = mounted.index
        self.by_memory = mounted.by_memory
        self.recording = Recording(drive, mounted, self._next_state, read_only)
        """What lies on the tape; for this package alone."""
        self.verifies = verify
        """Whether what was written is read again before an index lists it."""
        self.before_index: Callable[[], None] | None = None
        """Told before each new index, so that attributes in it are those of the moment."""
        self._maker = maker
        self._now_ns = now_ns
        self._journal = journal
        self._journaling = False
        self._interval = interval
        self._indexed_ns = now_ns()
        self._unverified: dict[str, tuple[Directory, File, Iterable[int]]] = {}
        self._writer: FileWriter | None = None

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
        mounted = mount(drive, search=search)
        hold_end(mounted, drive.name)
        return cls(drive, mounted, maker, now_ns, journal=journal, interval=interval, verify=verify)

    @property
    def uuid(self) -> str:
        """Which volume this is."""
        return self.layout.label.volume_uuid

    @property
    def index_partition_behind(self) -> bool:
        """Whether the index partition's copy is older than the state that is shown; the next commit brings it up."""
        return self.recording.behind

    @property
    def full(self) -> bool:
        """No more data find room; the indexes, and small closing files, still do."""
        return self.recording.full

    @property
    def closing_bytes(self) -> int:
        """How many bytes of closing files find room on a volume that is full; 0 when even its physical end was met."""
        return self.recording.room.closing_bytes

    @property
    def data_end(self) -> int:
        """The block behind all data: what the next one written will be."""
        return self.recording.data_end

    @property
    def read_only(self) -> str:
        """Why it takes no writing: its tab, a lock, a write error; nothing when it does."""
        return self.recording.protection.reason

    # ------------------------------------------------------------------ reading

    def open(self, path: str) -> FileReader:
        """A file, to be read by position.

        Raises:
            FormatError: there is no such file.
        """
        found = self.index.find(path)
        if not isinstance(found, File) or found.symlink is not None:
            raise FormatError(where=f"volume {self.uuid}", reason=f"no file {path}")
        return FileReader(self.drive, self.layout, found, path, self.recording.seat)

    # ------------------------------------------------------------------ writing

    def make_directory(self, path: str) -> Directory:
        """A directory, and those above it.

        Raises:
            FormatError: a file is in the way; or it lies too deep.
        """
        if len(path.split("/")) > _LEVELS_MAX:
            raise FormatError(where=f"volume {self.uuid}", reason=f"{path[:60]}… has more than {_LEVELS_MAX} levels")
        self.recording.protection.hold_writable(self.drive, self.index)
        before = self.index.highest_uid
        made = self.index.make_directory(path, self._now_ns())
        self.recording.dirty |= self.index.highest_uid != before
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
        self.recording.seat.hold()
        self.recording.protection.hold_writable(self.drive, self.index)
        if self._writer is not None:
            raise TapeError(f"{self.drive.name}: another file is being written to volume {self.uuid}")
        above, name = model.split(path)
        directory = self.make_directory(above)
        if name in directory.entries:
            raise FormatError(where=f"volume {self.uuid}", reason=f"{path} is there already")
        self.recording.begin()
        if self._journal is not None and not self._journaling:
            self._begin_journal()
        done = partial(self._finished, path, directory)
        self._writer = FileWriter(self.recording, name, done, self._now_ns, closing=closing, verify=self.verifies)
        return self._writer

    def secure(self) -> None:
        """Make everything safe that was finished until now: an index on the data partition.

        As safe as ``commit``, without the way to the index partition and back, which takes a minute or two: a mount
        that finds only this index has to search for it. ``unmount`` does the rest.

        Raises:
            TapeError: as ``commit``.
        """
        if self._writer is not None:
            raise TapeError(f"{self.drive.name}: a file is still being written to volume {self.uuid}")
        self.recording.hold_committable()
        if not self.recording.dirty:
            return
        if not self.recording.failed:
            self.verify()
        self.recording.secure()
        self._indexed_ns = self._now_ns()
        if self._journaling and self.recording.behind:
            self._begin_journal()

    def checkpoint(self) -> bool:
        """``secure``, when enough was written, or time has passed, since the last index.

        Gives whether everything that was finished is safe now.

        Raises:
            TapeError: as ``commit``.
        """
        written = (self.recording.data_end - self.recording.safe_end) * self.layout.label.block_bytes
        passed_ns = self._now_ns() - self._indexed_ns
        if written >= self._interval.size_bytes or passed_ns >= self._interval.time_s * 10**9:
            self.secure()
        return not self.recording.dirty

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
        self.recording.settle()
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

    def commit_anew(self) -> None:
        """Write the present state as a new one, though nothing of it changed.

        Raises:
            TapeError: as ``commit``.
        """
        self.recording.dirty = True
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
        elif self.recording.failed or not isinstance(error, TapeError):
            with suppress(TapeError, OSError):  # the first error is the one to be told
                if self._writer is not None:
                    self._writer.abort()
                self.unmount()
        if self._journal is not None:
            self._journal.close()

    def _next_state(self) -> None:
        if self.before_index is not None:
            self.before_index()
        self.index.generation += 1
        self.index.update_time_ns = self._now_ns()
        self.index.creator = self._maker.creator

    def _begin_journal(self) -> None:
        assert self._journal is not None, "asked for before"
        on_tape = self.recording
        self._journal.begin(State(self.uuid, on_tape.data_generation, on_tape.data_index, on_tape.data_end))
        self._journaling = True

    def _finished(self, path: str, directory: Directory, file: File | None, kept: Iterable[int]) -> None:
        """The writer is done; with a file, and checksums of its blocks, or without one."""
        self._writer = None
        if file is not None:
            directory.entries[file.name] = file
            self.recording.dirty = True
            if self.verifies:
                self._unverified[path] = (directory, file, kept)
            if self._journal is not None:
                self._journal.note(path, file)
