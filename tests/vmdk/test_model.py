"""Chains generated from a model of bytes, of any capacity: we, and QEMU, must read the model."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.images import pattern, read_over
from tests.vmdk import images
from tests.vmdk.builders import MemoryFiles, descriptor
from tests.vmdk.images import ZEROED, Model
from tests.vmdk.test_qemu import as_qemu_reads
from vcbproxy.extent import Kind
from vcbproxy.vmdk.chain import open_disk

SECTOR = 512
BIG = 4096 * 8 + 37  # in sectors: two tables of either delta format, and a last grain that is cut

SECTORS = st.one_of(st.integers(1, 400), st.sampled_from([4096, 4097, 8191, 8193]))


@dataclass(frozen=True)
class Generated:
    """A chain in memory, and what it must read as."""

    files: MemoryFiles
    expected: bytes
    known_zero: int
    """How many bytes, at least, some link promises to be zeroes."""


def generate(seed: int, sectors: int, depth: int) -> Generated:
    """A chain of ``depth`` links over a flat base; all from one seed."""
    rng = random.Random(seed)
    expected = pattern(0, sectors * SECTOR, "base")
    files = MemoryFiles({"base-flat.vmdk": expected})
    files.contents["link-0.vmdk"] = descriptor("monolithicFlat", [f'RW {sectors} FLAT "base-flat.vmdk" 0'], cid="0")
    model: Model = {}
    grain_sectors = 1
    for number in range(1, depth + 1):
        kind = rng.choice(["vmfsSparse", "seSparse", "twoGbMaxExtentSparse"])
        grain_sectors = {"vmfsSparse": rng.choice([1, 1, 8]), "seSparse": 8}.get(kind, rng.choice([1, 8, 16, 128]))
        model = _model(rng, sectors, grain_sectors, zeroed=kind != "vmfsSparse", name=f"link {number}")
        extent = _extent(kind, sectors, model, grain_sectors, rng)
        word = {"vmfsSparse": "VMFSSPARSE", "seSparse": "SESPARSE"}.get(kind, "SPARSE")
        files.contents[f"link-{number}-x.vmdk"] = extent
        files.contents[f"link-{number}.vmdk"] = descriptor(
            kind,
            [f'RW {sectors} {word} "link-{number}-x.vmdk"'],
            cid=f"{number:x}",
            parent_cid=f"{number - 1:x}",
            parent=f"link-{number - 1}.vmdk",
        )
        expected = images.overlaid(expected, model, grain_sectors * SECTOR)
    zeroed = sum(grain_sectors * SECTOR for content in model.values() if content == ZEROED)
    return Generated(files, expected, max(0, zeroed - grain_sectors * SECTOR))


def _model(rng: random.Random, sectors: int, grain_sectors: int, *, zeroed: bool, name: str) -> Model:
    """Runs of grains, some at the very ends, where off-by-ones live."""
    grains = -(-sectors // grain_sectors)
    model: dict[int, bytes] = {}
    starts = [0, grains - 1, *(rng.randrange(grains) for _ in range(rng.randint(0, 12)))]
    for start in rng.sample(starts, rng.randint(0, len(starts))):
        is_zero = zeroed and rng.random() < 0.4
        for grain in range(start, min(grains, start + rng.choice([1, 1, 2, 9, 40]))):
            at, size = grain * grain_sectors * SECTOR, grain_sectors * SECTOR
            model[grain] = ZEROED if is_zero else pattern(at, min(size, sectors * SECTOR - at), name)
    return model


def _extent(kind: str, sectors: int, model: Model, grain_sectors: int, rng: random.Random) -> bytes:
    seed = rng.randrange(1 << 30)
    if kind == "vmfsSparse":
        return images.cowd(sectors, model, grain_sectors, seed)
    if kind == "seSparse":
        return images.sesparse(sectors, model, seed)
    per_table = rng.choice([1, 7, 128, 512])
    return images.hosted(sectors, model, grain_sectors, per_table, seed, mirror=rng.random() < 0.5)


def hold(generated: Generated, top: str, rng: random.Random) -> None:
    """Whole, in pieces that respect no border, and by its extents."""
    expected = generated.expected
    with open_disk(generated.files, top) as disk:
        assert disk.size_bytes == len(expected)
        assert read_over(disk, 0, len(expected)) == expected
        for _ in range(10):
            start = rng.randrange(len(expected))
            length = rng.choice([1, 511, 4097, rng.randint(0, 100_000)])
            length = min(length, len(expected) - start)
            assert read_over(disk, start, length) == expected[start : start + length]
        zeroes = [extent for extent in disk.extents() if extent.kind is Kind.ZERO]
        assert all(not any(expected[extent.start : extent.end]) for extent in zeroes)
        assert sum(extent.length for extent in zeroes) >= generated.known_zero
        disk.recheck()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 30), SECTORS, st.integers(1, 5))
def test_a_chain_reads_as_its_model(seed: int, sectors: int, depth: int):
    hold(generate(seed, sectors, depth), f"link-{depth}.vmdk", random.Random(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_of_several_tables_reads_as_its_model(seed: int):
    hold(generate(seed, BIG, 3), "link-3.vmdk", random.Random(seed))


@pytest.mark.real
@pytest.mark.parametrize("seed", range(12))
def test_qemu_reads_a_chain_as_its_model(seed: int, tmp_path: Path):
    """So that model and builders are not only of our own mind.

    Where a header's capacity is rounded up to whole grains, QEMU shows a longer disk; we, as the descriptor says.
    """
    rng = random.Random(seed)
    depth, sectors = rng.randint(1, 4), rng.choice([rng.randint(1, 3000), 4096, 8191, BIG])
    generated = generate(seed, sectors, depth)
    for name, content in generated.files.contents.items():
        (tmp_path / name).write_bytes(content)
    found = as_qemu_reads(tmp_path / f"link-{depth}.vmdk")
    assert found[: len(generated.expected)] == generated.expected
    assert len(found) - len(generated.expected) < 128 * SECTOR
