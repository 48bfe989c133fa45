"""Whether what the catalog says hangs together, and agrees with what lies in the libraries: a pure function."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vcbproxy.catalog.medium import MediaSet, Medium
from vcbproxy.catalog.records import ArchivedPoint, Pin


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that is not as it should be.

    Attributes:
        about: a cartridge, a media set, a restore point.
        what: is wrong with it.
    """

    about: str
    what: str


def complaints(
    media: Sequence[Medium],
    sets: Sequence[MediaSet],
    points: Sequence[ArchivedPoint],
    present: Mapping[str, Collection[str]],
    inside: Collection[str] = (),
    pins: Collection[Pin] = (),
) -> Iterator[Complaint]:
    """Everything that is not as it should be.

    Args:
        media: all cartridges.
        sets: all media sets.
        points: all restore points.
        present: labels of what lies in each library, for those that were looked at.
        inside: of those, the labels of what does not lie in a mail slot.
        pins: what is known of pins.
    """
    known = {medium.barcode: medium for medium in media}
    known_sets = {one.id for one in sets}
    ids = {point.id for point in points}
    for point in points:
        yield from _of_point(point, known, ids)
    for pin in pins:
        if pin.holds and pin.point not in ids:
            gone = f"if it is gone: `vcbproxy points unpin {pin.point[:8]} --on tape`"
            yield Complaint(pin.name, f"it is pinned, and not known: its cartridges were not seen; {gone}")
    for medium in media:
        if medium.has_data and medium.media_set is not None and medium.media_set not in known_sets:
            yield Complaint(medium.barcode, f"it belongs to media set {medium.media_set}, which is not known")
        if medium.has_data and medium.volume_uuid is None:
            yield Complaint(medium.barcode, "it has data, and it is not known of which volume")
        if medium.library is not None and medium.barcode not in present.get(medium.library, (medium.barcode,)):
            yield Complaint(medium.barcode, f"it should be in library {medium.library}, and is not")
        if medium.vault is not None and medium.barcode in inside:
            yield Complaint(medium.barcode, f"it should be in vault {medium.vault}, and is in a library")


def _of_point(point: ArchivedPoint, known: Mapping[str, Medium], ids: Collection[str]) -> Iterator[Complaint]:
    if point.base is not None and point.base not in ids:
        yield Complaint(point.name, f"it builds upon {point.base}, which is not known: it cannot be restored")
    if not point.parts:
        yield Complaint(point.name, "it has no parts")
    for barcode, volume_uuid in dict.fromkeys((part.barcode, part.volume_uuid) for part in point.parts):
        medium = known.get(barcode)
        if medium is None:
            yield Complaint(point.name, f"it lies on {barcode}, which is not known")
        elif medium.volume_uuid != volume_uuid:
            yield Complaint(
                point.name, f"it lies on volume {volume_uuid} of {barcode}, which holds {medium.volume_uuid} now"
            )
