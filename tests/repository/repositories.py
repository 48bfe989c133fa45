"""Small repositories for tests: cheap keys, a clock that stands still, restore points from letters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from tests.images import pattern
from vcbproxy.clock import Clock, ManualClock
from vcbproxy.config import Compression
from vcbproxy.repository import creation
from vcbproxy.repository.backend.base import Backend
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.keys import Kdf
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo, PointWriter

PASSWORD = "correct horse"
QUICK = Kdf(n=1 << 10, r=8, p=1)
ME = Identity("proxy01", "backup", 4711)
START = datetime(2026, 11, 22, 1, 0, 0, tzinfo=UTC)
SMALL = WriteOptions(pack_bytes=64 << 10, queue_bytes=256 << 10)
CHUNK = 8 << 10


def made(backend: Backend | None = None, clock: Clock | None = None) -> Repository:
    """A new repository; in memory unless told."""
    return creation.create(backend or MemoryBackend(), PASSWORD, kdf=QUICK, clock=clock or ManualClock(START), me=ME)


def made_in(path: Path) -> Repository:
    return made(DirectoryBackend(path))


def reopened(backend: Backend) -> Repository:
    repository = Repository.open(backend, PASSWORD, clock=ManualClock(START + timedelta(hours=1)), me=ME)
    repository.indexing.load()
    return repository


def info(vm: str = "web01", hours: int = 0, **more: object) -> PointInfo:
    """A point's name: ``hours`` after the first."""
    return PointInfo(vm, f"50-{vm}", START + timedelta(hours=hours), **more)  # type: ignore[arg-type]


def chunk(letter: str) -> bytes:
    """``0`` is a chunk of zeroes, a lower-case letter one that does not compress, any other one that does."""
    if letter == "0":
        return bytes(CHUNK)
    if letter.islower():
        return np.random.default_rng(ord(letter)).bytes(CHUNK)
    return pattern(0, CHUNK // 4, letter) * 4


def content(letters: str) -> bytes:
    """A disk as letters: ``"AB0A"`` is four chunks, three of them different."""
    return b"".join(map(chunk, letters))


@dataclass(frozen=True)
class Written:
    """A restore point and what must come back from it."""

    point: PointSummary
    disks: dict[str, bytes]


def write_disk(writer: PointWriter, key: str, letters: str) -> None:
    disk = writer.disk(key, len(letters) * CHUNK)
    packer = disk.packer()
    ids = b"".join(packer.add(BlobKind.DATA, chunk(letter)) for letter in letters)
    disk.finish(np.frombuffer(ids, np.uint8).reshape(-1, 32), np.full(len(letters), CHUNK, np.uint32))


def write_point(
    repository: Repository, point: PointInfo | None = None, options: WriteOptions = SMALL, **disks: str
) -> Written:
    """Write a restore point; ``scsi0_0="AB0A"`` is disk ``scsi0-0``."""
    letters = {key.replace("_", "-"): value for key, value in disks.items()}
    with RepositoryTarget(repository, options).begin(point or info()) as writer:
        writer.file("web01.vmx", b'displayName = "web01"\n')
        for key, value in letters.items():
            write_disk(writer, key, value)
        summary = writer.commit({"method": "san", "disks": sorted(letters)})
    return Written(summary, {key: content(value) for key, value in letters.items()})


def uncompressed() -> WriteOptions:
    return WriteOptions(compression=Compression.OFF, pack_bytes=64 << 10, queue_bytes=256 << 10)
