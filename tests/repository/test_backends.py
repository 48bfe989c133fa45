"""The backends, each held to the contract, and what is special about each."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.contract.backend import BackendContract, name_of
from tests.repository.repositories import PASSWORD, made_in, write_point
from vcbproxy.errors import TargetError, UsageError
from vcbproxy.repository.backend.base import CONFIG, FileKind, FileName, load_all
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.backend.location import open_backend
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.pages import buffer as new_buffer
from vcbproxy.repository.prune.prune import prune
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget


@pytest.fixture
def tmp_path(disk_path: Path) -> Path:
    """Packs are written past the page cache, where there is one."""
    return disk_path


class TestMemory(BackendContract):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return MemoryBackend()


class TestDirectory(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> DirectoryBackend:
        made = DirectoryBackend(tmp_path / "repository")
        made.create()
        return made


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryBackend:
    made = DirectoryBackend(tmp_path)
    made.create()
    return made


def test_the_layout_is_restics(directory: DirectoryBackend, tmp_path: Path) -> None:
    top = {path.name for path in tmp_path.iterdir()}
    assert top == {"data", "index", "keys", "locks", "snapshots"}
    assert len(list((tmp_path / "data").iterdir())) == 256
    pack = name_of(b"pack", FileKind.PACK)
    directory.save(pack, [b"pack"])
    assert (tmp_path / "data" / pack.stem[:2] / pack.stem).read_bytes() == b"pack"


def test_files_are_read_only_and_private(directory: DirectoryBackend, tmp_path: Path) -> None:
    directory.save(name_of(b"x"), [b"x"])
    assert (tmp_path / name_of(b"x").path).stat().st_mode & 0o777 == 0o400
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_group_readable_config_makes_all_so(directory: DirectoryBackend, tmp_path: Path) -> None:
    directory.save(CONFIG, [b"config"])
    (tmp_path / "config").chmod(0o440)
    again = DirectoryBackend(tmp_path)
    again.save(name_of(b"x"), [b"x"])
    assert (tmp_path / name_of(b"x").path).stat().st_mode & 0o777 == 0o440


def test_strange_files_are_not_listed(directory: DirectoryBackend, tmp_path: Path) -> None:
    stem = name_of(b"x").stem
    for strange in ("notes.txt", f"{stem}-tmp-1234", stem.upper(), stem[:-1]):
        (tmp_path / "index" / strange).write_bytes(b"x")
    (tmp_path / "index" / stem).mkdir()
    assert list(directory.list(FileKind.INDEX)) == []


def test_what_killed_writers_left_is_swept_and_nothing_else(directory: DirectoryBackend, tmp_path: Path) -> None:
    stem = "ab" * 32
    directory.save(FileName(FileKind.PACK, stem), [b"kept"])
    old, young = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    left = [
        tmp_path / "data" / "ab" / f"{stem}-tmp-1234",
        tmp_path / "index" / f"{stem}-tmp-00ff",
        tmp_path / "config-tmp-1",
    ]
    others = [tmp_path / "data" / "ab" / "notes-tmp-1", tmp_path / "locks" / f"{stem}-tmp-77", tmp_path / "index" / "x"]
    for path in (*left, *others):
        path.write_bytes(b"x")
        moment = (young if path.parent.name == "locks" else old).timestamp()
        os.utime(path, (moment, moment))
    assert directory.sweep(datetime(2026, 1, 2, tzinfo=UTC)) == 3
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    assert [found.name.stem for found in directory.list(FileKind.PACK)] == [stem]


def test_a_failed_write_leaves_no_file(directory: DirectoryBackend, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        directory.save(name_of(b"x"), [b"x", "not bytes"])  # type: ignore[list-item]
    assert list((tmp_path / "index").iterdir()) == []


def test_missing_pack_directories_are_made(directory: DirectoryBackend, tmp_path: Path) -> None:
    pack = name_of(b"pack", FileKind.PACK)
    (tmp_path / "data" / pack.stem[:2]).rmdir()
    assert list(directory.list(FileKind.PACK)) == []
    directory.save(pack, [b"pack"])
    assert [found.name for found in directory.list(FileKind.PACK)] == [pack]


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, (3 << 20) + 4096, (2 << 20) - 1])
def test_large_aligned_files_are_written_whole(directory: DirectoryBackend, size: int) -> None:
    """Direct I/O takes whole pages only; the tail goes another way. No byte may be lost between the two."""
    buffer = new_buffer(size)
    buffer[:] = (bytes(range(251)) * (size // 251 + 1))[:size]
    name = name_of(bytes(buffer), FileKind.PACK)
    directory.save(name, [buffer, b"more"])
    assert load_all(directory, name, 1 << 30) == bytes(buffer) + b"more"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_says_so(directory: DirectoryBackend, tmp_path: Path) -> None:
    (tmp_path / "index").chmod(0o500)
    with pytest.raises(TargetError, match="check owner and mode"):
        directory.save(name_of(b"x"), [b"x"])


def test_a_vanished_repository_is_a_target_error(tmp_path: Path) -> None:
    gone = DirectoryBackend(tmp_path / "never" / "made")
    with pytest.raises(TargetError, match="No such file"):
        gone.save(name_of(b"x"), [b"x"])
    assert list(gone.list(FileKind.PACK)) == []


@pytest.mark.parametrize("location", ["sftp:host:/path", "rest:http://host/"])
def test_schemes_that_are_not_known_are_refused(location: str) -> None:
    with pytest.raises(UsageError, match="give a directory"):
        open_backend(location)


@pytest.mark.parametrize("prefix", ["", "local:", "file:", "file://"])
def test_a_path_is_a_directory(tmp_path: Path, prefix: str) -> None:
    assert open_backend(f"{prefix}{tmp_path}").location == str(tmp_path)


def test_names_know_their_paths() -> None:
    stem = "ab" * 32
    assert FileName(FileKind.PACK, stem).path == f"data/ab/{stem}"
    assert FileName(FileKind.LOCK, stem).path == f"locks/{stem}"


@pytest.mark.parametrize("kind", [FileKind.SNAPSHOT, FileKind.INDEX])
def test_a_directory_that_is_gone_is_not_an_empty_one(tmp_path: Path, kind: FileKind) -> None:
    """Moved away, or not mounted: a prune would have removed every pack, and a check found nothing wrong."""
    root = tmp_path / "kept"
    written = write_point(made_in(root), scsi0_0="abcdef")
    before = {path for path in (root / "data").rglob("*") if path.is_file()}
    (root / kind.value).rename(tmp_path / "aside")
    lost = Repository.open(DirectoryBackend(root), PASSWORD)
    with lost.locked(exclusive=True) as held, pytest.raises(TargetError, match=f"no directory {kind.value}: "):
        prune(lost, held)
    with pytest.raises(TargetError, match=f"no directory {kind.value}: "):
        check(lost)
    assert {path for path in (root / "data").rglob("*") if path.is_file()} == before
    (tmp_path / "aside").rename(root / kind.value)
    assert [point.id for point in RepositoryTarget(lost).points()] == [written.point.id]
    check(lost, Subset()).raise_if_damaged("it")
