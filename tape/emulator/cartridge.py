"""A cartridge as a folder, in the layout of the reference LTFS implementation's file backend: both read the other's.

    0_0_R  0_1_F  0_2_R  0_3_F  0_4_E     partition 0: a record, a filemark, a record, a filemark, end of data
    1_0_R  1_1_F  …                       partition 1, likewise
    attr_1_80c                            an attribute of the cartridge's memory, with its five bytes of head
    filedebug_tc_conf.xml                 what kind of cartridge it is, and how much it holds

A record's file holds its bytes and nothing else. What a drive has not flushed lies in its buffer: it can be read again,
but a power cut drops it, and what it was written over comes back.

    on tape   R F R F E                   ``written`` says where the un-flushed part begins; files it takes the place of
    buffer          └ R R ┘               are put aside (``*.cut``) until it is flushed
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from bisect import bisect_left, bisect_right
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

PARTITIONS = 2
RECORD_BYTES = 512 * 1024  # the unit in which capacity is counted
_NAME = re.compile(r"([01])_(\d+)_([RFE])")
_ATTRIBUTE = re.compile(r"attr_([01])_([0-9a-f]{1,4})")
_OF_ITS_LIFE = {0x0003, *range(0x020A, 0x0800)}  # loads, drives, traffic: what the drive notes of it
_CONFIG = "filedebug_tc_conf.xml"
_ASIDE = ".cut"
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of cartridge it is.

    Attributes:
        capacity_mib: of both partitions together.
        generation: as the barcode's end has it: L5, L8, ...
        density: by which drives know it.
        write_protected: its tab is set.
        worm: what is written stays.
    """

    capacity_mib: int = 3072
    generation: str = "L8"
    density: int = 0x5E
    write_protected: bool = False
    worm: bool = False


