"""The chunking rule once more, block by block in plain Python, from its document and not from our code."""

from __future__ import annotations

import hashlib
import itertools

BLOCK, GRANULE, MASK = 4096, 65536, 2**64 - 1


def multipliers(seed: bytes) -> list[int]:
    numbers = []
    for counter in range(128):
        digest = hashlib.sha256(b"vcbproxy lm multipliers\0" + counter.to_bytes(4, "little") + seed).digest()
        numbers += [int.from_bytes(digest[i : i + 8], "little") | 1 for i in range(0, 32, 8)]
    return numbers


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return (x ^ (x >> 31)) ^ MASK


def block_digest(block: bytes, numbers: list[int]) -> int:
    block = block.ljust(BLOCK, b"\0")
    if not any(block):
        return MASK
    return mix(sum(int.from_bytes(block[i * 8 : i * 8 + 8], "little") * numbers[i] for i in range(512)) & MASK)


def chunks(data: bytes, seed: bytes, window: int) -> list[tuple[int, int, bool]]:
    """All chunks of a disk: (start, end, lies in a hole)."""
    numbers, count = multipliers(seed), -(-len(data) // BLOCK)
    known: dict[bytes, int] = {}
    h, hole = [], []
    for i in range(count):
        block = data[i * BLOCK : (i + 1) * BLOCK]
        if block not in known:
            known[block] = block_digest(block, numbers)
        granule = data[i // 16 * GRANULE : (i // 16 + 1) * GRANULE]
        hole.append(not any(granule))
        h.append(MASK if hole[-1] else known[block])

    edges = [0]
    for i in range(count - 1):
        before = [h[j] if j >= 0 else MASK for j in range(i - window, i)]
        after = [h[j] if j < count else MASK for j in range(i + 1, i + window + 1)]
        natural = all(h[i] < x for x in before) and all(h[i] <= x for x in after)
        if natural or hole[i] != hole[i + 1]:
            edges.append(i + 1)
    edges.append(count)

    found = []
    for first, last in itertools.pairwise(edges):
        if first < last:
            start, end = first * BLOCK, min(last * BLOCK, len(data))
            found += _hole(start, end) if hole[first] else _data(start, end, 32 * window * 1024)
    return found


def _data(start: int, end: int, longest: int) -> list[tuple[int, int, bool]]:
    return [(at, min(at + longest, end), False) for at in range(start, end, longest)]


def _hole(start: int, end: int) -> list[tuple[int, int, bool]]:
    edges = [start]
    if end - start >= 512 * 1024:
        edges.append(start + 512 * 1024)
    step = 4 * 1024 * 1024
    edges += [at for at in range(0, end, step) if at > edges[-1]]
    if edges[-1] != end:
        edges.append(end)
    return [(a, b, True) for a, b in itertools.pairwise(edges)]
