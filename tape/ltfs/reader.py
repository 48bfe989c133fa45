"""A file of a volume, read by position; forward reading never seeks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tape.errors import FormatError
from tape.ltfs.index import Extent, File
from tape.ltfs.layout import Layout
from tape.ltfs.seat import Seat
from tape.sequential import Met, Position, SequentialDrive


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file.

    Attributes:
        offset: of the first, in the file.
        data: the bytes.
        place: the block that they lie in; None for zeroes that lie nowhere.
    """

    offset: int
    data: memoryview
    place: Position | None


class FileReader:
    """One file. For one thread; several readers of one drive seek against each other."""

    def __init__(self, drive: SequentialDrive, layout: Layout, file: File, path: str, seat: Seat | None = None) -> None:
        self._drive = drive
        self.seat = seat or Seat(drive)
        self._layout = layout
        self._file = file
        self._path = path
        self._block_bytes = layout.label.block_bytes
        self._buf = memoryview(bytearray(self._block_bytes))
        self._held: tuple[Position, int] | None = None  # which block lies in the buffer, and its length

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self._path} on volume {self._layout.label.volume_uuid}"

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self._file.length

    @property
    def hole_bytes(self) -> int:
        """How many of its bytes lie nowhere, and read as zeroes."""
        return self._file.hole_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf`` from ``offset``; what no extent holds reads as zeroes, as the format has it.

        Raises:
            FormatError: outside of the file; or a block is not as long as the index says.
            MediumError: it cannot be read.
        """
        if offset < 0 or offset + len(buf) > self._file.length:
            raise FormatError(where=self.name, reason=f"{len(buf)} bytes at {offset} are not all in it")
        done = 0
        for extent in self._file.extents:
            if extent.file_end <= offset + done:
                continue
            if extent.file_offset >= offset + len(buf):
                break
            hole = max(extent.file_offset - (offset + done), 0)
            buf[done : done + hole] = bytes(hole)
            done += hole
            count = min(extent.file_end - (offset + done), len(buf) - done)
            self._from_extent(extent, offset + done - extent.file_offset, buf[done : done + count])
            done += count
        buf[done:] = bytes(len(buf) - done)

    def pieces(self, offset: int = 0) -> Iterator[Piece]:
        """Its bytes in order, from an offset on, block by block; each piece stays as it is.

        Raises:
            FormatError: as ``read_into``.
            MediumError: it cannot be read.
        """
        at = offset
        for extent in self._file.extents:
            if extent.file_end <= at:
                continue
            yield from self._hole(at, extent.file_offset)
            yield from self._data(extent, max(at, extent.file_offset))
            at = extent.file_end
        yield from self._hole(at, self._file.length)

    def data_pieces(self, offset: int = 0) -> Iterator[Piece]:
        """As ``pieces``, without those that lie nowhere.

        Raises:
            FormatError: as ``read_into``.
            MediumError: it cannot be read.
        """
        for extent in self._file.extents:
            yield from self._data(extent, max(offset, extent.file_offset))

    def _data(self, extent: Extent, at: int) -> Iterator[Piece]:
        while at < extent.file_end:
            number, within = divmod(extent.byte_offset + at - extent.file_offset, self._block_bytes)
            place = self._place(extent, number)
            buf = memoryview(bytearray(self._block_bytes))
            found = self._read(extent, number, buf)
            data = buf[within : min(found, within + extent.file_end - at)]
            if not len(data):
                raise FormatError(where=self.name, reason=f"{place} ends at {found}")
            yield Piece(at, data, place)
            at += len(data)

    def _hole(self, start: int, end: int) -> Iterator[Piece]:
        for at in range(start, end, self._block_bytes):
            yield Piece(at, memoryview(bytes(min(self._block_bytes, end - at))), None)

    def _from_extent(self, extent: Extent, offset: int, buf: memoryview) -> None:
        done = 0
        while done < len(buf):
            at = extent.byte_offset + offset + done
            block, within = divmod(at, self._block_bytes)
            held = self._block(extent, block)
            piece = held[within : within + len(buf) - done]
            if not len(piece):
                raise FormatError(where=self.name, reason=f"block {extent.start.block + block} ends at {len(held)}")
            buf[done : done + len(piece)] = piece
            done += len(piece)

    def _block(self, extent: Extent, number: int) -> memoryview:
        place = self._place(extent, number)
        if self._held is None or self._held[0] != place:
            self._held = None
            self._held = (place, self._read(extent, number, self._buf))
        return self._buf[: self._held[1]]

    def _place(self, extent: Extent, number: int) -> Position:
        first = self._layout.place(extent.start)
        return Position(first.partition, first.block + number)

    def _read(self, extent: Extent, number: int, buf: memoryview) -> int:
        self.seat.hold()
        place = self._place(extent, number)
        if self._drive.expected != place:
            self._drive.locate(place)
        found = self._drive.read(buf)
        if isinstance(found, Met):
            raise FormatError(where=self.name, reason=f"{found.value} at {place}, where its data belong")
        if number < extent.blocks(self._block_bytes) - 1 and found != self._block_bytes:
            raise FormatError(where=self.name, reason=f"{place} has {found} bytes, not {self._block_bytes}")
        return found
