"""Lists that outgrow memory: whether blocks lie there or in a file, what is filled in is what comes out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.errors import Error
from vcbproxy.repository import idlist, pages
from vcbproxy.repository.idblocks import IdBlocks
from vcbproxy.repository.idlist import ROWS, Ids


def marked(blocks: IdBlocks, count: int) -> Ids:
    """Fill every block with its number, late ones first: workers are not in order; give the array that should be."""
    for number in range(-(-count // ROWS)):
        blocks.add()
        if number >= 6:
            blocks[number - 6][:] = number - 6
    for number in reversed(range(max(len(blocks) - 6, 0), len(blocks))):
        blocks[number][:] = number
    return np.repeat(np.arange(len(blocks), dtype=np.uint8), ROWS)[:count, np.newaxis].repeat(32, axis=1)


@given(held=st.integers(1, 5), count=st.integers(1, 9 * ROWS))
@settings(max_examples=25, deadline=None)
def test_what_is_filled_in_comes_out(held: int, count: int) -> None:
    blocks = IdBlocks(held)
    expected = marked(blocks, count)
    assert np.array_equal(blocks.joined(count), expected)
    assert len(blocks) == 0


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_windows_follow_each_other_in_the_file() -> None:
    """64 blocks make a window: three of them here, and the array spans all."""
    count = 150 * ROWS - 7
    blocks = IdBlocks(1)
    expected = marked(blocks, count)
    before = open_files()
    joined = blocks.joined(count)
    assert np.array_equal(joined, expected)
    assert open_files() <= before, "a file descriptor was left open"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_long_list_takes_no_memory_while_it_grows_and_is_written() -> None:
    count = 256 * ROWS  # 256 MiB
    before = resident_bytes()
    blocks = IdBlocks(4)
    most = 0
    for number in range(256):
        blocks.add()
        blocks[number][:] = number
        most = max(most, resident_bytes())
    ids = blocks.joined(count)
    for number, piece in enumerate(idlist.json_pieces(ids)):
        assert bytes(piece[1:3]) == b"%02x" % number
        most = max(most, resident_bytes())
    assert most - before < 64 << 20


def test_letting_go_loses_nothing() -> None:
    blocks = IdBlocks(1)
    expected = marked(blocks, 3 * ROWS)
    ids = blocks.joined(3 * ROWS)
    pages.let_go(ids[5 : 2 * ROWS])
    pages.let_go(ids[:0])
    pages.let_go(expected)  # memory of its own: stays
    assert np.array_equal(ids, expected)


@contextmanager
def temporary_directory(path: Path) -> Iterator[None]:
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(path)
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


def test_no_room_is_told_with_the_remedy(tmp_path: Path) -> None:
    blocks = IdBlocks(1)
    blocks.add()
    with temporary_directory(tmp_path / "missing"), pytest.raises(Error, match="set TMPDIR to a directory that has"):
        blocks.add()


def test_the_file_has_no_name(tmp_path: Path) -> None:
    with temporary_directory(tmp_path):
        blocks = IdBlocks(1)
        marked(blocks, 2 * ROWS)
        assert list(tmp_path.iterdir()) == []
