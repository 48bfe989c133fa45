"""Whole copies into memory and back."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline import disks, naive
from tests.pipeline.disks import GRANULE, MappedMemory
from vcbproxy.errors import Cancelled, DeviceError, TargetError
from vcbproxy.pipeline import backup, restore
from vcbproxy.pipeline.backup import Options, Progress, copy_disk
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import DiskContent
from vcbproxy.pipeline.memory import MemoryPacker, MemorySink
from vcbproxy.repository.ids import BlobKind

MIB = 1024 * 1024
RULE = Rule(disks.SEED, 8)
SMALL = Options(workers=2, memory_bytes=4 * MIB, segment_bytes=2 * GRANULE)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def joined(sink: MemorySink, content: DiskContent) -> bytes:
    return b"".join(sink.load_blob(BlobKind.DATA, row.tobytes()) for row in content.ids)


@settings(max_examples=50, deadline=None)
@given(disks.contents(), st.sampled_from([512, 4096, 20480, GRANULE]), st.integers(1, 5), st.data())
def test_what_is_copied_is_what_was_there(content: bytes, step: int, segment: int, draws: st.DataObject) -> None:
    """Whatever is known of the zeroes, and however it is read: the naive rule's chunks, with the disk's bytes."""
    known = draws.draw(st.integers(0, 3))
    drawing = "".join(
        "-" if not any(content[at : at + step]) and (at // step * 7 + known) % 4 else "D"
        for at in range(0, len(content), step)
    )
    source, sink = MappedMemory(content, drawing, step), MemorySink()
    copied = copy_disk(source, sink, RULE, options=Options(2, 4 * MIB, segment * GRANULE))
    expected = naive.chunks(content, disks.SEED, 8)
    assert copied.lengths.tolist() == [end - start for start, end, _ in expected]
    assert copied.ids.tobytes() == b"".join(hashlib.sha256(content[a:b]).digest() for a, b, _ in expected)
    assert joined(sink, copied) == content
    assert (
        copied.stats.bytes_read
        == source.bytes_read
        == sum(e.length for e in source.extents() if e.kind.value == "data")
    )
    assert copied.stats.bytes_zero == sum(end - start for start, end, hole in expected if hole)
    assert copied.stats.bytes_stored == sum(map(len, sink.blobs.values()))
    assert copied.stats.chunks == sum(not hole for _, _, hole in expected)
    assert all(packer.finished for packer in sink.packers)


def test_default_sizes_over_several_segments() -> None:
    content = disks.noise(1, 9 * MIB) + bytes(7 * MIB) + disks.noise(2, 19 * MIB + 4096 + 512)
    sink = MemorySink()
    rule = Rule(disks.SEED)
    copied = copy_disk(MappedMemory(content, "D" * 9 + "-" * 7 + "D" * 20, MIB), sink, rule)
    assert joined(sink, copied) == content
    assert copied.stats.bytes_read == len(content) - 7 * MIB


def test_a_huge_hole_costs_next_to_nothing() -> None:
    class Hole(MappedMemory):
        size_bytes = 8 << 40

    started = time.process_time()
    sink = MemorySink()
    copied = copy_disk(Hole(b"", "-", 8 << 40), sink, Rule(disks.SEED), options=SMALL)
    assert len(copied.lengths) == 2 * MIB + 1
    assert len(set(map(bytes, copied.ids[:1000]))) == 3
    assert sorted(map(len, sink.blobs.values())) == [MIB // 2, 7 * MIB // 2, 4 * MIB]
    assert copied.stats.bytes_read == 0
    assert time.process_time() - started < 10


def test_disks_with_large_holes_carry_the_chunk_that_makes_restic_sparse() -> None:
    sink = MemorySink()
    copy_disk(MappedMemory(disks.data("A" + "-" * 12 + "B"), "D" * 14), sink, RULE, options=SMALL)
    assert bytes.fromhex("07854d2fef297a06ba81685e660c332de36d5d18d546927d30daad6d7fda1541") in {
        i for _, i in sink.blobs
    }


def test_empty_disk() -> None:
    copied = copy_disk(MappedMemory(b"", ""), MemorySink(), RULE)
    assert copied.ids.shape == (0, 32)
    assert copied.lengths.shape == (0,)


def test_progress_grows_to_the_whole() -> None:
    seen: list[Progress] = []
    content = disks.data("ABC" + "-" * 20 + "DE")
    copy_disk(MappedMemory(content, "DDD" + "-" * 20 + "DD"), MemorySink(), RULE, options=SMALL, progress=seen.append)
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert seen[-1].bytes_done == seen[-1].bytes_total == len(content)
    assert seen[-1].bytes_read == 5 * GRANULE


class FailingSource(MappedMemory):
    def read_into(self, offset: int, buf: memoryview) -> None:
        if offset <= 20 * GRANULE < offset + len(buf):
            raise DeviceError(device="lun", offset=20 * GRANULE, length=4096, reason="Input/output error")
        super().read_into(offset, buf)


def test_a_source_that_cannot_be_read_fails_the_copy() -> None:
    sink = MemorySink()
    with pytest.raises(DeviceError, match="offset 1310720: Input/output error"):
        copy_disk(FailingSource(disks.data("ABCDE" * 8), "D" * 40), sink, RULE, options=SMALL)
    assert not any(packer.finished for packer in sink.packers)


class ScriptedSink(MemorySink):
    """Packers that do something else at their n-th blob, or at their end."""

    def __init__(self, at: int, do) -> None:
        super().__init__()
        self.at, self.do = at, do

    def packer(self) -> MemoryPacker:
        sink = self

        class Packer(MemoryPacker):
            def add(self, kind, plain, blob_id=None):
                if len(sink.blobs) >= sink.at >= 0:
                    sink.do()
                return super().add(kind, plain, blob_id)

            def finish(self):
                if sink.at < 0:
                    sink.do()
                super().finish()

        return Packer(self)


@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_target_that_fails_fails_the_copy(at: int) -> None:
    def full() -> None:
        raise TargetError("the repository is full")

    with pytest.raises(TargetError, match="full"):
        copy_disk(MappedMemory(disks.data("ABCDE" * 20), "D" * 100), ScriptedSink(at, full), RULE, options=SMALL)


def test_cancelled_from_outside() -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        copy_disk(
            MappedMemory(disks.data("ABCDE" * 20), "D" * 100),
            ScriptedSink(3, cancel.set),
            RULE,
            options=SMALL,
            cancel=cancel,
        )


def test_interrupted_in_the_middle() -> None:
    def interrupt(progress: Progress) -> None:
        if progress.bytes_done > 10 * GRANULE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_disk(
            MappedMemory(disks.data("ABCDE" * 20), "D" * 100), MemorySink(), RULE, options=SMALL, progress=interrupt
        )


def test_the_reader_is_held_back_by_slow_packers() -> None:
    """Memory is bounded: as long as nothing is stored, no more is read than fits the buffers."""
    blocked, checked = threading.Event(), threading.Event()

    def wait() -> None:
        blocked.set()
        assert checked.wait(10)

    source = MappedMemory(disks.data("ABCDE" * 40), "D" * 200)
    read = []

    def look() -> None:
        assert blocked.wait(10)
        time.sleep(0.2)
        read.append(source.bytes_read)
        checked.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    copy_disk(source, ScriptedSink(0, wait), RULE, options=Options(2, 0, 2 * GRANULE))
    watcher.join()
    assert read[0] <= 3 * 2 * GRANULE


def test_ids_stand_in_the_disks_order_whichever_worker_is_faster() -> None:
    rng = np.random.default_rng(1)

    def dawdle() -> None:
        time.sleep(rng.random() / 500)

    content = disks.data("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 4)
    sink = ScriptedSink(0, dawdle)
    copied = copy_disk(MappedMemory(content, "D" * 104), sink, RULE, options=Options(8, 4 * MIB, 2 * GRANULE))
    assert joined(sink, copied) == content


def test_and_back_to_a_file(tmp_path: Path) -> None:
    content = disks.data("ABc--" * 5 + "-" * 60 + "D") + b"end"
    sink = MemorySink()
    copied = copy_disk(MappedMemory(content, "D" * 87), sink, RULE, options=SMALL)
    restore.restore_disk(sink, copied.ids, copied.lengths, tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == content


def test_options_count_processors() -> None:
    assert backup.Options().workers_count >= 1
    assert backup.Options(workers=3).workers_count == 3
