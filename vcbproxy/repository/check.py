"""Whether a repository is what it should be: every restore point restorable, every byte as it was written.

    keys        whole                                            always
    notes       of prune, and of damage: readable
    locks       readable, or a hint
    snapshots   readable
    index       readable; packs there, of the right size,
                blobs without gap or overlap
    trees       readable; every chunk in the index; the chunks
                of a file as long as the file
    points      manifest, trees, chunk lengths agree
    packs       every byte digested, every blob opened           with ``read_data``

A damaged pack that is read is remembered (``suspects.py``), until it is read whole, or gone.

Nothing stops at the first problem: all are found, and each names the restore points it hurts. Snapshots of stock
restic's are checked as well as ours.
"""

from __future__ import annotations

import random
from datetime import datetime

import numpy as np

from vcbproxy.errors import Error, IntegrityError
from vcbproxy.repository import browse, keys, lockcheck, lockfile, points, times
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.checkpacks import Lost, PackChecker
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.needs import BlobName, needed_of
from vcbproxy.repository.progress import Progress, no_progress
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.report import Problem, Report, Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.tree import Node, NodeKind


def check(
    repository: Repository,
    read_data: Subset | None = None,
    *,
    progress: Progress = no_progress,
    chance: random.Random | None = None,
    remember: bool = False,
) -> Report:
    """Check a repository; the caller holds a lock, or knows that nobody changes it.

    Args:
        repository: an open one.
        read_data: which packs to read as well.
        progress: told the stage, how much of it is done, and of how much.
        chance: draws the packs of a share.
        remember: note damaged packs, so that the next backup heals what it can; wants an exclusive lock.

    Returns:
        What was found; nothing is raised for damage.

    Raises:
        TargetError: the repository cannot be read at all.
    """
    checker = _Checker(repository, progress)
    checker.small_files()
    snapshots = checker.snapshots()
    checker.index()
    packs = PackChecker(repository, checker.report, progress, remember=remember)
    sizes = packs.layout()
    if not snapshots and checker.report.packs:
        checker.report.hints.append("there are packs and no restore point: if nobody forgot them all, do not prune")
    checker.trees(snapshots)
    if read_data is not None:
        packs.read(read_data.of(sizes, chance or random.SystemRandom()), sizes)
    packs.suspects(sizes)
    checker.name_the_hurt(packs.lost, snapshots)
    checker.locks()
    return checker.report


