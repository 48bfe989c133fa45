"""Copies a disk into a target: read once, cut, digested, compressed and stored by several workers at a time.

    reader ──segments──▶ cutter ──chunks──▶ worker 0 ─▶ packer 0 ─▶ target
    (a thread)           (the caller's)     worker n ─▶ packer n ─▶

Promises: every byte that is not known to be zero is read exactly once, in order; known zeroes are never read; the ids
stand in the disk's order whichever worker was faster; memory is bounded by ``memory_bytes`` plus what the packers hold;
on any error, and on being cancelled, all threads have ended when the error arrives. Nothing is durable before the
target says so: finishing the packers and committing is for whoever gave the sink.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from vcbproxy.device import MappedDevice
from vcbproxy.extent import Extent
from vcbproxy.pipeline import chunker, segments
from vcbproxy.pipeline.channel import Channel
from vcbproxy.pipeline.chunker import BLOCK, GRANULE, HOLE_STEP, Rule
from vcbproxy.pipeline.content import CopyStats, DiskContent, Lengths, Rows, zero_id
from vcbproxy.pipeline.crew import Cancel, Crew, Interrupt
from vcbproxy.pipeline.cutter import Cutter, Piece, Stretch
from vcbproxy.pipeline.segments import Buffer, Gap, Loaded, Segment
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.vouched import Taken
from vcbproxy.units import MiB, align_up

_WORKERS_MAX = 4
_BUFFERS_MIN = 3  # one being read, one being cut, one being stored
_BATCH = 4  # chunks handed over at a time: fewer wake-ups, and still enough batches for all workers to be busy


class Stored(Protocol):
    """What a packer counts."""

    @property
    def stored_bytes(self) -> int:
        """How many bytes it has added to the target."""


class BlobPacker(Protocol):
    """Stores blobs; used by one thread."""

    def add(self, kind: BlobKind, plain: memoryview, blob_id: bytes | None = None) -> bytes:
        """Store a blob unless it is there already; return its id. ``plain`` is not needed any more afterwards."""

    def finish(self) -> None:
        """No more blobs come: write what is held back."""

    @property
    def stats(self) -> Stored:
        """What it has stored so far."""


class DiskSink(Protocol):
    """Where the chunks of a disk go."""

    def packer(self) -> BlobPacker:
        """A packer for one more worker."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is: ``bytes_done`` of ``bytes_total`` have been seen, ``bytes_read`` of them were read."""

    bytes_total: int
    bytes_done: int
    bytes_read: int
    bytes_zero: int


