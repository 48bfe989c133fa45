"""The parts that are arithmetic: addresses, free space, shapes of resource files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.errors import TargetError
from vcbproxy.lab.vmfs.address import LARGE_BLOCKS, Kind, Narrow, Wide, descriptor
from vcbproxy.lab.vmfs.geometry import Shape
from vcbproxy.lab.vmfs.resource import runs
from vcbproxy.lab.vmfs.space import Space


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_addresses_are_those_on_volumes_made_by_esxi() -> None:
    assert Narrow().blocks(numbers(4, 5, 7)).tolist() == [0x101, 0x141, 0x1C1]
    assert Wide().blocks(numbers(7, 8, 9, 512 * 3 + 193)).tolist() == [
        0x38000000000001,
        0x40000000000001,
        0x48000000000001,
        0x608000000018001,
    ]
    assert Wide().item(Kind.SUB_BLOCK, 0x23, 1) == 0x1000000000008C2
    assert [descriptor(0, item) for item in (0, 1, 6)] == [0x4, 0x400004, 0x1800004]
    assert descriptor(0x2C, 3) == 0xC00B04


@settings(max_examples=50, deadline=None)
@given(st.integers(0, (1 << 22) - 1), st.integers(0, 63), st.integers(0, (1 << 36) - 1), st.integers(0, 255))
def test_items_are_found_again(cluster: int, item: int, wide_cluster: int, wide_item: int) -> None:
    narrow = Narrow().item(Kind.SUB_BLOCK, cluster, item)
    assert narrow < 1 << 32
    assert Narrow().place(narrow) == (cluster, item)
    assert Wide().place(Wide().item(Kind.SUB_BLOCK, wide_cluster, wide_item)) == (wide_cluster, wide_item)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, (1 << 26) - 1), min_size=1, max_size=20))
def test_blocks_are_found_again(blocks: list[int]) -> None:
    given_blocks = np.array(blocks, dtype=np.int64)
    indexes = np.arange(len(blocks), dtype=np.int64)
    for codec in (Narrow(), Wide()):
        pointers = codec.blocks(given_blocks)
        assert codec.numbers(pointers, indexes).tolist() == blocks
        assert codec.numbers(pointers | np.uint64(codec.tbz), indexes).tolist() == blocks
    large = np.full(3, Wide().large(5), dtype=np.uint64)
    assert Wide().numbers(large, numbers(0, 513, 1023)).tolist() == [5 * LARGE_BLOCKS + n for n in (0, 1, 511)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3000),
    st.booleans(),
    st.integers(1, 40),
    st.lists(st.integers(1, 200), max_size=12),
    st.integers(0, 9),
)
def test_space_hands_out_each_block_once(
    blocks: int, scatter: bool, longest: int, wanted: list[int], seed: int
) -> None:
    space = Space(blocks, 200, seed=seed, scatter=scatter, run_blocks=longest)
    held: list[int] = []
    for count in wanted:
        if count > space.free:
            with pytest.raises(TargetError):
                space.take(count)
            continue
        held += space.take(count).tolist()
        if len(held) > 50:
            space.give_back(np.array(held[:20], dtype=np.int64))
            held = held[20:]
    assert len(set(held)) == len(held)
    assert space.free == blocks - len(held)
    assert np.flatnonzero(space.used).tolist() == sorted(held)


def test_scattered_runs_are_no_longer_than_asked() -> None:
    space = Space(10_000, 200, seed=1, scatter=True, run_blocks=7)
    lengths = [count for _, _, count in runs(space.take(10_000))]
    assert sum(lengths) == 10_000
    assert np.mean(lengths) < 8
    assert max(lengths) <= 3 * 7, "neighbouring runs meet by chance only"


def test_large_blocks_are_whole_or_not_given() -> None:
    space = Space(1300, LARGE_BLOCKS, seed=1, scatter=False, run_blocks=1)
    space.take_at(3, 1)
    assert space.take_large() == 1
    assert space.take_large() is None
    assert space.free == 1300 - 1 - 512
    space.give_back_large(1)
    assert space.take_large() == 1


def test_files_of_resources_are_as_long_as_on_volumes_made_by_esxi() -> None:
    assert Shape(0, 200, 64, 2048, 20352, 1024).file_bytes == 0x27F0000
    assert Shape(0, 64, 64, 8192, 8192, 1024).file_bytes == 0x4030000
    assert Shape(0, 256, 8, 8192, 16384, 8192).file_bytes == 0x8090000
    assert Shape(0, 256, 8, 65536, 16384, 8192).file_bytes == 0x40090000
    assert Shape(0, 200, 64, 0, 2048, 1024).file_bytes == 0x20000
    assert Shape(0, 8, 4, 2 << 20, 128, 8192).file_bytes == 0x10030000
