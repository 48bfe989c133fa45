"""Only what is in use is read, and the claim that the rest is zeroes is tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.device import MemoryDevice, read
from vcbproxy.extent import Kind, tiled
from vcbproxy.pipeline.allocated import Allocated, audit_unused
from vcbproxy.pipeline.areas import Areas
from vcbproxy.units import KiB

AREA = 64 * KiB
SIZE = 8 * AREA + 4096
RANGES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * AREA)), max_size=5)


def disk(data: list[tuple[int, int]], granule_bytes: int = 4096) -> MemoryDevice:
    content = np.zeros(SIZE, np.uint8)
    for start, length in data:
        content[start : start + length] = 7
    return MemoryDevice(content.tobytes(), granule_bytes=granule_bytes)


@settings(max_examples=80, deadline=None)
@given(data=RANGES, used=RANGES)
def test_it_tiles_the_disk_and_is_data_where_both_say_so(
    data: list[tuple[int, int]], used: list[tuple[int, int]]
) -> None:
    source, areas = disk(data), Areas.of(used, SIZE)
    found = np.zeros(SIZE, np.bool_)
    for extent in tiled(Allocated(source, areas).extents(), SIZE):
        found[extent.start : extent.end] = extent.kind is Kind.DATA
    mapped, claimed = np.zeros(SIZE, np.bool_), np.zeros(SIZE, np.bool_)
    for extent in source.extents():
        mapped[extent.start : extent.end] = extent.kind is Kind.DATA
    for start, end in areas.ranges.tolist():
        claimed[start:end] = True
    assert (found == (mapped & claimed)).all()


@settings(max_examples=80, deadline=None)
@given(data=RANGES, used=RANGES, seed=st.integers(0, 99))
def test_an_audit_of_all_finds_every_granule_that_was_left_out(
    data: list[tuple[int, int]], used: list[tuple[int, int]], seed: int
) -> None:
    source, areas = disk(data), Areas.of(used, SIZE)
    found = audit_unused(source, areas, seed, share=1, least=1)
    content = np.frombuffer(read(source, 0, SIZE), np.uint8)
    touched = {int(at) // AREA * AREA for at in np.flatnonzero(content)}
    covered = {start for first, end in areas.ranges.tolist() for start in range(first, end, AREA)}
    assert {start for start, _ in found.differing} == touched - covered


@pytest.mark.parametrize(("share", "least", "expected"), [(0.001, 3, 3), (0.5, 1, 4), (1, 1, 8), (0.001, 100, 8)])
def test_so_much_is_looked_at(share: float, least: int, expected: int) -> None:
    source = disk([(0, 8 * AREA)])
    found = audit_unused(source, Areas.none(SIZE), 1, share=share, least=least)
    assert found.chunks == expected
    assert found == audit_unused(source, Areas.none(SIZE), 1, share=share, least=least), "one seed, one sample"