class _Track:
    """One partition: which objects it has, and what of it is not flushed."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.marks: list[int] = []
        self.sizes: list[int] = []
        self.bytes = 0
        self.has_end = False
        self.changed = False
        """Something was done to it that is not flushed."""
        self.flushed = 0
        """Objects below this are on tape."""
        self.cut: list[tuple[int, str]] = []
        """Objects that are written over, but not yet on tape: number and kind."""
        self.stray: list[Path] = []
        """Marks of an end behind the end: records before them were lost, and they would end what is written now."""

    def append(self, kind: str, size: int) -> None:
        if kind == "F":
            self.marks.append(len(self.kinds))
        self.kinds += kind.encode()
        self.sizes.append(size)
        self.bytes += size

    def truncate(self, count: int) -> None:
        self.bytes -= sum(self.sizes[count:])
        del self.kinds[count:], self.sizes[count:]
        del self.marks[bisect_left(self.marks, count) :]


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
        self._tracks = [_Track() for _ in range(PARTITIONS)]
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
        _write_config(folder / _CONFIG, kind or Kind())
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
        return 2 if self.end(1) or (self.folder / "partitioned").exists() else 1

    def partition(self, count: int) -> None:
        """Make one partition or two of it; all that was on it is lost, but not what its memory counts of its life."""
        for number in range(PARTITIONS):
            self.overwrite(number, 0)
        self.flush()
        for path in self.folder.glob("attr_*"):
            match = _ATTRIBUTE.fullmatch(path.name)
            if match is None or int(match[2], 16) not in _OF_ITS_LIFE:
                path.unlink()
        marker = self.folder / "partitioned"
        marker.touch() if count == 2 else marker.unlink(missing_ok=True)

    # ------------------------------------------------------------------ what is recorded

    def end(self, partition: int) -> int:
        """Where its data end: the number of its objects, filemarks among them."""
        return len(self._tracks[partition].kinds)

    def has_end(self, partition: int) -> bool:
        """Whether the mark of the end of data is there; a writer that died may have left none."""
        return self._tracks[partition].has_end

    def is_filemark(self, partition: int, number: int) -> bool:
        """Whether that object is a filemark."""
        return self._tracks[partition].kinds[number] == ord("F")

    def size(self, partition: int, number: int) -> int:
        """A record's size; a filemark has none."""
        return self._tracks[partition].sizes[number]

    def filemarks_before(self, partition: int, number: int) -> int:
        """How many filemarks lie before an object."""
        return bisect_left(self._tracks[partition].marks, number)

    def filemark_from(self, partition: int, number: int, count: int) -> int | None:
        """The object number of a filemark: the ``count``-th one from there on, or (negative) before there."""
        marks = self._tracks[partition].marks
        at = bisect_left(marks, number) + count - 1 if count > 0 else bisect_right(marks, number - 1) + count
        return marks[at] if 0 <= at < len(marks) else None

    def read(self, partition: int, number: int) -> bytes:
        """A record's bytes."""
        return self._path(partition, number, "R").read_bytes()

    # ------------------------------------------------------------------ writing

    def write(self, partition: int, number: int, data: bytes | bytearray | memoryview) -> None:
        """Write a record there; whatever lay from there on is gone."""
        self._place(partition, number, "R", data)

    def write_filemark(self, partition: int, number: int) -> None:
        """Write a filemark there; whatever lay from there on is gone."""
        self._place(partition, number, "F", b"")

    def overwrite(self, partition: int, number: int) -> None:
        """Let the data end there."""
        track = self._tracks[partition]
        track.changed = True
        self._drop_stray(track)
        if track.has_end:
            self._path(partition, self.end(partition), "E").unlink()
            track.has_end = False
        for old in range(number, self.end(partition)):
            name = self._path(partition, old, chr(track.kinds[old]))
            if old < track.flushed:
                name.rename(name.with_name(name.name + _ASIDE))
                track.cut.append((old, chr(track.kinds[old])))
            else:
                name.unlink()
        track.truncate(number)
        track.flushed = min(track.flushed, number)

    def _place(self, partition: int, number: int, kind: str, data: bytes | bytearray | memoryview) -> None:
        track = self._tracks[partition]
        assert number <= self.end(partition), f"a gap before object {number} of partition {partition}"
        if track.has_end or number < self.end(partition):
            self.overwrite(partition, number)
        track.changed = True
        self._drop_stray(track)
        path = self._path(partition, number, kind)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if len(data) and os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            finally:
                os.close(fd)
        except OSError:
            path.unlink(missing_ok=True)  # half a record is none
            raise
        track.append(kind, len(data))

    def _drop_stray(self, track: _Track) -> None:
        for path in track.stray:
            path.unlink(missing_ok=True)
        track.stray.clear()

    def flush(self) -> None:
        """Put on tape what lies in the buffer; where there is nothing, nothing is touched.

        Raises:
            OSError: the folder takes no more.
        """
        changed = [partition for partition, track in enumerate(self._tracks) if track.changed]
        if not changed:
            return
        for partition in changed:
            if not self._tracks[partition].has_end:
                self._path(partition, self.end(partition), "E").touch()
                self._tracks[partition].has_end = True
        if self._durable:
            _sync(self.folder)
        for partition in changed:
            self._drop_cut(partition)
            self._tracks[partition].flushed = self.end(partition)
            self._tracks[partition].changed = False
        for path in self._left_over:
            path.unlink(missing_ok=True)
        self._left_over.clear()

    def power_cut(self, keep: int = 0, *, end_marked: bool = True) -> None:
        """Drop what lies in the buffer.

        Args:
            keep: so many objects of it had reached the tape; then what they were written over is gone.
            end_marked: whether the end of data could still be marked.
        """
        for partition, track in enumerate(self._tracks):
            kept = min(track.flushed + keep, self.end(partition))
            for number in range(kept, self.end(partition)):
                self._path(partition, number, chr(track.kinds[number])).unlink()
            track.truncate(kept)
            track.changed = False
            if track.has_end:
                continue
            if track.cut and kept == track.flushed:
                self._restore(partition)
            else:
                self._drop_cut(partition)
            track.flushed = self.end(partition)
            if end_marked:
                self._path(partition, self.end(partition), "E").touch()
                track.has_end = True

    def _restore(self, partition: int) -> None:
        track = self._tracks[partition]
        for number, kind in sorted(track.cut):
            path = self._path(partition, number, kind)
            aside = path.with_name(path.name + _ASIDE)
            aside.rename(path)
            track.append(kind, path.stat().st_size)
        track.cut.clear()

    def _drop_cut(self, partition: int) -> None:
        track = self._tracks[partition]
        for number, kind in track.cut:
            path = self._path(partition, number, kind)
            path.with_name(path.name + _ASIDE).unlink()
        track.cut.clear()

    # ------------------------------------------------------------------ capacity

    def capacity_bytes(self, partition: int) -> int:
        """What a partition holds: as in the reference's backend, partition 0 gets a twentieth of a partitioned one."""
        if partition in self.limit_bytes:
            return self.limit_bytes[partition]
        whole = self.kind.capacity_mib * _MIB
        if self.partitions == 1:
            return whole if partition == 0 else 0
        return whole // 20 if partition == 0 else whole - whole // 20

    def used_bytes(self, partition: int) -> int:
        """What of it is taken."""
        return self._tracks[partition].bytes

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

    # ------------------------------------------------------------------ the folder

    def _path(self, partition: int, number: int, kind: str) -> Path:
        return self.folder / f"{partition}_{number}_{kind}"

    def _look(self) -> None:
        """Read the folder: objects from 0 on without a gap; what lies behind a gap is not on the tape."""
        found: list[dict[int, tuple[str, int]]] = [{}, {}]
        ends: list[set[int]] = [set(), set()]
        for entry in os.scandir(self.folder):
            if not (match := _NAME.fullmatch(entry.name)):
                if entry.name.endswith(_ASIDE):
                    self._left_over.append(Path(entry.path))
                continue
            partition, number = int(match[1]), int(match[2])
            if match[3] == "E":
                ends[partition].add(number)
            else:
                with suppress(FileNotFoundError):  # somebody is at work on it, and has just put it aside
                    found[partition][number] = (match[3], entry.stat().st_size)
        for partition, track in enumerate(self._tracks):
            number = 0
            while number in found[partition] and number not in ends[partition]:
                kind, size = found[partition][number]
                track.append(kind, size if kind == "R" else 0)
                number += 1
            track.has_end = number in ends[partition]
            track.flushed = number
            track.stray = [self._path(partition, end, "E") for end in ends[partition] if end != number]


