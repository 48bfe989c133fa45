"""The rule against the naive one, and what it promises of itself."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline import disks, naive
from vcbproxy.errors import UsageError
from vcbproxy.pipeline import chunker, cutter
from vcbproxy.pipeline.chunker import Parameters, Rule

KIB, MIB = 1024, 1024 * 1024


def chunks(rule: Rule, pieces: list[cutter.Piece]) -> list[tuple[int, int, bool]]:
    found = []
    for piece in pieces:
        lengths = chunker.hole_lengths(piece.start, piece.end).tolist() if piece.hole else [piece.length]
        at = piece.start
        for length in lengths:
            found.append((at, at + length, piece.hole))
            at += length
        assert at == piece.end
    return found


def cut(content: bytes, window: int = 8) -> list[tuple[int, int, bool]]:
    rule = Rule(disks.SEED, window)
    return chunks(rule, cutter.cut(rule, memoryview(content)))


@settings(max_examples=40, deadline=None)
@given(disks.contents(), st.sampled_from([8, 11, 16]))
def test_agrees_with_the_naive_rule(content: bytes, window: int) -> None:
    assert cut(content, window) == naive.chunks(content, disks.SEED, window)


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 4097, 65535, 65536, 65537, 9 * MIB + 5])
def test_agrees_on_awkward_sizes(size: int) -> None:
    for content in (bytes(size), disks.noise(1, size), b"\xff" * size):
        assert cut(content) == naive.chunks(content, disks.SEED, 8)


@settings(max_examples=60, deadline=None)
@given(disks.contents(), st.sampled_from([8, 16, 64]), st.data())
def test_does_not_depend_on_how_it_is_fed(content: bytes, window: int, draws: st.DataObject) -> None:
    rule = Rule(disks.SEED, window)
    walker, pieces, at = cutter.Cutter(rule, len(content)), [], 0
    while at < len(content):
        step = min(draws.draw(st.integers(1, 20)) * disks.GRANULE, len(content) - at)
        part = memoryview(content)[at : at + step]
        known_zero = not any(part) and draws.draw(st.booleans())
        pieces += walker.skip(step) if known_zero else walker.feed(part)
        at += step
        kept = walker.position - walker.needed_from
        assert 0 <= kept <= rule.max_bytes + window * 4096
        assert all(piece.end <= at for piece in pieces)
    pieces += walker.finish()
    assert chunks(rule, pieces) == cut(content, window)


@settings(max_examples=30, deadline=None)
@given(disks.contents())
def test_chunks_tile_the_disk_and_keep_their_bounds(content: bytes) -> None:
    position = 0
    for start, end, hole in cut(content, 16):
        assert start == position
        assert 0 < end - start <= (4 * MIB if hole else 16 * 32 * KIB)
        assert start % 4096 == 0
        assert any(content[start:end]) or hole or end - start < 2 * disks.GRANULE
        assert not (hole and any(content[start:end]))
        position = end
    assert position == len(content)


def test_the_same_file_elsewhere_is_cut_alike() -> None:
    """Blocks between the first and the last cut of a file do not know where the file lies."""
    file = disks.noise(7, 4 * MIB)

    def ids(content: bytes, from_offset: int) -> list[bytes]:
        return [hashlib.sha256(content[a:b]).digest() for a, b, _ in cut(content, 16) if a >= from_offset]

    here = ids(disks.noise(1, MIB) + file, MIB)
    there = ids(disks.noise(2, 3 * MIB + 13 * 4096) + file, 3 * MIB)
    assert len(here) > 15
    assert len(set(here) - set(there)) <= 2


def test_mean_size_is_near_eight_windows_of_kilobytes() -> None:
    found = cut(disks.noise(3, 64 * MIB), 64)
    assert 350 * KIB < 64 * MIB / len(found) < 700 * KIB


def test_what_never_changes_is_split_every_four_means() -> None:
    block = disks.noise(5, 4096)
    assert [end - start for start, end, _ in cut(block * (3 * 256 + 100), 8)][1:4] == [256 * KIB] * 3


@pytest.mark.parametrize(
    ("start", "end", "lengths"),
    [
        (0, 64 * KIB, [64]),
        (0, 448 * KIB, [448]),
        (0, 512 * KIB, [512]),
        (0, 576 * KIB, [512, 64]),
        (0, 4 * MIB, [512, 3584]),
        (0, 12 * MIB, [512, 3584, 4096, 4096]),
        (4 * MIB - 64 * KIB, 4 * MIB + 64 * KIB, [64, 64]),
        (4 * MIB - 64 * KIB, 9 * MIB, [512, 3648, 1024]),
        (4 * MIB - 512 * KIB, 5 * MIB, [512, 1024]),
    ],
)
def test_chunks_of_holes(start: int, end: int, lengths: list[int]) -> None:
    assert (chunker.hole_lengths(start, end) // KIB).tolist() == lengths


def test_a_sum_of_zero_is_not_taken_for_zeroes() -> None:
    """Two words that cancel out against the multipliers in every block of a granule: data, not a hole."""
    numbers = chunker.multipliers(disks.SEED)
    block = np.zeros(512, "<u8")
    block[0], block[1] = numbers[1], (2**64 - int(numbers[0])) % 2**64
    content = block.tobytes() * 16
    assert cut(content) == [(0, disks.GRANULE, False)]


def test_known_values() -> None:
    """The rule may never drift: repositories live for years. Values from the naive rule, written down once."""
    rule = Rule(b"3da3358b4dc173", 16)
    assert hashlib.sha256(chunker.multipliers(rule.seed).tobytes()).hexdigest()[:16] == "85af60186df3f0e7"
    assert rule.parameters == Parameters("lm", 1, 16, 512 * KIB, "e06d018dafee3350")
    content = disks.data("ABC--aDE") + b"abc" * 1000
    assert [piece.start // 4096 for piece in cutter.cut(rule, memoryview(content))] == [0, 14, 33, 48, 80, 94, 118]


def test_parameters_survive_json_and_strangers_are_not_ours() -> None:
    parameters = Rule(b"seed").parameters
    assert Parameters.from_json(parameters.as_json()) == parameters
    assert Parameters.from_json({"algorithm": "fixed", "size": 1}) is None
    assert Parameters.from_json({**parameters.as_json(), "window": "64"}) is None
    assert Rule(b"other").parameters != parameters


@pytest.mark.parametrize(("seed", "window"), [(b"", 64), (b"x", 7), (b"x", 513)])
def test_refuses_absurd_rules(seed: bytes, window: int) -> None:
    with pytest.raises(UsageError):
        Rule(seed, window)
