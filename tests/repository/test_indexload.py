"""Which repositories use the cache, and that backups by the cache are the backups they were."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.repository.repositories import ME, PASSWORD, START, chunk, info, made, write_disk, write_point
from vcbproxy.clock import ManualClock
from vcbproxy.repository import indexload
from vcbproxy.repository.backend.base import FileKind, Stored
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.files import unlocked
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

DISKS = ["abcd0A", "abXd0A", "abXYeA"]


@pytest.fixture
def small_is_large() -> Iterator[None]:
    before, indexload.CACHED_BYTES = indexload.CACHED_BYTES, 0
    yield
    indexload.CACHED_BYTES = before


def opened(backend: MemoryBackend, cache: Path | None) -> Repository:
    clock = ManualClock(START + timedelta(hours=1))
    return Repository.of(unlocked(backend, PASSWORD), clock=clock, me=ME, cache_root=cache)


def written(cache: Path | None) -> MemoryBackend:
    """Three restore points, each by a process of its own, as it were."""
    backend = MemoryBackend()
    made(backend)
    for number, letters in enumerate(DISKS):
        write_point(opened(backend, cache), info(hours=number), scsi0_0=letters)
    return backend


def test_small_repositories_make_no_cache(tmp_path: Path) -> None:
    backend = written(tmp_path / "cache")
    assert check(opened(backend, tmp_path / "cache")).problems == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("small_is_large")
def test_the_same_is_stored_with_and_without_a_cache(tmp_path: Path) -> None:
    with_cache, without = written(tmp_path / "cache"), written(None)
    assert len(list((tmp_path / "cache").glob("*/index/*.run"))) >= 1
    for kind in (FileKind.PACK, FileKind.INDEX, FileKind.SNAPSHOT):
        assert len(list(with_cache.list(kind))) == len(list(without.list(kind)))
    repository = opened(with_cache, tmp_path / "cache")
    assert check(repository).problems == []
    target = RepositoryTarget(opened(with_cache, tmp_path / "cache"))
    for point, letters in zip(target.points(), DISKS, strict=True):
        with target.open(point) as reader:
            disk = reader.disk("scsi0-0")
            buf = bytearray(disk.size_bytes)
            disk.read_into(0, memoryview(buf))
            assert buf == b"".join(map(chunk, letters))


@pytest.mark.usefixtures("small_is_large")
def test_lost_packs_are_forgotten_and_stored_anew(tmp_path: Path) -> None:
    backend = written(tmp_path / "cache")
    repository = opened(backend, tmp_path / "cache")
    repository.indexing.load()
    [location] = repository.index.lookup(BlobKind.DATA, digest(chunk("a")))
    lost = next(stored.name for stored in backend.list(FileKind.PACK) if stored.name.stem == location.pack_id.hex())
    backend.remove(lost)
    repository.indexing.forget_lost_packs()
    assert not repository.index.has(BlobKind.DATA, digest(chunk("a")))
    write_point(opened(backend, tmp_path / "cache"), info(hours=9), scsi0_0="a")
    assert len(opened_index(backend, tmp_path / "cache", digest(chunk("a")))) == 2


def opened_index(backend: MemoryBackend, cache: Path, blob_id: bytes) -> set[bytes]:
    repository = opened(backend, cache)
    repository.indexing.load()
    return {location.pack_id for location in repository.index.lookup(BlobKind.DATA, blob_id)}


class Listings(MemoryBackend):
    """Counts how often all packs are listed."""

    packs = 0

    def list(self, kind: FileKind) -> Iterator[Stored]:
        self.packs += kind is FileKind.PACK
        return super().list(kind)


def test_packs_are_looked_for_once_under_one_lock() -> None:
    backend = Listings()
    made(backend)
    write_point(opened(backend, None), scsi0_0="abc")
    repository, before = opened(backend, None), backend.packs
    target = RepositoryTarget(repository)
    with target.locked():
        for number in range(3):
            with target.begin(info(f"vm{number}")) as writer:
                write_disk(writer, "scsi0-0", "abcd"[: number + 2])
                writer.commit({})
    assert backend.packs - before == 1
    with target.begin(info("alone")) as writer:  # another lock
        write_disk(writer, "scsi0-0", "ab")
        writer.commit({})
    assert backend.packs - before == 2


@pytest.mark.usefixtures("small_is_large")
def test_an_unusable_cache_is_said_and_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        backend = written(tmp_path / "cache")
    assert len([record for record in caplog.records if "no cache in" in record.message]) == 1
    assert check(opened(backend, None)).problems == []


@pytest.mark.usefixtures("small_is_large")
def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = written(None)
    directory = tmp_path / "cache" / opened(backend, None).config.repository_id / "index"
    directory.mkdir(parents=True, mode=0o700)
    for part in (tmp_path / "cache", directory.parent):
        part.chmod(0o700)
    (directory / "lock").symlink_to("/dev/full")  # the lock cannot be opened: a symlink is not followed
    with caplog.at_level(logging.WARNING):
        repository = opened(backend, tmp_path / "cache")
        repository.indexing.load()
    assert repository.index.has(BlobKind.DATA, digest(chunk("a")))
    assert "cannot be used for the index" in caplog.text
