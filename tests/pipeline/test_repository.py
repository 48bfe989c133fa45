"""Copies into the real repository and back: what no target in memory shows."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from tests.pipeline import disks
from tests.pipeline.disks import GRANULE, MappedMemory
from tests.real.stock_restic import Restic, programs, version_of
from tests.repository import repositories
from tests.repository.faulty import FailingBackend
from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.pipeline import restore
from vcbproxy.pipeline.backup import Options, copy_disk
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import DiskContent
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

TEXT = "ABcd" + "-" * 100 + "EFABcd--G"
CONTENT = disks.data(TEXT) + b"the end"
OPTIONS = Options(workers=3, memory_bytes=1 << 20, segment_bytes=4 * GRANULE)


def back_up(repository: Repository, content: bytes = CONTENT, hours: int = 0) -> DiskContent:
    rule = Rule(repository.config.polynomial_hex.encode(), 8)
    drawing = "".join("-" if letter == "-" else "D" for letter in TEXT) + "D"
    source = MappedMemory(content, drawing)
    target = RepositoryTarget(repository, repositories.SMALL)
    with target.begin(repositories.info(hours=hours)) as point:
        disk = point.disk("scsi0-0", source.size_bytes)
        copied = copy_disk(source, disk, rule, options=OPTIONS)
        disk.finish(copied.ids, copied.lengths)
        point.commit({})
    return copied


def bring_back(repository: Repository, path: Path) -> bytes:
    with RepositoryTarget(repository).open("web01@latest") as point:
        ids, lengths = point.disk_content("scsi0-0")
        restore.verify_disk(point, ids, lengths)
        restore.restore_disk(point, ids, lengths, path)
    return path.read_bytes()


def test_round_trip_and_the_second_time_nothing_is_new(tmp_path: Path) -> None:
    repository = repositories.made()
    first = back_up(repository)
    again = back_up(repositories.reopened(repository.backend), hours=1)
    assert (again.ids == first.ids).all()
    assert first.stats.bytes_stored > 0
    assert again.stats.bytes_stored == 0
    assert bring_back(repositories.reopened(repository.backend), tmp_path / "disk.raw") == CONTENT


def test_a_flipped_bit_in_a_pack_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    backend = MemoryBackend()
    back_up(repositories.made(backend))
    files = backend.files()
    for name in [name for name in files if name.kind is FileKind.PACK and len(files[name]) > GRANULE]:
        files[name] = files[name][:100] + bytes([files[name][100] ^ 1]) + files[name][101:]
    damaged = repositories.reopened(MemoryBackend(files))
    with RepositoryTarget(damaged).open("web01@latest") as point, pytest.raises(IntegrityError, match="pack"):
        restore.restore_disk(point, *point.disk_content("scsi0-0"), tmp_path / "disk.raw")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("packs", [0, 1, 4])
def test_a_full_repository_ends_every_thread(packs: int) -> None:
    before = set(threading.enumerate())
    backend = FailingBackend()
    repository = repositories.made(backend)
    room = itertools.count()
    backend.refuse = lambda name: name.kind is FileKind.PACK and next(room) >= packs
    with pytest.raises(TargetError):
        back_up(repository, disks.data(TEXT.replace("-", "H")) + b"the end")
    assert set(threading.enumerate()) == before
    assert RepositoryTarget(repositories.reopened(MemoryBackend(backend.files()))).points() == []


@pytest.mark.real
@pytest.mark.parametrize("program", programs())
def test_stock_restic_restores_the_same_bytes_sparsely(program: str, tmp_path: Path) -> None:
    repository = repositories.made_in(tmp_path / "repo")
    back_up(repository)
    (tmp_path / "scratch").mkdir()
    restic = Restic(program, tmp_path / "repo", repositories.PASSWORD, tmp_path / "scratch")
    restic("check", "--read-data")
    sparse = ["--sparse"] if version_of(program) >= (0, 15) else []
    restic("restore", "latest", "--target", str(tmp_path / "out"), *sparse)
    (raw,) = (tmp_path / "out").rglob("*.raw")
    assert raw.read_bytes() == CONTENT
    if sparse:
        assert raw.stat().st_blocks * 512 < 20 * GRANULE
