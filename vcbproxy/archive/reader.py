"""Reading what lies on cartridges: a part from its beginning to its end, for whoever joins the parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tape.errors import MediumError
from tape.ltfs.index import File
from tape.ltfs.readahead import ReadAhead
from tape.ltfs.reader import FileReader
from vcbproxy.archive.boundary import tape_errors
from vcbproxy.archive.manifest import Document
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.archive.sums import digest
from vcbproxy.archive.survey import read_document
from vcbproxy.archive.visits import visits
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.errors import IntegrityError


@contextmanager
def reading(cartridge: Cartridge) -> Iterator[None]:
    """While something is read off a cartridge: what cannot be read is told to whoever keeps the catalog.

    Raises:
        IntegrityError: it cannot be read.
        Error: the drive failed.
    """
    try:
        with tape_errors():
            yield
    except IntegrityError as error:
        if isinstance(error.__cause__, MediumError):
            cartridge.unreadable(error.__cause__)
        raise


def pieces(cartridge: Cartridge, part: ArchivedPart) -> Iterator[memoryview]:
    """A part's bytes, in order.

    Raises:
        IntegrityError: it is not there, not as long as was recorded, or cannot be read.
    """
    file = opened(cartridge, part)
    with reading(cartridge), ReadAhead(file) as ahead:
        for piece in ahead:
            yield piece.data


def opened(cartridge: Cartridge, part: ArchivedPart) -> FileReader:
    """A part, to be read by position.

    Raises:
        IntegrityError: it is not there, not as long as was recorded, or has holes: nobody of us makes any, and zeroes
            without end could be made of them.
    """
    hold_same(cartridge, part)
    with reading(cartridge):
        file = cartridge.volume.open(part.path)
    if file.hole_bytes:
        raise IntegrityError(f"{file.name} has holes of {file.hole_bytes} bytes: it was not written by us")
    if file.size_bytes != part.size_bytes:
        raise IntegrityError(f"{file.name} has {file.size_bytes} bytes, {part.size_bytes} were recorded")
    return file


def small(cartridge: Cartridge, part: ArchivedPart) -> bytes:
    """A small file, whole, checked against its digest.

    Raises:
        IntegrityError: it is not what was recorded.
    """
    data = b"".join(pieces(cartridge, part))
    if digest(data) != part.sha256:
        raise IntegrityError(f"{part.path} on {part.barcode} is not what was written: its digest differs")
    return data


def hold_same(cartridge: Cartridge, part: ArchivedPart) -> None:
    """See that the cartridge is the one that was written, and not formatted anew since.

    Raises:
        IntegrityError: it is not.
    """
    if cartridge.volume.uuid != part.volume_uuid:
        raise IntegrityError(
            f"cartridge {cartridge.barcode} holds volume {cartridge.volume.uuid}, {part.path} lay on "
            f"{part.volume_uuid}: it was formatted anew, or another one bears its label"
        )


def document_of(cartridge: Cartridge, point: ArchivedPoint) -> Document:
    """What a restore point consists of, by its ``vm.json``.

    Raises:
        IntegrityError: it cannot be read.
    """
    part = last_word(point)
    hold_same(cartridge, part)
    with reading(cartridge):
        return read_document(cartridge.volume, part.path, part.sha256)


def last_word(point: ArchivedPoint) -> ArchivedPart:
    """Where a restore point's ``vm.json`` lies.

    Raises:
        IntegrityError: nobody knows.
    """
    found = next((part for part in reversed(point.parts) if part.file == "vm.json"), None)
    if found is None:
        raise IntegrityError(f"{point.name}: the catalog names no vm.json; `vcbproxy tape catalog rebuild` finds it")
    return found


def in_order(points: Sequence[ArchivedPoint]) -> list[str]:
    """The cartridges of several restore points, in the order in which they are first read: a delta's base before it."""
    by_id = {point.id: point for point in points}
    own = {point.id: [(barcode, point.id) for barcode in point.barcodes] for point in points}
    wanted = [[*own[base.id][-1:], *own[point.id]] for point in points if (base := by_id.get(point.base or ""))]
    return list(dict.fromkeys(barcode for barcode, _ in visits([*own.values(), *wanted])))


def by_place(cartridge: Cartridge, parts: Sequence[ArchivedPart]) -> list[ArchivedPart]:
    """Parts on one cartridge in the order in which they lie on the tape."""

    def place(part: ArchivedPart) -> tuple[int, int]:
        entry = cartridge.volume.index.find(part.path)
        extents = entry.extents if isinstance(entry, File) else ()
        return (extents[0].start.block, part.number) if extents else (0, part.number)

    return sorted(parts, key=place)
