"""Pieces of a file between its producer, the drive and its digest, under one bound: each waits for the next here.

    put ──▶ │ piece │ piece │ piece │ ──▶ next_block ── written ──▶ │ block │ block │ ──▶ next_written ── digested
            └──────── fill ─────────┘                               └── until digested ──┘
            ◀─────────────────────────── ``ring_bytes`` bound both together ─────────────────────────────▶

Pieces are not copied: nobody may change them afterwards. A block that lies in one piece goes to the drive as it is;
only one that straddles two is put together. The first error ends all three.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from tape.scsi.transport import Buffer


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


class Side(Enum):
    """Who works behind the ring."""

    DRIVE = "drive"
    DIGEST = "digest"


class Ring:
    """Of one file. For three threads: the producer's, the drive's and the digest's."""

    def __init__(
        self,
        rest: Iterable[memoryview],
        *,
        block_bytes: int,
        ring_bytes: int,
        refill_bytes: int,
        monotonic: Callable[[], float],
    ) -> None:
        """Begin with what the part before gave back; for the other arguments see ``FileStream``."""
        self._block_bytes = block_bytes
        self._ring_bytes = max(ring_bytes, 2 * block_bytes)
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
        self._ended = self._stopped = self._full = False
        self._done: set[Side] = set()
        self._error: BaseException | None = None
        self._starving_since: float | None = None
        self._starved_s = self._held_up_s = 0.0
        self._starvations = 0

    # ------------------------------------------------------------------ the producer

    @property
    def full(self) -> bool:
        """Whether the volume takes no more."""
        return self._full

    def put(self, piece: memoryview) -> bool:
        """Hand over a piece, waiting while there is no room. False: the volume is full, and the piece in the rest.

        Raises:
            BaseException: the error that ended it.
        """
        with self._lock:
            assert not self._ended, "written to after its end"
            self._wait_for_room()
            if self._error is not None:
                raise self._error
            if len(piece):
                self._ring.append(piece)
                self._fill += len(piece)
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

    def end(self) -> None:
        """All was handed over."""
        with self._lock:
            self._ended = True
            self._wake()

    def stop(self) -> None:
        """What is not written yet is not wanted any more."""
        with self._lock:
            self._stopped = True
            self._wake()

    def wait_done(self) -> None:
        """Until both sides are done."""
        with self._lock:
            self._room.wait_for(lambda: len(self._done) == len(Side))

    def rest(self) -> tuple[memoryview, ...]:
        """What was handed over and not written, in order; once both sides are done.

        Raises:
            BaseException: the error that ended it.
        """
        if self._error is not None:
            raise self._error
        return tuple(self._ring)

    def stats(self) -> Stats:
        """How it fares right now; for any thread."""
        with self._lock:
            since = self._starving_since
            starving_s = 0.0 if since is None else self._monotonic() - since
            return Stats(
                self._ring_bytes, self._fill, self._written, self._starved_s + starving_s, self._starvations,
                self._held_up_s,
            )  # fmt: skip

    # ------------------------------------------------------------------ both sides behind it

    def fail(self, error: BaseException) -> None:
        """End it all: the producer is to hear of it. The first error is the one that is told."""
        with self._lock:
            self._error = self._error or error
            self._stopped = True
            self._wake()

    def done(self, side: Side) -> None:
        """One side will ask for nothing more."""
        with self._lock:
            self._done.add(side)
            self._wake()

    def _wake(self) -> None:
        for condition in (self._room, self._work, self._blocks):
            condition.notify_all()

    # ------------------------------------------------------------------ the drive

    @property
    def is_last(self) -> bool:
        """Whether the block that was cut is the file's last."""
        return self._ended and not self._ring

    def next_block(self) -> Buffer | None:
        """The next block, waiting for it; shorter than others only at the file's end. None: there is none."""
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

    def written(self, block: Buffer) -> None:
        """The drive has taken a block: the digest's turn."""
        with self._lock:
            self._fill -= len(block)
            self._written += len(block)
            self._undigested.append(block)
            self._undigested_bytes += len(block)
            self._blocks.notify()

    def give_back(self, block: Buffer) -> None:
        """The drive has no room for a block, nor for what comes behind it."""
        with self._lock:
            self._ring.appendleft(memoryview(block))
            self._full = True
            self._wake()

    # ------------------------------------------------------------------ the digest

    def next_written(self) -> Buffer | None:
        """The next block that the drive has taken, waiting for it. None: there is none."""
        with self._lock:
            self._blocks.wait_for(lambda: self._undigested or Side.DRIVE in self._done)
            return self._undigested.popleft() if self._undigested else None

    def digested(self, size_bytes: int) -> None:
        """A block is of no more use here."""
        with self._lock:
            self._undigested_bytes -= size_bytes
            self._room.notify()
