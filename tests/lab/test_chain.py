"""Snapshots grow chains and merges shorten them; the content never changes by either."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lab import labs
from vcbproxy.lab.chain import Chain
from vcbproxy.lab.descriptor import ExtentKind
from vcbproxy.lab.vmfs import Allocation
from vcbproxy.units import KiB, MiB

# Some whole tables of grains, and a bit.
SIZES = {ExtentKind.COWD: 4 * MiB + 64 * KiB, ExtentKind.SESPARSE: 16 * MiB + 64 * KiB}
KINDS = [ExtentKind.COWD, ExtentKind.SESPARSE]
PLACES = [
    ("nfs", ExtentKind.COWD),
    ("vmfs3", ExtentKind.COWD),
    ("vmfs5", ExtentKind.COWD),
    ("vmfs6", ExtentKind.SESPARSE),
]


class Model:
    """The disk as plain bytes, with what each snapshot froze."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.size_bytes = chain.disk.size_bytes
        self.live = bytearray(chain.disk.size_bytes)
        self.frozen: list[bytes] = []
        self.made = 0

    def write(self, offset: int, data: bytes) -> None:
        self.chain.write(offset, data)
        self.live[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.chain.zero(offset, length)
        self.live[offset : offset + length] = bytes(length)

    def snapshot(self) -> None:
        self.made += 1
        self.frozen.append(bytes(self.live))
        self.chain.grow(f"/d/d-{self.made:06d}.vmdk")

    def remove(self, number: int) -> None:
        self.chain.merge_down(number)
        del self.frozen[number]

    def check(self) -> None:
        assert len(self.chain.disk.links) == len(self.frozen) + 1
        assert self.chain.read(0, self.size_bytes) == self.live
        for level, content in enumerate(self.frozen):
            assert self.chain.read(0, self.size_bytes, level) == content


def busy(model: Model, chance: random.Random, writes: int) -> None:
    for _ in range(writes):
        kind = chance.random()
        if kind < 0.2:
            model.zero(*labs.random_range(chance, model.size_bytes, 4 * KiB, 32))
        elif kind < 0.4:
            offset, _ = labs.random_range(chance, model.size_bytes, 512, 1)
            model.write(offset, chance.randbytes(512))
        else:
            offset, length = labs.random_range(chance, model.size_bytes, 4 * KiB, 64)
            model.write(offset, chance.randbytes(length))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), order=st.permutations([0, 1, 2]))
def test_merging_in_any_order_keeps_every_byte(tmp_path_factory, kind, seed, order):
    """Three deltas over a base, written to between; then each is removed, and all that is left is compared."""
    chance = random.Random(seed)
    store = labs.new_store("nfs", tmp_path_factory.mktemp("nfs"))
    model = Model(labs.new_chain(store, kind, SIZES[kind]))
    busy(model, chance, 8)
    for _ in range(3):
        model.snapshot()
        busy(model, chance, 8)
    model.check()
    left = [0, 1, 2]
    for number in order:
        model.remove(left.index(number))
        left.remove(number)
        model.check()
        busy(model, chance, 2)
        model.check()


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1]])
def test_merging_deltas_of_two_kinds_keeps_every_byte(tmp_path, kinds):
    """As when a VM with snapshots was moved from VMFS-6 to VMFS-5, or back, and got another one there."""
    chance = random.Random(3)
    store = labs.new_store("nfs", tmp_path)
    model = Model(labs.new_chain(store, kinds[0], SIZES[ExtentKind.SESPARSE]))
    busy(model, chance, 8)
    model.snapshot()
    busy(model, chance, 20)
    model.chain = Chain(store, model.chain.disk, kinds[1], lambda: "00000aa0")
    model.snapshot()
    busy(model, chance, 20)
    model.check()
    model.remove(1)
    model.check()
    busy(model, chance, 8)
    model.remove(0)
    model.check()


