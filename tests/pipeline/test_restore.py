"""Back to a file, or a clear error and no file."""

from __future__ import annotations

import fcntl
import itertools
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline import disks
from tests.pipeline.disks import GRANULE, MappedMemory
from vcbproxy.errors import Busy, Cancelled, Error, IntegrityError, UsageError
from vcbproxy.pipeline import output, restore
from vcbproxy.pipeline.backup import Options, copy_disk
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import DiskContent
from vcbproxy.pipeline.memory import MemorySink
from vcbproxy.repository.ids import BlobKind

CONTENT = disks.data("ABA--Cd" + "-" * 100 + "E") + b"the end"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


class Kept(MemorySink):
    """A disk in memory that counts how often each blob is loaded."""

    def __init__(self, content: bytes = CONTENT) -> None:
        super().__init__()
        self.loads: list[bytes] = []
        rule = Rule(disks.SEED, 8)
        source = MappedMemory(content, "D" * (len(content) // GRANULE + 1))
        self.disk: DiskContent = copy_disk(source, self, rule, options=Options(workers=2))

    def load_blob(self, kind: BlobKind, blob_id: bytes) -> bytes:
        self.loads.append(blob_id)
        return super().load_blob(kind, blob_id)

    def restore(self, path: Path, **options) -> restore.Progress:
        return restore.restore_disk(self, self.disk.ids, self.disk.lengths, path, **options)

    def verify(self) -> restore.Progress:
        return restore.verify_disk(self, self.disk.ids, self.disk.lengths)

    def damage(self) -> bytes:
        """Spoil the last chunk of data."""
        blob_id = self.disk.ids[-1].tobytes()
        self.blobs[BlobKind.DATA, blob_id] = bytes(len(self.blobs[BlobKind.DATA, blob_id]))
        return blob_id


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("sparse", [True, False])
def test_restores_what_was_there(tmp_path: Path, workers: int, sparse: bool) -> None:
    seen: list[restore.Progress] = []
    Kept().restore(tmp_path / "disk.raw", workers=workers, sparse=sparse, progress=seen.append)
    assert (tmp_path / "disk.raw").read_bytes() == CONTENT
    assert seen[-1].bytes_done == seen[-1].bytes_total == len(CONTENT)
    assert names(tmp_path) == ["disk.raw"]
    allocated = (tmp_path / "disk.raw").stat().st_blocks * 512
    assert (allocated < 20 * GRANULE) == sparse
    assert (tmp_path / "disk.raw").stat().st_mode & 0o777 == 0o600


def test_zeroes_are_not_loaded(tmp_path: Path) -> None:
    kept = Kept()
    kept.restore(tmp_path / "disk.raw")
    assert len(kept.loads) == kept.disk.stats.chunks


def test_zeroes_of_foreign_chunks_stay_sparse(tmp_path: Path) -> None:
    sink = MemorySink()
    chunks = [bytes(3_000_000), disks.noise(1, 1_000_001), bytes(8 << 20)]
    ids = np.frombuffer(b"".join(sink.packer().add(BlobKind.DATA, memoryview(c)) for c in chunks), np.uint8)
    lengths = np.array([len(c) for c in chunks], np.uint32)
    restore.restore_disk(sink, ids.reshape(-1, 32), lengths, tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == b"".join(chunks)
    assert (tmp_path / "disk.raw").stat().st_blocks * 512 < 1_200_000


def test_an_empty_disk_is_an_empty_file(tmp_path: Path) -> None:
    Kept(b"").restore(tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").stat().st_size == 0


def test_refuses_to_overwrite_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        Kept().restore(path)
    assert path.read_text() == "precious"
    Kept().restore(path, overwrite=True)
    assert path.read_bytes() == CONTENT


def test_a_failed_overwrite_leaves_the_old_file(tmp_path: Path) -> None:
    path, kept = tmp_path / "disk.raw", Kept()
    path.write_text("precious")
    kept.damage()
    with pytest.raises(IntegrityError):
        kept.restore(path, overwrite=True)
    assert path.read_text() == "precious"
    assert names(tmp_path) == ["disk.raw"]


@pytest.mark.parametrize("path", ["", "no/such/directory/disk.raw"])
def test_refuses_places_that_cannot_be(tmp_path: Path, path: str) -> None:
    with pytest.raises(Error, match=r"tmp|no/such"):
        Kept().restore(tmp_path / path, overwrite=True)


def test_takes_over_what_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "disk.raw.partial").write_bytes(b"x" * (len(CONTENT) + 5))
    Kept().restore(tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == CONTENT


def test_two_restores_to_one_name_do_not_mix(tmp_path: Path) -> None:
    with (tmp_path / "disk.raw.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another restore"):
            Kept().restore(tmp_path / "disk.raw")


def test_never_follows_a_link_laid_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "disk.raw.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(Error, match="cannot write"):
        Kept().restore(tmp_path / "disk.raw")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("sparse", [True, False])
def test_damage_is_named_and_leaves_no_file(tmp_path: Path, sparse: bool) -> None:
    kept = Kept()
    blob_id = kept.damage()
    with pytest.raises(IntegrityError, match=blob_id.hex()):
        kept.restore(tmp_path / "disk.raw", sparse=sparse)
    assert names(tmp_path) == []
    with pytest.raises(IntegrityError, match=blob_id.hex()):
        kept.verify()


def test_a_chunk_of_another_length_is_refused(tmp_path: Path) -> None:
    """The bytes match the id, and yet would end up at the wrong place."""
    kept = Kept()
    kept.disk.lengths[-1] += 1
    with pytest.raises(IntegrityError, match="recorded"):
        kept.restore(tmp_path / "disk.raw")
    with pytest.raises(IntegrityError, match="recorded"):
        kept.verify()


def test_one_id_with_two_lengths_is_refused() -> None:
    kept = Kept(disks.data("ABCDEFGH" * 8))
    again = DiskContent(np.tile(kept.disk.ids, (2, 1)), np.tile(kept.disk.lengths, 2), kept.disk.stats)
    again.lengths[-1] += 1
    with pytest.raises(IntegrityError, match="different lengths"):
        restore.verify_disk(kept, again.ids, again.lengths)


def test_verify_loads_each_chunk_once_zeroes_too() -> None:
    kept = Kept(disks.data("ABCDEFGH" * 16 + "-" * 16))
    done = kept.verify()
    assert done.bytes_done == 144 * GRANULE
    assert sorted(kept.loads) == sorted({blob_id for _, blob_id in kept.blobs})


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    kept = Kept(disks.noise(1, 3 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(Error, match=r"cannot write .*partial"):
            kept.restore(tmp_path / "disk.raw")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_cancelled(tmp_path: Path) -> None:
    cancel = threading.Event()

    class Cancelling(Kept):
        def load_blob(self, kind: BlobKind, blob_id: bytes) -> bytes:
            cancel.set()
            return super().load_blob(kind, blob_id)

    with pytest.raises(Cancelled):
        Cancelling(disks.noise(1, 5 << 20)).restore(tmp_path / "disk.raw", cancel=cancel)
    assert names(tmp_path) == []


def test_interrupted(tmp_path: Path) -> None:
    def interrupt(progress: restore.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Kept().restore(tmp_path / "disk.raw", progress=interrupt)
    assert names(tmp_path) == []


@pytest.mark.parametrize("direct", [True, False])
def test_ragged_places_are_written_whole(tmp_path: Path, direct: bool) -> None:
    """Chunks off the 4 KiB grid, of any size: whole pages past the cache, ragged ends through it, none of it lost."""
    content = disks.noise(1, 5_000_001)
    edges = [0, 1, 4097, 300_000, 303_104, 303_105, 3_000_000, 4_999_999, 5_000_001]
    with output.new_file(tmp_path / "disk.raw", len(content), overwrite=False) as out:
        if not direct:
            out._direct_fd = None
        for start, end in reversed([*itertools.pairwise(edges)]):
            out.write_at(start, memoryview(content)[start:end])
        out.commit()
    assert (tmp_path / "disk.raw").read_bytes() == content
