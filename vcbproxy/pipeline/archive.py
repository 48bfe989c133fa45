"""Makes a disk's image: read once, compressed by several workers at a time, given out in order. Nothing is staged.

    reader ──frames──┬─▶ worker 0 ─┬─▶ in the disk's order ─▶ the caller, who writes to tape
    (a thread)       ├─▶ worker n ─┘
                     └─▶ digest (a thread: SHA-256 of the whole disk, zeroes and all)

Promises: every byte that is not known to be zero is read exactly once, in order; known zeroes are never read, and need
no memory; memory is bounded; on any error, on being cancelled, and when the caller goes away early, all threads have
ended when the ``with`` ends.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vcbproxy.archive.frames import FRAME_BYTES, Encoder, all_zero, checksum_of, zero_frame
from vcbproxy.archive.plan import Filled, Zeroes, plan
from vcbproxy.archive.seektable import SeekTableBuilder
from vcbproxy.device import MappedDevice
from vcbproxy.pipeline.channel import Channel
from vcbproxy.pipeline.crew import Cancel, Crew, Interrupt
from vcbproxy.pipeline.inorder import InOrder
from vcbproxy.pipeline.segments import Buffer, Segment, load
from vcbproxy.units import MiB

_WORKERS_MAX = 8
_BUFFERS_MIN = 4  # one being read, one compressed, one digested, one on its way out
_ZEROES_AT_ONCE = 1024  # frames of zeroes in one piece: some 150 KB
_PLANNED_MAX = 4096  # zeroes that are planned ahead need no memory, and the digest may lag behind them
_ZEROES = bytes(MiB)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How much of the machine an image may take.

    Attributes:
        workers: threads that compress; 0 for one per processor, but at most eight.
        memory_bytes: for the disk's data between reader and caller.
        frame_bytes: of the disk, in each frame.
    """

    workers: int = 0
    memory_bytes: int = 28 * MiB
    frame_bytes: int = FRAME_BYTES

    @property
    def workers_count(self) -> int:
        """The number of workers, decided."""
        return self.workers or min(os.cpu_count() or 1, _WORKERS_MAX)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image turned out to be.

    Attributes:
        size_bytes: of the disk.
        sha256: of the whole disk, in hex.
        image_bytes: of the image, seek table and all.
        frames: how many it has.
        bytes_read: of the disk.
        bytes_zero: of the disk, known to be zeroes without reading.
    """

    size_bytes: int
    sha256: str
    image_bytes: int
    frames: int
    bytes_read: int
    bytes_zero: int


@contextmanager
def image_stream(
    source: MappedDevice,
    level: Callable[[], int],
    *,
    options: ImageOptions = ImageOptions(),
    cancel: Cancel | None = None,
    interrupt: Interrupt | None = None,
) -> Iterator[ImageStream]:
    """The image of a disk, to be iterated over once, for the length of a ``with``.

    Args:
        source: the disk; its extents say what is zero.
        level: zstd's level for the next frame; asked by several threads.
        options: workers and memory.
        cancel: looked at a few times a second.
        interrupt: called when it ends early: makes a read of ``source`` that hangs come back, with an error.

    Raises:
        SourceError: the disk could not be read.
        Cancelled: ``cancel`` was set.
    """
    with suppress(_Abandoned), Crew("image", cancel, interrupt) as crew:
        stream = ImageStream(source, level, options, crew)
        yield stream
        stream.hold_ended()


class _Abandoned(Exception):
    """The caller went away before the end."""


class _Slot:
    """A frame on its way: from the reader to a worker and the digest, from the worker to the caller."""

    __slots__ = ("buffer", "frame", "length")

    def __init__(self, length: int, buffer: Buffer) -> None:
        self.length = length
        self.buffer = buffer
        self.frame = b""  # before it is compressed

    @property
    def plain(self) -> memoryview:
        return self.buffer.memory[: self.length]


class ImageStream:
    """Iterate over it for the image's pieces, in order; ``facts`` are known when it ended."""

    def __init__(self, source: MappedDevice, level: Callable[[], int], options: ImageOptions, crew: Crew) -> None:
        """Use ``image_stream``."""
        self._source = source
        self._level = level
        self._frame_bytes = options.frame_bytes
        self._crew = crew
        self._table = SeekTableBuilder()
        self._digest = hashlib.sha256()
        self._bytes_zero = 0
        self._facts: ImageFacts | None = None
        self.bytes_read = 0
        """How many bytes of the disk were read until now."""

        workers = options.workers_count
        count = max(options.memory_bytes // options.frame_bytes, workers + _BUFFERS_MIN)
        self._free: Channel[Buffer] = crew.channel(count)
        for _ in range(count):
            self._free.put(Buffer(0, options.frame_bytes, self._free))
        self._work: Channel[_Slot] = crew.channel(count)
        self._to_digest: Channel[_Slot | Zeroes] = crew.channel(_PLANNED_MAX)
        self._ordered: InOrder[_Slot | Zeroes] = InOrder(crew, _PLANNED_MAX)
        crew.start(self._read)
        crew.start(self._hash)
        for _ in range(workers):
            crew.start(self._compress)

    @property
    def size_bytes(self) -> int:
        """The disk's size."""
        return self._source.size_bytes

    @property
    def position(self) -> int:
        """How far on the disk the pieces are that were given out."""
        return self._table.plain_bytes

    def hold_ended(self) -> None:
        """The caller goes away: whoever still works for it is stopped."""
        if self._facts is None:
            raise _Abandoned

    @property
    def facts(self) -> ImageFacts:
        """What it turned out to be; known at the end."""
        assert self._facts is not None, "the image is not at its end"
        return self._facts

    def __iter__(self) -> Iterator[bytes]:
        """The pieces, in order.

        Raises:
            SourceError: the disk could not be read.
            Cancelled: the operator wants an end.
        """
        for item in self._ordered:
            self._crew.check()
            if isinstance(item, Zeroes):
                yield from self._zeroes(item)
                continue
            frame = item.frame
            item.buffer.release()
            self._table.add(len(frame), item.length, checksum_of(frame))
            yield frame
        table = self._table.encode()
        yield table
        self._crew.join()
        self._free.abort()  # it and its buffers hold each other: they would stay until the next collection
        assert self._table.plain_bytes == self.size_bytes, "the frames do not tile the disk"
        self._facts = ImageFacts(
            self.size_bytes,
            self._digest.hexdigest(),
            self._table.compressed_bytes + len(table),
            self._table.frames,
            self.bytes_read,
            self._bytes_zero,
        )

    def _zeroes(self, zeroes: Zeroes) -> Iterator[bytes]:
        frame = zero_frame(zeroes.frame_bytes)
        self._bytes_zero += zeroes.length
        for done in range(0, zeroes.count, _ZEROES_AT_ONCE):
            count = min(_ZEROES_AT_ONCE, zeroes.count - done)
            self._table.add(len(frame), zeroes.frame_bytes, checksum_of(frame), count)
            yield frame * count

    def _read(self) -> None:
        """The reader: keep ahead of everybody, as far as there are buffers."""
        for part in plan(self._source.extents(), self._source.size_bytes, self._frame_bytes):
            if isinstance(part, Filled):
                self._read_frame(part)
            else:
                self._ordered.begin(part, is_done=True)
                self._to_digest.put(part)
        self._work.close()
        self._to_digest.close()
        self._ordered.close()

    def _read_frame(self, part: Filled) -> None:
        buffer = self._free.get()
        buffer.hold()  # for the caller, whom the worker serves
        buffer.hold()  # for the digest
        self.bytes_read += load(self._source, Segment(part.start, part.length, part.fills), buffer)
        slot = _Slot(part.length, buffer)
        self._ordered.begin(slot)
        self._work.put(slot)
        self._to_digest.put(slot)

    def _hash(self) -> None:
        """The digest: the whole disk, in order."""
        for item in self._to_digest:
            if isinstance(item, Zeroes):
                self._hash_zeroes(item.length)
            else:
                self._digest.update(item.plain)
                item.buffer.release()

    def _hash_zeroes(self, length: int) -> None:
        zeroes = memoryview(_ZEROES)
        while length and not self._crew.stopping:
            self._digest.update(zeroes[: min(length, len(zeroes))])
            length -= min(length, len(zeroes))

    def _compress(self) -> None:
        """A worker."""
        encoder = Encoder()
        for slot in self._work:
            plain = slot.plain
            slot.frame = zero_frame(len(plain)) if all_zero(plain) else encoder.encode(plain, self._level())
            self._ordered.done(slot)
