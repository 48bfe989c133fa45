"""A file streamed to tape: a ring of pieces with the drive behind it, so that neither waits for the other.

    producer ──write──▶ │ piece │ piece │ piece │ ──▶ the drive's thread ──▶ block │ block │ … ──▶ digest's thread
                        └──────── ring ─────────┘     cuts blocks, writes          └── until digested ──┘
                        ◀──────────────────── ``ring_bytes`` bound both together ──────────────────────▶

The digest is of blocks that are on their way to tape, and of no others.

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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tape.ltfs.index import DIGEST, File
from tape.ltfs.ring import Ring, Side, Stats
from tape.ltfs.writer import FileWriter
from tape.scsi.transport import Buffer

RING_BYTES = 256 << 20
REFILL_BYTES = 32 << 20


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
        self._ring = Ring(
            rest,
            block_bytes=writer.block_bytes,
            ring_bytes=ring_bytes,
            refill_bytes=refill_bytes,
            monotonic=monotonic,
        )
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
        self._ring.stop()
        self._join()
        self._writer.abort()

    @property
    def full(self) -> bool:
        """Whether the volume takes no more of it; what is still handed over goes into the rest."""
        return self._ring.full

    def write(self, piece: Buffer) -> bool:
        """Hand over a piece, waiting while the ring is full. False: the volume is full, and the piece in the rest.

        Raises:
            TapeError: the drive could not write; the file is lost, what was committed is not.
        """
        return self._ring.put(memoryview(piece).cast("B"))

    def finish(self, xattrs: Mapping[str, bytes] | None = None) -> Written:
        """All was handed over: wait until it is written, or the volume is full. Safe with the next commit.

        Args:
            xattrs: extended attributes; that of the digest is added.

        Raises:
            TapeError: as ``write``.
        """
        self._ring.end()
        self._join()
        rest = self._ring.rest()
        self._finished = True
        sha256, stats = self._digest.hexdigest(), self._ring.stats()
        if rest and not stats.written_bytes:
            self._writer.abort()
            return Written(None, 0, sha256, rest, stats)
        file = self._writer.finish({**(xattrs or {}), DIGEST: sha256.encode("ascii")})
        assert file.length == stats.written_bytes, "the index would not say what is on tape"
        return Written(file, stats.written_bytes, sha256, rest, stats)

    def stats(self) -> Stats:
        """How the ring fares right now."""
        return self._ring.stats()

    def _join(self) -> None:
        self._ring.wait_done()  # a `Thread.join` that a signal's exception breaks off takes the thread for ended
        for thread in self._threads:
            thread.join()

    # ------------------------------------------------------------------ the threads behind the ring

    def _drive_blocks(self) -> None:
        try:
            with self._writer.seat.claimed():
                while (block := self._ring.next_block()) is not None:
                    if not self._takes(block):
                        self._ring.give_back(block)
                        break
                    self._ring.written(block)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the producer is to hear of it
            self._ring.fail(error)
        finally:
            self._ring.done(Side.DRIVE)

    def _takes(self, block: Buffer) -> bool:
        """Write it, if there is room. A last one goes onto a full volume, too: it is not worth another cartridge."""
        if self._writer.full and not self._ring.is_last:
            return False
        return self._writer.put(block)

    def _digest_blocks(self) -> None:
        try:
            while (block := self._ring.next_written()) is not None:
                self._digest.update(block)
                self._ring.digested(len(block))
        except BaseException as error:  # noqa: BLE001  # likewise
            self._ring.fail(error)
        finally:
            self._ring.done(Side.DIGEST)
