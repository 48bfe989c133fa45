"""What is wanted of a restore point on tape: which disks, made of which images, and where each file goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.tapedisk import Step
from vcbproxy.archive import layout
from vcbproxy.archive.manifest import Document, Image, Kind
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.errors import IntegrityError, UsageError


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


def names_of(points: Sequence[ArchivedPoint]) -> dict[str, str]:
    """What messages call these, by their ids: copies of one restore point bear the same name, and are told apart."""
    count = Counter(point.name for point in points)
    return {point.id: point.name if count[point.name] == 1 else f"{point.name} ({point.id[:8]})" for point in points}


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


def images(document: Document, where: Where) -> list[Image]:
    """The disks that are wanted.

    Raises:
        UsageError: there is no such disk, or not one where one is wanted.
    """
    found = chosen(document, where.keys)
    if where.output is not None and len(found) != 1:
        available = ", ".join(image.key for image in document.images)
        raise UsageError(f"--output takes one disk; choose with --disk among {available}")
    return found


def path_of(image: Image, where: Where) -> Path:
    """Where a disk goes."""
    if where.output is not None:
        return where.output
    assert where.directory is not None, "no place for it"
    return where.directory / f"{layout.safe_name(image.key)}.raw"


def small_path(directory: Path, part: ArchivedPart) -> Path:
    """Where a small file goes. What lies on a cartridge says so, and may say anything.

    Raises:
        IntegrityError: it would lead out of the directory.
    """
    if layout.safe_name(part.file) != part.file:
        raise IntegrityError(f"{part.path} on {part.barcode}: {part.file!r:.80} is no name for a file")
    return directory / part.file
