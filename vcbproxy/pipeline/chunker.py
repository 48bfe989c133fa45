"""Where a disk is cut: the local-minimum rule ("lm", version 1), as pure functions over numbers.

Comes in: bytes on the 4 KiB grid, on which guest file systems allocate. Goes out: one 64-bit digest per block, which
blocks lie in holes, and after which blocks a natural cut lies. Whoever walks a whole disk with it is ``cutter.py``.

    blocks   ┆0┆1┆2┆3┆4┆5┆6┆7┆8┆9┆ …          4 KiB each; h = mix(Σ word·K mod 2⁶⁴) over its 512 words
    h         9 7 8 3 5 6 4 8 7 9              a cut lies after block 3: h is smaller than in all w blocks before it
                     └─cut here               and not larger than in all w blocks after it

A cut depends on nothing but w blocks to either side. That is what makes the same file found again in another disk, lets
regions be cut in any order, and lets an incremental splice its cuts into an older list.

Holes: aligned 64 KiB granules that are all zero (one cut short by the end of the disk counts too). Their edges are
cuts, their blocks count as h = +∞. So does *every* all-zero block: ``mix`` is a bijection that sends zero to 2⁶⁴−1, so
that a zero block never draws a cut, whichever way it is known to be zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import UsageError
from vcbproxy.units import KiB, MiB, align_down

BLOCK = 4 * KiB
GRANULE = 64 * KiB
HOLE_HEAD = 512 * KiB  # the one zero chunk by which stock `restic restore --sparse` knows a sparse file
HOLE_STEP = 4 * MiB
WINDOW = 64
WINDOW_MIN = 8
WINDOW_MAX = 512

_WORDS = BLOCK // 8
_BLOCKS_PER_GRANULE = GRANULE // BLOCK
INFINITY = np.uint64(2**64 - 1)

U64 = NDArray[np.uint64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What must be equal for two lists of chunks to have been cut alike. Recorded with every disk.

    Attributes:
        algorithm: ``lm``.
        version: of the rule; anything that moves a cut raises it.
        window: w, in blocks; the mean chunk is about 8·w KiB.
        max: the longest chunk of data, in bytes: four times the mean.
        seed_id: names the seed without telling it.
    """

    algorithm: str
    version: int
    window: int
    max: int
    seed_id: str

    def as_json(self) -> dict[str, str | int]:
        """The fields, for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Parameters | None:
        """Read them back; None when this is not how we know parameters to look, hence a disk to be cut anew."""
        algorithm, version = fields.get("algorithm"), fields.get("version")
        window, longest, seed_id = fields.get("window"), fields.get("max"), fields.get("seed_id")
        if not (isinstance(algorithm, str) and isinstance(seed_id, str)):
            return None
        if not (isinstance(version, int) and isinstance(window, int) and isinstance(longest, int)):
            return None
        return cls(algorithm, version, window, longest, seed_id)


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one repository: a seed and a window.

    Attributes:
        seed: any bytes that stay the same for the life of the repository; we take the hexadecimal digits of its
            ``chunker_polynomial``. Whoever lacks it cannot foretell the cuts.
        window: w, in blocks.
    """

    seed: bytes
    window: int = WINDOW

    def __post_init__(self) -> None:
        if not self.seed:
            raise UsageError("the chunker needs a seed; take the repository's chunker polynomial")
        if not WINDOW_MIN <= self.window <= WINDOW_MAX:
            raise UsageError(f"chunker window {self.window}: choose one from {WINDOW_MIN} to {WINDOW_MAX}")

    @property
    def max_bytes(self) -> int:
        """The longest chunk of data, four times the mean of 8·w KiB; those of holes have ``HOLE_STEP``."""
        return 4 * 8 * self.window * KiB

    @property
    def parameters(self) -> Parameters:
        """What to record with each disk."""
        seed_id = hashlib.sha256(b"vcbproxy lm seed id\0" + self.seed).hexdigest()[:16]
        return Parameters("lm", 1, self.window, self.max_bytes, seed_id)


