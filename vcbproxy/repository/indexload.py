"""Reading the index of a repository: all of it into memory when it is small, else by the cache on this machine.

Below ``CACHED_BYTES`` of index files, some 300,000 blobs or 150 GB of data, reading them takes a second and memory that
nobody misses.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vcbproxy.clock import Clock
from vcbproxy.repository import cachedir, indexcache, indexfile, pages, spill
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.files import Files
from vcbproxy.repository.index import Index
from vcbproxy.repository.indexcache import IndexCache, ListedPacks
from vcbproxy.repository.spill import Spill
from vcbproxy.units import MiB

log = logging.getLogger(__name__)

CACHED_BYTES = 12 * MiB
CACHED_FILES = 1000
_AHEAD = 2


class IndexLoader:
    """Reads index files, and makes an index of them."""

    def __init__(self, files: Files, repository_id: str, clock: Clock, cache_root: Path | None) -> None:
        """Without a ``cache_root`` all of an index is held in memory."""
        self._files = files
        self._repository_id = repository_id
        self._clock = clock
        self._cache_root = cache_root
        self._secret = indexcache.secret_of(files.key)

    def empty(self) -> Index:
        """An index of nothing yet."""
        return Index(Spill(self._scratch, self._secret) if self._cache_root else None)

    def worth_caching(self, listed: Mapping[str, int]) -> bool:
        """Whether index files with these sizes are so large, or so many, that the cache is used for them."""
        large = sum(listed.values()) > CACHED_BYTES or len(listed) > CACHED_FILES
        return self._cache_root is not None and large

    def load_cached(self, index: Index, listed: set[str]) -> bool:
        """Fill an empty index by the cache. False when the cache cannot be used at all; why is said.

        Raises:
            IntegrityError: an index file is damaged, or two list different blobs for one pack.
            TargetError: one could not be read.
        """
        for cache in self._caches():
            try:
                runs = cache.load(listed, self.read)
            except OSError as error:
                log.warning("%s cannot be used for the index: %s", cache.directory, error.strerror)
                continue
            while runs:
                one = runs.pop(0)
                index.attach(one.run, one.tail.packs, one.packs, cache.renewal(one, self.read))
                del one  # its list of packs is as long as the index's own
            pages.trim()
            return True
        return False

    def read(self, stems: Iterable[str]) -> Iterator[tuple[str, ListedPacks]]:
        """The packs of some index files; a few files are read ahead.

        Raises:
            IntegrityError: one is damaged.
            TargetError: one could not be read.
        """
        at_once = self._files.backend.traits.connections
        with ThreadPoolExecutor(at_once, "index-loader") as pool:
            under_way: deque[tuple[str, Future[bytes]]] = deque()
            try:
                for stem in stems:
                    name = FileName(FileKind.INDEX, stem)
                    under_way.append((stem, pool.submit(self._files.load_sealed, name)))
                    if len(under_way) >= at_once + _AHEAD:
                        yield self._decoded(*under_way.popleft())
                while under_way:
                    yield self._decoded(*under_way.popleft())
            finally:
                for _, future in under_way:
                    future.cancel()

    def _decoded(self, stem: str, plain: Future[bytes]) -> tuple[str, ListedPacks]:
        what = f"{self._files.location}: {FileName(FileKind.INDEX, stem).path}"
        return stem, indexfile.decode(plain.result(), what)

    def _caches(self) -> Iterator[IndexCache]:
        """The kept one; and where there is none, one that goes with the process."""
        if (directory := self._kept_directory()) is not None:
            yield IndexCache(directory, self._secret, self._clock)
        yield IndexCache(spill.scratch_directory(), self._secret, self._clock, keep=False)

    def _scratch(self) -> Path:
        return self._kept_directory() or spill.scratch_directory()

    def _kept_directory(self) -> Path | None:
        root = self._cache_root
        return cachedir.opened(root, self._repository_id, "index") if root is not None else None
