"""The index as this machine has kept it: runs in files, brought up to date with the repository's index files.

    <cache>/<repository>/index/
      lock                 held by whoever reads index files and writes runs
      <run id>.run         what some index files list (``runfile.py``)
      tmp-…                being written; or left by a crash, and removed after a day

    loading     runs are opened ─▶ those are dropped of whose index files none is left, or that others hold already
                ─▶ index files in no run become a run ─▶ runs are merged until each is a quarter of the one before

A run is true for ever, so nothing here can be out of date. What an index file listed counts while that index file is
there: a prune that replaces some files only makes their packs not ``present``; their rows go when runs are merged, or
when half of a run is such. A run that is damaged in any way is removed, said, and read anew from the repository.

Several processes may do all this at once. Runs appear whole, by rename; they are removed only when their rows are in
another one; an open file stays readable after it was removed. The lock only keeps two from doing the same work; who
has waited for it long enough goes on without.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcbproxy.clock import Clock
from vcbproxy.errors import TargetError
from vcbproxy.repository import crypto, indexrows, runfile, sealedrun
from vcbproxy.repository.indexfile import Columns
from vcbproxy.repository.packtable import Packs
from vcbproxy.repository.runfile import Body, Damaged, Tail
from vcbproxy.repository.runwriter import ASIDE_PREFIX, SUFFIX, RunBuilder, RunWriter
from vcbproxy.repository.sealedrun import SealedRun

log = logging.getLogger(__name__)

_LOCK_WAIT_S = 600.0
_LOCK_POLL_S = 0.2
_ASIDE_KEPT_S = 24 * 3600
_RATIO = 4

ListedPacks = list[tuple[bytes, Columns]]
ReadFiles = Callable[[Iterable[str]], Iterator[tuple[str, ListedPacks]]]


@dataclass(frozen=True, slots=True)
class CachedRun:
    """A run, what it knows of its packs, and what of that is still so."""

    run: SealedRun
    tail: Tail
    sources: NDArray[np.bool_]
    """Which of the index files are still there."""
    packs: NDArray[np.bool_]
    """Which of the packs one of them lists."""

    @property
    def stems(self) -> set[str]:
        """The index files that are still there."""
        return {row.tobytes().hex() for row in self.tail.sources[self.sources]}

    @property
    def living_rows(self) -> int:
        """How many of its rows lie in those packs."""
        return int(self.tail.packs.blobs[self.packs].sum(dtype=np.int64))


def secret_of(key: crypto.Key) -> bytes:
    """What runs are sealed with: made from the repository's key, from which nothing follows for that."""
    whole = key.encrypt + key.mac_k + key.mac_r
    return hashlib.blake2b(whole, digest_size=runfile.SECRET_BYTES, person=b"vcbproxy index").digest()


