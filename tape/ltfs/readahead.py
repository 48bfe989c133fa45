"""A file read ahead, so that the drive streams while whoever wants its bytes decompresses or writes them.

    the drive ──▶ a thread of its own ──▶ │ piece │ piece │ … │ ──▶ for piece in pieces

    with ReadAhead(volume.open(path)) as pieces:
        for piece in pieces:
            target.write(piece.data)

Within the ``with`` the drive is the reader's: nobody else may use the volume.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tape.ltfs.reader import FileReader, Piece

RING_BYTES = 64 << 20


class ReadAhead:
    """One file, from an offset to its end. Its pieces are for one thread."""

    def __init__(
        self, reader: FileReader, *, offset: int = 0, ring_bytes: int = RING_BYTES, data_only: bool = False
    ) -> None:
        """Begin.

        Args:
            reader: of the file.
            offset: from which it is read.
            ring_bytes: what may be held at most; one piece more may be.
            data_only: leave holes out, however long they are.
        """
        self._pieces = reader.data_pieces if data_only else reader.pieces
        self._reader = reader
        self._offset = offset
        self._ring_bytes = ring_bytes
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._went = threading.Condition(self._lock)
        self._ring: deque[Piece] = deque()
        self._held = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name=f"read: {reader.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, whether all was wanted or not."""
        with self._lock:
            self._stopped = True
            self._went.notify_all()
            self._came.wait_for(lambda: self._ended)  # an interrupted `Thread.join` would take it for ended
        self._thread.join()

    def __iter__(self) -> Iterator[Piece]:
        """The pieces, in order.

        Raises:
            TapeError: the file cannot be read; after all pieces before that place.
        """
        while (piece := self._next()) is not None:
            yield piece

    def _next(self) -> Piece | None:
        with self._lock:
            self._came.wait_for(lambda: self._ring or self._ended)
            if self._ring:
                piece = self._ring.popleft()
                self._held -= len(piece.data)
                self._went.notify()
                return piece
            if self._error is not None:
                raise self._error
            return None

    def _read(self) -> None:
        try:
            with self._reader.seat.claimed():
                for piece in self._pieces(self._offset):
                    if not self._put(piece):
                        return
        except BaseException as error:  # noqa: BLE001  # whoever wants the next piece is to hear of it
            self._error = error
        finally:
            with self._lock:
                self._ended = True
                self._came.notify_all()

    def _put(self, piece: Piece) -> bool:
        with self._lock:
            self._went.wait_for(lambda: self._held < self._ring_bytes or self._stopped)
            self._ring.append(piece)
            self._held += len(piece.data)
            self._came.notify()
            return not self._stopped