def _sync(folder: Path) -> None:
    """Put the folder's file system on disk: one call, for however many records (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def read_kind(folder: Path) -> Kind:
    """What kind of cartridge a folder says it is.

    Raises:
        ValueError: what it says cannot be.
    """
    path, default = folder / _CONFIG, Kind()
    try:
        root = ElementTree.fromstring(path.read_bytes())  # noqa: S314  # our own folder, not what lies on the tape
    except FileNotFoundError:
        return default
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: {error}") from error
    texts = {child.tag: (child.text or "").strip() for child in root}
    with suppress(ValueError):
        return Kind(
            capacity_mib=int(texts.get("capacity_mb", "") or default.capacity_mib),
            generation=texts.get("cart_type", "") or default.generation,
            density=int(texts.get("density_code", "") or f"{default.density:x}", 16),
            write_protected=texts.get("emulate_readonly") == "true",
            worm=texts.get("worm") == "true",
        )
    raise ValueError(f"{path}: a number was expected")


def _write_config(path: Path, kind: Kind) -> None:
    """With the reference's elements; ``worm`` is ours."""
    root = ElementTree.Element("filedebug_cartridge_config")
    texts = {
        "dummy_io": "false",
        "emulate_readonly": str(kind.write_protected).lower(),
        "capacity_mb": str(kind.capacity_mib),
        "cart_type": kind.generation,
        "density_code": f"{kind.density:x}",
        "delay_mode": "None",
        "worm": str(kind.worm).lower(),
    }
    for tag, text in texts.items():
        ElementTree.SubElement(root, tag).text = text
    ElementTree.ElementTree(root).write(path, "utf-8", xml_declaration=True)