@pytest.mark.parametrize(("where", "kind"), PLACES)
def test_qemu_reads_the_same_disk(tmp_path, where, kind):
    chance = random.Random(where)
    store = labs.new_store(where, tmp_path)
    model = Model(labs.new_chain(store, kind, SIZES[kind]))
    busy(model, chance, 20)
    model.snapshot()
    busy(model, chance, 20)
    model.snapshot()
    busy(model, chance, 20)
    model.check()
    assert labs.as_qemu_sees(model.chain, tmp_path / "two") == model.live
    model.remove(0)
    model.check()
    assert labs.as_qemu_sees(model.chain, tmp_path / "one") == model.live
    model.remove(0)
    model.check()
    assert labs.as_qemu_sees(model.chain, tmp_path / "none") == model.live
    labs.close(store)


@pytest.mark.parametrize("allocation", list(Allocation))
@pytest.mark.parametrize(("where", "kind"), [("vmfs5", ExtentKind.COWD), ("vmfs6", ExtentKind.SESPARSE)])
def test_frozen_files_are_not_touched(tmp_path, where, kind, allocation):
    """Once there is a delta, guest writes leave the base's bytes alone, however it was allocated."""
    chance = random.Random(1)
    store = labs.new_store(where, tmp_path)
    model = Model(labs.new_chain(store, kind, SIZES[kind], allocation=allocation))
    busy(model, chance, 10)
    model.snapshot()
    base = store.read("/d/d-flat.vmdk", 0, SIZES[kind])
    descriptor = store.read("/d/d.vmdk", 0, store.size("/d/d.vmdk"))
    busy(model, chance, 30)
    assert store.read("/d/d-flat.vmdk", 0, SIZES[kind]) == base
    assert store.read("/d/d.vmdk", 0, store.size("/d/d.vmdk")) == descriptor
    model.check()
    labs.close(store)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_that_is_opened_again_goes_on(tmp_path, kind):
    """All that a delta knows is in its file."""
    chance = random.Random(7)
    store = labs.new_store("nfs", tmp_path)
    model = Model(labs.new_chain(store, kind, SIZES[kind]))
    model.snapshot()
    busy(model, chance, 20)
    model.chain = Chain(store, model.chain.disk, kind, lambda: "00000aa0")
    model.check()
    busy(model, chance, 20)
    model.check()
    assert labs.as_qemu_sees(model.chain, tmp_path / "again") == model.live


def test_descriptors_name_their_parents(tmp_path):
    store = labs.new_store("nfs", tmp_path)
    model = Model(labs.new_chain(store, ExtentKind.SESPARSE, 16 * MiB))
    for _ in range(3):
        model.snapshot()
    model.remove(1)
    base, middle, top = (
        dict(
            line.split("=", 1)
            for line in store.read(link.path, 0, store.size(link.path)).decode().splitlines()
            if "=" in line
        )
        for link in model.chain.disk.links
    )
    assert base["parentCID"] == "ffffffff"
    assert "parentFileNameHint" not in base
    assert middle["parentCID"] == base["CID"]
    assert middle["parentFileNameHint"] == '"d.vmdk"'
    assert top["parentCID"] == middle["CID"]
    assert top["parentFileNameHint"] == '"d-000001.vmdk"'
    assert top["createType"] == '"seSparse"'


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_cover_all_that_is_not_zero(tmp_path, kind):
    chance = random.Random(3)
    store = labs.new_store("nfs", tmp_path)
    model = Model(labs.new_chain(store, kind, SIZES[kind]))
    busy(model, chance, 5)
    model.snapshot()
    busy(model, chance, 5)
    ranges = model.chain.ranges()
    rest = bytearray(model.live)
    for offset, length in ranges:
        rest[offset : offset + length] = bytes(length)
    assert not any(rest)
    assert sum(length for _, length in ranges) < model.size_bytes // 2
    assert all(a + b < c for (a, b), (c, _) in itertools.pairwise(ranges))
