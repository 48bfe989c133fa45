"""A local copy of what every job reads: index files, snapshot records, and packs of trees (the content lists of disks).

    <directory>/index/ab/ab12…          named as in the repository, and the same bytes: sealed
    <directory>/data/cd/cd34…           packs, only those of trees (``Heat.HOT``)

A copy is written when a file is saved or first read. It is digested when a process first uses it: one that does not
match its name is dropped and fetched anew. Nothing is believed that the caller would not check, too. What a listing no
longer shows is dropped; beyond the bound, what was used longest ago.

A cache that cannot be written or read costs time, never a job: it is said once and left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import (
    Backend,
    FileKind,
    FileName,
    FileShort,
    Heat,
    Stored,
)
from vcbproxy.repository.ids import Buffer, is_hex_id
from vcbproxy.units import MiB

CACHED = (FileKind.INDEX, FileKind.SNAPSHOT, FileKind.PACK)
_STEP_BYTES = 4 * MiB
_log = logging.getLogger(__name__)


class CachingBackend(Around):
    """A backend with a local copy of what is read often; sizes are asked there: what is gone must be seen to be."""

    def __init__(self, inner: Backend, directory: Path, size_max_bytes: int) -> None:
        super().__init__(inner)
        self._copies = Copies(directory, size_max_bytes)

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Keep a file there, and then a copy here."""
        self._inner.save(name, parts)
        if _cached(name):
            self._copies.keep(name, iter(parts))

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from the copy; make one if there is none."""
        if not _cached(name):
            self._inner.load(name, offset, buf)
            return
        if self._copies.load(name, offset, buf):
            return
        size_bytes = self._inner.size(name)
        if not self._copies.takes(size_bytes):
            self._inner.load(name, offset, buf)
            return
        self._copies.keep(name, self._content(name, size_bytes))
        if not self._copies.load(name, offset, buf):
            self._inner.load(name, offset, buf)

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """As the wrapped backend; copies of what is not there any more are dropped at its end."""
        gone = self._copies.stems(kind) if kind in CACHED else set()
        for stored in self._inner.list(kind):
            gone.discard(stored.name.stem)
            yield stored
        for stem in gone:
            self._copies.drop(FileName(kind, stem))

    def remove(self, name: FileName) -> None:
        """Remove the copy first, then the file."""
        if name.kind in CACHED:
            self._copies.drop(name)
        self._inner.remove(name)

    def _content(self, name: FileName, size_bytes: int) -> Iterator[Buffer]:
        for offset in range(0, size_bytes, _STEP_BYTES):
            piece = memoryview(bytearray(min(_STEP_BYTES, size_bytes - offset)))
            self._inner.load(name, offset, piece)
            yield piece


def _cached(name: FileName) -> bool:
    return name.kind in CACHED and (name.kind is not FileKind.PACK or name.heat is Heat.HOT)


class Copies:
    """Files of a local directory, named by their digest; never trusted before they were digested."""

    def __init__(self, directory: Path, size_max_bytes: int) -> None:
        self._directory = directory
        self._size_max_bytes = size_max_bytes
        self._lock = threading.Lock()
        self._proved: set[FileName] = set()
        self._size_bytes: int | None = None
        self._off = False

    def takes(self, size_bytes: int) -> bool:
        """Whether a file of that size is worth a copy: not one that pushes out most of the others."""
        return not self._off and size_bytes <= self._size_max_bytes // 4

    def keep(self, name: FileName, content: Iterator[Buffer]) -> None:
        """Make a copy, unless the content does not match the name: then something is wrong, and not for us to hide.

        Raises:
            TargetError: ``content`` could not be read.
        """
        if self._off:
            return
        path = self._path(name)
        temporary = path.with_name(f"{name.stem}-tmp-{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            digest, size_bytes = _written(temporary, content)
            if digest != name.stem or not self.takes(size_bytes):
                temporary.unlink()
                return
            known = path.exists()
            temporary.rename(path)
            with self._lock:
                self._proved.add(name)
            self._grown(0 if known else size_bytes)
        except OSError as error:
            self._give_up(error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def load(self, name: FileName, offset: int, buf: memoryview) -> bool:
        """Fill ``buf`` from the copy; False when there is no whole one.

        Raises:
            FileShort: it ends before ``buf`` is full, and so does the file itself: the copy has its digest.
        """
        if self._off:
            return False
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as copy:
                if not self._holds(name, copy.fileno()):
                    self.drop(name)
                    return False
                done = 0
                while done < len(buf):
                    count = os.preadv(copy.fileno(), [buf[done:]], offset + done)
                    if count == 0:
                        raise FileShort(location=str(self._directory), path=name.path, end=offset + len(buf))
                    done += count
                os.utime(copy.fileno())
        except FileNotFoundError:
            return False
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def drop(self, name: FileName) -> None:
        """Have no copy of this file."""
        path = self._path(name)
        with self._lock:
            self._proved.discard(name)
        with contextlib.suppress(OSError):
            size_bytes = path.stat().st_size
            path.unlink()
            with self._lock:
                self._size_bytes = None if self._size_bytes is None else self._size_bytes - size_bytes

    def stems(self, kind: FileKind) -> set[str]:
        """What there are copies of."""
        try:
            return {path.name for path in (self._directory / kind.value).glob("*/*") if is_hex_id(path.name)}
        except OSError:
            return set()

    def _holds(self, name: FileName, fd: int) -> bool:
        """Whether the copy has the digest it is named by; asked once a process."""
        with self._lock:
            if name in self._proved:
                return True
        found = hashlib.sha256()
        while piece := os.read(fd, _STEP_BYTES):
            found.update(piece)
        if found.hexdigest() != name.stem:
            _log.warning("%s: a damaged copy of %s is dropped and fetched anew", self._directory, name.path)
            return False
        with self._lock:
            self._proved.add(name)
        return True

    def _path(self, name: FileName) -> Path:
        return self._directory / name.kind.value / name.stem[:2] / name.stem

    def _grown(self, size_bytes: int) -> None:
        """Count in a new copy; drop the least used ones when there are too many. The first call looks at all."""
        with self._lock:
            if self._size_bytes is not None:
                self._size_bytes += size_bytes
                if self._size_bytes <= self._size_max_bytes:
                    return
            found = sorted(self._found())
            total = sum(size for _, size, _ in found)
            for _, size, path in found:
                if total <= self._size_max_bytes * 7 // 8:
                    break
                path.unlink(missing_ok=True)
                total -= size
            self._size_bytes = total

    def _found(self) -> Iterator[tuple[int, int, Path]]:
        """When last used, how large, and where each copy is; those half-written by a crash age like the others."""
        for kind in CACHED:
            for path in (self._directory / kind.value).glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    yield status.st_mtime_ns, status.st_size, path

    def _give_up(self, error: OSError) -> None:
        self._off = True
        _log.warning("%s: no local copies: %s", self._directory, error.strerror or error)


def _written(path: Path, content: Iterator[Buffer]) -> tuple[str, int]:
    """Write a new file; gives digest and size."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("xb") as out:
        for piece in content:
            digest.update(piece)
            size_bytes += memoryview(piece).nbytes
            out.write(piece)
    return digest.hexdigest(), size_bytes
