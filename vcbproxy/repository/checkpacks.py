"""The packs of a check: laid out as the index says, read whole where that is asked for, damage remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository import ahead, suspects
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.needs import BlobName
from vcbproxy.repository.pack import Blob, header_size
from vcbproxy.repository.packcheck import PackDamage, check_pack
from vcbproxy.repository.packsizes import PackSizes
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune import waiting as waits
from vcbproxy.repository.report import Problem, Report
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.suspects import Suspect

_STRAYS_NAMED = 20


@dataclass(frozen=True, slots=True)
class Lost:
    """A pack of which something cannot be read back; ``known`` says that an earlier check had noted it."""

    pack_id: bytes
    message: str
    blobs: set[BlobName]
    known: bool


class PackChecker:
    """Looks at all packs; what it finds is in ``lost``, and in the report what hurts nobody."""

    def __init__(self, repository: Repository, report: Report, progress: Progress, *, remember: bool) -> None:
        self._repository = repository
        self._report = report
        self._progress = progress
        self._remember = remember
        self._known: dict[bytes, list[Suspect]] = {}  # prune makes a note of a pack whenever it meets damage there
        for suspect in suspects.load(repository.files):
            self._known.setdefault(suspect.pack_id, []).append(suspect)
        self._read: set[bytes] = set()
        self.lost: list[Lost] = []

    def layout(self) -> PackSizes:
        """Hold each pack's blobs against its size; gives the sizes of the packs that are there."""
        sizes = PackSizes(self._repository.backend.list(FileKind.PACK))
        for pack in self._repository.index.packs():
            self._report.packs += 1
            self._report.blobs += len(pack.blobs)
            if problem := _layout_problem(pack, sizes.ask(pack.pack_id)):
                self._lose(pack.pack_id, f"pack {pack.pack_id.hex()}: {problem}", pack.blobs)
            if len({blob.kind for blob in pack.blobs}) > 1:
                self._report.hints.append(f"pack {pack.pack_id.hex()} mixes data and trees; prune separates them")
        self._hint_at_strays(sizes)
        return sizes

    def _hint_at_strays(self, sizes: PackSizes) -> None:
        """One line each, but for those that wait for their removal, and when there are many."""
        try:
            waiting = {pack for wait in waits.load(self._repository.files) for pack in wait.packs}
        except IntegrityError as error:
            self._problem(f"{error}; remove that file, and prune once more")
            waiting = set()
        strays = [pack_id.hex() for pack_id in sizes.strays()]
        unknown = [pack for pack in strays if pack not in waiting]
        self._report.hints += [f"pack {pack} is in no index; prune removes it" for pack in unknown[:_STRAYS_NAMED]]
        if len(unknown) > _STRAYS_NAMED:
            self._report.hints.append(f"{len(unknown) - _STRAYS_NAMED} more packs are in no index; prune removes them")
        if len(strays) > len(unknown):
            self._report.hints.append(
                f"{len(strays) - len(unknown)} packs are in no index and wait for their removal by a prune"
            )

    def read(self, chosen: NDArray[np.intp], sizes: PackSizes) -> None:
        """Read some packs whole, by their rows among the sizes; note which are damaged, and which are so no more."""
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
                self._report.packs_read += 1
                if pack.pack_id in self._known:
                    self._read.add(pack.pack_id)
                if damage is not None:
                    self._lose(pack.pack_id, damage.message, damage.blobs)
                self._note(pack.pack_id, damage)

    def suspects(self, sizes: PackSizes) -> None:
        """Take what earlier checks found damaged, and this one did not read, for damaged still."""
        for name, error in suspects.damaged(self._repository.files):
            self._problem(f"{error}; remove {name.path}, and read all data once more")
        for pack_id, noted in self._known.items():
            if sizes.row(pack_id) is None:
                self._lift(noted)
            elif pack_id not in self._read:
                reasons = "; ".join(dict.fromkeys(suspect.reason for suspect in noted))
                message = f"pack {pack_id.hex()} was found damaged by an earlier check: {reasons}"
                found = {(blob, kind) for suspect in noted for kind, blob in suspect.blobs}
                self.lost.append(Lost(pack_id, message, found, known=True))

    def _lose(self, pack_id: bytes, message: str, blobs: Sequence[Blob]) -> None:
        found = {(blob.blob_id, blob.kind) for blob in blobs}
        self.lost.append(Lost(pack_id, message, found, pack_id in self._known))

    def _note(self, pack_id: bytes, damage: PackDamage | None) -> None:
        """Remember what was found in a pack that was read, and no more than that."""
        before = self._known.get(pack_id, [])
        if damage is not None and self._remember:
            found = {(blob.kind, blob.blob_id) for blob in damage.blobs}
            if len(before) == 1 and found == set(before[0].blobs):
                return
            try:
                now = self._repository.clock.now()
                suspects.note(self._repository.files, pack_id, damage.blobs, damage.message, now)
            except TargetError as error:
                self._report.hints.append(f"pack {pack_id.hex()} could not be noted as damaged: {error}")
                return
        self._lift(before)

    def _lift(self, noted: Sequence[Suspect]) -> None:
        for suspect in noted if self._remember else ():
            with contextlib.suppress(TargetError):  # the next check tries again
                suspects.lift(self._repository.files, suspect)

    def _problem(self, message: str) -> None:
        self._report.problems.append(Problem(message))


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
