"""What a guest has written on its disks: made from a seed, compressible like real disks, and knowing its address.

    |text    |        |records |random  |text    |        |       segments of 1 MiB; the blank ones are holes

Every 512-byte row of text and records carries the disk's name and its own offset, so that a byte that turns up in the
wrong place tells where it came from.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import numpy as np

from vcbproxy.units import MiB

SEGMENT_BYTES = 1 * MiB
_ROW_BYTES = 512
_STAMP_BYTES = 64
_CORPUS_BYTES = 1 << 18
_TEXT = (
    "the quick server wrote its journal before morning and nobody asked why request completed status index "
    "select from where insert update configuration error warning kernel service started session user disk"
)


def mixed(name: str, size_bytes: int, seed: int, used: float) -> Iterator[tuple[int, bytes]]:
    """(offset, data) of what is written, in order; nothing is said about the holes between."""
    chance = random.Random(f"{seed} {name}")
    corpus = _corpus(chance)
    for offset in range(0, size_bytes, SEGMENT_BYTES):
        length = min(SEGMENT_BYTES, size_bytes - offset)
        # The first segment is always there, as a partition table would be: no disk is empty by chance.
        if offset and chance.random() >= used:
            continue
        kind = chance.random()
        if kind < 0.25:
            yield offset, chance.randbytes(length)
        else:
            yield offset, _rows(name, offset, length, corpus, chance, whole_row=kind < 0.8)


def noise(name: str, size_bytes: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Random bytes all over."""
    chance = random.Random(f"{seed} {name}")
    for offset in range(0, size_bytes, SEGMENT_BYTES):
        yield offset, chance.randbytes(min(SEGMENT_BYTES, size_bytes - offset))


def identifier(seed: int, *what: object) -> bytes:
    """Sixteen bytes that name a thing of this lab, and no other."""
    return hashlib.sha256(repr((seed, *what)).encode()).digest()[:16]


def _corpus(chance: random.Random) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    words = " ".join(chance.choices(_TEXT.split(), k=_CORPUS_BYTES // 6))
    return np.frombuffer(words.encode()[:_CORPUS_BYTES], dtype=np.uint8)


def _rows(
    name: str,
    offset: int,
    length: int,
    corpus: np.ndarray[tuple[int], np.dtype[np.uint8]],
    chance: random.Random,
    *,
    whole_row: bool,
) -> bytes:
    """Rows of a stamp and a slice of the corpus; records leave half of each row zero, as database pages do."""
    count = length // _ROW_BYTES
    rows = np.zeros((count, _ROW_BYTES), dtype=np.uint8)
    filled = (_ROW_BYTES if whole_row else _ROW_BYTES // 2) - _STAMP_BYTES
    numbers = np.random.default_rng(chance.getrandbits(64))
    starts = numbers.integers(0, len(corpus) - filled, count)
    windows = np.lib.stride_tricks.sliding_window_view(corpus, filled)
    rows[:, _STAMP_BYTES : _STAMP_BYTES + filled] = windows[starts]
    stamps = b"".join(
        f"{name[:40]} @{offset + row * _ROW_BYTES:#014x} ".encode()[:_STAMP_BYTES].ljust(_STAMP_BYTES, b".")
        for row in range(count)
    )
    rows[:, :_STAMP_BYTES] = np.frombuffer(stamps, dtype=np.uint8).reshape(count, _STAMP_BYTES)
    return rows.tobytes()
