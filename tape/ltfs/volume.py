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

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from tape import logs
from tape.drive import EndWarning, Position, TapeDrive
from tape.errors import FormatError, PositionLost, TapeError, VolumeOverflow, WriteProtected
from tape.ltfs import commit as commits
from tape.ltfs import index as model
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.index import Directory, Extent, File, Index, Lock, Pointer, Times
from tape.ltfs.mount import Mounted, mount
from tape.ltfs.reader import FileReader
from tape.scsi.transport import Buffer

_INDEXES_KEPT = 3  # so many indexes must still find room on the data partition
_SLACK_BYTES = 64 << 20
_BYTES_PER_FILE = 600  # of an index; measured 566 by the reference implementation's


class LtfsVolume:
    """One mounted volume. For one thread."""

    def __init__(self, drive: TapeDrive, mounted: Mounted, maker: Maker, now_ns: Callable[[], int]) -> None:
        """Use ``mount``."""
        self.drive = drive
        self.layout = mounted.layout
        self.index: Index = mounted.index
        self.by_memory = mounted.by_memory
        self.full = mounted.full
        """No more data find room; the indexes still do."""
        self._maker = maker
        self._now_ns = now_ns
        self._data_index = mounted.data_index
        self._data_end = mounted.data_end
        self._behind = mounted.index_is_behind
        self._dirty = False
        self._writer: FileWriter | None = None
        self._room = self._room_bytes()

    @staticmethod
    def format(drive: TapeDrive, naming: Naming, maker: Maker, now_ns: Callable[[], int]) -> None:
        """Make a new volume of the cartridge in the drive: all that is on it is lost.

        Raises:
            TapeError: it failed.
        """
        make_volume(drive, naming, maker, now_ns())

    @classmethod
    def mount(cls, drive: TapeDrive, maker: Maker, now_ns: Callable[[], int], *, search: bool = False) -> Self:
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
        return 0 if self.full else max(self._room, 0)

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

    def create(self, path: str) -> FileWriter:
        """Begin a file; directories above it are made.

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
        self._writer = FileWriter(self, directory, name)
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
        self._room = self._room_bytes()

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
        if error is None:
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

    def _room_bytes(self) -> int:
        capacity = logs.capacity(self.drive)
        if capacity is None:
            return 1 << 62  # the drive will say when it is enough
        left = capacity.remaining_mib[self.layout.data_partition] << 20
        entries = sum(1 for _ in self.index.root.walk()) + 1
        return left - _INDEXES_KEPT * entries * _BYTES_PER_FILE - min(_SLACK_BYTES, left // 20)

    # ------------------------------------------------------------------ for FileWriter

    def write_block(self, block: Buffer) -> bool:
        """Write a block at the end of the data; whether it is there. Afterwards ``full`` may be set."""
        try:
            warning = self.drive.write(block)
        except VolumeOverflow:
            self.full = True
            return False
        self._data_end += 1
        self._room -= len(block)
        self.full = self.full or warning is not EndWarning.NONE or self._room <= 0
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


class FileWriter:
    """One file while it is written, in full blocks but for the last."""

    def __init__(self, volume: LtfsVolume, directory: Directory, name: str) -> None:
        self._volume = volume
        self._directory = directory
        self._name = name
        self._began_ns = volume.now_ns()
        self._block_bytes = volume.layout.label.block_bytes
        self._held = bytearray()
        self._start = volume.data_end
        self._written = 0
        self._done = False

    @property
    def length(self) -> int:
        """How many bytes were taken so far."""
        return self._written + len(self._held)

    def write(self, data: Buffer) -> int:
        """Take bytes; how many were taken. Fewer than given: the volume is full, and the file ends here.

        Raises:
            TapeError: it could not be written; the file is lost, what was committed is not.
        """
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view) and not self._volume.full:
            if not self._held and len(view) - taken >= self._block_bytes:
                if not self._block(view[taken : taken + self._block_bytes]):
                    break
                taken += self._block_bytes
                continue
            piece = view[taken : taken + self._block_bytes - len(self._held)]
            self._held += piece
            taken += len(piece)
            if len(self._held) == self._block_bytes and not self._flush_held():
                taken -= len(piece)
                del self._held[len(self._held) - len(piece) :]
                break
        return taken

    def finish(self, xattrs: Mapping[str, bytes] | None = None) -> File:
        """The file is complete; safe with the next commit.

        Raises:
            VolumeOverflow: its last block found no room.
            TapeError: it could not be written.
        """
        assert not self._done, "finished twice"
        if self._held and not self._flush_held():
            self._end(None)
            raise VolumeOverflow(
                device=self._volume.drive.name, command="write", reason="no room for the file's last block",
                key=0xD, asc=0, ascq=2,
            )  # fmt: skip
        times = Times(self._began_ns, now := self._volume.now_ns(), now, now, self._began_ns)
        extents: tuple[Extent, ...] = ()
        if self._written:
            pointer = Pointer(self._volume.layout.label.data_partition, self._start)
            extents = (Extent(0, pointer, 0, self._written),)
        file = File(self._name, self._volume.index.new_uid(), times, self._written, extents, xattrs=dict(xattrs or {}))
        self._end(file)
        return file

    def abort(self) -> None:
        """Leave no file; what was written of it stays on the tape, and no index names it."""
        if not self._done:
            self._end(None)

    def _end(self, file: File | None) -> None:
        self._done = True
        self._volume.finished(self._directory, file)

    def _flush_held(self) -> bool:
        if not self._block(self._held):
            return False
        self._held = bytearray()
        return True

    def _block(self, block: Buffer) -> bool:
        if not self._volume.write_block(block):
            return False
        self._written += len(block)
        return True
