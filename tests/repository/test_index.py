"""The index in memory against a dictionary, and its cost."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository import indexfile, sealedrun
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.index import Index, Limits
from vcbproxy.repository.indexfile import Columns, PackBlobs
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.spill import Spill

# Few different ids, of which several share their first eight bytes: the case that a key of eight bytes must survive.
IDS = st.sampled_from([bytes([a] * 8) + bytes([b]) + bytes(23) for a in range(3) for b in range(4)])
PACKS = st.lists(
    st.lists(st.tuples(st.sampled_from(list(BlobKind)), IDS, st.booleans()), min_size=1, max_size=8), max_size=12
)


def packs_of(rows: list[list[tuple[BlobKind, bytes, bool]]]) -> list[PackBlobs]:
    return [
        PackBlobs(
            number.to_bytes(32, "big"),
            [
                Blob(kind, blob_id, place * 100, 100, 500 + place if zstd else 0)
                for place, (kind, blob_id, zstd) in enumerate(blobs)
            ],
        )
        for number, blobs in enumerate(rows)
    ]


def filled(packs: list[PackBlobs], by_files: bool, spill: Spill | None = None, limits: Limits | None = None) -> Index:
    made = Index(spill, limits=limits or Limits())
    for pack in packs:
        if by_files:
            made.add_files([indexfile.decode(indexfile.encode([pack]), "index")])
        else:
            made.add(pack)
    return made


@given(PACKS, st.booleans(), st.integers(1, 20), st.sampled_from([None, 3, 17]))
@settings(max_examples=60, deadline=None)
def test_it_knows_what_a_dictionary_knows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[tuple[BlobKind, bytes, bool]]],
    by_files: bool,
    tail: int,
    held: int | None,
) -> None:
    """In memory, or set aside in files whenever there are ``held`` rows."""
    aside = tmp_path_factory.getbasetemp()
    packs = packs_of(rows)
    places: dict[tuple[BlobKind, bytes], set[tuple[bytes, int]]] = {}
    for pack in packs:
        for blob in pack.blobs:
            places.setdefault((blob.kind, blob.blob_id), set()).add((pack.pack_id, blob.offset))
    made = filled(
        packs,
        by_files,
        Spill(lambda: aside, bytes(32)) if held else None,
        Limits(tail, held or 0, sorted_rows=held or 1),
    )
    assert not list(aside.glob("tmp-*"))
    for kind in BlobKind:
        for a in range(4):
            for b in range(5):
                blob_id = bytes([a] * 8) + bytes([b]) + bytes(23)
                expected = places.get((kind, blob_id), set())
                found = made.lookup(kind, blob_id)
                assert {(location.pack_id, location.blob.offset) for location in found} == expected
                assert made.has(kind, blob_id) == bool(expected)
                known, lengths = made.find(np.frombuffer(blob_id, np.uint8).reshape(1, 32), kind)
                assert known[0] == bool(expected)
                assert int(lengths[0]) in ({location.blob.plain_bytes for location in found} or {0})
    assert list(made.packs()) == packs  # sorted in several files, if it may use any
    assert not made.packs_unlike(iter(made.pack_sizes().items()))
    assert len(made) == sum(len(pack.blobs) for pack in packs)


def test_where_nothing_can_be_set_aside_all_stays_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packs = packs_of([[(BlobKind.DATA, bytes([number]) * 32, True)] for number in range(50)])
    made = filled(packs, True, Spill(lambda: tmp_path / "missing", bytes(32)), Limits(held_rows=5))
    assert list(made.packs()) == packs
    [record] = caplog.records
    assert "the index stays in memory" in record.message


def test_what_was_set_aside_and_is_damaged_is_an_error(tmp_path: Path) -> None:
    packs = packs_of([[(BlobKind.DATA, bytes([number]) * 32, True)] for number in range(50)])
    made = filled(packs, True, Spill(lambda: tmp_path, bytes(32)), Limits(held_rows=50))
    [sealed] = made.levels.sealed
    os.truncate(f"/proc/self/fd/{sealed.run.body.fd}", 5000)
    with pytest.raises(TargetError, match="cannot be read back"):
        made.has(BlobKind.DATA, bytes([7]) * 32)


def test_adding_a_pack_again_changes_nothing() -> None:
    packs = packs_of([[(BlobKind.DATA, bytes(32), True)]])
    for by_files in (True, False):
        made = filled(packs * 3, by_files)
        assert len(made) == 1
        assert len(made.lookup(BlobKind.DATA, bytes(32))) == 1


def test_two_opinions_of_a_pack_are_damage_and_change_nothing() -> None:
    one, other = packs_of([[(BlobKind.DATA, bytes(32), True)], [(BlobKind.DATA, bytes(32), False)]])
    other = PackBlobs(one.pack_id, other.blobs)
    fresh = packs_of([[(BlobKind.DATA, bytes(32), True)]] * 3)[2]
    made = filled([one], by_files=True)
    with pytest.raises(IntegrityError, match="different blobs"):
        made.add_files([indexfile.decode(indexfile.encode([fresh, other]), "index")])
    assert list(made.packs()) == [one]
    made.add_files([indexfile.decode(indexfile.encode([fresh]), "index")])
    assert len(made.lookup(BlobKind.DATA, bytes(32))) == 2


def test_unknown_lengths_are_an_error() -> None:
    with pytest.raises(IntegrityError, match="in no index"):
        Index().lengths(np.zeros((1, 32), np.uint8))
    assert len(Index().lengths(np.zeros((0, 32), np.uint8))) == 0


def many(count: int, seed: int) -> list[tuple[bytes, Columns]]:
    random = np.random.default_rng(seed)
    per_pack = 64
    packs = []
    for start in range(0, count, per_pack):
        number = min(per_pack, count - start)
        packs.append(
            (
                random.bytes(32),
                Columns(
                    ids=random.integers(0, 256, (number, 32), np.uint8),
                    pack=np.zeros(number, np.uint32),
                    offset=np.arange(number, dtype=np.uint32) * np.uint32(1000),
                    stored=np.full(number, 1000, np.uint32),
                    zstd=np.arange(1, number + 1, dtype=np.uint32),
                    tree=np.zeros(number, np.bool_),
                ),
            )
        )
    return packs


def test_a_blob_costs_some_fifty_bytes() -> None:
    made = Index()
    for seed in range(4):
        made.add_files([many(50_000, seed)])
    columns = sum(
        getattr(run, name).nbytes
        for run in made.levels.runs
        for name in ("key", "rest", "pack", "offset", "stored", "zstd", "tree")
    )
    assert columns == 49 * 200_000
    assert len(made.levels.runs) <= 3


def test_readers_never_miss_what_was_added_while_writers_add() -> None:
    made = Index(limits=Limits(tail_rows=7))
    done = threading.Event()
    missed: list[bytes] = []
    added: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            for blob_id in added[-50:]:
                if not made.has(BlobKind.DATA, blob_id) or not made.lookup(BlobKind.DATA, blob_id):
                    missed.append(blob_id)

    readers = [threading.Thread(target=read) for _ in range(2)]
    try:
        for reader in readers:
            reader.start()
        for number in range(400):
            blob_id = number.to_bytes(4, "little") * 8
            made.add(PackBlobs(number.to_bytes(32, "big"), [Blob(BlobKind.DATA, blob_id, 0, 100, 0)]))
            added.append(blob_id)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert missed == []


@given(PACKS, st.booleans(), st.lists(IDS))
def test_a_pack_of_each_blob_is_among_the_packs_of_many(rows, by_files, asked):
    index = filled(packs_of(rows), by_files)
    for kind in BlobKind:
        holders = [{location.pack_id for location in index.lookup(kind, blob_id)} for blob_id in asked]
        found = index.packs_of(np.frombuffer(b"".join(asked), np.uint8).reshape(-1, 32), kind)
        assert all(found & packs for packs in holders if packs)
        assert found <= set().union(*holders)


@given(st.lists(st.integers(0, 40), min_size=1), st.lists(st.integers(0, 40), min_size=1))
def test_blocks_of_keys_are_those_of_a_plain_search(fence: list[int], keys: list[int]) -> None:
    edges, wanted = (np.array(sorted(numbers), np.uint64) for numbers in (fence, keys))
    first, last = sealedrun._blocks_of(edges, wanted)
    assert first.tolist() == np.maximum(np.searchsorted(edges, wanted, "left") - 1, 0).tolist()
    assert last.tolist() == np.maximum(np.searchsorted(edges, wanted, "right") - 1, 0).tolist()
