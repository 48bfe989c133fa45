"""A file streamed to tape: a ring of pieces with the drive behind it, so that neither waits for the other.

    producer ──write──▶ │ piece │ piece │ piece │ ──▶ the drive's thread ──▶ block │ block │ … ──▶ digest's thread
                        └──────── ring ─────────┘     cuts blocks, writes          └── until digested ──┘
                        ◀──────────────────── ``ring_bytes`` bound both together ──────────────────────▶

Pieces are not copied: nobody may change them afterwards. A block that lies in one piece goes to the drive as it is;
only one that straddles two is put together. The digest is of blocks that are on their way to tape, and of no others.

Where a cartridge is full, nothing is lost and nothing is there twice. Whatever was handed over is in the part, or in
what is given back, to the byte:

    handed over    ├ p1 ┼ p2 ┼ p3 ┼ p4 ┼ p5 ┤    ``write`` said False to p5, or ``finish`` found it out
    cartridge 1    ├ block ┼ block ┤             ``Written.taken``, the part's length: always whole blocks
    given back                     ├─┼ p4 ┼ p5 ┤ ``Written.rest``: first into the stream of the next part
    cartridge 2                    ├ block ┼ …

    with FileStream(volume.create(path)) as stream:
        for piece in pieces:
            if not stream.write(piece):
                break                       it is not lost: it is in the rest
        part = stream.finish()
    if part.rest:                           the volume is full: commit it, take the next cartridge, and there
        with FileStream(next_volume.create(path_2), rest=part.rest) as stream: …
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tape.ltfs.index import DIGEST, File
from tape.ltfs.writer import FileWriter
from tape.scsi.transport import Buffer

RING_BYTES = 256 << 20
REFILL_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Stats:
    """How the ring fares, at one moment.

    Attributes:
        ring_bytes: what it may hold.
        fill_bytes: what waits in it for the drive.
        written_bytes: what the drive has taken.
        starved_s: how long the drive had nothing to write although the file had begun and not ended.
        starvations: how often that was.
        held_up_s: how long the producer waited for the drive.
    """

    ring_bytes: int
    fill_bytes: int
    written_bytes: int
    starved_s: float
    starvations: int
    held_up_s: float


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a file.

    Attributes:
        file: its entry in the index, with the digest as an attribute; None when not one block of it found room.
        taken: how many bytes of all that was handed over are in it.
        sha256: of these, in hex.
        rest: what was handed over and is not in it, in order; empty when the file is whole.
        stats: how the ring fared.
    """

    file: File | None
    taken: int
    sha256: str
    rest: tuple[memoryview, ...]
    stats: Stats


