"""Address codecs, against addresses put together bit by bit from the tables of the format."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.vmfs import address
from vcbproxy.vmfs.address import DescriptorAddress, Kind

quick = settings(max_examples=60, deadline=None)


def one(number: int) -> address.Raw:
    return np.array([number], np.uint64)


@quick
@given(st.integers(0, (1 << 26) - 1), st.booleans(), st.booleans())
def test_file_block_32(block: int, tbz: bool, cow: bool) -> None:
    raw = one(1 | cow << 4 | tbz << 5 | block << 6)
    number, zeroed = address.file_block_32(raw)
    assert (number[0], zeroed[0]) == (block, tbz)
    assert not address.unknown_bits(raw, Kind.FILE_BLOCK, 4)[0]
    same = [part.tolist() for part in address.file_block_32(raw | np.uint64(8))]
    assert same == [number.tolist(), zeroed.tolist()], "a bit called unused means nothing"


@quick
@given(st.integers(0, (1 << 22) - 1), st.integers(0, 63), st.booleans())
def test_sub_block_32(cluster: int, item: int, cow: bool) -> None:
    raw = one(2 | (item >> 4) << 3 | cow << 5 | cluster << 6 | (item & 15) << 28)
    assert [int(part[0]) for part in address.resource(raw, Kind.SUB_BLOCK, 4)] == [cluster, item]
    assert not address.unknown_bits(raw, Kind.SUB_BLOCK, 4)[0]


@quick
@given(st.sampled_from([Kind.POINTER_BLOCK, Kind.POINTER_BLOCK_2]), st.integers(0, (1 << 22) - 1), st.integers(0, 15))
def test_pointer_block_32(kind: Kind, cluster: int, item: int) -> None:
    raw = one(kind | cluster << 6 | item << 28)
    assert [int(part[0]) for part in address.resource(raw, kind, 4)] == [cluster, item]
    for bit in (3, 4, 5):
        marked = address.resource(raw | np.uint64(1 << bit), kind, 4)
        assert [int(part[0]) for part in marked] == [cluster, item], "bits called unused, and COW"


@quick
@given(st.integers(0, (1 << 31) - 1), st.integers(0, (1 << 13) - 1), st.integers(0, 255))
def test_small_file_block_64(cluster: int, item: int, tbz: int) -> None:
    raw = one(1 | tbz << 7 | cluster << 15 | item << 51)
    assert [int(part[0]) for part in address.file_block_64(raw)] == [cluster, item, tbz]
    assert not address.unknown_bits(raw, Kind.FILE_BLOCK, 8)[0]
    for bit in (3, 4, 5, 6):
        marked = raw | np.uint64(1 << bit)
        assert not address.unknown_bits(marked, Kind.FILE_BLOCK, 8)[0]
        assert [int(part[0]) for part in address.file_block_64(marked)] == [cluster, item, tbz]
    for bit in range(64):
        assert address.unknown_bits(raw | np.uint64(1 << bit), Kind.FILE_BLOCK, 8)[0] == (46 <= bit <= 50)


@quick
@given(st.integers(0, (1 << 36) - 1), st.integers(0, 255))
def test_resource_64(cluster: int, item: int) -> None:
    raw = one(2 | cluster << 6 | item << 56)
    assert [int(part[0]) for part in address.resource(raw, Kind.SUB_BLOCK, 8)] == [cluster, item]
    for bit in range(64):
        assert address.unknown_bits(raw | np.uint64(1 << bit), Kind.SUB_BLOCK, 8)[0] == (42 <= bit <= 55)


@quick
@given(st.integers(0, (1 << 31) - 1), st.integers(0, 255))
def test_large_block_64(number: int, tbz: int) -> None:
    raw = one(7 | tbz << 7 | number << 15)
    assert [int(part[0]) for part in address.large_block(raw)] == [number, tbz]
    for bit in range(64):
        assert address.unknown_bits(raw | np.uint64(1 << bit), Kind.LARGE_BLOCK, 8)[0] == (bit >= 46)


@quick
@given(st.integers(0, (1 << 16) - 1), st.integers(0, (1 << 10) - 1))
def test_descriptor(cluster: int, item: int) -> None:
    where = DescriptorAddress(cluster, item)
    assert DescriptorAddress.decode(where.encode()) == where


def test_descriptors_of_system_files() -> None:
    """As every VMFS volume has them."""
    assert [DescriptorAddress(0, item).encode() for item in (0, 1, 2, 6)] == [0x4, 0x400004, 0x800004, 0x1800004]
    assert DescriptorAddress.decode(0x400003) is None
