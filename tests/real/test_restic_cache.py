"""The index by the cache on a repository that stock restic and we prune in turns; every version at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.stock_restic import Restic, programs
from tests.repository.repositories import PASSWORD, info, made_in, write_point
from vcbproxy.clock import SystemClock
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.files import unlocked
from vcbproxy.repository.index import Index
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.indexload import IndexLoader
from vcbproxy.repository.prune.options import PruneOptions, Unused
from vcbproxy.repository.prune.prune import prune
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository

pytestmark = pytest.mark.real
if not programs():
    pytest.skip("restic is not installed", allow_module_level=True)


def by_cache(place: Path, cache: Path) -> Index:
    """Whatever its size."""
    backend = DirectoryBackend(place)
    files = unlocked(backend, PASSWORD)
    loader = IndexLoader(files, Repository.of(files).config.repository_id, SystemClock(), cache)
    made = loader.empty()
    assert loader.load_cached(made, {stored.name.stem for stored in backend.list(FileKind.INDEX)})
    return made


def by_pack(index: Index) -> dict[bytes, PackBlobs]:
    return {pack.pack_id: PackBlobs(pack.pack_id, list(pack.blobs)) for pack in index.packs()}


def hold_same(place: Path, cache: Path) -> Index:
    """The cache says what the index files say, about every blob that there is."""
    repository = Repository.open(DirectoryBackend(place), PASSWORD)
    repository.indexing.load()
    cached = by_cache(place, cache)
    assert by_pack(cached) == by_pack(repository.index)
    assert cached.pack_sizes() == repository.index.pack_sizes()
    for pack in repository.index.packs():
        for blob in pack.blobs:
            assert set(cached.lookup(blob.kind, blob.blob_id)) == set(repository.index.lookup(blob.kind, blob.blob_id))
    return cached


def prune_tightly(place: Path) -> None:
    repository = Repository.open(DirectoryBackend(place), PASSWORD)
    with repository.locked(exclusive=True) as held:
        prune(repository, held, PruneOptions(max_unused=Unused(None, 0)))


def test_the_cache_follows_what_restic_and_we_remove(restic: Restic, tmp_path: Path) -> None:
    place, cache = Path(restic.repository), tmp_path / "cache"
    ours = made_in(place)
    disks = ["abcdefgh", "abXdefgh", "abXdeYgh", "ZbXdeYgW", "ijklmnop"]
    for hours, letters in enumerate(disks):
        write_point(ours, info(hours=hours), scsi0_0=letters)
        hold_same(place, cache)
    before = by_pack(hold_same(place, cache)).keys()
    restic("forget", "--keep-last", "3", "--prune", "--max-unused", "0")
    after = by_pack(hold_same(place, cache)).keys()
    assert before - after, "prune removed nothing: the test shows nothing"
    prune_tightly(place)
    hold_same(place, cache)
    write_point(Repository.open(DirectoryBackend(place), PASSWORD), info(hours=9), scsi0_0="abcdXYZW")
    hold_same(place, cache)
    restic(*(("repair", "index") if restic.version >= (0, 16) else ("rebuild-index",)))
    hold_same(place, cache)
    restic("prune", "--repack-uncompressed", "--max-unused", "0")
    hold_same(place, cache)
    assert len(list(cache.glob("*/index/*.run"))) <= 3
    report = check(Repository.open(DirectoryBackend(place), PASSWORD), Subset())
    assert report.problems == []
