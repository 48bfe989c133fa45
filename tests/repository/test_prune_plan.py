"""What becomes of each pack, decided by columns alone; and the tables below it, held against sets."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.errors import UsageError
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.pack import header_size
from vcbproxy.repository.prune.buckets import Buckets
from vcbproxy.repository.prune.options import PruneOptions, Unused, parse_duration
from vcbproxy.repository.prune.plan import Fate, PackFacts, decide
from vcbproxy.repository.prune.table import ROW, BlobTable, names
from vcbproxy.units import MiB

EMPTY = header_size(())
BLOB = 1 * MiB
K, R, X = Fate.KEEP, Fate.REPACK, Fate.REMOVE


def facts(*packs: tuple[int, int], trees: bool = False, damaged: tuple[int, ...] = (), blob: int = BLOB) -> PackFacts:
    """Packs as (blobs, how many of them are used)."""
    blobs, used = np.array(packs, np.int64).reshape(-1, 2).T
    return PackFacts(
        size_bytes=blobs * blob + EMPTY,
        blobs=blobs,
        trees=blobs if trees else np.zeros_like(blobs),
        used_blobs=used,
        used_bytes=used * blob,
        damaged=np.isin(np.arange(len(blobs)), damaged),
    )


def fates(packs: PackFacts, **options: object) -> list[Fate]:
    return [Fate(fate) for fate in decide(packs, PruneOptions(**options)).tolist()]  # type: ignore[arg-type]


def test_whole_packs_stay_and_empty_ones_go() -> None:
    assert fates(facts((16, 16), (16, 0), (16, 16))) == [K, X, K]


def test_five_percent_may_stay_unused() -> None:
    """Of 16 used MiB, 5/95 are 0.84: not even one blob; of 96 it is five."""
    assert fates(facts((17, 16))) == [R]
    assert fates(facts((20, 19), (20, 19), (20, 19), (20, 19), (20, 19), (1, 1))) == [K] * 6


def test_the_emptiest_go_first() -> None:
    packs = facts((16, 12), (16, 2), (16, 15), (200, 200))
    assert fates(packs) == [K, R, K, K]
    assert fates(packs, max_unused=Unused(None, 1 * MiB)) == [R, R, K, K]
    assert fates(packs, max_unused=Unused(None, 0)) == [R, R, R, K]
    assert fates(packs, max_unused=Unused(None)) == [K] * 4


def test_trees_are_repacked_whatever_may_stay() -> None:
    assert fates(facts((100, 99), trees=True), max_unused=Unused(None)) == [R]
    assert fates(facts((100, 99), trees=True), max_unused=Unused(None), max_repack_bytes=1) == [K]


def test_no_more_is_repacked_than_wanted() -> None:
    packs = facts((16, 2), (16, 3), (16, 4))
    assert fates(packs, max_unused=Unused(None, 0), max_repack_bytes=33 * MiB) == [R, R, K]
    assert fates(packs, max_unused=Unused(None, 0), max_repack_bytes=0) == [K, K, K]


def test_damaged_packs_are_left_whatever_it_costs() -> None:
    assert fates(facts((16, 16), (16, 0), damaged=(0, 1)), max_unused=Unused(None), max_repack_bytes=0) == [R, X]


def test_mixed_packs_are_parted() -> None:
    packs = facts((16, 16))
    packs.trees[0] = 3
    assert fates(packs, max_unused=Unused(None)) == [R]


@pytest.mark.parametrize("trees", [False, True])
def test_ten_small_packs_are_joined_nine_are_not(trees: bool) -> None:
    small = [(1, 1)] * 9
    assert fates(facts(*small, trees=trees, blob=1000)) == [K] * 9
    assert fates(facts(*small, (1, 1), trees=trees, blob=1000)) == [R] * 10
    assert (
        fates(facts(*small, (1, 1), trees=trees, blob=1000), max_repack_bytes=1500) == [K] * 10
    )  # one alone gains nothing


packs_drawn = st.lists(
    st.integers(1, 40).flatmap(lambda blobs: st.tuples(st.just(blobs), st.integers(0, blobs))), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(packs_drawn, st.sampled_from([0.0, 5.0, 50.0]), st.sets(st.integers(0, 29)))
def test_what_is_needed_stays_and_little_else(packs: list[tuple[int, int]], percent: float, damaged: set[int]) -> None:
    given_ = facts(*packs, damaged=tuple(damaged))
    found = decide(given_, PruneOptions(max_unused=Unused(percent)))
    needed = given_.used_blobs > 0
    assert ((found == X) == ~needed).all()
    assert not (given_.damaged & (found == K)).any()
    left = given_.unused_bytes[found == K].sum()
    assert left <= given_.used_bytes.sum() * percent / (100 - percent)
    assert not ((found == R) & (given_.used_blobs == given_.blobs) & ~given_.damaged & (given_.size_bytes > MiB)).any()


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("5%", Unused(5.0)),
        ("0", Unused(None, 0)),
        ("1.5G", Unused(None, 3 << 29)),
        ("unlimited", Unused(None, math.inf)),
    ],
)
def test_what_may_stay_is_read(text: str, unused: Unused) -> None:
    assert Unused.parse(text) == unused


@pytest.mark.parametrize("text", ["", "100%", "-1", "5 percent", "nan%"])
def test_what_cannot_stay_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Unused.parse(text)


def test_durations_that_are_none_are_refused() -> None:
    assert parse_duration("2d") == timedelta(days=2)
    for text in ("", "1", "1w", "-1h", "1.5h", "h"):
        with pytest.raises(UsageError):
            parse_duration(text)


# ---------------------------------------------------------------------- tables and buckets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 6), max_size=40), max_size=8), st.integers(1, 3000))
def test_buckets_give_back_what_they_got(batches: list[list[int]], held_bytes: int) -> None:
    """In order, wherever they lie meanwhile."""
    buckets = Buckets(ROW, 7, held_bytes)
    expected: list[list[int]] = [[] for _ in range(7)]
    count = 0
    for batch in batches:
        rows = np.zeros(len(batch), ROW)
        rows["offset"] = np.arange(count, count + len(batch))
        for at, bucket in enumerate(batch):
            expected[bucket].append(count + at)
        count += len(batch)
        buckets.add(rows, np.array(batch, np.intp))
    assert [buckets.rows(number)["offset"].tolist() for number in range(7)] == expected


def blob_id(number: int) -> bytes:
    """Some ids end with zero bytes, which strings of numpy take for padding; some share their beginning."""
    made = digest(number.to_bytes(4, "big"))
    return made[:31] + b"\0" if number % 3 else made[:30] + b"\0\0" if number % 5 else b"\0" * 30 + made[:2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), max_size=120, unique=True),
    st.lists(st.lists(st.integers(0, 70), max_size=30), max_size=4),
    st.sampled_from([1, 1 << 20]),
)
def test_a_table_is_a_set_with_marks(copies: list[tuple[int, int]], asked: list[list[int]], rows_expected: int) -> None:
    table = BlobTable(BlobKind.DATA, rows_expected)
    rows = np.zeros(len(copies), ROW)
    rows["id"] = names(np.frombuffer(b"".join(blob_id(number) for number, _ in copies), np.uint8).reshape(-1, 32))
    rows["pack"] = [pack for _, pack in copies]
    rows["stored"] = 100
    table.add(rows[: len(rows) // 2])
    table.add(rows[len(rows) // 2 :])
    table.add(rows[: len(rows) // 3])  # listed twice
    counts = np.zeros(5, np.int64)
    table.settle(np.arange(5, dtype=np.uint32), counts)
    assert counts.tolist() == [sum(pack == number for _, pack in copies) for number in range(5)]

    there, marked = {blob_id(number) for number, _ in copies}, set[bytes]()
    for numbers in asked:
        wanted = names(np.frombuffer(b"".join(map(blob_id, numbers)), np.uint8).reshape(-1, 32)).copy()
        fresh, missing = table.mark(wanted)
        ids = set(map(blob_id, numbers))
        assert {fresh[at : at + 1].tobytes() for at in range(len(fresh))} == (ids & there) - marked
        assert {missing[at : at + 1].tobytes() for at in range(len(missing))} == ids - there
        assert len(fresh) + len(missing) == len((ids & there) - marked) + len(ids - there)
        marked |= ids & there
    packs_of = {
        found["id"][:1].tobytes(): found["pack"].tolist() for found in table.copies(names_of(there)) if len(found)
    }
    assert packs_of == {one: sorted(pack for number, pack in copies if blob_id(number) == one) for one in there}


def names_of(ids: set[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(sorted(ids)), "S32")
