"""One partition of a cartridge: records and filemarks as files, and which of them have left the drive's buffer.

    on tape   R F R F E                   ``flushed`` says where the un-flushed part begins; files it takes the place of
    buffer          └ R R ┘               are put aside (``*.cut``) until it is flushed

What a drive has not flushed lies in its buffer: it can be read again, but a power cut drops it, and what it was written
over comes back.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping
from pathlib import Path

ASIDE = ".cut"


class Track:
    """A partition's objects, each known by its number."""

    def __init__(self, folder: Path, partition: int) -> None:
        """An empty one.

        Args:
            folder: of the cartridge.
            partition: its number.
        """
        self._folder = folder
        self._partition = partition
        self._kinds = bytearray()
        self._marks: list[int] = []
        self._sizes: list[int] = []
        self.used_bytes = 0
        """What of the tape is taken."""
        self.has_end = False
        """Whether the mark of the end of data is there; a writer that died may have left none."""
        self.changed = False
        """Whether something was done to it that is not flushed."""
        self._flushed = 0  # objects below this are on tape
        self._cut: list[tuple[int, str]] = []  # objects that are written over, but not yet on tape: number and kind
        self._stray: list[Path] = []
        """Marks of an end behind the end: records before them were lost, and they would end what is written now."""

    def take_in(self, found: Mapping[int, tuple[str, int]], ends: Collection[int]) -> None:
        """What lies in the folder: objects from 0 on without a gap; what lies behind a gap is not on the tape.

        Args:
            found: kind and size of each object, by number.
            ends: numbers of marks of the end of data.
        """
        number = 0
        while number in found and number not in ends:
            kind, size = found[number]
            self._append(kind, size if kind == "R" else 0)
            number += 1
        self.has_end = number in ends
        self._flushed = number
        self._stray = [self._path(end, "E") for end in ends if end != number]

    # ------------------------------------------------------------------ what is recorded

    @property
    def end(self) -> int:
        """Where its data end: the number of its objects, filemarks among them."""
        return len(self._kinds)

    def is_filemark(self, number: int) -> bool:
        """Whether that object is a filemark."""
        return self._kinds[number] == ord("F")

    def size(self, number: int) -> int:
        """A record's size; a filemark has none."""
        return self._sizes[number]

    def filemarks_before(self, number: int) -> int:
        """How many filemarks lie before an object."""
        return bisect_left(self._marks, number)

    def filemark_from(self, number: int, count: int) -> int | None:
        """The object number of a filemark: the ``count``-th one from there on, or (negative) before there."""
        marks = self._marks
        at = bisect_left(marks, number) + count - 1 if count > 0 else bisect_right(marks, number - 1) + count
        return marks[at] if 0 <= at < len(marks) else None

    def read(self, number: int) -> bytes:
        """A record's bytes."""
        return self._path(number, "R").read_bytes()

    # ------------------------------------------------------------------ writing

    def write(self, number: int, data: bytes | bytearray | memoryview) -> None:
        """Write a record there; whatever lay from there on is gone."""
        self._place(number, "R", data)

    def write_filemark(self, number: int) -> None:
        """Write a filemark there; whatever lay from there on is gone."""
        self._place(number, "F", b"")

    def overwrite(self, number: int) -> None:
        """Let the data end there."""
        self.changed = True
        self._drop_stray()
        if self.has_end:
            self._path(self.end, "E").unlink()
            self.has_end = False
        for old in range(number, self.end):
            name = self._path(old, chr(self._kinds[old]))
            if old < self._flushed:
                name.rename(_aside(name))
                self._cut.append((old, chr(self._kinds[old])))
            else:
                name.unlink()
        self._truncate(number)
        self._flushed = min(self._flushed, number)

    def _place(self, number: int, kind: str, data: bytes | bytearray | memoryview) -> None:
        assert number <= self.end, f"a gap before object {number} of partition {self._partition}"
        if self.has_end or number < self.end:
            self.overwrite(number)
        self.changed = True
        self._drop_stray()
        path = self._path(number, kind)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if len(data) and os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            finally:
                os.close(fd)
        except OSError:
            path.unlink(missing_ok=True)  # half a record is none
            raise
        self._append(kind, len(data))

    # ------------------------------------------------------------------ the buffer

    def mark_end(self) -> None:
        """The first step of a flush: the data end here.

        Raises:
            OSError: the folder takes no more.
        """
        if not self.has_end:
            self._path(self.end, "E").touch()
            self.has_end = True

    def settle(self) -> None:
        """The last step of a flush: what was written is on tape, and what it was written over is gone."""
        self._drop_cut()
        self._flushed = self.end
        self.changed = False

    def power_cut(self, keep: int, *, end_marked: bool) -> None:
        """Drop what lies in the buffer; see ``Cartridge.power_cut``."""
        kept = min(self._flushed + keep, self.end)
        for number in range(kept, self.end):
            self._path(number, chr(self._kinds[number])).unlink()
        self._truncate(kept)
        self.changed = False
        if self.has_end:
            return
        if self._cut and kept == self._flushed:
            self._restore()
        else:
            self._drop_cut()
        self._flushed = self.end
        if end_marked:
            self.mark_end()

    def _restore(self) -> None:
        for number, kind in sorted(self._cut):
            path = self._path(number, kind)
            _aside(path).rename(path)
            self._append(kind, path.stat().st_size)
        self._cut.clear()

    def _drop_cut(self) -> None:
        for number, kind in self._cut:
            _aside(self._path(number, kind)).unlink()
        self._cut.clear()

    def _drop_stray(self) -> None:
        for path in self._stray:
            path.unlink(missing_ok=True)
        self._stray.clear()

    # ------------------------------------------------------------------ objects

    def _append(self, kind: str, size: int) -> None:
        if kind == "F":
            self._marks.append(len(self._kinds))
        self._kinds += kind.encode()
        self._sizes.append(size)
        self.used_bytes += size

    def _truncate(self, count: int) -> None:
        self.used_bytes -= sum(self._sizes[count:])
        del self._kinds[count:], self._sizes[count:]
        del self._marks[bisect_left(self._marks, count) :]

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{self._partition}_{number}_{kind}"


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ASIDE)
