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
from dataclasses import dataclass, field
from pathlib import Path

from jobs.restore import RestoredDisk, make_directory, require_free, write_small
from jobs.watcher import Watcher
from vcbproxy.archive import layout, reader
from vcbproxy.archive.manifest import Document, Image, Kind
from vcbproxy.archive.shelf import Cartridge, Shelf
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.clock import Clock
from vcbproxy.errors import CartridgeWanted, IntegrityError, UsageError
from vcbproxy.pipeline import output
from vcbproxy.pipeline.channel import Channel, Closed
from vcbproxy.pipeline.crew import Crew
from vcbproxy.pipeline.unarchive import Expected, FreshFile, unpack

_PIECES_AHEAD = 8
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
    """

    shelf: Shelf
    watcher: Watcher
    clock: Clock
    wait: bool = False
    overwrite: bool = False
    workers: int = 2

    def run(self, wanted: Sequence[Where], documents: Mapping[str, Document] | None = None) -> Restored:
        """Restore it all.

        Args:
            wanted: what, and where to.
            documents: what the restore points consist of, if that is known already.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
            UsageError: a file is in the way, or there is no such disk.
            Error: something can be neither read nor written any more.
        """
        documents = documents or self.documents([where.point for where in wanted])
        with ExitStack() as stack:
            return _Pass(self, wanted, documents, stack).run()

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

    def raise_unless_whole(self) -> None:
        """Turn damage into the error that has its exit code.

        Raises:
            IntegrityError: some disk is damaged.
        """
        if self.failed:
            told = "; ".join(f"{what}: {reason}" for what, reason in self.failed.items())
            raise IntegrityError(f"not restored: {told}")


@dataclass(frozen=True, slots=True)
class _Planned:
    """A disk that is to come."""

    title: str
    image: Image
    path: Path


@dataclass
class _Disk:
    """A disk on its way."""

    planned: _Planned
    pieces: Channel[memoryview]
    crew: Crew
    closing: ExitStack
    restored: list[RestoredDisk] = field(default_factory=list)


class _Pass:
    """One pass over all cartridges."""

    def __init__(
        self, job: TapeRestore, wanted: Sequence[Where], documents: Mapping[str, Document], stack: ExitStack
    ) -> None:
        self._job = job
        self._wanted = wanted
        self._documents = documents
        self._stack = stack
        self._planned: dict[tuple[str, str], _Planned] = {}  # by restore point and file
        self._disks: dict[tuple[str, str], _Disk] = {}
        self._restored: list[RestoredDisk] = []
        self._failed: dict[str, str] = {}
        self._missing: dict[str, str] = {}

    def run(self) -> Restored:
        """Everything, cartridge by cartridge."""
        parts = [(where, part) for where in self._wanted for part in self._parts(where)]
        for barcode in reader.in_order([where.point for where in self._wanted]):
            here = [(where, part) for where, part in parts if part.barcode == barcode]
            if here:
                with self._job.loaded(barcode) as cartridge:
                    self._read(cartridge, here)
        return Restored(self._restored, self._failed, self._missing)

    def _parts(self, where: Where) -> Iterator[ArchivedPart]:
        """All that is to be read of a restore point; what would stand in the way of the last file is looked for now."""
        document = self._documents[where.point.id]
        if where.directory is not None:
            make_directory(where.directory)
        for image in _chosen(document, where):
            path = _path_of(image, where)
            require_free(path, overwrite=self._job.overwrite)
            self._planned[where.point.id, image.file] = _Planned(f"{document.vm} {image.key}", image, path)
            yield from image.parts
        if where.directory is not None:
            images = {image.file for image in document.images}
            for part in where.point.parts:
                if part.file not in images:
                    require_free(_small_path(where.directory, part), overwrite=self._job.overwrite)
                    yield part
        if not where.keys:
            self._missing |= {f"{document.name} {told.partition(':')[0]}": told for told in document.missing_disks}

    def _read(self, cartridge: Cartridge, here: Sequence[tuple[Where, ArchivedPart]]) -> None:
        wheres = {part.path: where for where, part in here}
        for part in reader.by_place(cartridge, [part for _, part in here]):
            where = wheres[part.path]
            planned = self._planned.get((where.point.id, part.file))
            if planned is None:
                assert where.directory is not None, "a small file without a place"
                data = reader.small(cartridge, part)
                write_small(_small_path(where.directory, part), data, overwrite=self._job.overwrite)
            elif planned.title not in self._failed:
                self._feed(cartridge, self._disk(where.point.id, planned), part)

    def _disk(self, point_id: str, planned: _Planned) -> _Disk:
        """The disk, begun if this is its first part."""
        found = self._disks.get((point_id, planned.image.file))
        if found is None:
            closing = self._stack.enter_context(ExitStack())
            crew = closing.enter_context(Crew("restore"))
            found = _Disk(planned, crew.channel(_PIECES_AHEAD), crew, closing)
            self._disks[point_id, planned.image.file] = found
            crew.start(self._unpack, found)
        return found

    def _unpack(self, disk: _Disk) -> None:
        """A disk's own thread."""
        job, planned, image = self._job, disk.planned, disk.planned.image
        with (
            job.watcher.disk(planned.title, image.size_bytes) as advance,
            output.new_file(planned.path, image.size_bytes, overwrite=job.overwrite) as out,
        ):
            expected = Expected(image.size_bytes, image.sha256)
            name = f"{planned.title} ({image.file})"
            done = unpack(disk.pieces, FreshFile(out), expected, name=name, workers=job.workers, progress=advance)
            out.commit()
        disk.restored.append(RestoredDisk(image.key, planned.path, image.size_bytes, done.bytes_zero))

    def _feed(self, cartridge: Cartridge, disk: _Disk, part: ArchivedPart) -> None:
        """Give a part to its disk. Damage fails the disk; whatever else goes wrong ends it all."""
        try:
            try:
                for piece in reader.pieces(cartridge, part):
                    disk.pieces.put(piece)
                if part == disk.planned.image.parts[-1]:
                    disk.pieces.close()
                    disk.crew.join()
                    self._restored += disk.restored
            except (Closed, IntegrityError) as error:
                disk.closing.__exit__(type(error), error, error.__traceback__)
                raise
        except IntegrityError as error:
            self._failed[disk.planned.title] = str(error)
            self._job.watcher.said(f"{disk.planned.title}: {error}")


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
    delta = next((image for image in chosen if image.kind is Kind.DELTA), None)
    if delta is not None:
        raise UsageError(f"{document.name} {delta.key} is a delta image")
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
