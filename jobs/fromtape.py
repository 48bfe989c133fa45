"""Restores from tape: each cartridge is loaded once, and read from its beginning to its end.

    pass      TAP001L8: web01 scsi0-0 part 1, db01 scsi0-0 │ TAP002L8: web01 scsi0-0 part 2, web01 scsi0-1
                   └────────┐       │                             │
    disks     web01 scsi0-0 ▼  db01 ▼  each unpacked by threads of its own, which wait while others' parts come

A disk gets its name once all of it is there and its digest is that of what was read off the LUN. What is damaged fails
alone: the other disks come back all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.restore import RestoredDisk, make_directory, require_free, write_small
from jobs.tapedisk import Place, Step, TapeDisk
from jobs.watcher import Watcher
from vcbproxy.archive import layout, reader
from vcbproxy.archive.agekeys import Identities
from vcbproxy.archive.bases import with_bases
from vcbproxy.archive.manifest import Document, Image, Kind
from vcbproxy.archive.shelf import Cartridge, Shelf
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.clock import Clock
from vcbproxy.errors import CartridgeWanted, IntegrityError, Partial, UsageError

_LOOK_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Where:
    """One restore point that is wanted, and where its files go.

    Attributes:
        point: as the catalog has it.
        keys: the disks that are wanted; none: all.
        directory: for all that is restored.
        output: for one disk alone, in its stead.
    """

    point: ArchivedPoint
    directory: Path | None = None
    output: Path | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TapeRestore:
    """How it is done.

    Attributes:
        shelf: gives the cartridges.
        watcher: is told.
        clock: paces the waiting for a person who brings a cartridge.
        wait: for a cartridge that is not there; else that is an error.
        overwrite: files that exist, once the new ones are whole.
        workers: threads that decompress, for each disk.
        identities: for images that are encrypted.
    """

    shelf: Shelf
    watcher: Watcher
    clock: Clock
    wait: bool = False
    overwrite: bool = False
    workers: int = 2
    identities: Identities | None = None

    def run(
        self,
        wanted: Sequence[Where],
        known: Sequence[ArchivedPoint] = (),
        documents: Mapping[str, Document] | None = None,
    ) -> Restored:
        """Restore it all.

        Args:
            wanted: what, and where to.
            known: all restore points of the catalog, for what they build on.
            documents: what the restore points consist of, if that is known already.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
            UsageError: a file is in the way, or there is no such disk.
            IntegrityError: what says where everything lies is damaged.
            Error: something can be neither read nor written any more.
        """
        points = with_bases([where.point for where in wanted], known)
        with _Pass(self, wanted, points, documents or self.documents(points)) as reading:
            return reading.run()

    def documents(self, points: Sequence[ArchivedPoint]) -> Mapping[str, Document]:
        """What restore points consist of, by their ids.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
            IntegrityError: a ``vm.json`` cannot be read.
        """
        found: dict[str, Document] = {}
        for barcode in dict.fromkeys(reader.last_word(point).barcode for point in points):
            here = [point for point in points if reader.last_word(point).barcode == barcode]
            with self.loaded(barcode) as cartridge:
                found.update((point.id, reader.document_of(cartridge, point)) for point in here)
        return found

    @contextmanager
    def loaded(self, barcode: str) -> Iterator[Cartridge]:
        """A cartridge in a drive; it is asked for when it is not in the library.

        Raises:
            CartridgeWanted: it is not there, and is not waited for.
        """
        with ExitStack() as stack:
            asked = False
            while True:
                try:
                    cartridge = stack.enter_context(self.shelf.for_reading(barcode))
                    break
                except CartridgeWanted as error:
                    if not self.wait:
                        raise
                    if not asked:
                        self.watcher.said(f"{error}; waiting for it")
                        asked = True
                    self.clock.sleep(_LOOK_AGAIN_S)
            yield cartridge


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, and what did not: reasons by disk."""

    disks: list[RestoredDisk]
    failed: dict[str, str]
    missing: dict[str, str]
    """Disks that are not in the restore points."""

    def __add__(self, other: Restored) -> Restored:
        """Both together."""
        return Restored(self.disks + other.disks, {**self.failed, **other.failed}, {**self.missing, **other.missing})

    def raise_unless_whole(self) -> None:
        """Turn damage into the error that has its exit code.

        Raises:
            IntegrityError: some disk is damaged.
            Partial: some disk of a VM is not in its restore point.
        """
        if self.failed:
            told = "; ".join(f"{what}: {reason}" for what, reason in self.failed.items())
            raise IntegrityError(f"not restored: {told}")
        if self.missing:
            told = "; ".join(self.missing.values())
            raise Partial(f"restored, but not the whole of each VM, these disks are not on tape: {told}")


