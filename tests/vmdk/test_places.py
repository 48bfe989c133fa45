"""Places that are taken, against a plain set; and in bounded memory."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest

from vcbproxy.device import MemoryDevice
from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.places import BYTES_MAX, Places


def drawn(rng: random.Random, space: int) -> list[int]:
    """Scattered, or side by side; now and then one of them twice."""
    count = rng.choice([0, 1, 5, 50])
    start = rng.randrange(space)
    found = list(range(start, start + count)) if rng.random() < 0.5 else [rng.randrange(space) for _ in range(count)]
    return found + found[:1] if rng.random() < 0.2 else found


@pytest.mark.parametrize("space", [200, 5000, 1 << 21, 1 << 40])
def test_a_place_is_taken_once(space: int) -> None:
    for seed in range(20):
        rng = random.Random(f"{space} {seed}")
        places, taken = Places(MemoryDevice(b"", "x")), set[int]()
        for table in range(40):
            numbers = drawn(rng, space)
            is_free = len(set(numbers)) == len(numbers) and not taken & set(numbers)
            column = np.array(numbers, np.int64)
            if is_free:
                places.take(table, column)
                places.take(table, column)  # a table that the cache dropped
                taken |= set(numbers)
            else:
                for _ in range(2):
                    with pytest.raises(VmdkError, match=f"grain table {table}, or a grain of it, lies where another"):
                        places.take(table, column)


def test_kinds_are_numbered_each_by_itself() -> None:
    places, one = Places(MemoryDevice(b"", "x"), kinds=2), np.array([7], np.int64)
    places.take(0, one, one)
    with pytest.raises(VmdkError):
        places.take(1, one + 1, one)
    places.take(1, one + 1, one + 1)


def test_memory_is_bounded_however_far_apart_they_lie() -> None:
    places = Places(MemoryDevice(b"", "x"))
    tracemalloc.start()
    try:
        for table in range(2000):
            places.take(table, np.array([table << 19], np.int64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BYTES_MAX + (1 << 20)
    with pytest.raises(VmdkError):
        places.take(3000, np.array([0], np.int64))
