"""An image as a device: any part of the disk, read by way of the seek table.

read_into(offset)  ─▶ seek table ─▶ frame's bytes in the image ─▶ decompress, check ─▶ the part that is asked for
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from vcbproxy.archive.frames import Decoder
from vcbproxy.archive.seektable import Frame, SeekTable, read_table
from vcbproxy.device import Device, check_range, read
from vcbproxy.errors import Error, IntegrityError, SourceError


class SeekableImage:
    """The disk in an image; for many threads if the image is.

    The frame that was taken apart last is kept, for those who read on where they ended.

    Args:
        image: the image's bytes.
        table: its seek table, where the caller has it; else it is read.

    Raises:
        IntegrityError: it has no seek table, or a damaged one.
        SourceError: it cannot be read.
    """

    def __init__(self, image: Device, table: SeekTable | None = None) -> None:
        self._image = image
        found = table or read_table(image)
        if found is None:
            raise IntegrityError(
                f"{image.name} does not end with a seek table: it is cut off, or another program's; "
                f"what there is of it can be restored from its beginning"
            )
        self.table = found
        self._lock = threading.Lock()
        self._last: tuple[Frame, bytes] | None = None

    @property
    def name(self) -> str:
        """The image's."""
        return self._image.name

    @property
    def size_bytes(self) -> int:
        """The disk's."""
        return self.table.plain_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Read a part of the disk, checked.

        Raises:
            IntegrityError: a frame of it is damaged; names it and its place on the disk.
            SourceError: the image cannot be read.
        """
        check_range(self, offset, len(buf))
        end = offset + len(buf)
        for frame in self.table.frames(offset, end):
            plain = self._plain(frame)
            start, stop = max(offset, frame.start), min(end, frame.end)
            buf[start - offset : stop - offset] = plain[start - frame.start : stop - frame.start]

    def _plain(self, frame: Frame) -> bytes:
        with self._lock:
            if self._last is not None and self._last[0] == frame:
                return self._last[1]
        plain = self.load(frame)
        with self._lock:
            self._last = (frame, plain)
        return plain

    def load(self, frame: Frame) -> bytes:
        """One frame's plain bytes.

        Raises:
            IntegrityError: it is damaged.
            SourceError: it cannot be read.
        """
        return load_frame(self._image, frame)


def load_frame(image: Device, frame: Frame) -> bytes:
    """A frame's plain bytes, read from its image.

    Raises:
        IntegrityError: it is damaged.
        SourceError: it cannot be read.
    """
    return Decoder(image.name).decode(frame, read(image, frame.at, frame.compressed_bytes))


@dataclass(frozen=True, slots=True)
class Damage:
    """A frame that could not be had, and why; what lay there on the disk is not known."""

    frame: Frame
    error: Error


def salvage(image: SeekableImage) -> Iterator[tuple[Frame, bytes] | Damage]:
    """All that can still be had of a disk, and all that cannot, in order; together they tile it."""
    for frame in image.table.frames():
        try:
            plain = image.load(frame)
        except (IntegrityError, SourceError) as error:
            yield Damage(frame, error)
            continue
        yield frame, plain
