"""Rows in numbered buckets: millions are added in any order, then one bucket after the other is worked on.

    rows ─▶ by bucket, in memory ─▶ too many: all to a file, bucket by bucket ─▶ one bucket as one array

Ids are digests, so their first bits part them evenly. That makes sorting and joining of any number of rows a matter of
one bucket at a time. The file has no name and lies where other long things are set aside (``idblocks.py``).
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import Error

Rows = NDArray[np.void]
HELD_BYTES = 16 << 20


class Buckets:
    """Rows of one type, in a fixed number of buckets. One thread."""

    def __init__(self, dtype: np.dtype[np.void], count: int, held_bytes: int = HELD_BYTES) -> None:
        """Keep so much in memory; more goes to a file."""
        self._dtype = dtype
        self._held_rows_max = max(1, held_bytes // dtype.itemsize)
        self._held: list[list[Rows]] = [[] for _ in range(count)]
        self._held_rows = 0
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self._fd: int | None = None
        self._end = 0

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self._held)

    def add(self, rows: Rows, buckets: NDArray[np.intp]) -> None:
        """Put each row into the bucket with the number beside it.

        Raises:
            Error: there is no room for temporary files.
        """
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets, minlength=len(self._held)))
        rows = rows[order]
        start = 0
        for number, end in enumerate(ends.tolist()):
            if end > start:
                self._held[number].append(rows[start:end])
            start = end
        self._held_rows += len(rows)
        if self._held_rows > self._held_rows_max:
            self._spill()

    def put(self, number: int, rows: Rows) -> None:
        """Put rows into one bucket.

        Raises:
            Error: there is no room for temporary files.
        """
        self._held[number].append(rows)
        self._held_rows += len(rows)
        if self._held_rows > self._held_rows_max:
            self._spill()

    def rows(self, number: int) -> Rows:
        """All rows of a bucket, in the order in which they came.

        Raises:
            Error: what was set aside cannot be read back.
        """
        parts = [self._read(start, count) for start, count in self._places[number]] + self._held[number]
        if not parts:
            return np.zeros(0, self._dtype)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _spill(self) -> None:
        try:
            if self._fd is None:
                self._fd, path = tempfile.mkstemp(prefix="vcbproxy-", dir=directory())
                weakref.finalize(self, os.close, self._fd)
                Path(path).unlink()
            for number, parts in enumerate(self._held):
                for part in parts:
                    self._places[number].append((self._end, len(part)))
                    self._end += _write(self._fd, part, self._end)
        except OSError as error:
            raise Error(
                f"cannot set rows of the index aside in {directory()}: {error.strerror}; "
                "make room there, or set TMPDIR to a directory that has some"
            ) from error
        self._held = [[] for _ in self._held]
        self._held_rows = 0

    def _read(self, start: int, count: int) -> Rows:
        assert self._fd is not None
        rows = np.empty(count, self._dtype)
        done = os.preadv(self._fd, [rows.view(np.uint8).data], start)
        if done != rows.nbytes:
            raise Error(f"a temporary file in {directory()} lost {rows.nbytes - done} bytes")
        return rows


def _write(fd: int, rows: Rows, start: int) -> int:
    data = np.ascontiguousarray(rows).view(np.uint8).data
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], start + done)
    return done


def directory() -> str:
    """Where files without names lie; not /tmp, which may be memory itself."""
    return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # such a file has no name
