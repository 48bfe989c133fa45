"""When packs are listed: soon enough that a killed backup costs little, and not so often that all later jobs pay."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

from vcbproxy.clock import ManualClock
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import BLOBS_PER_FILE_MAX, PackBlobs
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.pending import PendingIndex


def pack(number: int, blobs: int = 1) -> PackBlobs:
    identity = hashlib.sha256(number.to_bytes(4)).digest()
    return PackBlobs(identity, [Blob(BlobKind.DATA, identity, 64 * at, 64, 0) for at in range(blobs)])


def listed_at(hours: float, pack_every_s: float = 5) -> list[float]:
    """At which seconds of a long backup an index file is written."""
    clock, times = ManualClock(), list[float]()
    pending = PendingIndex(lambda _: times.append(clock.monotonic()), clock.monotonic)
    for number in range(int(hours * 3600 / pack_every_s)):
        pending.add(pack(number))
        clock.sleep(pack_every_s)
    return times


def test_a_kill_costs_a_tenth_of_the_work_at_most() -> None:
    times = listed_at(8)
    assert 60 <= times[0] <= 65
    for before, after in pairwise(times):
        assert after - before <= max(60, after / 10) + 10
        assert after - before <= 610


def test_a_long_night_leaves_few_index_files() -> None:
    assert len(listed_at(8)) < 75


def test_a_full_one_is_written_at_once() -> None:
    saved = list[Sequence[PackBlobs]]()
    pending = PendingIndex(saved.append, ManualClock().monotonic)
    pending.add(pack(0, BLOBS_PER_FILE_MAX - 1))
    assert not saved
    pending.add(pack(1))
    assert len(saved) == 1
