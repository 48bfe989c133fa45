"""Taking stock: what lies in a library, by its labels alone or by looking at each cartridge; the catalog is brought up.

labels    where each known cartridge is now, which are missing, which are not known
look      and what is really on it: what the catalog does not know is taken in, what differs is told
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tape.elements import CLEANING_PREFIX, Element, ElementKind, Inventory
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive
from vcbproxy.archive.identify import Content, Found
from vcbproxy.archive.keeper import Keeper, cleared
from vcbproxy.archive.places import number, place
from vcbproxy.catalog.medium import WITH_DATA, MediaSet, Medium, State


@dataclass(frozen=True, slots=True)
class Seen:
    """One cartridge, as it was seen.

    Attributes:
        barcode: its label; nothing when that cannot be read.
        place: where it lies, in words; nothing when it is not there.
        medium: what the catalog knows of it now; None when it does not know it.
        holds: what lies on it, in words; nothing when nobody looked.
        problem: what is wrong; nothing when all is as it should be.
    """

    barcode: str
    place: str
    medium: Medium | None = None
    holds: str = ""
    problem: str = ""


def by_labels(inventory: Inventory, keeper: Keeper) -> list[Seen]:
    """Note in the catalog where everything is, by the labels."""
    now, library = keeper.hand.now(), keeper.library
    seen: list[Seen] = []
    with keeper.catalog.transaction():
        known = {medium.barcode: medium for medium in keeper.catalog.media.listed()}
        for element in inventory.elements:
            if not element.full:
                continue
            barcode, medium = element.barcode, known.get(element.barcode)
            if medium is None and barcode.startswith(CLEANING_PREFIX):
                medium = Medium(barcode, State.CLEANING)
            if medium is not None:
                leaving = element.kind is ElementKind.MAIL_SLOT and medium.vault is not None
                if not leaving:
                    medium = replace(medium.fetched(), library=library, slot=_slot(element, inventory))
                medium = replace(medium, seen=now)
                keeper.catalog.media.put(medium)
            problem = "" if barcode else "its label cannot be read"
            if barcode and inventory.barcodes.count(barcode) > 1:
                problem = "two cartridges bear this label: neither is used"
            seen.append(Seen(barcode, place(element, inventory), medium, problem=problem))
        present = set(inventory.barcodes)
        fed_by_hand = len(inventory.of_kind(ElementKind.SLOT)) <= 1
        for medium in known.values():
            if medium.library == library and medium.barcode not in present:
                gone = replace(medium, library=None, slot=None)
                keeper.catalog.media.put(gone)
                if not fed_by_hand:  # a drive that stands alone: all but one are always elsewhere
                    seen.append(Seen(medium.barcode, "", gone, problem=f"it is not in library {library} any more"))
    return sorted(seen, key=lambda one: (one.barcode, one.place))


def _slot(element: Element, inventory: Inventory) -> int | None:
    """The slot that it lies in or came from, counted from 1."""
    home = element if element.kind is ElementKind.SLOT else None
    if element.source is not None and element.kind is ElementKind.DRIVE:
        home = next((one for one in inventory.of_kind(ElementKind.SLOT) if one.address == element.source), None)
    return None if home is None else number(home, inventory)


def look(drive: SequentialDrive, barcode: str, place: str, keeper: Keeper) -> tuple[Seen, Found, LtfsVolume | None]:
    """Look at the cartridge in a drive, and bring the catalog up to what is on it. Nothing is written to it.

    Raises:
        TapeError: the drive or the way to it is broken.
    """
    found, volume = keeper.identify(drive)
    now = keeper.hand.now()
    problems: list[str] = []

    def noted(known: Medium | None) -> Medium:
        problem = _difference(known, found)
        if problem:
            problems.append(problem)
        medium = _taken_in(known or Medium(barcode, State.SCRATCH), found, volume, keeper, problem)
        return replace(medium.fetched(), library=keeper.library, seen=now)

    with keeper.catalog.transaction():
        before = keeper.catalog.media.get(barcode)
        medium = keeper.catalog.media.change(barcode, noted)
        if found.note is not None and found.note.media_set is not None and medium.media_set == found.note.media_set:
            _take_in_set(keeper, before, medium, found)
        keeper.catalog.marks.take_in(one.pin for one in found.pins)
    return Seen(barcode, place, medium, found.what, "; ".join(problems)), found, volume


def _difference(known: Medium | None, found: Found) -> str:
    """What the catalog says and the cartridge denies."""
    if found.unfinished and (known is None or known.state not in WITH_DATA):
        return f"it holds {found.what}; see `vcbproxy tape catalog rebuild --recover`"
    if known is None:
        return ""
    if known.serial and found.serial and known.serial != found.serial:
        return f"the catalog knows cartridge {known.serial} by this label, and this is {found.serial}"
    if known.state in WITH_DATA and known.volume_uuid != found.volume_uuid:
        return f"it should hold volume {known.volume_uuid}, and holds {found.what}"
    return ""


def _taken_in(known: Medium, found: Found, volume: LtfsVolume | None, keeper: Keeper, problem: str) -> Medium:
    if problem and known.state not in WITH_DATA:
        return replace(known, state=State.FOREIGN, reason=problem)
    if problem:  # what the catalog says is what restores ask for: it is not given up because of one look
        return replace(known, reason=problem)
    known = replace(known, serial=found.serial or known.serial, worm=found.worm)
    if volume is not None and found.content is Content.OURS:
        if found.empty and known.state not in WITH_DATA:
            return keeper.measured(cleared(known), known.barcode, volume, State.SCRATCH)
        state = State.FULL if volume.full or volume.read_only or (found.note and found.note.full) else State.APPENDABLE
        if known.state is State.SCRATCH and known.volume_uuid == volume.uuid:  # recycled, and not written to since
            state = State.SCRATCH
        return keeper.measured(replace(known, reason=""), known.barcode, volume, state)
    if known.state in WITH_DATA:
        return known
    if found.content is Content.BLANK:
        return cleared(known)
    return replace(known, state=State.FOREIGN, reason=found.what)


def _take_in_set(keeper: Keeper, before: Medium | None, medium: Medium, found: Found) -> None:
    """The set that a cartridge says it belongs to; and whether it says more than was known ``before``.

    Then the catalog was lost, or is of an earlier night, and cartridges that are not here may say more still.
    """
    note = found.note
    assert note is not None, "asked before"
    assert note.media_set is not None, "likewise"
    known = keeper.catalog.sets.get(note.media_set)
    began = note.set_began or note.first_written or keeper.hand.now()
    one = known or MediaSet(note.media_set, note.pool or "", began)
    keeper.note_written(replace(one, taken_in=keeper.hand.now()) if _is_news(before, medium, known) else one, medium)


def _is_news(before: Medium | None, medium: Medium, known: MediaSet | None) -> bool:
    """Whether the catalog was behind the cartridge. What was written before its set was taken in is no further news."""
    if not medium.has_data or medium.last_written is None:
        return False
    if before is not None and (before.volume_uuid, before.last_written) == (medium.volume_uuid, medium.last_written):
        return known is None
    return known is None or known.taken_in is None or known.taken_in < medium.last_written
