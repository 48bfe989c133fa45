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

import contextlib
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import Error, IntegrityError, TargetError
from vcbproxy.repository import ahead, browse, keys, lock, lockcheck, points, suspects, times
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.needs import BlobName, needed_of
from vcbproxy.repository.pack import Blob, header_size
from vcbproxy.repository.packcheck import PackDamage, check_pack
from vcbproxy.repository.packsizes import PackSizes
from vcbproxy.repository.progress import Progress, no_progress
from vcbproxy.repository.prune import waiting as waits
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.report import Problem, Report, Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.suspects import Suspect
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
    checker = _Checker(repository, progress, remember)
    checker.small_files()
    snapshots = checker.snapshots()
    checker.index()
    sizes = checker.packs()
    checker.trees(snapshots)
    if read_data is not None:
        checker.data(read_data.of(sizes, chance or random.SystemRandom()), sizes)
    checker.suspects(sizes)
    checker.name_the_hurt(snapshots)
    checker.locks()
    return checker.report


@dataclass(frozen=True, slots=True)
class _Lost:
    """A pack of which something cannot be read back."""

    pack_id: bytes
    message: str
    blobs: set[BlobName]


class _Checker:
    def __init__(self, repository: Repository, progress: Progress, remember: bool) -> None:
        self._repository = repository
        self._progress = progress
        self._remember = remember
        self.report = Report()
        self._known = {suspect.pack_id: suspect for suspect in suspects.load(repository.files)}
        self._read: set[bytes] = set()
        self._lost: list[_Lost] = []
        self._good_trees: set[bytes] = set()

    # ------------------------------------------------------------------ stages

    def small_files(self) -> None:
        """Those that no restore point needs, and somebody else does."""
        backend = self._repository.backend
        for error in keys.damaged(backend):
            self._problem(str(error))
        for stored in backend.list(FileKind.WAITING):
            try:
                self._repository.files.load_sealed(stored.name)
            except IntegrityError as error:
                self._problem(f"{error}; remove it, and prune once more")
        for found in lock.found(self._repository.files):
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
        for error in self._repository.load_index_tolerantly():
            self._problem(str(error))

    def packs(self) -> PackSizes:
        """Hold each pack's blobs against its size; gives the sizes of the packs that are there."""
        sizes = PackSizes(self._repository.backend.list(FileKind.PACK))
        for pack in self._repository.index.packs():
            self.report.packs += 1
            self.report.blobs += len(pack.blobs)
            if problem := _layout_problem(pack, sizes.ask(pack.pack_id)):
                self._lose(pack.pack_id, f"pack {pack.pack_id.hex()}: {problem}", pack.blobs)
            if len({blob.kind for blob in pack.blobs}) > 1:
                self.report.hints.append(f"pack {pack.pack_id.hex()} mixes data and trees; prune separates them")
        self._hint_at_strays(sizes)
        return sizes

    def _hint_at_strays(self, sizes: PackSizes) -> None:
        """One line each, but for those that wait for their removal, and when there are many."""
        try:
            waiting = {pack for wait in waits.load(self._repository.files) for pack in wait.packs}
        except IntegrityError as error:
            self._problem(f"{error}; remove that file: its packs then count as in no index")
            waiting = set()
        strays = [pack_id.hex() for pack_id in sizes.strays()]
        unknown = [pack for pack in strays if pack not in waiting]
        self.report.hints += [f"pack {pack} is in no index; prune removes it" for pack in unknown[:_STRAYS_NAMED]]
        if len(unknown) > _STRAYS_NAMED:
            self.report.hints.append(f"{len(unknown) - _STRAYS_NAMED} more packs are in no index; prune removes them")
        if len(strays) > len(unknown):
            self.report.hints.append(
                f"{len(strays) - len(unknown)} packs are in no index and wait for their removal by a prune"
            )

    def trees(self, snapshots: list[Snapshot]) -> None:
        for number, snapshot in enumerate(snapshots):
            self._progress("restore points", number, len(snapshots))
            name = _name_of(snapshot)
            before = len(self.report.problems)
            self._walk(snapshot.tree, name)
            if len(self.report.problems) == before:
                self._check_point(snapshot, name)
        self._progress("restore points", len(snapshots), len(snapshots))

    def data(self, chosen: NDArray[np.intp], sizes: PackSizes) -> None:
        wanted = np.zeros(len(sizes), np.bool_)
        wanted[chosen] = True

        def one(pack: PackBlobs) -> PackDamage | None:
            return check_pack(self._repository, pack, sizes.ask(pack.pack_id) or 0)

        def packs() -> Iterator[PackBlobs]:
            for pack in self._repository.index.packs():
                row = sizes.row(pack.pack_id)
                if row is not None and wanted[row]:
                    yield pack

        total, done = int(sizes.sizes[chosen].sum()), 0
        connections = self._repository.backend.traits.connections
        with ThreadPoolExecutor(connections, "pack-checker") as pool:
            for pack, damage in ahead.results(pool, one, packs(), connections):
                done += sizes.ask(pack.pack_id) or 0
                self._progress("packs", done, total)
                self.report.packs_read += 1
                if pack.pack_id in self._known:
                    self._read.add(pack.pack_id)
                if damage is not None:
                    self._lose(pack.pack_id, damage.message, damage.blobs)
                self._note(pack.pack_id, damage)

    def suspects(self, sizes: PackSizes) -> None:
        """Take what earlier checks found damaged, and this one did not read, for damaged still."""
        for name, error in suspects.damaged(self._repository.files):
            self._problem(f"{error}; remove {name.path}, and read all data once more")
        for pack_id, suspect in self._known.items():
            if sizes.row(pack_id) is None:
                self._lift(suspect)
            elif pack_id not in self._read:
                message = f"pack {pack_id.hex()} was found damaged by an earlier check: {suspect.reason}"
                self._lost.append(_Lost(pack_id, message, {(blob, kind) for kind, blob in suspect.blobs}))

    def name_the_hurt(self, snapshots: list[Snapshot]) -> None:
        """Only when blobs are lost: find out who needs them and has no other copy."""
        damaged = set().union(*(lost.blobs for lost in self._lost))
        needed: dict[str, set[BlobName]] = {}
        for snapshot in snapshots if damaged else ():
            needed[_name_of(snapshot)] = needed_of(self._repository, snapshot.tree, damaged)
        for lost in self._lost:
            gone = {name for name in lost.blobs if not self._has_whole_copy(name)}
            hurt = [point for point, needs in needed.items() if gone & needs]
            if lost.pack_id in self._known and not hurt:
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
            self._repository.load_blob(kind, blob_id)
        except Error:
            return False
        return True

    def _lose(self, pack_id: bytes, message: str, blobs: Sequence[Blob]) -> None:
        self._lost.append(_Lost(pack_id, message, {(blob.blob_id, blob.kind) for blob in blobs}))

    def _note(self, pack_id: bytes, damage: PackDamage | None) -> None:
        """Remember what was found in a pack that was read, and no more than that."""
        before = self._known.get(pack_id)
        if damage is not None and self._remember:
            found = {(blob.kind, blob.blob_id) for blob in damage.blobs}
            if before is not None and found == set(before.blobs):
                return
            try:
                now = self._repository.clock.now()
                suspects.note(self._repository.files, pack_id, damage.blobs, damage.message, now)
            except TargetError as error:
                self.report.hints.append(f"pack {pack_id.hex()} could not be noted as damaged: {error}")
                return
        if before is not None:
            self._lift(before)

    def _lift(self, suspect: Suspect) -> None:
        if self._remember:
            with contextlib.suppress(TargetError):  # the next check tries again
                suspects.lift(self._repository.files, suspect)

    def _problem(self, message: str, *hurt: str) -> None:
        self.report.problems.append(Problem(message, tuple(hurt)))


_STRAYS_NAMED = 20


def _layout_problem(pack: PackBlobs, size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return "it is missing"
    position = 0
    for blob in pack.blobs:
        if blob.offset != position:
            return f"the index lists a gap or an overlap at offset {position}"
        position = blob.end
    expected = position + header_size(pack.blobs)
    return f"it has {size_bytes} bytes, the index says {expected}" if size_bytes != expected else None


def _day(until: datetime | None) -> str:
    return f"{until:%Y-%m-%d %H:%M} UTC" if until is not None else "never"


def _name_of(snapshot: Snapshot) -> str:
    summary = points.of_snapshot(snapshot)
    if summary is not None:
        return summary.name
    return f"snapshot {snapshot.snapshot_id[:8]} of {snapshot.hostname}@{times.canonical(snapshot.time)}"
