"""Brings a disk back from its image's stream: the other half of ``archive.py``.

    pieces ─▶ split (the caller's thread) ──frames──▶ worker 0 ─ decompress, check ─▶ sink: written at its place
                                                      worker n ─                   └▶ digest, in the disk's order

Promises: what the sink gets has the length and the checksum that its frame claims; the disk's size and SHA-256 are held
against what is expected, and the frames against the seek table if there is one; memory is bounded.
Zeroes are not decompressed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, cast

import zstandard

from vcbproxy.archive.delta import Sink
from vcbproxy.archive.frames import Decoder, Skippable, Splitter, Whole, all_zero, is_zero_frame
from vcbproxy.archive.seektable import SeekTableBuilder, is_table, parse_table
from vcbproxy.errors import IntegrityError
from vcbproxy.pipeline import output
from vcbproxy.pipeline.channel import Channel
from vcbproxy.pipeline.crew import Cancel, Crew
from vcbproxy.pipeline.inorder import InOrder
from vcbproxy.units import MiB

_WORKERS_MAX = 8
_AHEAD = 2  # frames waiting for each worker
_ZEROES = bytes(MiB)
_STEP_BYTES = MiB
_WINDOW_BYTES_MAX = 128 << 20


class FreshFile:
    """A new, sparse file as a sink: what is zero in it needs no writing."""

    def __init__(self, out: output.NewFile) -> None:
        self._out = out

    def write_at(self, offset: int, plain: memoryview) -> None:
        """Write all of it."""
        self._out.write_at(offset, plain)

    def zero_at(self, offset: int, length: int) -> None:
        """It is zero already."""


class FilledFile(FreshFile):
    """A file that has content: what is zero overwrites it."""

    def zero_at(self, offset: int, length: int) -> None:
        """Write zeroes."""
        zeroes = memoryview(_ZEROES)
        while length:
            count = min(length, len(zeroes))
            self._out.write_at(offset, zeroes[:count])
            offset, length = offset + count, length - count


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a disk from elsewhere; None where nothing is."""

    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out of an image."""

    size_bytes: int
    sha256: str
    bytes_zero: int


def no_progress(_position: int) -> None:
    """Tell nobody."""


def unpack(
    pieces: Iterable[bytes | memoryview],
    sink: Sink,
    expected: Expected = Expected(),
    *,
    name: str,
    workers: int = 0,
    progress: Callable[[int], None] = no_progress,
    cancel: Cancel | None = None,
) -> Unpacked:
    """Take an image apart, whole: one of ours, or any zstd stream.

    Raises:
        IntegrityError: it is damaged, cut off, or not what is expected.
        Error: whatever the sink and the pieces raise.
        Cancelled: ``cancel`` was set.
    """
    with Crew("unpack", cancel) as crew:
        splitter = Splitter(pieces, name)
        if splitter.is_of_frames():
            count = workers or min(os.cpu_count() or 1, _WORKERS_MAX)
            done = _Unpacking(name, sink, crew, count).run(splitter, progress)
        else:
            done = _unpack_stream(splitter, sink, name, progress, crew)
    _hold(done, expected, name)
    return done


def _hold(done: Unpacked, expected: Expected, name: str) -> None:
    if expected.size_bytes is not None and done.size_bytes != expected.size_bytes:
        raise IntegrityError(f"{name} holds {done.size_bytes} bytes of a disk of {expected.size_bytes}")
    if expected.sha256 is not None and done.sha256 != expected.sha256:
        raise IntegrityError(f"{name}: the disk's SHA-256 is {done.sha256}, {expected.sha256} was recorded")


class _Slot:
    """A frame on its way from the splitter to a worker, and from there to the digest."""

    __slots__ = ("plain", "whole")

    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self.plain: bytes | None = None  # None: zeroes


class _Unpacking:
    """One image of ours on its way out. It is run once."""

    def __init__(self, name: str, sink: Sink, crew: Crew, workers: int) -> None:
        self._name = name
        self._sink = sink
        self._crew = crew
        self._work: Channel[_Slot] = crew.channel(_AHEAD * workers)
        self._ordered: InOrder[_Slot] = InOrder(crew, (_AHEAD + 1) * workers)  # bounds what is held of the disk
        self._digest = hashlib.sha256()
        self._walked = SeekTableBuilder()
        self._bytes_zero = 0
        self._all_checked = True
        crew.start(self._hash)
        for _ in range(workers):
            crew.start(self._decompress)

    def run(self, splitter: Splitter, progress: Callable[[int], None]) -> Unpacked:
        """Take all of it apart."""
        for found in splitter:
            self._crew.check()
            if isinstance(found, Skippable):
                if is_table(found.data):
                    self._hold_table(found.data)
                continue
            slot = _Slot(found)
            frame = found.frame
            self._walked.add(frame.compressed_bytes, frame.plain_bytes, frame.checksum or 0)
            self._all_checked = self._all_checked and frame.checksum is not None
            self._ordered.begin(slot)
            self._work.put(slot)
            progress(frame.end)
        self._work.close()
        self._ordered.close()
        self._crew.join()
        return Unpacked(self._walked.plain_bytes, self._digest.hexdigest(), self._bytes_zero)

    def _hold_table(self, data: bytes) -> None:
        """The seek table says the same as what came: no frame is missing, none came twice."""
        if data == self._walked.encode():
            return
        table = parse_table(data, self._name)
        if (table.compressed_bytes, table.plain_bytes) != (self._walked.compressed_bytes, self._walked.plain_bytes):
            raise IntegrityError(
                f"{self._name}: its seek table tells of {table.plain_bytes} bytes in {len(table)} frames, "
                f"{self._walked.plain_bytes} in {self._walked.frames} came"
            )
        if table.has_checksums and self._all_checked:
            raise IntegrityError(f"{self._name}: its frames' checksums are not those of its seek table")

    def _decompress(self) -> None:
        """A worker."""
        decoder = Decoder(self._name)
        for slot in self._work:
            frame = slot.whole.frame
            if is_zero_frame(slot.whole.data, frame.plain_bytes):
                self._sink.zero_at(frame.start, frame.plain_bytes)
            else:
                slot.plain = decoder.decode(frame, slot.whole.data)
                self._sink.write_at(frame.start, memoryview(slot.plain))
            self._ordered.done(slot)

    def _hash(self) -> None:
        """The digest: the whole disk, in order."""
        for slot in self._ordered:
            if slot.plain is None:
                self._bytes_zero += slot.whole.frame.plain_bytes
                self._hash_zeroes(slot.whole.frame.plain_bytes)
            else:
                self._digest.update(slot.plain)

    def _hash_zeroes(self, length: int) -> None:
        zeroes = memoryview(_ZEROES)
        while length and not self._crew.stopping:
            self._digest.update(zeroes[: min(length, len(zeroes))])
            length -= min(length, len(zeroes))


def _unpack_stream(splitter: Splitter, sink: Sink, name: str, progress: Callable[[int], None], crew: Crew) -> Unpacked:
    """Frames of unknown size, as ``zstd`` makes them of a pipe: one after the other."""
    digest, position, bytes_zero = hashlib.sha256(), 0, 0
    context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
    source = cast("IO[bytes]", _Source(splitter.blocks()))  # it wants no more than read
    with context.stream_reader(source, read_across_frames=True) as reader:
        while plain := _read(reader, name, position):
            crew.check()
            digest.update(plain)
            if all_zero(memoryview(plain)):
                bytes_zero += len(plain)
                sink.zero_at(position, len(plain))
            else:
                sink.write_at(position, memoryview(plain))
            position += len(plain)
            progress(position)
    return Unpacked(position, digest.hexdigest(), bytes_zero)


def _read(reader: zstandard.ZstdDecompressionReader, name: str, position: int) -> bytes:
    try:
        return reader.read(_STEP_BYTES)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{name} is damaged: {error} (disk offset {position} or behind)") from error


class _Source:
    """Pieces, to be read like a file."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces

    def read(self, _size_bytes: int = -1) -> bytes | memoryview:
        """The next piece, however long."""
        return next(self._pieces, b"")
