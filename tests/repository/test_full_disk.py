"""Real file systems that refuse: full, read-only, not ours. One clear error, and the repository stays valid."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.repository.repositories import info, made_in, reopened, write_point
from vcbproxy.device import read
from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.report import Subset
from vcbproxy.repository.target import RepositoryTarget

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@needs_root
@pytest.mark.root
def test_a_full_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=6m,nr_inodes=2000") as place:
        repository = made_in(place / "repository")
        first = write_point(repository, info(hours=0), scsi0_0=LETTERS)
        with (place / "filler").open("wb") as filler:
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            filler.write(bytes(free - 100_000))
        with pytest.raises(TargetError, match="No space left on device; free space or prune") as caught:
            write_point(
                repository, info(hours=1), scsi0_0=LETTERS.upper() + LETTERS[::-1] * 20, scsi0_1="0123456789" * 20
            )
        assert caught.value.exit_code == 1
        assert not list((place / "repository").rglob("*-tmp-*"))
        (place / "filler").unlink()
        again = reopened(DirectoryBackend(place / "repository"))
        assert check(again, Subset()).problems == []
        [point] = RepositoryTarget(again).points()
        assert point.id == first.point.id


@needs_root
@pytest.mark.root
def test_no_room_even_for_a_lock(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=6m,nr_inodes=2000") as place:
        repository = made_in(place / "repository")
        written = write_point(repository, scsi0_0=LETTERS)
        fill(place)
        with pytest.raises(TargetError, match=r"is full, there is no room even for a lock: .* --no-lock"):
            RepositoryTarget(repository).open("web01@latest")
        with RepositoryTarget(repository, lock=False).open("web01@latest") as reader:
            assert read(reader.disk("scsi0-0"), 0, 26 << 13) == written.disks["scsi0-0"]


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("room_bytes", [0, 4096, 8192], ids=["keys", "parameters", "config"])
def test_a_repository_that_finds_no_room_leaves_room_for_another_try(tmp_path: Path, room_bytes: int) -> None:
    with mounted(tmp_path / "small", "size=2m,nr_inodes=2000") as place:
        DirectoryBackend(place / "repository").create()
        fill(place, room_bytes)
        with pytest.raises(TargetError, match="No space left on device; free space"):
            made_in(place / "repository")
        assert [path for path in (place / "repository").rglob("*") if path.is_file()] == []
        (place / "filler").unlink()
        made_in(place / "repository")
        assert check(reopened(DirectoryBackend(place / "repository")), Subset()).problems == []


def fill(place: Path, left_bytes: int = 0) -> None:
    """Take all the room there is."""
    with (place / "filler").open("wb") as filler:
        filler.write(bytes(os.statvfs(place).f_bavail * os.statvfs(place).f_frsize - left_bytes))


@needs_root
@pytest.mark.root
def test_a_read_only_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=16m") as place:
        written = write_point(made_in(place / "repository"), scsi0_0=LETTERS)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        repository = reopened(DirectoryBackend(place / "repository"))
        with pytest.raises(TargetError, match="is read-only: no lock can be kept there"):
            write_point(repository, info(hours=1), scsi0_0="A")
        with pytest.raises(TargetError, match="is read-only: no lock can be kept there"):
            RepositoryTarget(repository).open("web01@latest")
        with RepositoryTarget(repository, lock=False).open("web01@latest") as reader:
            assert read(reader.disk("scsi0-0"), 0, 26 << 13) == written.disks["scsi0-0"]
        assert check(repository, Subset()).problems == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_of_someone_else(tmp_path: Path) -> None:
    repository = made_in(tmp_path / "repository")
    (tmp_path / "repository" / "locks").chmod(0o500)
    with pytest.raises(TargetError, match="check owner and mode"):
        write_point(repository, scsi0_0="A")
