"""From rows by blob to rows by pack, without holding all of them.

rows by id ─▶ dealt out to files by ranges of pack numbers ─▶ one file after the other sorted in memory
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.repository import indexrows
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.indexrows import ROW, Rows
from vcbproxy.repository.packtable import Packs

Streams = list[tuple[Iterator[Rows], int]]


def by_pack(
    streams: Streams, packs: Packs, alive: NDArray[np.bool_], directory: Callable[[], Path] | None, part_rows: int
) -> Iterator[PackBlobs]:
    """Every living pack with its blobs, by number.

    Args:
        streams: rows in any order, and the number of the first pack of each.
        packs: all packs.
        alive: which of them count.
        directory: for the files, asked for when they are needed; without one all is held in memory.
        part_rows: about so many lie in a file.

    Raises:
        TargetError: no room there.
    """
    if not len(packs):
        return
    ends = np.cumsum(np.where(alive, packs.blobs, 0), dtype=np.int64)
    parts = (ends - 1).clip(0) // part_rows if directory else np.zeros(len(packs), np.int64)
    with ExitStack() as stack:
        if directory is None or not parts[-1]:
            yield from _listed(indexrows.concatenated(_living(streams, alive)), packs, alive, 0, len(packs))
            return
        place = directory()
        files = [stack.enter_context(_scratch(place)) for _ in range(int(parts[-1]) + 1)]
        for rows in _living(streams, alive):
            _deal_out(rows, parts[indexrows.pack_numbers(rows)], files)
        for number, file in enumerate(files):
            file.seek(0)
            rows = np.frombuffer(file.read(), ROW)
            start, end = np.searchsorted(parts, [number, number + 1]).tolist()
            yield from _listed(rows, packs, alive, start, end)


@contextmanager
def _scratch(directory: Path) -> Iterator[IO[bytes]]:
    """A file without a name; what fails about it is ours."""
    try:
        with tempfile.TemporaryFile(dir=directory, prefix="vcbproxy-") as file:
            yield file
    except OSError as error:
        raise TargetError(f"cannot sort the index in {directory}: {error.strerror}; make room there") from error


def _deal_out(rows: Rows, part: NDArray[np.int64], files: list[IO[bytes]]) -> None:
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(len(files) + 1))
    for number, file in enumerate(files):
        file.write(rows[order[bounds[number] : bounds[number + 1]]].tobytes())


def _living(streams: Streams, alive: NDArray[np.bool_]) -> Iterator[Rows]:
    for stream, base in streams:
        for rows in stream:
            keep = alive[indexrows.pack_numbers(rows).astype(np.int64) + base]
            living = rows[keep]
            living["pack"] += np.uint32(base)  # the highest bit, which says that it is a tree, stays out of this
            yield living


def _listed(rows: Rows, packs: Packs, alive: NDArray[np.bool_], start: int, end: int) -> Iterator[PackBlobs]:
    numbers = indexrows.pack_numbers(rows)
    order = np.lexsort((rows["offset"], numbers))
    bounds = np.searchsorted(numbers[order], np.arange(start, end + 1))
    for number in range(start, end):
        if alive[number]:
            held = rows[order[bounds[number - start] : bounds[number - start + 1]]]
            yield PackBlobs(packs.ids[number].tobytes(), indexrows.blobs_of(held))
