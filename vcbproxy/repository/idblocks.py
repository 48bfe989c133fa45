"""Lists of ids that grow: in blocks that never move, and at the end one array. Long ones lie in a file, not in memory.

    short    blocks in memory ─▶ copied into one array
    long     blocks in memory ┄ blocks that are windows on a file ─▶ one window on all of it

A disk of 2 TiB has four million chunks, 128 MiB of ids. The file has no name, lies in ``$TMPDIR`` or /var/tmp (not in
/tmp, which may be memory itself), and goes with the last array that needs it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np

from vcbproxy.errors import Error
from vcbproxy.repository import pages
from vcbproxy.repository.idlist import ROWS, Ids
from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.units import align_up

BLOCK_BYTES = ROWS * ID_BYTES
HELD_BLOCKS = 32  # 32 MiB: the list of half a TiB of data
_WINDOW_BYTES = 64 * BLOCK_BYTES  # each window costs a file descriptor
_BEHIND = 4  # blocks that late workers may still fill in


class IdBlocks:
    """Blocks of ``idlist.ROWS`` ids each. One thread adds, any number fill them in."""

    def __init__(self, held_blocks: int = HELD_BLOCKS) -> None:
        """Keep so many blocks in memory; what comes later goes to a file."""
        self._held_blocks = held_blocks
        self._blocks: list[Ids] = []
        self._file: _NamelessFile | None = None
        self._window: Ids | None = None

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> Ids:
        return self._blocks[number]

    def add(self) -> None:
        """One more block, zeroed.

        Raises:
            Error: there is no room for it on the disk of temporary files.
        """
        number = len(self._blocks)
        if number < self._held_blocks:
            self._blocks.append(_block())
            return
        at = (number - self._held_blocks) * BLOCK_BYTES % _WINDOW_BYTES
        if at == 0:
            self._window = self._new_window(number * BLOCK_BYTES, _WINDOW_BYTES)
        assert self._window is not None
        self._blocks.append(self._window[at // ID_BYTES : (at + BLOCK_BYTES) // ID_BYTES])
        if number >= _BEHIND:
            pages.let_go(self._blocks[number - _BEHIND])

    def joined(self, count: int) -> Ids:
        """The first ``count`` ids as one array; nothing is left here."""
        blocks, self._blocks, self._window = self._blocks, [], None
        if self._file is None:
            return _joined(blocks, count)
        for number, held in enumerate(blocks[: self._held_blocks]):
            self._write(held, number * BLOCK_BYTES)
        blocks.clear()
        whole = self._new_window(0, align_up(count * ID_BYTES, mmap.PAGESIZE))
        self._file = None  # the window keeps what it needs
        return whole[:count]

    def _new_window(self, start: int, size_bytes: int) -> Ids:
        """Look at a part of the file, which is made as long as that."""
        try:
            if self._file is None:
                self._file = _NamelessFile()
            os.posix_fallocate(self._file.fd, start, size_bytes)  # touching a page that finds no room would kill us
            memory = pages.FileMemory(self._file.fd, size_bytes, mmap.MAP_SHARED, offset=start)
        except OSError as error:
            raise _no_room(error) from error
        return np.frombuffer(memory, np.uint8).reshape(-1, ID_BYTES)

    def _write(self, block: Ids, start: int) -> None:
        assert self._file is not None
        try:
            done = os.pwrite(self._file.fd, block.data, start)
        except OSError as error:
            raise _no_room(error) from error
        assert done == BLOCK_BYTES, f"{done} bytes of a block written"


class _NamelessFile:
    """Gone with its last user, also when that is a program that was killed."""

    def __init__(self) -> None:
        self.fd, path = tempfile.mkstemp(prefix="vcbproxy-", dir=_directory())
        weakref.finalize(self, os.close, self.fd)
        Path(path).unlink()


def _directory() -> str:
    return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # mkstemp makes the name


def _no_room(error: OSError) -> Error:
    return Error(
        f"cannot set a long list of chunks aside in {_directory()}: {error.strerror}; "
        "make room there, or set TMPDIR to a directory that has some"
    )


class Collected:
    """Ids as they come."""

    def __init__(self) -> None:
        self._blocks = IdBlocks()
        self._count = 0

    def extend(self, ids: Ids) -> None:
        """Add some at the end."""
        while len(ids):
            at = self._count % ROWS
            if not at:
                self._blocks.add()
            taken = min(ROWS - at, len(ids))
            self._blocks[-1][at : at + taken] = ids[:taken]
            self._count += taken
            ids = ids[taken:]

    def joined(self) -> Ids:
        """All of them as one array; nothing is left here."""
        return self._blocks.joined(self._count)


def _block() -> Ids:
    """Zeroed room in pages of its own: the allocator would keep what is freed between other things."""
    return np.frombuffer(mmap.mmap(-1, BLOCK_BYTES, mmap.MAP_PRIVATE), np.uint8).reshape(-1, ID_BYTES)


def _joined(blocks: list[Ids], count: int) -> Ids:
    """The first ``count`` rows of all blocks; each block is let go of as soon as it has been copied."""
    out = np.empty((count, ID_BYTES), np.uint8)
    at = 0
    blocks.reverse()
    while blocks:
        rows = blocks.pop()[: count - at]
        out[at : at + len(rows)] = rows
        at += len(rows)
    assert at == count, f"{count} rows wanted, there are {at}"
    return out
