"""What is held against a base on tape: frames by their checksums, holes by the map."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.pipeline.frameaudit import less

SIZE = 30


@st.composite
def ranges(draw: st.DrawFn) -> np.ndarray:
    edges = sorted(draw(st.sets(st.integers(0, SIZE), max_size=12)))
    return np.array(list(zip(edges[::2], edges[1::2], strict=False)), np.int64).reshape(-1, 2)


def members(found: list[tuple[int, int]]) -> set[int]:
    return {one for start, end in found for one in range(start, end)}


@given(ranges(), ranges())
def test_what_is_a_hole_now_and_was_none(now: np.ndarray, then: np.ndarray) -> None:
    assert members(list(less(now, then))) == members(now.tolist()) - members(then.tolist())
