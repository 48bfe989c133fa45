"""What restore points need: every tree of every snapshot walked once, whatever it names marked in the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vcbproxy.errors import Error, IntegrityError, TargetError
from vcbproxy.repository import longblob, pages, tree
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.index import Location
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune.buckets import Rows
from vcbproxy.repository.prune.survey import Survey
from vcbproxy.repository.prune.table import ID, Names, blob_of, hex_of, names
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.tree import Node

_PENDING_ROWS = 1 << 20  # ids that wait to be marked, 32 MiB: marking passes over the whole table
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Missing:
    """Blobs that restore points need and no index file lists; and how many there are."""

    kind: BlobKind
    ids: Names

    def __str__(self) -> str:
        shown = ", ".join(hex_of(self.ids[at : at + 1]) for at in range(min(len(self.ids), _NAMED_MAX)))
        more = f" and {len(self.ids) - _NAMED_MAX} more" if len(self.ids) > _NAMED_MAX else ""
        return f"{self.kind.value} blob {shown}{more} in no index"


def mark_used(
    repository: Repository, snapshots: Sequence[Snapshot], found: Survey, progress: Progress
) -> list[Missing]:
    """Mark all that the snapshots need.

    Returns:
        What they need and the index does not list.

    Raises:
        IntegrityError: trees are damaged; all of them are named.
        TargetError: a tree could not be read.
    """
    return _Walk(repository, found, progress).walk(snapshots)


class _Walk:
    def __init__(self, repository: Repository, found: Survey, progress: Progress) -> None:
        self._repository = repository
        self._found = found
        self._progress = progress
        self._pending = np.empty(_PENDING_ROWS, ID)
        self._pending_rows = 0
        self._missing: dict[BlobKind, list[Names]] = {BlobKind.TREE: [], BlobKind.DATA: []}
        self._damage: list[str] = []
        self._walked = 0

    def walk(self, snapshots: Sequence[Snapshot]) -> list[Missing]:
        level = _joined([snapshot.tree for snapshot in snapshots])
        with ThreadPoolExecutor(self._repository.backend.traits.connections, "tree-loader") as pool:
            while len(level):
                level = self._walk_level(level, pool)
        self._mark_data()
        if self._damage:
            error = IntegrityError(f"{self._repository.location}: {self._damage[0]}; nothing was removed")
            for text in self._damage[1:]:
                error.add_note(f"- {text}")
            raise error
        lists = {kind: np.unique(np.concatenate(parts)) for kind, parts in self._missing.items() if parts}
        return [Missing(kind, ids) for kind, ids in lists.items() if len(ids)]

    def _walk_level(self, level: Names, pool: ThreadPoolExecutor) -> Names:
        """Load the trees that are new; gives what hangs below them."""
        fresh, missing = self._found.trees.mark(level)
        self._missing[BlobKind.TREE].append(missing)
        total = self._walked + len(fresh)
        below: list[Names] = [level[:0]]
        subtrees: list[bytes] = []
        for nodes in self._loaded(fresh, pool):
            self._walked += 1
            self._progress("trees", self._walked, total)
            for node in nodes:
                if node.content is not None:
                    self._use(node.content)
                if node.subtree is not None:
                    subtrees.append(node.subtree)
            if len(subtrees) >= _SUBTREES_HELD:
                below, subtrees = [np.unique(np.concatenate([*below, _joined(subtrees)]))], []
        return np.unique(np.concatenate([*below, _joined(subtrees)]))

    def _loaded(self, fresh: Names, pool: ThreadPoolExecutor) -> Iterator[list[Node]]:
        """Trees, several at once; long ones one by one, since each takes memory."""
        short: list[Rows] = []
        for copies in self._found.trees.copies(fresh):
            if copies["zstd"].max() > longblob.LONG_BYTES:
                yield self._load(copies)
                continue
            short.append(copies)
            if len(short) == _LOADED_AT_ONCE:
                yield from pool.map(self._load, short)
                short = []
        yield from pool.map(self._load, short)

    def _load(self, copies: Rows) -> list[Node]:
        """One tree, from whichever copy is whole."""
        what = f"tree {hex_of(copies['id'][:1])}"
        first: Error | None = None
        for at in range(len(copies)):
            row = copies[at : at + 1]
            pack = self._found.packs.ids[row["pack"]].tobytes()
            try:
                return self._repository.blobs.read(
                    Location(pack, blob_of(row)), lambda pieces: tree.decode(pieces, what)
                )
            except (IntegrityError, TargetError) as error:
                first = first or error
        if not isinstance(first, IntegrityError):
            raise first or AssertionError("a tree without copies")
        self._damage.append(str(first))
        return []

    def _use(self, content: Ids) -> None:
        while len(content):
            room = self._pending[self._pending_rows :]
            part, content = content[: len(room)], content[len(room) :]
            room[: len(part)] = names(part)
            pages.let_go(part)
            self._pending_rows += len(part)
            if self._pending_rows == len(self._pending):
                self._mark_data()

    def _mark_data(self) -> None:
        _, missing = self._found.data.mark(self._pending[: self._pending_rows])
        self._missing[BlobKind.DATA].append(missing)
        self._pending_rows = 0


def _joined(ids: list[bytes]) -> Names:
    return np.frombuffer(bytearray().join(ids), ID)  # writable


_LOADED_AT_ONCE = 256
_SUBTREES_HELD = 1 << 16
