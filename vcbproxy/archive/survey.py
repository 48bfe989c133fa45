"""What lies on a cartridge, told by its index and the few ``vm.json`` in it: enough to make a catalog anew.

Images are not read. A restore point counts once a ``vm.json`` says that it is whole; the parts that it has on other
cartridges stand in it, and are found there by their marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tape.ltfs.index import File
from tape.ltfs.volume import LtfsVolume
from vcbproxy.archive import layout
from vcbproxy.archive.boundary import tape_errors
from vcbproxy.archive.manifest import BYTES_MAX, Document, State, decode
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.archive.sums import digest
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found on one cartridge.

    Attributes:
        barcode: its label.
        volume_uuid: its volume's.
        points: restore points whose last word lies here, with all their parts, wherever those lie.
        parts: the parts that lie here, by restore point; some may belong to none that was ever finished.
        documents: what the whole restore points' ``vm.json`` say.
        damaged: what could not be read, and why.
    """

    barcode: str
    volume_uuid: str
    points: tuple[ArchivedPoint, ...]
    parts: tuple[tuple[str, ArchivedPart], ...]
    documents: tuple[Document, ...]
    damaged: tuple[str, ...]


def survey(cartridge: Cartridge) -> Survey:
    """Look through one cartridge. Of its data only the ``vm.json`` are read.

    Raises:
        Error: the drive does not answer.
    """
    volume = cartridge.volume
    parts: list[tuple[str, ArchivedPart]] = []
    points: list[ArchivedPoint] = []
    documents: list[Document] = []
    damaged: list[str] = []
    for path, entry in _files(volume):
        mark = layout.Mark.decode(entry.xattrs.get(layout.MARK))
        if mark is None:
            continue
        part = _part(cartridge, path, entry, mark)
        parts.append((mark.point, part))
        if mark.file != layout.VM_JSON:
            continue
        try:
            document = read_document(volume, path, part.sha256)
        except IntegrityError as error:
            damaged.append(str(error))
            continue
        if document.state is State.WHOLE:
            points.append(document.point(part))
            documents.append(document)
    return Survey(cartridge.barcode, volume.uuid, tuple(points), tuple(parts), tuple(documents), tuple(damaged))


def read_document(volume: LtfsVolume, path: str, sha256: str = "") -> Document:
    """Read a ``vm.json``.

    Args:
        volume: where it lies.
        path: of the file.
        sha256: that it must have; any, if not given.

    Raises:
        IntegrityError: it cannot be read, or is none of ours.
    """
    with tape_errors():
        file = volume.open(path)
        if file.size_bytes > BYTES_MAX:
            raise IntegrityError(f"{file.name}: {file.size_bytes} bytes are too many for what it should be")
        data = bytearray(file.size_bytes)
        file.read_into(0, memoryview(data))
    if sha256 and digest(bytes(data)) != sha256:
        raise IntegrityError(f"{file.name} is not what was written: its digest differs")
    return decode(bytes(data), file.name)


def whole(surveys: Iterable[Survey]) -> tuple[list[ArchivedPoint], list[str]]:
    """The restore points that all cartridges together hold, and what is to be said of the others.

    A restore point that has parts on cartridges not looked at is among them: whoever wants it is asked for those.
    """
    looked = list(surveys)
    found = {(point, part) for one in looked for point, part in one.parts}
    seen = {one.barcode: one.volume_uuid for one in looked}
    points: dict[str, ArchivedPoint] = {}
    told: list[str] = []
    for one in looked:
        told += one.damaged
        for point in one.points:
            lost = [part for part in point.parts if _is_lost(point, part, found, seen)]
            if lost:
                where = ", ".join(f"{part.path} on {part.barcode}" for part in lost)
                told.append(f"{point.name} cannot be restored: not found: {where}")
            else:
                points[point.id] = point
    return sorted(points.values(), key=lambda point: (point.time, point.id)), told


def _is_lost(
    point: ArchivedPoint, part: ArchivedPart, found: set[tuple[str, ArchivedPart]], seen: dict[str, str]
) -> bool:
    """Whether its cartridge was looked at, and it is not there as it was recorded: volume, length and digest."""
    return part.barcode in seen and (point.id, part) not in found


def _files(volume: LtfsVolume) -> Iterator[tuple[str, File]]:
    for path, entry in volume.index.root.walk():
        if isinstance(entry, File) and entry.symlink is None:
            yield path, entry


def _part(cartridge: Cartridge, path: str, entry: File, mark: layout.Mark) -> ArchivedPart:
    return ArchivedPart(
        file=mark.file,
        number=mark.number,
        path=path,
        barcode=cartridge.barcode,
        volume_uuid=cartridge.volume.uuid,
        size_bytes=entry.length,
        sha256=entry.xattrs.get(layout.DIGEST, b"").decode("ascii", "replace"),
    )
