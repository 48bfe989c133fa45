"""A disk in a repository: where it differs from another, by the lists of chunks; read ahead, in order."""

from __future__ import annotations

import hashlib
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.device import read
from vcbproxy.pipeline.storeddisk import differing, stored_disk
from vcbproxy.repository.ids import BlobKind
from vcbproxy.units import KiB

GRANULE = 64 * KiB


class Blobs:
    """Chunks in memory."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.known = {hashlib.sha256(chunk).digest(): chunk for chunk in chunks}
        digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
        self.ids = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        self.lengths = np.array([len(chunk) for chunk in chunks], np.uint32)

    def load_blob(self, _kind: BlobKind, blob_id: bytes) -> bytes:
        return self.known[blob_id]


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    chunks = []
    while data:
        length = rng.randint(1, 5) * GRANULE
        chunks.append(data[:length])
        data = data[length:]
    return chunks


@given(st.integers(0, 2**32), st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_all_that_differs_is_named(seed: int, granules: int, touched: set[int]) -> None:
    rng = random.Random(seed)
    before = rng.randbytes(granules * GRANULE)
    after = bytearray(before)
    for granule in touched & set(range(granules)):
        after[granule * GRANULE] ^= 1
    old, new = Blobs(cut(before, rng)), Blobs(cut(bytes(after), rng))
    areas = differing(new.ids, new.lengths, old.ids, old.lengths)
    laid_over = bytearray(before)
    for start, end in areas.ranges.tolist():
        laid_over[start:end] = after[start:end]
    assert laid_over == after
    assert not len(differing(new.ids, new.lengths, new.ids, new.lengths))


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_it_reads_as_its_chunks_are(seed: int, granules: int) -> None:
    rng = random.Random(seed)
    data = b"".join(rng.choice((bytes(GRANULE), rng.randbytes(GRANULE))) for _ in range(granules))
    blobs = Blobs(cut(data, rng))
    with stored_disk(blobs, "disk", blobs.ids, blobs.lengths, workers=2) as disk:
        at = 0
        while at < len(data):
            length = min(rng.randint(1, 3 * GRANULE), len(data) - at)
            assert read(disk, at, length) == data[at : at + length]
            at += length
        assert sum(extent.length for extent in disk.extents()) == len(data)
