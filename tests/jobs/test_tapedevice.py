"""Disks of images and deltas: read at random, and what is missing of them, each held against a plain model."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.tapedevice import Overlay
from jobs.tapesalvage import lost, written_over
from vcbproxy.archive.delta import DeltaMap
from vcbproxy.device import MemoryDevice, read

SIZE = 48
RANGES = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(lambda one: (one[0], min(one[1], SIZE - one[0])))


def delta(changed: str, letter: str) -> tuple[MemoryDevice, DeltaMap]:
    """A delta image of what is marked in ``changed``; its bytes know their place."""
    ranges = [run.span() for run in re.finditer("x{1,5}", changed)]  # some next to each other, as maps may have them
    packed = bytes(ord(letter) + place for start, end in ranges for place in range(start, end))
    return MemoryDevice(packed, letter), DeltaMap(np.array(ranges, np.int64).reshape(-1, 2))


@given(
    st.lists(st.text("x.", min_size=SIZE, max_size=SIZE), max_size=3),
    st.integers(0, SIZE),
    st.integers(0, SIZE),
)
def test_a_disk_with_its_deltas_reads_as_the_newest_that_has_each_byte(
    changes: list[str], offset: int, length: int
) -> None:
    disk = MemoryDevice(bytes(SIZE), "full")
    expected = bytearray(SIZE)
    for number, changed in enumerate(changes, 1):
        packed, places = delta(changed, chr(SIZE * number))
        disk = Overlay(disk, packed, places)
        for place, mark in enumerate(changed):
            if mark == "x":
                expected[place] = SIZE * number + place
    length = min(length, SIZE - offset)
    assert read(disk, offset, length) == expected[offset : offset + length]


@given(st.lists(st.tuples(st.booleans(), RANGES)))
def test_what_is_missing_is_told_once_until_it_is_written_over(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    missing: set[tuple[int, int]] = set()
    model: set[int] = set()
    for is_lost, (start, length) in steps:
        missing = (lost if is_lost else written_over)(missing, start, length)
        here = set(range(start, start + length))
        model = model | here if is_lost else model - here
    told = [place for start, length in missing for place in range(start, start + length)]
    assert sorted(told) == sorted(model)
