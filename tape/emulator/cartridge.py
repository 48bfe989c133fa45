"""A cartridge as a folder, in the layout of the reference LTFS implementation's file backend: both read the other's.

    0_0_R  0_1_F  0_2_R  0_3_F  0_4_E     partition 0: a record, a filemark, a record, a filemark, end of data
    1_0_R  1_1_F  …                       partition 1, likewise
    attr_1_80c                            an attribute of the cartridge's memory, with its five bytes of head
    filedebug_tc_conf.xml                 what kind of cartridge it is, and how much it holds

A record's file holds its bytes and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tape.emulator.kinds import Kind, read_kind, write_kind
from tape.emulator.track import ASIDE, Track

PARTITIONS = 2
RECORD_BYTES = 512 * 1024  # the unit in which capacity is counted
_NAME = re.compile(r"([01])_(\d+)_([RFE])")
_ATTRIBUTE = re.compile(r"attr_([01])_([0-9a-f]{1,4})")
_OF_ITS_LIFE = {0x0003, *range(0x020A, 0x0800)}  # loads, drives, traffic: what the drive notes of it
_MIB = 1024 * 1024


class Cartridge:
    """One cartridge, taken out of its shelf."""

    def __init__(self, folder: Path, *, read_only: bool = False, durable: bool = False) -> None:
        """Look at it.

        Args:
            folder: what it is made of.
            read_only: as if its tab were set, whatever it says; so is one whose folder we may not write to.
            durable: whether what is flushed must outlast a crash of this machine, too.

        Raises:
            ValueError: the folder is none.
        """
        self.folder = folder
        self.kind = read_kind(folder)
        if read_only or not os.access(folder, os.W_OK):
            self.kind = replace(self.kind, write_protected=True)
        self.limit_bytes: dict[int, int] = {}
        """Where a partition's tape ends earlier than it should: for rehearsals."""
        self._durable = durable
        self.tracks = tuple(Track(folder, partition) for partition in range(PARTITIONS))
        self._left_over: list[Path] = []
        """What a program that died had put aside: nobody wants it any more."""
        self._look()

    @classmethod
    def create(cls, folder: Path, kind: Kind | None = None) -> Cartridge:
        """A blank one.

        Raises:
            FileExistsError: there is something already.
        """
        folder.mkdir(parents=True)
        write_kind(folder, kind or Kind())
        for partition in range(PARTITIONS):
            (folder / f"{partition}_0_E").touch()
        return cls(folder)

    @property
    def barcode(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def partitions(self) -> int:
        """Two, once partition 1 was ever written to or formatted for it."""
        return 2 if self.tracks[1].end or (self.folder / "partitioned").exists() else 1

    def partition(self, count: int) -> None:
        """Make one partition or two of it; all that was on it is lost, but not what its memory counts of its life."""
        for track in self.tracks:
            track.overwrite(0)
        self.flush()
        for path in self.folder.glob("attr_*"):
            match = _ATTRIBUTE.fullmatch(path.name)
            if match is None or int(match[2], 16) not in _OF_ITS_LIFE:
                path.unlink()
        marker = self.folder / "partitioned"
        marker.touch() if count == 2 else marker.unlink(missing_ok=True)

    def flush(self) -> None:
        """Put on tape what lies in the buffer; where there is nothing, nothing is touched.

        Raises:
            OSError: the folder takes no more.
        """
        changed = [track for track in self.tracks if track.changed]
        if not changed:
            return
        for track in changed:
            track.mark_end()
        if self._durable:
            _sync(self.folder)
        for track in changed:
            track.settle()
        for path in self._left_over:
            path.unlink(missing_ok=True)
        self._left_over.clear()

    def power_cut(self, keep: int = 0, *, end_marked: bool = True) -> None:
        """Drop what lies in the buffer.

        Args:
            keep: so many objects of it had reached the tape; then what they were written over is gone.
            end_marked: whether the end of data could still be marked.
        """
        for track in self.tracks:
            track.power_cut(keep, end_marked=end_marked)

    # ------------------------------------------------------------------ capacity

    def capacity_bytes(self, partition: int) -> int:
        """What a partition holds: as in the reference's backend, partition 0 gets a twentieth of a partitioned one."""
        if partition in self.limit_bytes:
            return self.limit_bytes[partition]
        whole = self.kind.capacity_mib * _MIB
        if self.partitions == 1:
            return whole if partition == 0 else 0
        return whole // 20 if partition == 0 else whole - whole // 20

    # ------------------------------------------------------------------ its memory

    def attributes(self, partition: int) -> dict[int, bytes]:
        """What was written into its memory: by identifier, each with its five bytes of head."""
        found = {}
        for path in self.folder.glob(f"attr_{partition}_*"):
            if match := _ATTRIBUTE.fullmatch(path.name):
                found[int(match[2], 16)] = path.read_bytes()
        return found

    def set_attribute(self, partition: int, identifier: int, record: bytes) -> None:
        """Write one, head and all; without a value it is removed."""
        path = self.folder / f"attr_{partition}_{identifier:x}"
        if len(record) > 5:
            path.write_bytes(record)
        else:
            path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Read the folder."""
        found: list[dict[int, tuple[str, int]]] = [{}, {}]
        ends: list[set[int]] = [set(), set()]
        for entry in os.scandir(self.folder):
            if not (match := _NAME.fullmatch(entry.name)):
                if entry.name.endswith(ASIDE):
                    self._left_over.append(Path(entry.path))
                continue
            partition, number = int(match[1]), int(match[2])
            if match[3] == "E":
                ends[partition].add(number)
            else:
                with suppress(FileNotFoundError):  # somebody is at work on it, and has just put it aside
                    found[partition][number] = (match[3], entry.stat().st_size)
        for partition, track in enumerate(self.tracks):
            track.take_in(found[partition], ends[partition])


def _sync(folder: Path) -> None:
    """Put the folder's file system on disk: one call, for however many records (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
