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
from types import TracebackType
from typing import Self

from jobs.restore import RestoredDisk, make_directory, require_free, write_small
from jobs.tapedevice import Loaded, open_disk
from jobs.tapedisk import Place, Step, TapeDisk
from jobs.tapesalvage import Salvaged, salvage_disk
from jobs.watcher import Watcher
from vcbproxy.archive import layout, reader
from vcbproxy.archive.agekeys import Identities
from vcbproxy.archive.bases import with_bases
from vcbproxy.archive.manifest import Document, Image, Kind
from vcbproxy.archive.remembered import Remembered
from vcbproxy.archive.shelf import Cartridge, Shelf
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.clock import Clock
from vcbproxy.device import read
from vcbproxy.errors import CartridgeWanted, IntegrityError, Partial, UsageError
from vcbproxy.pipeline import output
from vcbproxy.units import MiB

_LOOK_AGAIN_S = 10.0
_STEP_BYTES = 4 * MiB


@dataclass(frozen=True, slots=True)
class Where:
    """One restore point that is wanted, and where its files go.

    Attributes:
        point: as the catalog has it.
        keys: the disks that are wanted; none: all.
        directory: for all that is restored.
        output: for one disk alone, in its stead.
        prove: nothing is written, all is read and proved to be whole.
    """

    point: ArchivedPoint
    directory: Path | None = None
    output: Path | None = None
    keys: tuple[str, ...] = ()
    prove: bool = False


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
        remembered: what this proxy knows without a cartridge.
        salvage: of damaged disks, write what can still be read, under another name.
    """

    shelf: Shelf
    watcher: Watcher
    clock: Clock
    wait: bool = False
    overwrite: bool = False
    workers: int = 2
    identities: Identities | None = None
    remembered: Remembered | None = None
    salvage: bool = False

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
        proved = [where.point for where in wanted if where.prove]
        built = with_bases([where.point for where in wanted if not where.prove], known)
        points = list({point.id: point for point in (*proved, *built)}.values())
        with _Pass(self, wanted, points, documents or self.documents(points)) as reading:
            return reading.run()

    def part(
        self, point: ArchivedPoint, key: str, path: Path, part: tuple[int, int], known: Sequence[ArchivedPoint]
    ) -> RestoredDisk:
        """Write a part of a disk to a file: (offset, length).

        Raises:
            UsageError: there is no such disk, the part is not in it, or it is encrypted.
            IntegrityError: it is damaged.
            CartridgeWanted: a cartridge is not there, and is not waited for.
        """
        require_free(path, overwrite=self.overwrite)
        points = with_bases([point], known)
        documents = self.documents(points)
        document = documents[point.id]
        [image] = chosen(document, (key,))
        offset, length = part
        if offset + length > image.size_bytes:
            raise UsageError(f"{document.name} {key} has {image.size_bytes} bytes; the range ends at {offset + length}")
        steps = steps_of(document, image, documents)
        files = [next(one.parts for one in points if one.id == step.point_id) for step in steps]
        with Loaded(self.loaded) as loaded, output.new_file(path, length, overwrite=self.overwrite) as out:
            disk = open_disk(steps, files, loaded)
            for at in range(0, length, _STEP_BYTES):
                piece = read(disk, offset + at, min(_STEP_BYTES, length - at))
                out.write_at(at, memoryview(piece))
            out.commit()
        return RestoredDisk(key, path, length, 0)

    def documents(self, points: Sequence[ArchivedPoint]) -> Mapping[str, Document]:
        """What restore points consist of, by their ids.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
            IntegrityError: a ``vm.json`` cannot be read.
        """
        found = {point.id: known for point in points if (known := self._remembered(point)) is not None}
        unknown = [point for point in points if point.id not in found]
        for barcode in dict.fromkeys(reader.last_word(point).barcode for point in unknown):
            here = [point for point in unknown if reader.last_word(point).barcode == barcode]
            with self.loaded(barcode) as cartridge:
                found.update((point.id, reader.document_of(cartridge, point)) for point in here)
        return found

    def _remembered(self, point: ArchivedPoint) -> Document | None:
        """By this proxy's own copy, where that is what lies on the cartridge."""
        if self.remembered is None:
            return None
        return self.remembered.document_like(point.id, reader.last_word(point).sha256)

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
class Proved:
    """An image that is whole: of which restore point and disk, and how large what came out of it was."""

    point: str
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, and what did not: reasons by disk, or by file."""

    disks: list[RestoredDisk]
    failed: dict[str, str]
    missing: dict[str, str]
    """Disks that are not in the restore points."""
    salvaged: dict[str, Salvaged] = field(default_factory=dict)
    """What could still be had of disks that failed."""
    proved: list[Proved] = field(default_factory=list)
    """Images that are whole."""

    def __add__(self, other: Restored) -> Restored:
        """Both together."""
        return Restored(
            self.disks + other.disks,
            {**self.failed, **other.failed},
            {**self.missing, **other.missing},
            {**self.salvaged, **other.salvaged},
            self.proved + other.proved,
        )

    def raise_unless_whole(self) -> None:
        """Turn damage into the error that has its exit code.

        Raises:
            IntegrityError: some disk is damaged.
            Partial: some disk of a VM is not in its restore point.
        """
        if self.failed:
            told = "; ".join(f"{what}: {reason}" for what, reason in self.failed.items())
            hint = "" if self.salvaged else "; --salvage writes what can still be read"
            saved = "".join(
                f"; {one.path} lacks {one.missing_bytes} bytes, by {one.path.name}.map"
                for one in self.salvaged.values()
            )
            raise IntegrityError(f"not restored: {told}{saved}{hint}")
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
        self._failed: dict[str, str] = {}
        self._proved: set[tuple[str, str]] = set()

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
        whole = [(disk, disk.restored) for disk in self._disks if disk.restored is not None]
        restored = [done for disk, done in whole if disk.place.path is not None]
        proved = [
            Proved(disk.steps[-1].name, done.key, done.size_bytes) for disk, done in whole if disk.place.path is None
        ]
        damaged = [disk for disk in self._disks if disk.error is not None]
        failed = {**{disk.place.title: str(disk.error) for disk in damaged}, **self._failed}
        salvaged = {disk.place.title: self._salvage(disk) for disk in damaged} if self._job.salvage else {}
        return Restored(restored, failed, self._missing, salvaged, proved)

    def _salvage(self, disk: TapeDisk) -> Salvaged:
        assert disk.place.path is not None, "nothing is salvaged where nothing is restored"
        self._job.watcher.said(f"{disk.place.title}: salvaging what can be read")
        files = [self._point(step.point_id).parts for step in disk.steps]
        with Loaded(self._job.loaded) as loaded:
            return salvage_disk(
                disk.steps, files, disk.place.path, loaded, self._job.watcher, overwrite=self._job.overwrite
            )

    def _point(self, point_id: str) -> ArchivedPoint:
        return next(point for point in self._points if point.id == point_id)

    def _needs(self, point_id: str, part: ArchivedPart) -> bool:
        key = point_id, part.file
        return key in self._consumers or key in self._small or key in self._proved

    def _plan(self, where: Where) -> None:
        """See what is to be read of a restore point, and that nothing stands in the way of its last file."""
        job, document = self._job, self._documents[where.point.id]
        if where.prove:
            self._plan_proof(where, document)
            return
        if where.directory is not None:
            make_directory(where.directory)
        for image in _images(document, where):
            path = _path_of(image, where)
            require_free(path, overwrite=job.overwrite)
            place = Place(f"{document.name} {image.key}", path, job.overwrite, job.workers, job.identities)
            self._add(TapeDisk(place, steps_of(document, image, self._documents), job.watcher))
        if where.directory is not None:
            streamed = {image.file for image in document.images} | {image.ranges for image in document.images}
            for part in where.point.parts:
                if part.file not in streamed:
                    path = _small_path(where.directory, part)
                    require_free(path, overwrite=job.overwrite)
                    self._small.setdefault((where.point.id, part.file), []).append(path)
        if not where.keys:
            self._missing |= {f"{document.name} {told.partition(':')[0]}": told for told in document.missing_disks}

    def _plan_proof(self, where: Where, document: Document) -> None:
        """Everything of it is read, and each image proved by itself."""
        for image in document.images:
            place = Place(f"{document.name} {image.key}", None, False, self._job.workers, self._job.identities)
            disk = TapeDisk(place, [Step(document.id, document.name, image)], self._job.watcher)
            self._disks.append(disk)
            self._consumers.setdefault((document.id, image.file), []).append((disk, 0))
        images = {image.file for image in document.images}
        self._proved |= {(document.id, part.file) for part in where.point.parts if part.file not in images}

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
            self._read_small(cartridge, point_id, part)
            consumers = [one for one in self._consumers.get((point_id, part.file), ()) if one[0].error is None]
            if consumers:
                self._feed(cartridge, part, consumers, last=self._is_last(point_id, part))

    def _read_small(self, cartridge: Cartridge, point_id: str, part: ArchivedPart) -> None:
        """A small file, to wherever it is wanted."""
        key = point_id, part.file
        paths = self._small.get(key, ())
        if not paths and key not in self._proved:
            return
        try:
            data = reader.small(cartridge, part)
        except IntegrityError as error:
            self._failed[f"{self._point(point_id).name} {part.file}"] = str(error)
            self._job.watcher.said(str(error))
            return
        for path in paths:
            write_small(path, data, overwrite=self._job.overwrite)

    def _is_last(self, point_id: str, part: ArchivedPart) -> bool:
        point = self._point(point_id)
        return part.number == max(other.number for other in point.parts if other.file == part.file)

    def _feed(
        self, cartridge: Cartridge, part: ArchivedPart, consumers: Sequence[tuple[TapeDisk, int]], *, last: bool
    ) -> None:
        """Give a part to the disks that are made of it. Damage fails these; whatever else goes wrong ends it all."""
        is_map = any(disk.steps[step].image.ranges == part.file for disk, step in consumers)
        try:
            for piece in _proved_map(cartridge, part) if is_map else reader.pieces(cartridge, part):
                for disk, step in consumers:
                    disk.put(step, part.file, piece)
        except IntegrityError as error:
            for disk, _ in consumers:
                disk.fail(error)
            return
        if last:
            for disk, step in consumers:
                disk.end(step, part.file)


def _proved_map(cartridge: Cartridge, part: ArchivedPart) -> Iterator[memoryview]:
    """A part of a map, proved by its digest.

    Images have checksums of their own; but one wrong digit in a map would put good bytes to a wrong place.
    """
    data = reader.small(cartridge, part)
    if data:
        yield memoryview(data)


def steps_of(document: Document, image: Image, documents: Mapping[str, Document]) -> list[Step]:
    """A disk's images, the whole one first.

    Args:
        document: of the restore point.
        image: of the disk in it.
        documents: of all that it builds on, too.

    Raises:
        IntegrityError: something that it builds on is not there.
    """
    steps = [Step(document.id, document.name, image)]
    while image.kind is Kind.DELTA:
        base = documents.get(document.base.id) if document.base is not None else None
        key = image.base_key or image.key
        found = next((one for one in base.images if one.key == key), None) if base is not None else None
        if base is None or found is None or found.size_bytes != image.size_bytes:
            raise IntegrityError(f"{document.name} {image.key}: what it builds on is not there")
        document, image = base, found
        steps.append(Step(document.id, document.name, image))
    return steps[::-1]


def chosen(document: Document, keys: Sequence[str]) -> list[Image]:
    """The disks that are wanted; all when none is named.

    Raises:
        UsageError: there is no such disk.
    """
    available = [image.key for image in document.images]
    for key in keys:
        if key not in available:
            raise UsageError(f"{document.name} has no disk {key!r}; it has {', '.join(available) or 'none'}")
    return [image for image in document.images if not keys or image.key in keys]


def _images(document: Document, where: Where) -> list[Image]:
    """The disks that are wanted.

    Raises:
        UsageError: there is no such disk, or not one where one is wanted.
    """
    found = chosen(document, where.keys)
    if where.output is not None and len(found) != 1:
        available = ", ".join(image.key for image in document.images)
        raise UsageError(f"--output takes one disk; choose with --disk among {available}")
    return found


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
