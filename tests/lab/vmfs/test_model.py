"""Any history of writes, truncations and layouts leaves a file that reads like plain bytes, and clean tables."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tests.images import pattern
from tests.lab.vmfs.cases import case
from vcbproxy.lab.vmfs import Allocation, LabVolume, Layout
from vcbproxy.units import MiB

SIZE_MAX = 6 * MiB


@dataclass(frozen=True)
class Write:
    offset: int
    length: int


@dataclass(frozen=True)
class Truncate:
    length: int


OFFSETS = st.one_of(
    st.integers(0, SIZE_MAX),
    st.sampled_from([0, 511, 1024, 3584, 8192, 65536, MiB - 1, MiB, 2 * MiB, 3 * MiB + 1, 5 * MiB]),
)
STEPS = st.one_of(
    st.builds(Write, OFFSETS, st.sampled_from([1, 100, 1024, 5000, 65536, MiB, MiB + 4097])),
    st.builds(Truncate, OFFSETS),
)
LAYOUTS = st.sampled_from([Layout.AUTO, Layout.BLOCKS, Layout.POINTERS, Layout.DOUBLE])
CHOICES = st.tuples(st.sampled_from(list(Allocation)), LAYOUTS, OFFSETS, st.lists(STEPS, max_size=8))


def run(
    volume: LabVolume, path: str, allocation: Allocation, layout: Layout, size: int, steps: list[Write | Truncate]
) -> bytearray:
    """Play a history on a volume and on plain bytes; returns the bytes."""
    if volume.store.geometry.version == 3 and layout is Layout.DOUBLE:
        layout = Layout.POINTERS
    volume.create_file(path, size, allocation=allocation, layout=layout)
    model = bytearray(size)
    for number, step in enumerate(steps):
        if isinstance(step, Truncate):
            volume.truncate(path, step.length)
            model = model[: step.length].ljust(step.length, b"\0")
        else:
            data = pattern(step.offset, step.length, number)
            volume.write(path, step.offset, data)
            end = step.offset + step.length
            model.extend(bytes(max(0, end - len(model))))
            model[step.offset : end] = data
    return model


@pytest.mark.parametrize("version", [3, 5, 6])
@settings(max_examples=12, deadline=None)
@given(CHOICES, CHOICES, st.booleans())
def test_a_file_reads_like_plain_bytes(version: int, first: tuple, second: tuple, scatter: bool) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as folder,
        case(Path(folder), version=version, scatter=scatter, label="model") as made,
    ):
        volume = made.volume
        free = volume.free_bytes
        models = {name: run(volume, name, *choice) for name, choice in (("/a", first), ("/b", second))}
        for name, model in models.items():
            assert volume.size(name) == len(model)
            assert volume.read(name, 0, len(model) + 1) == bytes(model)
            check_counts(volume, name)
        for name in models:
            volume.delete(name)
        assert volume.free_bytes == free, "blocks were lost"
        if version != 6:
            assert oracles.bitmap_errors(volume.paths) == 0
            assert oracles.fsck_complaints(volume.paths) == {}


def check_counts(volume: LabVolume, path: str) -> None:
    """The descriptor's counts are those of its pointers."""
    node = volume.node(path)
    pointers = [int(pointer) for leaf in node.leaves.values() for pointer in leaf if pointer]
    assert node.blocks == len(pointers)
    if node.zla.name != "SUB_BLOCKS":
        assert node.tbz == sum(bool(pointer & volume.store.codec.tbz) for pointer in pointers)
    assert set(node.leaf_addresses) == (set(node.leaves) if node.leaf_addresses else set())
