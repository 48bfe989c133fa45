"""Sets of granules, against sets of granules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.errors import SourceError
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.chunker import GRANULE

ranges = st.lists(st.tuples(st.integers(0, 30 * GRANULE), st.integers(0, 5 * GRANULE)), max_size=12)
sizes = st.integers(0, 25 * GRANULE)


def touched(told: list[tuple[int, int]], size: int) -> set[int]:
    """The granules, each by its number."""
    return {
        number
        for number in range(-(-size // GRANULE))
        for offset, length in told
        if length and offset < (number + 1) * GRANULE and number * GRANULE < offset + length
    }


def inside(areas: Areas) -> set[int]:
    return {number for start, end in areas.ranges.tolist() for number in range(start // GRANULE, -(-end // GRANULE))}


@given(ranges, sizes)
def test_ranges_grow_to_granules_and_are_kept_within_the_disk(told: list[tuple[int, int]], size: int) -> None:
    areas = Areas.of(told, size)
    assert inside(areas) == touched(told, size)
    assert all(start < end <= size for start, end in areas.ranges.tolist())
    assert (areas.starts[1:] > areas.ends[:-1]).all()
    assert not (areas.starts % GRANULE).any()
    assert ((areas.ends % GRANULE == 0) | (areas.ends == size)).all()
    assert Areas.of(np.array(told, np.int64).reshape(-1, 2), size).ranges.tolist() == areas.ranges.tolist()


@given(ranges, ranges, sizes)
def test_they_are_sets(one: list[tuple[int, int]], other: list[tuple[int, int]], size: int) -> None:
    a, b = Areas.of(one, size), Areas.of(other, size)
    assert inside(a | b) == inside(a) | inside(b)
    assert inside(a - b) == inside(a) - inside(b)
    assert inside(a.complement()) == inside(Areas.whole(size)) - inside(a)
    assert a.total_bytes + a.complement().total_bytes == size
    assert a.complement().complement().ranges.tolist() == a.ranges.tolist()
    assert (a | Areas.none(size)).ranges.tolist() == a.ranges.tolist()


@given(ranges, ranges, sizes)
def test_touching(told: list[tuple[int, int]], asked: list[tuple[int, int]], size: int) -> None:
    areas = Areas.of(told, size)
    asked = [(start, length) for start, length in asked if length]
    expected = [any(start < e and s < start + length for s, e in areas.ranges.tolist()) for start, length in asked]
    starts = np.array([start for start, _ in asked], np.int64)
    ends = starts + np.array([length for _, length in asked], np.int64)
    assert areas.touches(starts, ends).tolist() == expected


@pytest.mark.parametrize("length", [2**62, 2**63 - 1, 2**64])
def test_a_length_beyond_all_bounds_reaches_to_the_end(length: int) -> None:
    size = 10 * GRANULE
    told = [(3 * GRANULE, length), (2**62, length)]
    assert Areas.of(told, size).ranges.tolist() == [[3 * GRANULE, size]]
    if length < 2**63:
        assert Areas.of(np.array(told), size).ranges.tolist() == [[3 * GRANULE, size]]


@pytest.mark.parametrize("wrong", [(-1, 10), (10, -1)])
def test_nonsense_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(SourceError, match="cannot be"):
        Areas.of([(0, 512), wrong], GRANULE)