class _Pass:
    """One pass over all cartridges."""

    def __init__(
        self,
        job: TapeRestore,
        wanted: Sequence[Where],
        points: Sequence[ArchivedPoint],
        documents: Mapping[str, Document],
    ) -> None:
        self._job = job
        self._wanted = wanted
        self._points = points
        self._documents = documents
        self._disks: list[TapeDisk] = []
        self._consumers: dict[tuple[str, str], list[tuple[TapeDisk, int]]] = {}  # by restore point and file
        self._small: dict[tuple[str, str], list[Path]] = {}
        self._missing: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for disk in self._disks:
            disk.close(error)

    def run(self) -> Restored:
        """Everything, cartridge by cartridge."""
        for where in self._wanted:
            self._plan(where)
        for barcode in reader.in_order(self._points):
            here = [(point.id, part) for point in self._points for part in point.parts if part.barcode == barcode]
            here = [(point, part) for point, part in here if self._needs(point, part)]
            if here:
                with self._job.loaded(barcode) as cartridge:
                    self._read(cartridge, here)
        for disk in self._disks:
            disk.close(None)
        restored = [disk.restored for disk in self._disks if disk.restored is not None]
        failed = {disk.place.title: str(disk.error) for disk in self._disks if disk.error is not None}
        return Restored(restored, failed, self._missing)

    def _needs(self, point_id: str, part: ArchivedPart) -> bool:
        return (point_id, part.file) in self._consumers or (point_id, part.file) in self._small

    def _plan(self, where: Where) -> None:
        """See what is to be read of a restore point, and that nothing stands in the way of its last file."""
        job, document = self._job, self._documents[where.point.id]
        if where.directory is not None:
            make_directory(where.directory)
        for image in _chosen(document, where):
            path = _path_of(image, where)
            require_free(path, overwrite=job.overwrite)
            place = Place(f"{document.name} {image.key}", path, job.overwrite, job.workers, job.identities)
            self._add(TapeDisk(place, self._steps(document, image), job.watcher))
        if where.directory is not None:
            streamed = {image.file for image in document.images} | {image.ranges for image in document.images}
            for part in where.point.parts:
                if part.file not in streamed:
                    path = _small_path(where.directory, part)
                    require_free(path, overwrite=job.overwrite)
                    self._small.setdefault((where.point.id, part.file), []).append(path)
        if not where.keys:
            self._missing |= {f"{document.name} {told.partition(':')[0]}": told for told in document.missing_disks}

    def _steps(self, document: Document, image: Image) -> list[Step]:
        """A disk's images, the whole one first.

        Raises:
            IntegrityError: something that it builds on is not there.
        """
        steps = [Step(document.id, document.name, image)]
        while image.kind is Kind.DELTA:
            base = self._documents.get(document.base.id) if document.base is not None else None
            key = image.base_key or image.key
            found = next((one for one in base.images if one.key == key), None) if base is not None else None
            if base is None or found is None or found.size_bytes != image.size_bytes:
                raise IntegrityError(f"{document.name} {image.key}: what it builds on is not there")
            document, image = base, found
            steps.append(Step(document.id, document.name, image))
        return steps[::-1]

    def _add(self, disk: TapeDisk) -> None:
        self._disks.append(disk)
        for number, step in enumerate(disk.steps):
            for file in (step.image.file, step.image.ranges):
                if file is not None:
                    self._consumers.setdefault((step.point_id, file), []).append((disk, number))

    def _read(self, cartridge: Cartridge, here: Sequence[tuple[str, ArchivedPart]]) -> None:
        owners = {part.path: point_id for point_id, part in here}
        for part in reader.by_place(cartridge, [part for _, part in here]):
            point_id = owners[part.path]
            for path in self._small.get((point_id, part.file), ()):
                write_small(path, reader.small(cartridge, part), overwrite=self._job.overwrite)
            consumers = [one for one in self._consumers.get((point_id, part.file), ()) if one[0].error is None]
            if consumers:
                self._feed(cartridge, part, consumers, last=self._is_last(point_id, part))

    def _is_last(self, point_id: str, part: ArchivedPart) -> bool:
        point = next(one for one in self._points if one.id == point_id)
        return part.number == max(other.number for other in point.parts if other.file == part.file)

    def _feed(
        self, cartridge: Cartridge, part: ArchivedPart, consumers: Sequence[tuple[TapeDisk, int]], *, last: bool
    ) -> None:
        """Give a part to the disks that are made of it. Damage fails these; whatever else goes wrong ends it all."""
        try:
            for piece in reader.pieces(cartridge, part):
                for disk, step in consumers:
                    disk.put(step, part.file, piece)
        except IntegrityError as error:
            for disk, _ in consumers:
                disk.fail(error)
            return
        if last:
            for disk, step in consumers:
                disk.end(step, part.file)


def _chosen(document: Document, where: Where) -> list[Image]:
    """The disks that are wanted.

    Raises:
        UsageError: there is no such disk, or not one where one is wanted.
    """
    available = [image.key for image in document.images]
    for key in where.keys:
        if key not in available:
            raise UsageError(f"{document.name} has no disk {key!r}; it has {', '.join(available) or 'none'}")
    chosen = [image for image in document.images if not where.keys or image.key in where.keys]
    if where.output is not None and len(chosen) != 1:
        raise UsageError(f"--output takes one disk; choose with --disk among {', '.join(available)}")
    return chosen


def _path_of(image: Image, where: Where) -> Path:
    if where.output is not None:
        return where.output
    assert where.directory is not None, "no place for it"
    return where.directory / f"{layout.safe_name(image.key)}.raw"


def _small_path(directory: Path, part: ArchivedPart) -> Path:
    """Where a small file goes. What lies on a cartridge says so, and may say anything.

    Raises:
        IntegrityError: it would lead out of the directory.
    """
    if layout.safe_name(part.file) != part.file:
        raise IntegrityError(f"{part.path} on {part.barcode}: {part.file!r:.80} is no name for a file")
    return directory / part.file
