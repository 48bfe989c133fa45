"""A spliced list is the list that a full copy would have made."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline import disks, naive
from tests.pipeline.disks import GRANULE, MappedMemory
from vcbproxy.errors import DeviceError, IntegrityError
from vcbproxy.pipeline import chunker, cutter
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.backup import Options, Progress, copy_disk
from vcbproxy.pipeline.base import Base, Layout
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import DiskContent
from vcbproxy.pipeline.incremental import copy_changes
from vcbproxy.pipeline.memory import MemorySink
from vcbproxy.pipeline.regions import Splice
from vcbproxy.repository.ids import BlobKind

MIB = 1024 * 1024
RULE = Rule(disks.SEED, 8)
SMALL = Options(workers=2, memory_bytes=4 * MIB, segment_bytes=2 * GRANULE)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def listed(content: bytes, edges: list[tuple[int, int]]) -> Base:
    ids = b"".join(hashlib.sha256(content[start:end]).digest() for start, end in edges)
    lengths = np.array([end - start for start, end in edges], np.uint32)
    return Base(np.frombuffer(ids, np.uint8).reshape(-1, 32), lengths)


def full(content: bytes, rule: Rule = RULE) -> Base:
    """The list of a full copy, by the cutter that has been held against the naive one."""
    edges = []
    for piece in cutter.cut(rule, memoryview(content)):
        lengths = chunker.hole_lengths(piece.start, piece.end) if piece.hole else np.array([piece.length])
        ends = piece.start + np.cumsum(lengths, dtype=np.int64)
        edges += [(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]
    return listed(content, edges)


def difference(old: bytes, new: bytes, step: int = 4096) -> list[tuple[int, int]]:
    """What an honest manager would tell: (offset, length)."""
    return [(at, step) for at in range(0, len(new), step) if old[at : at + step] != new[at : at + step]]


def mapped(content: bytes, hidden: int = 1 << 30) -> MappedMemory:
    """A disk whose map knows of every granule of zeroes but each ``hidden``-th; at 1 it knows of none."""
    granules = range(0, len(content), GRANULE)
    zero = [not any(content[at : at + GRANULE]) for at in granules]
    drawing = "".join("-" if is_zero and (at + 1) % hidden else "D" for at, is_zero in enumerate(zero))
    return MappedMemory(content, drawing)


def same(found: DiskContent | Base, expected: Base) -> bool:
    return bool(np.array_equal(found.lengths, expected.lengths) and np.array_equal(found.ids, expected.ids))


def test_one_changed_granule_costs_the_chunks_around_it() -> None:
    old = disks.data("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 4)
    new = bytearray(old)
    new[52 * GRANULE + 700 : 52 * GRANULE + 720] = b"x" * 20
    source, sink = mapped(bytes(new)), MemorySink()
    copied = copy_changes(source, full(old), Areas.of(difference(old, new), len(new)), sink, RULE, options=SMALL)
    assert same(copied, full(bytes(new)))
    assert copied.stats.bytes_read == source.bytes_read <= 10 * GRANULE
    assert copied.stats.bytes_total == len(new)
    assert 1 <= copied.stats.chunks <= 3
    known = {row.tobytes() for row in full(old).ids}
    assert all(blob_id not in known for _, blob_id in sink.blobs), "a chunk that did not change was stored"


def test_what_is_read_around_a_change_and_differs_untold_is_stored_and_said() -> None:
    """A host that forgot an area beside one that it told: its bytes are in memory, and the base's id is not theirs."""
    old = disks.data("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 4)
    base = full(old)
    told = 52 * GRANULE + 700
    found: list[tuple[int, int]] = []
    for granule in (*range(48, 52), *range(53, 57)):
        new = bytearray(old)
        new[told : told + 20] = b"x" * 20
        new[granule * GRANULE + 40_000] ^= 1
        source, sink = mapped(bytes(new)), MemorySink()
        copied = copy_changes(source, base, Areas.of([(told, 20)], len(new)), sink, RULE, options=SMALL)
        found += copied.untold
        content = b"".join(restored(copied, base, old, sink))
        at = granule * GRANULE + 40_000
        said = any(start <= at < start + length for start, length in copied.untold)
        assert (content == new) or not said, "what was said to differ was not stored"
        assert content == new or content[:at] + content[at + 1 :] == new[:at] + new[at + 1 :]
    assert found, "in no case was a chunk read that lies beside the change"
    honest = bytearray(old)
    honest[told : told + 20] = b"x" * 20
    copied = copy_changes(mapped(bytes(honest)), base, Areas.of([(told, 20)], len(old)), MemorySink(), RULE)
    assert copied.untold == ()


def restored(copied: DiskContent, base: Base, old: bytes, sink: MemorySink) -> Iterator[bytes]:
    """The bytes of a copy's chunks, those of its base included."""
    edges = [0, *np.cumsum(base.lengths, dtype=np.int64).tolist()]
    kept = {row.tobytes(): old[edges[at] : edges[at + 1]] for at, row in enumerate(base.ids)}
    for row in copied.ids:
        plain = sink.blobs.get((BlobKind.DATA, row.tobytes()))
        yield kept[row.tobytes()] if plain is None else plain


def test_nothing_changed_costs_nothing() -> None:
    content = disks.data("ABC" + "-" * 70 + "D1111111") + b"end"
    source, sink = mapped(content), MemorySink()
    copied = copy_changes(source, full(content), Areas.none(len(content)), sink, RULE, options=SMALL)
    assert same(copied, full(content))
    assert (source.bytes_read, len(sink.blobs), copied.stats.chunks) == (0, 0, 0)
    assert copied.stats.bytes_zero == 70 * GRANULE


def test_lost_chunks_are_read_and_stored_again_though_nothing_changed() -> None:
    content = disks.data("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 4)
    base = full(content)
    lost = np.array([3, 4, len(base.ids) - 1])
    source, sink = mapped(content), MemorySink()
    damaged = Base(base.ids, base.lengths, lost)
    copied = copy_changes(source, damaged, Areas.none(len(content)), sink, RULE, options=SMALL)
    assert same(copied, base)
    assert {base.ids[row].tobytes() for row in lost} <= {blob_id for _, blob_id in sink.blobs}
    assert source.bytes_read < len(content)


def test_all_changed_is_a_full_copy() -> None:
    old, new = disks.data("ABC-----DE" * 4), disks.data("FG-H1111--" * 4)
    copied = copy_changes(mapped(new), full(old), Areas.whole(len(new)), MemorySink(), RULE, options=SMALL)
    again = copy_disk(mapped(new), MemorySink(), RULE, options=SMALL)
    assert same(copied, Base(again.ids, again.lengths))
    assert copied.stats == again.stats


def test_an_empty_disk() -> None:
    copied = copy_changes(mapped(b""), full(b""), Areas.none(0), MemorySink(), RULE)
    assert len(copied.lengths) == 0


@st.composite
def changes(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A disk, and what became of it."""
    text = draw(st.text("ABCDEab1122-------", max_size=60))
    tail = draw(st.one_of(st.just(0), st.integers(1, GRANULE - 1)))
    old = disks.data(text) + disks.data(draw(st.sampled_from("A-a1")))[:tail]
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, max(len(old) - 1, 0)))
        length = draw(st.sampled_from([1, 512, 4096, 20000, GRANULE, 3 * GRANULE, 9 * GRANULE]))
        if draw(st.booleans()):
            at -= at % draw(st.sampled_from([4096, GRANULE]))
        content = disks.data(draw(st.sampled_from("-XYaA1")) * 10)
        new[at : at + length] = content[: max(min(length, len(old) - at), 0)]
    return old, bytes(new)


@settings(max_examples=150, deadline=None)
@given(
    changes(), st.sampled_from([8, 11, 16, 40, 64]), st.sampled_from([1, 2, 3, 1 << 30]), st.integers(1, 5), st.data()
)
def test_a_splice_is_a_full_copy(
    change: tuple[bytes, bytes], window: int, hidden: int, segment: int, draws: st.DataObject
) -> None:
    old, new = change
    rule = Rule(disks.SEED, window)
    told = difference(old, new)
    if draws.draw(st.booleans()):
        told += [(draws.draw(st.integers(0, len(old))), draws.draw(st.integers(0, 5 * GRANULE)))]
    told = draws.draw(st.permutations(told)) if len(told) < 20 else told[::-1]
    changed, sink = Areas.of(told, len(new)), MemorySink()
    options = Options(2, 4 * MIB, segment * GRANULE)
    source = mapped(new, hidden)
    copied = copy_changes(source, full(old, rule), changed, sink, rule, options=options)
    assert same(copied, full(new, rule))
    assert copied.untold == (), "all that differs was told"
    assert copied.stats.bytes_read == source.bytes_read
    assert copied.stats.bytes_zero == sum(p.length for p in cutter.cut(rule, memoryview(new)) if p.hole)
    have = {row.tobytes() for row in full(old, rule).ids} | {blob_id for _, blob_id in sink.blobs}
    assert {row.tobytes() for row in copied.ids} <= have, "a chunk that nobody has"
    for (kind, blob_id), plain in sink.blobs.items():
        assert (kind, hashlib.sha256(plain).digest()) == (BlobKind.DATA, blob_id)


@settings(max_examples=15, deadline=None)
@given(changes())
def test_a_splice_is_what_the_naive_rule_says(change: tuple[bytes, bytes]) -> None:
    old, new = change
    chunks = [[(start, end) for start, end, _ in naive.chunks(content, disks.SEED, 8)] for content in change]
    changed = Areas.of(difference(old, new), len(new))
    copied = copy_changes(mapped(new), listed(old, chunks[0]), changed, MemorySink(), RULE, options=SMALL)
    assert same(copied, listed(new, chunks[1]))


def scribbled(rng: random.Random, content: bytes) -> bytes:
    """A few writes, zeroings and fillings of holes."""
    new = bytearray(content)
    for _ in range(rng.randrange(1, 9)):
        at = rng.randrange(len(new))
        length = min(rng.choice([1, 4096, 65536, 300_000, 2 * MIB]), len(new) - at)
        kind = rng.randrange(4)
        block = bytes(4096) if kind == 0 else disks.noise(rng.randrange(9), 4096)
        new[at : at + length] = (block * (length // 4096 + 1))[:length] if kind < 2 else rng.randbytes(length)
    return bytes(new)


@pytest.mark.parametrize("seed", range(12))
def test_many_generations(seed: int) -> None:
    """Each splice is the base of the next, over windows, odd sizes, constant stretches and large holes."""
    rng = random.Random(seed)
    window = rng.choice([8, 9, 16, 24, 64, 100])
    rule = Rule(disks.SEED, window)
    size = rng.randrange(4 * MIB, 14 * MIB) // 512 * 512
    content = scribbled(rng, rng.choice([bytes(size), disks.noise(seed, size), disks.data("1") * (size // GRANULE)]))
    base = full(content, rule)
    for generation in range(5):
        new = scribbled(rng, content)
        told = difference(content, new)
        rng.shuffle(told)
        copied = copy_changes(mapped(new, 2), base, Areas.of(told, len(new)), MemorySink(), rule)
        assert same(copied, full(new, rule)), f"seed {seed}, window {window}, generation {generation}"
        assert copied.untold == ()
        content, base = new, Base(copied.ids, copied.lengths)


def test_a_long_piece_whose_splits_move_is_cut_anew_to_its_end() -> None:
    """Behind chunks of the greatest length no edge can be trusted to be a natural cut."""
    old = disks.data("A" + "1" * 60 + "B" * 9 + "2" * 9)
    for letter in "XYZWV":
        new = bytearray(old)
        new[3 * GRANULE : 3 * GRANULE + 8192] = disks.data(letter)[:8192]
        changed = Areas.of(difference(old, new), len(new))
        copied = copy_changes(mapped(bytes(new)), full(old), changed, MemorySink(), RULE, options=SMALL)
        assert same(copied, full(bytes(new)))


def test_natural_cuts_at_the_greatest_length_are_found_among_splits() -> None:
    """They look like splits in the base's list, and stay where they are when the splits move."""
    blocks = [disks.noise(number, 4096) for number in range(20)]
    digests = chunker.digest(RULE, memoryview(b"".join(blocks)))[0].tolist()
    by_digest = sorted(range(20), key=digests.__getitem__)
    most, low = blocks[by_digest[-1]], blocks[by_digest[0]]
    longest = RULE.max_bytes // 4096
    natural = [longest, 3 * longest, 4 * longest]  # the very first block makes a cut of its own
    old = b"".join(low if number in natural else most for number in range(1 + 5 * longest))
    new = b"".join(low if number in [20, *natural] else most for number in range(1 + 5 * longest))
    assert full(old).lengths.tolist() == [4096, *[RULE.max_bytes] * 5]
    copied = copy_changes(
        mapped(new), full(old), Areas.of(difference(old, new), len(new)), MemorySink(), RULE, options=SMALL
    )
    assert same(copied, full(new))
    assert len(copied.lengths) == 7


@pytest.mark.parametrize("seed", range(8))
def test_cuts_look_over_a_hole_that_is_shorter_than_the_window(seed: int) -> None:
    """One granule of zeroes, sixteen blocks: behind it, and before it, lies what decides the cuts on its other side."""
    rng = random.Random(seed)
    rule = Rule(disks.SEED, 64)
    granules = [bytes(GRANULE) if rng.random() < 0.2 else rng.randbytes(GRANULE) for _ in range(100)]
    old = b"".join(granules)
    base = full(old, rule)
    for number in range(5, 100, 9):
        at = number * GRANULE
        new = old[:at] + rng.randbytes(GRANULE) + old[at + GRANULE :]
        copied = copy_changes(mapped(new), base, Areas.of([(at, GRANULE)], len(new)), MemorySink(), rule)
        assert same(copied, full(new, rule)), f"granule {number}"


def test_the_farthest_block_that_a_cut_looks_at_undoes_it() -> None:
    """A cut after block p looks at the w blocks before p and the w behind it; the granule that changed ends there."""
    size, window, per_granule = 8 * MIB, RULE.window, GRANULE // 4096
    old = disks.noise(1, size)
    base = full(old)
    low = min(
        (disks.noise(seed, 4096) for seed in range(2, 400)),
        key=lambda block: chunker.digest(RULE, memoryview(block))[0],
    )
    edges = np.cumsum(base.lengths, dtype=np.int64)[:-1] // 4096
    before = [(edge, edge - 1 - window) for edge in edges.tolist() if (edge - window) % per_granule == 0]
    behind = [(edge, edge - 1 + window) for edge in edges.tolist() if (edge - 1 + window) % per_granule == 0]
    assert min(len(before), len(behind)) > 3
    for edge, block in before + behind:
        new = old[: block * 4096] + low + old[(block + 1) * 4096 :]
        expected = full(new)
        assert edge not in np.cumsum(expected.lengths, dtype=np.int64) // 4096
        copied = copy_changes(mapped(new), base, Areas.of([(block * 4096, 1)], size), MemorySink(), RULE)
        assert same(copied, expected)


def test_a_hole_that_reaches_512_kib_gets_its_head() -> None:
    old, new = disks.data("A-------BC"), disks.data("A--------C")
    changed = Areas.of(difference(old, new), len(new))
    copied = copy_changes(mapped(new), full(old), changed, MemorySink(), RULE, options=SMALL)
    assert same(copied, full(new))
    assert 8 * GRANULE in copied.lengths


def test_zeroes_that_the_map_knows_need_no_telling() -> None:
    """A block that was unmapped reads as zeroes from then on, whether or not it was counted as a change."""
    old, new = disks.data("ABCDEFGHIJ"), disks.data("ABC---GHIJ")
    source = MappedMemory(new, "DDD---DDDD")
    copied = copy_changes(source, full(old), Areas.none(len(new)), MemorySink(), RULE, options=SMALL)
    assert same(copied, full(new))


def test_a_change_in_a_huge_hole_costs_no_more_than_another() -> None:
    size = 1 << 40

    class Vast(MappedMemory):
        size_bytes = size

        def read_into(self, offset: int, buf: memoryview) -> None:
            self.bytes_read += len(buf)
            buf[:] = disks.noise(1, len(buf)) if offset == size // 2 else bytes(len(buf))

    base_of = copy_disk(Vast(b"", "-", size), MemorySink(), RULE, options=SMALL)
    source = Vast(b"", "D", size)
    changed = Areas.of([(size // 2, GRANULE)], size)
    copied = copy_changes(source, Base(base_of.ids, base_of.lengths), changed, MemorySink(), RULE, options=SMALL)
    assert source.bytes_read == GRANULE
    assert int(copied.lengths.sum(dtype=np.uint64)) == size
    assert copied.stats.bytes_zero == size - GRANULE


def test_progress_grows_to_the_whole() -> None:
    seen: list[Progress] = []
    old, new = disks.data("ABCDEFGH--" * 10), disks.data("ABCDEFGH--" * 4 + "X" + "BCDEFGH--" + "ABCDEFGH--" * 5)
    changed = Areas.of(difference(old, new), len(new))
    copy_changes(mapped(new), full(old), changed, MemorySink(), RULE, options=SMALL, progress=seen.append)
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert seen[-1].bytes_done == len(new)


def moved(base: Base, by: int) -> Base:
    """The first chunk longer by so much, the second shorter."""
    lengths = base.lengths.astype(np.int64)
    lengths[:2] += (by, -by)
    return Base(base.ids, lengths.astype(np.uint32))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda base: Base(base.ids, base.lengths[:-1]), "18 chunks and 17 lengths"),
        (lambda base: Base(base.ids[:-1], base.lengths[:-1]), "come to 1302528 bytes, the disk has 1310720"),
        (lambda base: moved(base, 512), "not cut as"),
        (lambda base: moved(base, -12288), "not cut as"),
        (lambda base: Base(base.ids[:1], base.lengths[:1] * 0 + np.uint32(20 * GRANULE)), "not cut as"),
    ],
)
def test_a_base_that_cannot_be_is_refused(damage: Callable[[Base], Base], reason: str) -> None:
    content = disks.data("ABCDEFGHIJ" * 2)
    with pytest.raises(IntegrityError, match=reason):
        copy_changes(mapped(content), damage(full(content)), Areas.none(len(content)), MemorySink(), RULE)


def test_a_source_that_cannot_be_read_fails_the_copy() -> None:
    class Failing(MappedMemory):
        def read_into(self, offset: int, buf: memoryview) -> None:
            raise DeviceError(device="lun", offset=offset, length=len(buf), reason="Input/output error")

    content = disks.data("ABCDE" * 4)
    changed = Areas.of([(5 * GRANULE, 1)], len(content))
    with pytest.raises(DeviceError, match="Input/output error"):
        copy_changes(Failing(content, "D" * 20), full(content), changed, MemorySink(), RULE, options=SMALL)


def test_thousands_of_regions_lie_in_order_and_touch_nowhere() -> None:
    """Planned for a disk of 16 GiB that nobody reads here."""

    class Unread(MappedMemory):
        size_bytes = 16 << 30

    count, chunk = 32768, MIB // 2
    ids = np.random.default_rng(1).integers(0, 256, (count, 32), np.uint8)
    layout = Layout(Base(ids, np.full(count, chunk, np.uint32)), Unread.size_bytes, Rule(disks.SEED))
    places = [(at, 1) for at in range(MIB, Unread.size_bytes, 3 * MIB)]
    splice = Splice(layout, Areas.of(places, Unread.size_bytes), Unread(b"", "D", 16 << 30), Rule(disks.SEED))
    regions = list(splice.regions())
    assert len(regions) == len(places) > 5000
    for (offset, _), region in zip(places, regions, strict=True):
        stretch = region.stretch
        assert stretch.seen_from <= stretch.start <= stretch.cuts_from < offset < stretch.cuts_to < stretch.end
        assert (region.row_first * chunk, region.row_behind * chunk) == (stretch.start, stretch.end)
        assert stretch.end - stretch.start <= 3 * chunk
    assert all(one.stretch.seen_to < other.stretch.seen_from for one, other in itertools.pairwise(regions))