class FileStream:
    """One file on its way to tape. ``write`` and ``finish`` are for one thread; ``stats`` is for any.

    Within the ``with`` the drive is the stream's: nobody else may use the volume.
    """

    def __init__(
        self,
        writer: FileWriter,
        *,
        rest: Iterable[memoryview] = (),
        ring_bytes: int = RING_BYTES,
        refill_bytes: int = REFILL_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            writer: of a file just created.
            rest: what the part before it gave back.
            ring_bytes: the bound; one piece more may be in it.
            refill_bytes: once the ring has run empty, the drive waits for so much: a drive that stops and starts for
                every block wears the tape, and is slower than one that stops seldom.
            monotonic: the clock, in seconds.
        """
        self._writer = writer
        self._block_bytes = writer.block_bytes
        self._ring_bytes = max(ring_bytes, 2 * self._block_bytes)
        self._refill_bytes = min(refill_bytes, self._ring_bytes // 4)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # for the producer
        self._work = threading.Condition(self._lock)  # for the drive
        self._blocks = threading.Condition(self._lock)  # for the digest
        self._ring = deque(piece for piece in rest if len(piece))
        self._fill = sum(len(piece) for piece in self._ring)
        self._undigested: deque[Buffer] = deque()
        self._undigested_bytes = 0
        self._written = 0
        self._ended = self._stopped = self._full = self._drive_done = self._digest_done = False
        self._error: BaseException | None = None
        self._starving_since: float | None = None
        self._starved_s = self._held_up_s = 0.0
        self._starvations = 0
        self._digest = hashlib.sha256()
        self._finished = False
        self._threads = (
            threading.Thread(target=self._drive_blocks, name=f"drive: {writer.name}", daemon=True),
            threading.Thread(target=self._digest_blocks, name=f"digest: {writer.name}", daemon=True),
        )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both threads; a file that was not finished is none."""
        if self._finished:
            return
        with self._lock:
            self._stopped = True
            self._wake()
        self._join()
        self._writer.abort()

    # ------------------------------------------------------------------ the producer

    @property
    def full(self) -> bool:
        """Whether the volume takes no more of it; what is still handed over goes into the rest."""
        return self._full

    def write(self, piece: Buffer) -> bool:
        """Hand over a piece, waiting while the ring is full. False: the volume is full, and the piece in the rest.

        Raises:
            TapeError: the drive could not write; the file is lost, what was committed is not.
        """
        view = memoryview(piece).cast("B")
        with self._lock:
            assert not self._ended, "written to after its end"
            self._wait_for_room()
            if self._error is not None:
                raise self._error
            if len(view):
                self._ring.append(view)
                self._fill += len(view)
                self._work.notify()
            return not self._full

    def _wait_for_room(self) -> None:
        if self._may_take():
            return
        began_s = self._monotonic()
        try:
            self._room.wait_for(self._may_take)
        finally:
            self._held_up_s += self._monotonic() - began_s

    def _may_take(self) -> bool:
        held = self._fill + self._undigested_bytes
        return held < self._ring_bytes or self._full or self._error is not None

    def finish(self, xattrs: Mapping[str, bytes] | None = None) -> Written:
        """All was handed over: wait until it is written, or the volume is full. Safe with the next commit.

        Args:
            xattrs: extended attributes; that of the digest is added.

        Raises:
            TapeError: as ``write``.
        """
        with self._lock:
            self._ended = True
            self._wake()
        self._join()
        if self._error is not None:
            raise self._error
        self._finished = True
        sha256 = self._digest.hexdigest()
        rest = tuple(self._ring)
        if rest and not self._written:
            self._writer.abort()
            return Written(None, 0, sha256, rest, self.stats())
        file = self._writer.finish({**(xattrs or {}), DIGEST: sha256.encode("ascii")})
        assert file.length == self._written, "the index would not say what is on tape"
        return Written(file, self._written, sha256, rest, self.stats())

    def stats(self) -> Stats:
        """How the ring fares right now."""
        with self._lock:
            since = self._starving_since
            starving_s = 0.0 if since is None else self._monotonic() - since
            return Stats(
                self._ring_bytes, self._fill, self._written, self._starved_s + starving_s, self._starvations,
                self._held_up_s,
            )  # fmt: skip

    def _join(self) -> None:
        with self._lock:  # a `Thread.join` that a signal's exception breaks off takes the thread for ended
            self._room.wait_for(lambda: self._drive_done and self._digest_done)
        for thread in self._threads:
            thread.join()

    def _wake(self) -> None:
        for condition in (self._room, self._work, self._blocks):
            condition.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
            self._stopped = True
            self._wake()

    # ------------------------------------------------------------------ the drive's thread

    def _drive_blocks(self) -> None:
        try:
            with self._writer.seat.claimed():
                while (block := self._next_block()) is not None:
                    if not self._takes(block):
                        self._give_back(block)
                        break
                    self._was_written(block)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the producer is to hear of it
            self._fail(error)
        finally:
            with self._lock:
                self._drive_done = True
                self._wake()

    def _takes(self, block: Buffer) -> bool:
        """Write it, if there is room. A last one goes onto a full volume, too: it is not worth another cartridge."""
        if self._writer.full and not (self._ended and not self._ring):
            return False
        return self._writer.put(block)

    def _next_block(self) -> Buffer | None:
        with self._lock:
            if not self._has_block():
                self._starve()
            if self._stopped or not self._ring:
                return None
            return self._cut()

    def _has_block(self) -> bool:
        return self._fill >= self._block_bytes or self._ended or self._stopped

    def _starve(self) -> None:
        """Wait for the source; before the first block that is no starving."""
        if self._written:
            self._starving_since = self._monotonic()
            self._starvations += 1
        enough = self._refill_bytes if self._written else self._block_bytes
        self._work.wait_for(lambda: self._fill >= max(enough, self._block_bytes) or self._ended or self._stopped)
        if self._starving_since is not None:
            self._starved_s += self._monotonic() - self._starving_since
            self._starving_since = None

    def _cut(self) -> Buffer:
        """The next block off the ring; shorter than others only at the file's end."""
        size = min(self._block_bytes, self._fill)
        first = self._ring.popleft()
        if len(first) >= size:
            block: Buffer = first[:size]
            if len(first) > size:
                self._ring.appendleft(first[size:])
        else:
            block = bytearray(first)
            while len(block) < size:
                piece = self._ring.popleft()
                lacking = size - len(block)
                block += piece[:lacking]
                if len(piece) > lacking:
                    self._ring.appendleft(piece[lacking:])
        return block

    def _was_written(self, block: Buffer) -> None:
        with self._lock:
            self._fill -= len(block)
            self._written += len(block)
            self._undigested.append(block)
            self._undigested_bytes += len(block)
            self._blocks.notify()

    def _give_back(self, block: Buffer) -> None:
        with self._lock:
            self._ring.appendleft(memoryview(block))
            self._full = True
            self._wake()

    # ------------------------------------------------------------------ the digest's thread

    def _digest_blocks(self) -> None:
        try:
            while (block := self._next_written()) is not None:
                self._digest.update(block)
                self._was_digested(len(block))
        except BaseException as error:  # noqa: BLE001  # likewise
            self._fail(error)
        finally:
            with self._lock:
                self._digest_done = True
                self._wake()

    def _next_written(self) -> Buffer | None:
        with self._lock:
            self._blocks.wait_for(lambda: self._undigested or self._drive_done)
            return self._undigested.popleft() if self._undigested else None

    def _was_digested(self, size: int) -> None:
        with self._lock:
            self._undigested_bytes -= size
            self._room.notify()