@lru_cache(maxsize=8)
def multipliers(seed: bytes) -> U64:
    """K: 512 odd numbers drawn from the seed.

    ``SHA-256("vcbproxy lm multipliers" ‖ 00 ‖ counter as u32 LE ‖ seed)`` for counter = 0 … 127, each giving four u64
    LE; the lowest bit of each is then set. Odd, so that a change of any one word changes the sum.
    """
    stream = b"".join(
        hashlib.sha256(b"vcbproxy lm multipliers\0" + counter.to_bytes(4, "little") + seed).digest()
        for counter in range(_WORDS * 8 // 32)
    )
    numbers = np.frombuffer(stream, "<u8").astype(np.uint64) | np.uint64(1)
    numbers.setflags(write=False)
    return numbers


def mix(sums: U64) -> U64:
    """Spread every bit of a sum over all 64: the finaliser of SplitMix64, complemented; a bijection, 0 ↦ 2⁶⁴−1.

    Without it the order of two sums would be ruled by the top bits alone, into which the low words' low bits never get.
    """
    h = sums ^ (sums >> np.uint64(30))
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return ~h


def digest(rule: Rule, data: memoryview) -> tuple[U64, Flags]:
    """One digest per 4 KiB block of ``data``, and whether the block lies in a hole.

    Args:
        rule: whose multipliers to use.
        data: starts on the granule grid. Its length is a multiple of the granule, unless the disk ends with it: a last
            block cut short is digested as if zeroes followed.
    """
    whole = align_down(len(data), BLOCK)
    numbers = multipliers(rule.seed)
    words = np.frombuffer(data, "<u8", count=whole // 8).reshape(-1, _WORDS)
    sums = np.einsum("ij,j->i", words, numbers)
    if whole < len(data):
        last = np.zeros(BLOCK, np.uint8)
        last[: len(data) - whole] = np.frombuffer(data[whole:], np.uint8)
        sums = np.append(sums, np.einsum("j,j->", last.view("<u8"), numbers))
    return mix(sums), _holes(sums, data)


def _holes(sums: U64, data: memoryview) -> Flags:
    """Blocks of all-zero granules. A sum of zero only makes a candidate; the bytes decide."""
    starts = np.arange(0, len(sums), _BLOCKS_PER_GRANULE)
    if len(starts) == 0:
        return np.zeros(0, np.bool_)
    hole = np.bitwise_or.reduceat(sums, starts) == 0
    octets = np.frombuffer(data, np.uint8)
    for granule in np.flatnonzero(hole).tolist():
        if octets[granule * GRANULE : (granule + 1) * GRANULE].max() != 0:
            hole[granule] = False
    return np.repeat(hole, _BLOCKS_PER_GRANULE)[: len(sums)]


def natural_cuts(h: U64, window: int) -> Flags:
    """Whether a cut lies after each block of ``h[window:-window]``; the rest is there to be looked at only."""
    count = len(h) - 2 * window
    least, span = h, 1  # least[i] is the minimum of h[i : i + span]; doubling the span costs one pass
    while span < window:
        step = min(span, window - span)
        least = np.minimum(least[:-step], least[step:])
        span += step
    centre = h[window : window + count]
    before, after = least[:count], least[window + 1 : window + 1 + count]
    cuts: Flags = (centre < before) & (centre <= after)
    return cuts


def hole_lengths(start: int, end: int) -> NDArray[np.uint32]:
    """The chunks of a hole.

    One of at least 512 KiB opens with a chunk of exactly that size, for ``restic restore --sparse`` takes a file for
    sparse only if that very chunk is in it. The rest is cut at absolute multiples of 4 MiB.

        disk     0            4M           8M           12M
        hole          ╞═╪══════╪════════════╪═════╡            512K, then up to 4M, 8M, and the end
    """
    head = start + HOLE_HEAD if end - start >= HOLE_HEAD else start
    steps = np.arange(align_down(head, HOLE_STEP) + HOLE_STEP, end, HOLE_STEP, dtype=np.int64)
    edges = np.concatenate(([start], [head] if head not in (start, end) else [], steps, [end])).astype(np.int64)
    return np.diff(edges).astype(np.uint32)
