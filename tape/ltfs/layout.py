"""A volume's two partitions, found and read: labels at their beginnings, indexes at their ends.

    SCSI partition 0   │ VOL1 ▌ label ▌ │ ▌ index ▌│                        a: the index partition
    SCSI partition 1   │ VOL1 ▌ label ▌ │ ▌ index ▌ data … ▌ index ▌│       b: the data partition
                                        content ▲            last index ▲   ▲ end of data

Letters are the label's, numbers the drive's; which is which, only the labels say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tape.errors import FormatError, Inconsistent, IncrementalIndex, MediumError
from tape.ltfs import indexreading, label
from tape.ltfs.index import Index, Pointer
from tape.ltfs.label import FIRST_CONTENT_BLOCK, LABEL_BYTES_MAX, Label
from tape.sequential import Met, Position, SequentialDrive

INDEX_BYTES_MAX = 4 << 30


@dataclass(frozen=True, slots=True)
class Layout:
    """How one volume lies on its cartridge.

    Attributes:
        label: the copy of the index partition.
        index_partition: the drive's number of it.
        data_partition: likewise.
        volume_id: the first six characters of the barcode, as it was at format.
    """

    label: Label
    index_partition: int
    data_partition: int
    volume_id: str

    def number(self, letter: str) -> int:
        """The drive's number for a partition's letter.

        Raises:
            FormatError: the volume has no such partition.
        """
        if letter == self.label.index_partition:
            return self.index_partition
        if letter == self.label.data_partition:
            return self.data_partition
        raise FormatError(where=f"volume {self.label.volume_uuid}", reason=f"no partition {letter!r}")

    def letter(self, number: int) -> str:
        """The letter for the drive's number."""
        return self.label.index_partition if number == self.index_partition else self.label.data_partition

    def place(self, pointer: Pointer) -> Position:
        """Where the drive finds a block.

        Raises:
            FormatError: the volume has no such partition.
        """
        return Position(self.number(pointer.partition), pointer.block)


def read_layout(drive: SequentialDrive) -> Layout:
    """Read both labels, and hold them against each other.

    Raises:
        FormatError: this is no LTFS volume, or its labels do not agree.
    """
    copies: dict[int, tuple[Label, str]] = {}
    for partition in (0, 1):
        copies[partition] = _read_label(drive, partition)
    (one, identifier), (two, other) = copies[0], copies[1]
    if not one.same_volume(two) or identifier != other:
        raise FormatError(where=drive.name, reason="the labels of its two partitions are not those of one volume")
    if one.partition == two.partition:
        raise FormatError(where=drive.name, reason=f"both partitions say that they are {one.partition!r}")
    index = 0 if one.partition == one.index_partition else 1
    return Layout(copies[index][0], index, 1 - index, identifier)


def _read_label(drive: SequentialDrive, partition: int) -> tuple[Label, str]:
    where = f"{drive.name}, partition {partition}"
    drive.locate(Position(partition, 0))
    first = _record(drive, label.VOL1_BYTES, where)
    identifier = label.volume_id(first, where)
    _filemark(drive, where)
    found = label.decode(_record(drive, LABEL_BYTES_MAX, where), where)
    _filemark(drive, where)
    return found, identifier


def _record(drive: SequentialDrive, length_max: int, where: str) -> bytes:
    buf = memoryview(bytearray(length_max))
    found = drive.read(buf)
    if isinstance(found, Met):
        raise FormatError(where=where, reason=f"{found.value} where the label belongs")
    return bytes(buf[:found])


def _filemark(drive: SequentialDrive, where: str) -> None:
    if drive.read(memoryview(bytearray(LABEL_BYTES_MAX))) is not Met.FILEMARK:
        raise FormatError(where=where, reason="no filemark where the label belongs")


# ---------------------------------------------------------------------- indexes