class _Checker:
    def __init__(self, repository: Repository, progress: Progress) -> None:
        self._repository = repository
        self._progress = progress
        self.report = Report()
        self._good_trees: set[bytes] = set()

    # ------------------------------------------------------------------ stages

    def small_files(self) -> None:
        """Those that no restore point needs, and somebody else does."""
        backend = self._repository.backend
        for error in keys.damaged(backend):
            self._problem(str(error))
        for found in lockfile.found(self._repository.files):
            if found.record is None:
                self.report.hints.append(f"{found}; `vcbproxy repo unlock --all` removes it")

    def snapshots(self) -> list[Snapshot]:
        found = []
        for stored in self._repository.backend.list(FileKind.SNAPSHOT):
            try:
                found.append(self._repository.load_snapshot(stored.name.stem))
            except IntegrityError as error:
                self._problem(str(error), f"snapshot {stored.name.stem[:8]}")
        self.report.snapshots = len(found)
        return sorted(found, key=lambda snapshot: snapshot.time)

    def index(self) -> None:
        for error in self._repository.indexing.load_tolerantly():
            self._problem(str(error))

    def trees(self, snapshots: list[Snapshot]) -> None:
        for number, snapshot in enumerate(snapshots):
            self._progress("restore points", number, len(snapshots))
            name = _name_of(snapshot)
            before = len(self.report.problems)
            self._walk(snapshot.tree, name)
            if len(self.report.problems) == before:
                self._check_point(snapshot, name)
        self._progress("restore points", len(snapshots), len(snapshots))

    def name_the_hurt(self, found: list[Lost], snapshots: list[Snapshot]) -> None:
        """Only when blobs are lost: find out who needs them and has no other copy."""
        damaged = set().union(*(lost.blobs for lost in found))
        needed: dict[str, set[BlobName]] = {}
        for snapshot in snapshots if damaged else ():
            needs = needed_of(self._repository, snapshot.tree, damaged)
            needed.setdefault(_name_of(snapshot), set()).update(needs)  # two VMs may share a name, and a moment
        for lost in found:
            gone = {name for name in lost.blobs if not self._has_whole_copy(name)}
            hurt = [point for point, needs in needed.items() if gone & needs]
            if lost.known and not hurt:
                self.report.hints.append(
                    f"pack {lost.pack_id.hex()} is damaged, and healed: all that is needed of it is there whole; "
                    "prune removes the damaged copy"
                )
            else:
                self._problem(lost.message, *hurt)

    def locks(self) -> None:
        """Where files are locked against removal: until when, and what is locked less long than what needs it."""
        retaining = self._repository.backend.traits.retaining
        if retaining is not None:
            self.report.locks = lockcheck.locks_of(self._repository, retaining, self._progress)
        for kept in self.report.locks:
            if not kept.covered:
                self.report.hints.append(
                    f"{kept.point} is locked until {_day(kept.record_until)}, but {kept.short} of the files it needs "
                    f"less long, the first until {_day(kept.needs_until)}; its VM's next backup renews what it uses"
                )

    # ------------------------------------------------------------------ parts of them

    def _walk(self, root: bytes, point: str) -> None:
        """Check every tree below a root, but for those that hang below a root without any fault."""
        seen = {root}
        waiting = [(root, "")]
        before = len(self.report.problems)
        while waiting:
            tree_id, path = waiting.pop()
            if tree_id in self._good_trees:
                continue
            try:
                nodes = browse.load_tree(self._repository, tree_id)
            except IntegrityError as error:
                self._problem(f"{path or '/'}: {error}", point)
                continue
            for node in nodes:
                self._check_node(node, f"{path}/{node.name}", point)
                if node.subtree is not None and node.subtree not in seen:
                    seen.add(node.subtree)
                    waiting.append((node.subtree, f"{path}/{node.name}"))
        if len(self.report.problems) == before:
            self._good_trees |= seen

    def _check_node(self, node: Node, path: str, point: str) -> None:
        if node.kind is not NodeKind.FILE or node.content is None:
            return
        known, lengths = self._repository.index.find(node.content, BlobKind.DATA)
        if not known.all():
            first = node.content[int(np.argmin(known))].tobytes().hex()
            missing = int(len(known) - np.count_nonzero(known))
            self._problem(f"{path}: {missing} of {len(known)} chunks are in no index, first {first}", point)
            return
        total = int(lengths.sum(dtype=np.uint64))
        if total != node.size_bytes:
            self._problem(f"{path}: its chunks come to {total} bytes, its size is {node.size_bytes}", point)

    def _check_point(self, snapshot: Snapshot, name: str) -> None:
        summary = points.of_snapshot(snapshot)
        if summary is None:
            return
        try:
            PointReader.unlocked(self._repository, summary).verify()
        except Error as error:
            self._problem(str(error), name)

    def _has_whole_copy(self, name: BlobName) -> bool:
        blob_id, kind = name
        try:
            self._repository.read_blob(kind, blob_id, lambda _: None)
        except Error:
            return False
        return True

    def _problem(self, message: str, *hurt: str) -> None:
        self.report.problems.append(Problem(message, tuple(hurt)))


def _day(until: datetime | None) -> str:
    return f"{until:%Y-%m-%d %H:%M} UTC" if until is not None else "never"


def _name_of(snapshot: Snapshot) -> str:
    summary = points.of_snapshot(snapshot)
    if summary is not None:
        return summary.name
    return f"snapshot {snapshot.snapshot_id[:8]} of {snapshot.hostname}@{times.canonical(snapshot.time)}"
