"""One pass over cartridges: each is loaded once where that can be, and every part on it given to what is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.restore import make_directory, require_free, write_small
from jobs.tapedevice import Loaded
from jobs.tapedisk import Place, Step, TapeDisk
from jobs.tapereading import TapeReading
from jobs.taperestored import Proved, Restored
from jobs.tapesalvage import Salvaged, salvage_disk
from jobs.tapewanted import Where, images, names_of, path_of, small_path, steps_of
from vcbproxy.archive import layout, reader
from vcbproxy.archive.manifest import Document
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.archive.visits import visits
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.errors import IntegrityError


class Pass:
    """One pass over all cartridges."""

    def __init__(
        self,
        job: TapeReading,
        wanted: Sequence[Where],
        points: Sequence[ArchivedPoint],
        documents: Mapping[str, Document],
        lost: Mapping[str, IntegrityError],
    ) -> None:
        """``lost``: why the documents of some restore points cannot be read."""
        self._job = job
        self._wanted = wanted
        self._points = points
        self._names = names_of(points)
        self._documents = documents
        self._lost = lost
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
        for barcode, here in visits(self._sequences()):
            with self._job.loaded(barcode) as cartridge:
                self._read(cartridge, here)
        for disk in self._disks:
            disk.close(None)
        whole = [(disk, disk.restored) for disk in self._disks if disk.restored is not None]
        restored = [done for disk, done in whole if disk.place.path is not None]
        proved = [
            Proved(disk.steps[-1].point_id, done.key, done.size_bytes)
            for disk, done in whole
            if disk.place.path is None
        ]
        damaged = [disk for disk in self._disks if disk.error is not None]
        failed = {**{disk.place.title: str(disk.error) for disk in damaged}, **self._failed}
        salvaged = {disk.place.title: self._salvage(disk) for disk in damaged} if self._job.salvage else {}
        suspects = [one.point.name for one in self._wanted if one.point.suspect and not one.prove]
        return Restored(restored, failed, self._missing, salvaged, proved, suspects)

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

    def _sequences(self) -> Iterator[list[tuple[str, tuple[str, ArchivedPart]]]]:
        """What has to be read in which order: of each disk, step by step, the map before the image that it is of."""
        files: dict[tuple[str, str], list[tuple[str, tuple[str, ArchivedPart]]]] = {}
        for point in self._points:
            for part in sorted(point.parts, key=lambda part: part.number):
                files.setdefault((point.id, part.file), []).append((part.barcode, (point.id, part)))
        for disk in self._disks:
            named = [(step.point_id, file) for step in disk.steps for file in (step.image.ranges, step.image.file)]
            yield [one for key in named if key in self._consumers for one in files.get((key[0], key[1] or ""), ())]
        yield from (files.get(key, []) for key in (*self._small, *self._proved))

    def _plan(self, where: Where) -> None:
        """See what is to be read of a restore point, and that nothing stands in the way of its last file."""
        name = self._names[where.point.id]
        if where.point.id in self._lost:
            error = self._lost[where.point.id]
            self._failed[f"{name} {layout.VM_JSON}"] = "; ".join((str(error), *error.__notes__))
            return
        job, document = self._job, self._documents[where.point.id]
        if where.prove:
            self._plan_proof(where, document)
            return
        if where.directory is not None:
            make_directory(where.directory)
        for image in images(document, where):
            path = path_of(image, where)
            require_free(path, overwrite=job.overwrite)
            place = Place(f"{name} {image.key}", path, job.overwrite, job.workers, job.identities)
            try:
                steps = steps_of(document, image, self._documents)
            except IntegrityError as error:
                self._failed[place.title] = str(error)
                continue
            self._add(TapeDisk(place, steps, job.watcher))
        if where.directory is not None:
            streamed = {image.file for image in document.images} | {image.ranges for image in document.images}
            for part in where.point.parts:
                if part.file not in streamed:
                    path = small_path(where.directory, part)
                    require_free(path, overwrite=job.overwrite)
                    self._small.setdefault((where.point.id, part.file), []).append(path)
        if not where.keys:
            self._missing |= {f"{name} {told.partition(':')[0]}": told for told in document.missing_disks}

    def _plan_proof(self, where: Where, document: Document) -> None:
        """Everything of it is read, and each image proved by itself."""
        name = self._names[where.point.id]
        for image in document.images:
            place = Place(f"{name} {image.key}", None, False, self._job.workers, self._job.identities)
            disk = TapeDisk(place, [Step(document.id, document.name, image)], self._job.watcher)
            self._disks.append(disk)
            self._consumers.setdefault((document.id, image.file), []).append((disk, 0))
        streamed = {image.file for image in document.images}
        self._proved |= {(document.id, part.file) for part in where.point.parts if part.file not in streamed}

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
            self._failed[f"{self._names[point_id]} {part.file}"] = str(error)
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
