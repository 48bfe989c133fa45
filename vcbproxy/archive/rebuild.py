"""The catalog made anew from the cartridges: what each says of itself, and the restore points that lie on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tape.elements import CLEANING_PREFIX
from tape.errors import InUse, MediumError, NotReady, TapeError, WrongCartridge
from tape.library import Library
from vcbproxy.archive import stock
from vcbproxy.archive.bases import suspect_with
from vcbproxy.archive.identify import Content
from vcbproxy.archive.keeper import Keeper
from vcbproxy.archive.layout import VM_JSON
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.archive.stock import Seen
from vcbproxy.archive.survey import Survey, survey, whole
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import IntegrityError, UsageError


@dataclass(slots=True)
class Rebuilt:
    """What came of it.

    Attributes:
        seen: the cartridges.
        points: restore points that were found, the oldest first.
        gone: that the catalog had, and that are not on their cartridges.
        told: what else is to be said: files that cannot be read, restore points that are not whole.
        problems: cartridges that could not be looked at, and why.
        waiting: media sets that are kept longer, for cartridges of them may lie elsewhere.
        pinned: names of restore points that are pinned by what cartridges say; the catalog did not know it.
    """

    seen: list[Seen] = field(default_factory=list)
    points: list[ArchivedPoint] = field(default_factory=list)
    gone: list[ArchivedPoint] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)


def rebuild(
    library: Library,
    keeper: Keeper,
    barcodes: Sequence[str] = (),
    *,
    points_too: bool = True,
    recover: bool = False,
    wait_s: float = 0.0,
    progress: Callable[[str, int, int], None] = lambda barcode, number, count: None,
) -> Rebuilt:
    """Look at cartridges, and bring the catalog up to what is on them. Nothing is written to them, unless ``recover``.

    What the catalog knows of other cartridges stays.

    Args:
        library: where they are.
        keeper: of the catalog.
        barcodes: which; all data cartridges in the library, if none are given.
        points_too: also which restore points lie on them.
        recover: volumes of ours whose last writer did not finish are rolled back first; that writes to them.
        wait_s: how long to wait for a drive.
        progress: told before each of them: its label, its number from 1, how many there are.

    Raises:
        TapeError: the robot, or the way to it, is broken.
    """
    inventory = library.inventory()
    rebuilt = Rebuilt()
    pinned = _pinned(keeper)
    by_label = {seen.barcode: seen for seen in stock.by_labels(inventory, keeper)}
    wanted = list(barcodes) or sorted({one for one in inventory.barcodes if not one.startswith(CLEANING_PREFIX)})
    surveys: list[Survey] = []
    for number, barcode in enumerate(wanted, 1):
        progress(barcode, number, len(wanted))
        place = by_label[barcode].place if barcode in by_label else ""
        try:
            with library.loaded(barcode, wait_s=wait_s) as drive, keeper.drive_session(drive):
                seen, found, volume = stock.look(drive, barcode, place, keeper)
                if found.unfinished and recover:
                    keeper.hand.recover(drive)
                    seen, found, volume = stock.look(drive, barcode, place, keeper)
                rebuilt.seen.append(seen)
                if points_too and volume is not None and found.content is Content.OURS:
                    media_set = (found.note.media_set if found.note else None) or ""
                    surveys.append(survey(Cartridge(barcode, media_set, volume)))
        except (MediumError, WrongCartridge, NotReady, InUse, IntegrityError) as error:
            rebuilt.problems[barcode] = str(error)
        except TapeError as error:
            if barcodes:
                raise
            rebuilt.problems[barcode] = str(error)
    stock.by_labels(library.inventory(), keeper)  # now that all of them are known: where each lies
    if points_too:
        _note_points(keeper, surveys, rebuilt)
    rebuilt.pinned = [name for point, name in _pinned(keeper).items() if point not in pinned]
    rebuilt.waiting = _waiting(keeper)
    return rebuilt


def _waiting(keeper: Keeper) -> list[str]:
    holds = keeper.holds()
    longer = [
        medium.media_set
        for medium in keeper.catalog.media.listed()
        if medium.media_set is not None and medium.barcode in holds and holds[medium.barcode].for_unseen
    ]
    return list(dict.fromkeys(longer))


def _pinned(keeper: Keeper) -> dict[str, str]:
    return {pin.point: pin.name for pin in keeper.catalog.marks.pins().values() if pin.holds}


def _note_points(keeper: Keeper, surveys: Sequence[Survey], rebuilt: Rebuilt) -> None:
    whole_ones, rebuilt.told = whole(surveys)
    looked = {one.barcode: one for one in surveys}
    catalog = keeper.catalog
    with catalog.transaction():
        elsewhere = {medium.barcode: medium.volume_uuid for medium in catalog.media.listed()}
        for point in whole_ones:
            over = _written_over(point, looked, elsewhere)
            if over:
                rebuilt.told.append(f"{point.name} cannot be restored: {', '.join(over)} was written over since")
            else:
                rebuilt.points.append(point)
        found = {point.id for point in rebuilt.points}
        volumes = {barcode: medium.volume_uuid for barcode in looked if (medium := catalog.media.get(barcode))}
        for point in catalog.points.listed():
            if point.id not in found and _is_gone(point, looked, volumes):
                rebuilt.gone.append(point)
                catalog.points.remove(point.id)
        for point in rebuilt.points:
            catalog.points.add(point)
        listed = catalog.points.listed()
        _note_suspects(keeper, surveys, listed)
        known = {point.id for point in listed}
    rebuilt.told += [
        f"{point.name} cannot be restored until the cartridges of {point.base}, upon which it builds, were looked at"
        for point in rebuilt.points
        if point.base is not None and point.base not in known
    ]


def _note_suspects(keeper: Keeper, surveys: Sequence[Survey], listed: Sequence[ArchivedPoint]) -> None:
    """What audits found out stands in the ``vm.json`` of the restore point that was made then."""
    by_id = {point.id: point for point in listed}
    for document in (document for one in surveys for document in one.documents):
        found = [by_id[point] for point in document.suspects if point in by_id]
        for point in found:
            with suppress(IntegrityError):  # what it builds upon was not seen: it cannot be restored either
                keeper.catalog.marks.suspect(suspect_with(point, listed), f"the audit of {document.name} found it out")
            keeper.catalog.marks.suspect([point.id], f"the audit of {document.name} found it out")


def complete(keeper: Keeper) -> list[str]:
    """Believe a person that no cartridge is missing: media sets that were read from cartridges end by what these say.

    Returns:
        The pools of which that lifts something.

    Raises:
        UsageError: the catalog knows of something that was not seen yet.
    """
    catalog = keeper.catalog
    with catalog.transaction():
        points = catalog.points.listed()
        volumes = {medium.barcode: medium.volume_uuid for medium in catalog.media.listed()}
        known = {point.id for point in points}
        for point in points:
            if point.base is not None and point.base not in known:
                raise UsageError(f"not all is there: {point.name} builds upon {point.base}, which was not seen")
            for part in point.parts:
                if volumes.get(part.barcode) != part.volume_uuid:
                    raise UsageError(f"not all is there: {point.name} lies on {part.barcode}, which was not seen")
        lifted = [one for one in catalog.sets.listed() if one.taken_in is not None]
        for one in lifted:
            catalog.sets.put(replace(one, taken_in=None))
    return sorted({one.pool for one in lifted})


def _written_over(point: ArchivedPoint, looked: Mapping[str, Survey], volumes: Mapping[str, str | None]) -> list[str]:
    """Cartridges of a restore point that were not looked at, and that hold another volume by now."""
    lost = [
        part.barcode
        for part in point.parts
        if part.barcode not in looked and volumes.get(part.barcode) not in (None, part.volume_uuid)
    ]
    return list(dict.fromkeys(lost))


def _is_gone(point: ArchivedPoint, looked: Mapping[str, Survey], volumes: Mapping[str, str | None]) -> bool:
    """Whether a cartridge that was looked at denies a restore point that no ``vm.json`` on these vouches for.

    One whose ``vm.json`` lies on a cartridge that was not looked at is not gone for that: only what lies here is asked.
    """
    last_word = next((part for part in reversed(point.parts) if part.file == VM_JSON), None)
    for part in point.parts:
        seen = looked.get(part.barcode)
        if seen is None:
            continue
        if seen.volume_uuid != part.volume_uuid:  # of another cartridge under a known label nothing is believed
            denied = volumes.get(part.barcode) != part.volume_uuid
        else:
            denied = part is last_word or not any((one, here.path) == (point.id, part.path) for one, here in seen.parts)
        if denied:
            return True
    return not point.parts