def read_index(drive: SequentialDrive, layout: Layout, pointer: Pointer) -> Index:
    """Read the index that begins at a block, up to the filemark behind it.

    Raises:
        FormatError: none begins there; or it says that it is elsewhere, or of another volume.
        Inconsistent: it is cut off.
        MediumError: it cannot be read.
    """
    where = f"{drive.name}, index at {pointer}"
    drive.locate(layout.place(pointer))
    index = indexreading.decode(_pieces(drive, layout.label.block_bytes, where), where)
    if index.location != pointer:
        raise FormatError(where=where, reason=f"it says that it begins at {index.location}")
    if index.volume_uuid != layout.label.volume_uuid:
        raise FormatError(where=where, reason=f"it is of another volume, {index.volume_uuid}")
    return index


def _pieces(drive: SequentialDrive, block_bytes: int, where: str) -> Iterator[memoryview]:
    buf = memoryview(bytearray(block_bytes))
    total = 0
    while True:
        found = drive.read(buf)
        if found is Met.FILEMARK:
            return
        if isinstance(found, Met):
            raise Inconsistent(where=where, reason="the data end in the middle of it")
        total += found
        if total > INDEX_BYTES_MAX:
            raise FormatError(where=where, reason=f"more than {INDEX_BYTES_MAX} bytes")
        yield buf[:found]


@dataclass(frozen=True, slots=True)
class Tail:
    """How a partition ends.

    Attributes:
        end: the block number behind all that is recorded.
        index: the last index; None when there is none.
        behind_index: the block behind the filemark that ends it; where the content begins, when there is none.
    """

    end: int
    index: Index | None
    behind_index: int

    @property
    def closed(self) -> bool:
        """Whether nothing lies behind the last index."""
        return self.behind_index == self.end


def read_tail(
    drive: SequentialDrive, layout: Layout, letter: str, *, lenient: bool = False, over_incremental: bool = False
) -> Tail:
    """Find the last whole index of a partition, from its end.

    Args:
        drive: the drive.
        layout: of the volume.
        letter: of the partition.
        lenient: pass over indexes that are damaged, to one before them.
        over_incremental: pass over incremental ones, too; what they say is then not known.

    Raises:
        IncrementalIndex: the last index only says what changed.
        FormatError: what should be the last index is none.
        MediumError: it cannot be read.
    """
    number = layout.number(letter)
    end = drive.locate_end(number).block
    if end <= FIRST_CONTENT_BLOCK:
        return Tail(end, None, FIRST_CONTENT_BLOCK)
    marks = _marks_back(drive, number, end)
    closing = next(marks, FIRST_CONTENT_BLOCK - 1)
    for opening in marks:
        # What lies between two filemarks is an index; a torn one has no filemark behind it.
        if closing - opening > 1:
            pointer = Pointer(letter, opening + 1)
            try:
                index = _index_or_none(drive, layout, pointer, lenient=lenient)
            except IncrementalIndex:
                if not over_incremental:
                    raise
                index = None
            if index is not None:
                return Tail(end, index, closing + 1)
        closing = opening
    return Tail(end, None, FIRST_CONTENT_BLOCK)


def _marks_back(drive: SequentialDrive, partition: int, end: int) -> Iterator[int]:
    """The blocks of a partition's filemarks behind its label, from the end on."""
    at = end
    while at > FIRST_CONTENT_BLOCK:
        drive.locate(Position(partition, at))
        at = drive.space_filemarks(-1).block
        if at < FIRST_CONTENT_BLOCK:
            return
        yield at


def _index_or_none(drive: SequentialDrive, layout: Layout, pointer: Pointer, *, lenient: bool) -> Index | None:
    """The index there; None when what lies there is data between two indexes, or damaged where that is passed over."""
    buf = memoryview(bytearray(layout.label.block_bytes))
    drive.locate(layout.place(pointer))
    found = drive.read(buf)
    if isinstance(found, Met) or not bytes(buf[: min(found, 256)]).lstrip().startswith(b"<?xml"):
        return None
    try:
        return read_index(drive, layout, pointer)
    except IncrementalIndex:
        raise
    except (FormatError, MediumError):
        if lenient:
            return None
        raise