class IndexCache:
    """Runs in one directory; several processes may use it."""

    def __init__(self, directory: Path, secret: bytes, clock: Clock, *, keep: bool = True) -> None:
        """Use a directory.

        Args:
            directory: where runs lie.
            secret: to seal them with.
            clock: to wait for others.
            keep: whether they are kept; else they go with the process.
        """
        self.directory = directory
        self._secret = secret
        self._clock = clock
        self._keep = keep

    def load(self, listed: set[str], read: ReadFiles) -> list[CachedRun]:
        """Runs that together hold what the ``listed`` index files list; the longest first.

        Args:
            listed: the index files that there are.
            read: reads some of them.

        Raises:
            IntegrityError: an index file is damaged, or two list different blobs for one pack.
            TargetError: one could not be read.
            OSError: runs cannot be written here.
        """
        with self._locked():
            runs = self._kept_runs(listed)
            missing = listed.difference(*(run.stems for run in runs))
            if missing:
                runs.append(self._built(missing, listed, read))
            runs = self._compacted(runs, listed, read)
            self._remove_leftovers()
            return runs

    def renewal(self, one: CachedRun, read: ReadFiles) -> Callable[[Packs], Body]:
        """How to make a run's file anew should it turn out to be damaged: with packs numbered as they are given.

        Raises (when it is called):
            IntegrityError: an index file is damaged, or lists something else than before.
            TargetError: one could not be read, or the run cannot be written.
        """
        stems, path = sorted(one.stems), one.run.path

        def renew(packs: Packs) -> Body:
            if path is not None:
                _remove(path)
            builder = RunBuilder(self.directory, self._secret, packs)
            try:
                for stem, listed in read(stems):
                    builder.add(bytes.fromhex(stem), indexrows.listing(listed))
                return self._written(builder, set()).run.body
            except OSError as error:
                raise TargetError(f"{self.directory}: cannot write the index cache: {error.strerror}") from error

        return renew

    # ------------------------------------------------------------------ what is there

    def _kept_runs(self, listed: set[str]) -> list[CachedRun]:
        """The runs that are there and still good for something."""
        if not self._keep:
            return []
        found = []
        for path in self.directory.glob(f"*{SUFFIX}"):
            try:
                found.append(_held(*sealedrun.opened(path, self._secret), listed))
            except FileNotFoundError:
                continue  # another process has just merged it
            except (Damaged, OSError) as error:
                log.warning("%s: %s; it is removed and made anew", path, error)
                _remove(path)
        # Of two that hold the same, every process must drop the same one.
        found.sort(key=lambda one: (-len(one.run), one.run.path))
        kept: list[CachedRun] = []
        covered: set[str] = set()
        for one in found:
            if one.stems <= covered:
                self._drop(one)
            else:
                kept.append(one)
                covered |= one.stems
        return kept

    def _drop(self, one: CachedRun) -> None:
        if one.run.path is not None:
            _remove(one.run.path)

    def _remove_leftovers(self) -> None:
        """What writers left behind when they were killed; its age is told by the file system's own clock."""
        aside = [*self.directory.glob(f"{ASIDE_PREFIX}*")] if self._keep else []
        if not aside:
            return
        with suppress(OSError):
            lock = self.directory / "lock"
            os.utime(lock)
            now = lock.stat().st_mtime
            for path in aside:
                if now - path.stat().st_mtime > _ASIDE_KEPT_S:
                    _remove(path)

    # ------------------------------------------------------------------ making

    def _built(self, missing: set[str], listed: set[str], read: ReadFiles) -> CachedRun:
        """A run of index files that are in none."""
        builder = RunBuilder(self.directory, self._secret)
        for stem, packs in read(sorted(missing)):
            builder.add(bytes.fromhex(stem), indexrows.listing(packs))
        return self._written(builder, listed)

    def _compacted(self, runs: list[CachedRun], listed: set[str], read: ReadFiles) -> list[CachedRun]:
        """Merge the shortest until each is at most a quarter of the one before, and what is half dead."""
        runs = sorted(runs, key=lambda one: -one.living_rows)
        merge = _to_merge(runs)
        if not merge:
            return runs
        builder = RunBuilder(self.directory, self._secret)
        for one in merge:
            builder.merge(one.run, one.tail, one.sources)
        try:
            made = self._written(builder, listed)
        except Damaged as error:
            log.warning("the index cache in %s is damaged: %s; it is made anew", self.directory, error)
            for one in runs:
                self._drop(one)
            return [self._built(listed, listed, read)]
        for one in merge:
            self._drop(one)
        kept = [one for one in runs if all(one is not other for other in merge)]
        return sorted([*kept, made], key=lambda one: -one.living_rows)

    def _written(self, builder: RunBuilder, listed: set[str]) -> CachedRun:
        with RunWriter(self.directory, self._secret) as writer:
            tail = builder.write(writer)
            made = writer.published(tail) if self._keep else writer.kept(tail)
        return _held(*made, listed)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait for others that make runs, but not for ever: the worst is that the same work is done twice."""
        if not self._keep:
            yield
            return
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._wait_for(fd)
            yield
        finally:
            os.close(fd)

    def _wait_for(self, fd: int) -> None:
        deadline_s = self._clock.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic() >= deadline_s:
                    return
                self._clock.sleep(_LOCK_POLL_S)
            else:
                return


def _to_merge(runs: list[CachedRun]) -> list[CachedRun]:
    """Which of the runs, the longest first, are to become one."""
    merge = [one for one in runs if one.living_rows * 2 < len(one.run)]
    size = sum(one.living_rows for one in merge)
    for one in reversed(runs):
        if all(one is not other for other in merge):
            if (merge or one is not runs[-1]) and one.living_rows >= _RATIO * max(size, 1):
                continue
            merge.append(one)
            size += one.living_rows
    return merge if len(merge) > 1 or any(one.living_rows * 2 < len(one.run) for one in merge) else []


def _held(run: SealedRun, tail: Tail, listed: set[str]) -> CachedRun:
    sources = np.array([row.tobytes().hex() in listed for row in tail.sources], np.bool_)
    # Asked of the pairs even when all sources are there: a run that was made anew names packs that it has no rows of.
    packs = np.zeros(len(tail.packs), np.bool_)
    packs[tail.pairs[sources[tail.pairs[:, 0]], 1]] = True
    return CachedRun(run, tail, sources, packs)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