def no_progress(_progress: Progress) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much of the machine a copy may take.

    Attributes:
        workers: threads that digest and compress, each with its own packer; 0 for one per processor, but at most four,
            since a packer holds a pack or two in memory.
        memory_bytes: for the data between reader and packers: by default four segments with their head room.
        segment_bytes: how much is read at once; zeroes of an eighth of it or more are not even wiped. At 4 MiB what is
            done once for each costs up to 4 % of a copy's time more; 16 MiB gain nothing further.
    """

    workers: int = 0
    memory_bytes: int = 42 * MiB
    segment_bytes: int = 8 * MiB

    @property
    def workers_count(self) -> int:
        """The number of workers, decided."""
        return self.workers or min(os.cpu_count() or 1, _WORKERS_MAX)


@dataclass(frozen=True, slots=True)
class Fresh:
    """A stretch of the disk that is read and cut; its extents tile what is seen of it."""

    stretch: Stretch
    extents: Iterable[Extent]


@dataclass(frozen=True, slots=True)
class Kept:
    """Chunks that are known already, up to the position ``end``; ``bytes_zero`` of them lie in holes.

    They are those of the base from its ``row`` on.
    """

    row: int
    ids: Ids
    lengths: Lengths
    end: int
    bytes_zero: int


def nothing_known(_piece: Piece) -> bytes | None:
    """No chunk's id is known before it is digested."""
    return None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk to be stored: data in a buffer, or zeroes (``row`` is then None: its id is known already).

    Of data that is ``expected`` to be the base's only the digest is wanted, if it is.
    """

    row: int | None
    plain: memoryview
    buffer: Buffer | None
    start: int = 0
    expected: bytes | None = None


def copy_disk(
    source: MappedDevice,
    sink: DiskSink,
    rule: Rule,
    *,
    options: Options = Options(),
    progress: Callable[[Progress], None] = no_progress,
    cancel: Cancel | None = None,
    interrupt: Interrupt | None = None,
) -> DiskContent:
    """Store every chunk of a disk; return what the disk consists of.

    Args:
        source: the disk; its extents say what is zero.
        sink: gives one packer for each worker.
        rule: where to cut.
        options: workers and memory.
        progress: called by this thread, for every segment.
        cancel: looked at a few times a second.
        interrupt: called when the copy ends early: makes a read of ``source`` that hangs come back, with an error.

    Raises:
        SourceError: the disk could not be read.
        Error: whatever the target raises.
        Cancelled: ``cancel`` was set.
    """
    whole = Fresh(Stretch.whole(source.size_bytes), source.extents())
    with Crew("copy", cancel, interrupt) as crew:
        return Copy(source, sink, rule, options, crew).run([whole], progress)


class Copy:
    """One copy under way: the channels and counters that its three stages share. It is run once.

    Args:
        source: what is read.
        sink: gives one packer for each worker.
        rule: where to cut.
        options: workers and memory.
        crew: whose threads read and store.
        known_id: the id that a chunk of data should have, if it is the base's; asked by the cutter.
    """

    def __init__(
        self,
        source: MappedDevice,
        sink: DiskSink,
        rule: Rule,
        options: Options,
        crew: Crew,
        known_id: Callable[[Piece], bytes | None] = nothing_known,
    ) -> None:
        self._source = source
        self._rule = rule
        self._crew = crew
        self._known_id = known_id
        self._bytes_read = 0  # written by the reader only
        self._bytes_zero = 0
        self._chunks = 0
        self._rows = Rows()
        self.taken_over: list[Taken] = []
        """Where what is kept of the base lies in the new list."""
        self.untold: list[tuple[int, int]] = []
        """Offset and length of chunks that should be the base's, and are not; in no order."""
        self._zeroes = memoryview(bytes(HOLE_STEP))
        self._zeroes_sent: set[int] = set()
        self._packers = [sink.packer() for _ in range(options.workers_count)]

        window_bytes = rule.window * BLOCK
        # Behind a gap of w blocks all that lies before it is decided, so that nothing must be carried across.
        self._gap_min = max(align_up(window_bytes, GRANULE), options.segment_bytes // 8)
        self._segment_bytes = options.segment_bytes
        head_bytes = align_up(rule.max_bytes + window_bytes, GRANULE)
        count = max(options.memory_bytes // (head_bytes + options.segment_bytes), _BUFFERS_MIN)
        self._free: Channel[Buffer] = crew.channel(count)
        for _ in range(count):
            self._free.put(Buffer(head_bytes, options.segment_bytes, self._free))
        self._loaded: Channel[Fresh | Kept | Gap | Loaded] = crew.channel(count)
        self._work: Channel[list[_Chunk]] = crew.channel(2 * len(self._packers))

    def run(self, parts: Iterable[Fresh | Kept], progress: Callable[[Progress], None]) -> DiskContent:
        """Copy the parts of the disk, which tile it in order; return what the disk consists of."""
        self._crew.start(self._read, parts)
        for packer in self._packers:
            self._crew.start(self._store, packer)
        for position in self._cut():
            progress(Progress(self._source.size_bytes, position, self._bytes_read, self._bytes_zero))
        self._work.close()
        self._crew.join()
        self._free.abort()  # it and its buffers hold each other: they would stay until the next collection
        ids, lengths = self._rows.columns()
        assert int(lengths.sum(dtype="u8")) == self._source.size_bytes, "the chunks do not tile the disk"
        stored = sum(packer.stats.stored_bytes for packer in self._packers)
        size = self._source.size_bytes
        return DiskContent(ids, lengths, CopyStats(size, self._bytes_read, self._bytes_zero, stored, self._chunks))

    def _read(self, parts: Iterable[Fresh | Kept]) -> None:
        """The reader: keep ahead of everybody, as far as there are buffers."""
        for part in parts:
            self._loaded.put(part)
            if isinstance(part, Fresh):
                self._read_stretch(part)
        self._loaded.close()

    def _read_stretch(self, part: Fresh) -> None:
        start, end = part.stretch.seen_from, part.stretch.seen_to
        for step in segments.plan(part.extents, end, self._segment_bytes, self._gap_min, start):
            if isinstance(step, Segment):
                buffer = self._free.get()
                buffer.hold()
                self._bytes_read += segments.load(self._source, step, buffer)
                self._loaded.put(Loaded(step.start, step.length, buffer))
            else:
                self._loaded.put(step)

    def _cut(self) -> Iterator[int]:
        """The cutter: find the chunks, hand them to the workers, and yield how far it is."""
        cutter: Cutter | None = None  # of the stretch we are in
        touching_from = 0  # where the segments that touch each other began
        last: Loaded | None = None
        for step in self._loaded:
            self._crew.check()
            if isinstance(step, Fresh | Kept):
                if cutter is not None:
                    self._send(cutter.finish(), last)
                    _let_go(last)
                    cutter = last = None
                if isinstance(step, Kept):
                    self._keep(step)
                    yield step.end
                else:
                    cutter = Cutter(self._rule, self._source.size_bytes, step.stretch)
                    touching_from = step.stretch.seen_from
                continue
            assert cutter is not None, f"{step} is in no stretch"
            if isinstance(step, Gap):
                self._send(cutter.skip(step.length), last)
                touching_from = step.start + step.length
                _let_go(last)
                last = None
            else:
                _carry(last, step, max(cutter.needed_from, touching_from))
                _let_go(last)
                last = step
                self._send(cutter.feed(step.body), last)
            yield cutter.position
        if cutter is not None:
            self._send(cutter.finish(), last)
            _let_go(last)

    def _keep(self, kept: Kept) -> None:
        self.taken_over.append(Taken(len(self._rows), kept.row, len(kept.lengths)))
        self._rows.extend(kept.ids, kept.lengths)
        self._bytes_zero += kept.bytes_zero

    def _send(self, pieces: list[Piece], loaded: Loaded | None) -> None:
        """Give pieces that have just become certain to the workers."""
        batch: list[_Chunk] = []
        for piece in pieces:
            batch += self._zeroes_in(piece) if piece.hole else self._chunk_of(piece, loaded)
            if len(batch) >= _BATCH:
                self._work.put(batch)
                batch = []
        if batch:
            self._work.put(batch)

    def _chunk_of(self, piece: Piece, loaded: Loaded | None) -> list[_Chunk]:
        row = self._rows.append(piece.length)
        expected = self._known_id(piece)
        assert loaded is not None, f"{piece} is data, and was not read"
        loaded.buffer.hold()
        self._chunks += expected is None
        return [_Chunk(row, loaded.view(piece.start, piece.length), loaded.buffer, piece.start, expected)]

    def _zeroes_in(self, hole: Piece) -> list[_Chunk]:
        """Ids of zeroes are known; each length of them is stored once."""
        self._bytes_zero += hole.length
        different = self._rows.append_zeroes(chunker.hole_lengths(hole.start, hole.end))
        new = [length for length in different if length not in self._zeroes_sent]
        self._zeroes_sent.update(new)
        return [_Chunk(None, self._zeroes[:length], None) for length in new]

    def _store(self, packer: BlobPacker) -> None:
        """A worker."""
        for batch in self._work:
            for chunk in batch:
                self._store_chunk(packer, chunk)
        packer.finish()

    def _store_chunk(self, packer: BlobPacker, chunk: _Chunk) -> None:
        if chunk.row is None:
            packer.add(BlobKind.DATA, chunk.plain, zero_id(len(chunk.plain)))
            return
        self._rows.place(chunk.row, self._as_expected(chunk) or packer.add(BlobKind.DATA, chunk.plain))
        assert chunk.buffer is not None
        chunk.buffer.release()

    def _as_expected(self, chunk: _Chunk) -> bytes | None:
        """The id of a chunk that is the base's; of one that should be, and is not, take note."""
        if chunk.expected is None or digest(chunk.plain) == chunk.expected:
            return chunk.expected
        self.untold.append((chunk.start, len(chunk.plain)))
        return None


def _carry(last: Loaded | None, into: Loaded, kept_from: int) -> None:
    """Copy what is still needed of the previous segment into the head room of the next."""
    if last is not None and kept_from < into.start:
        tail = into.start - kept_from
        head = into.buffer.head_bytes
        into.buffer.memory[head - tail : head] = last.view(kept_from, tail)


def _let_go(loaded: Loaded | None) -> None:
    if loaded is not None:
        loaded.buffer.release()
