"""Whether a cartridge may be overwritten: asked of the catalog and of the cartridge, and both must agree.

                         what lies on it
    catalog says    blank     ours, empty   ours                          foreign, unreadable
    ─────────────   ───────   ───────────   ───────────────────────────   ───────────────────
    held            no        no            no                            no
    nothing         yes       yes           no: not known                 no
    scratch         yes       yes           only that volume, past its    no
    expired         yes       yes           own end, of this pool, and    no
                                            with no pin that is news
    released        only what a person released, by its fingerprint, whatever it is
    formatting      what is left when we died while we formatted it, if it is the very cartridge

A pure function: a wrong yes here destroys a backup.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from tape.arrival import same_label
from vcbproxy.archive.identify import Content, Found
from vcbproxy.catalog.expiry import Hold
from vcbproxy.catalog.medium import FOREVER, FORMATTING, Medium, State

_NEVER = (State.RETIRED, State.DAMAGED, State.CLEANING)


def refusal(
    barcode: str,
    found: Found,
    known: Medium | None,
    hold: Hold | None,
    pool: str | None,
    now: datetime,
    pins: Mapping[str, datetime] = MappingProxyType({}),
) -> str | None:
    """Why a cartridge must not be overwritten; None when it may be.

    Args:
        barcode: its label, by the library.
        found: what lies on it.
        known: what the catalog knows of it.
        hold: why the catalog says that it must be kept, if it does.
        pool: which wants it; None when it is only to be formatted.
        now: the time.
        pins: of which restore points, by their ids, the catalog knows whether they are pinned; and since when.
    """
    if known is not None and known.state in _NEVER:
        return f"it is {known.state.value}{f' ({known.reason})' if known.reason else ''}"
    if found.worm and found.content is not Content.BLANK and not found.empty:
        return "it is a WORM cartridge with data"
    if known is not None and known.serial and found.serial and known.serial != found.serial:
        return (
            f"the catalog knows cartridge {known.serial} by this label, and this is {found.serial}: "
            "its label was given away, or two bear it"
        )
    if known is not None and known.released is not None and known.released == found.fingerprint:
        return None
    if hold is not None:
        return f"{hold.because} {until(hold.until)}"
    if found.content is Content.BLANK:
        return None
    if _is_left_half_formatted(found, known):
        return None
    if found.content is not Content.OURS:
        return f"it holds {found.what}; if that is not wanted, see `vcbproxy tape media release {barcode}`"
    return _of_ours(barcode, found, known, pool, now) or _of_pins(barcode, found, pins)


def _is_left_half_formatted(found: Found, known: Medium | None) -> bool:
    """Whether we began to format this very cartridge, and what lies on it is what comes of that."""
    if known is None or known.state is not State.SCRATCH or known.released != FORMATTING:
        return False
    same = bool(known.serial) and known.serial == found.serial
    return same and found.content is Content.UNREADABLE and (found.unfinished or found.volume_uuid is None)


def _of_ours(barcode: str, found: Found, known: Medium | None, pool: str | None, now: datetime) -> str | None:
    note = found.note
    if note is not None and not same_label(note.barcode, barcode):
        return f"it says of itself that it is {note.barcode}: its label is wrong, or was swapped"
    if found.empty:
        return None
    assert note is not None, "only an empty one of ours has none"
    if known is None or known.volume_uuid != found.volume_uuid:
        return (
            f"it holds {found.what}, which the catalog does not know: look with "
            "`vcbproxy tape inventory --full` or `vcbproxy tape catalog rebuild`"
        )
    if note.retention_until is None:
        return f"it holds {found.what}, and does not say how long that is kept"
    if note.retention_until > now:
        return f"it says of itself that it is kept {until(note.retention_until)}"
    if pool is not None and known.state is not State.SCRATCH and note.pool != pool:
        return f"it holds {found.what}, not of {pool}"
    return None


def _of_pins(barcode: str, found: Found, known: Mapping[str, datetime]) -> str | None:
    """That something on it is pinned, by its own word, which the catalog has not heard."""
    for one in found.pins:
        said = known.get(one.pin.point)
        if one.pin.holds and barcode in one.cartridges and (said is None or said < one.pin.changed):
            return (
                f"it says of itself that {one.pin.name} is pinned, which the catalog does not know: "
                f"`vcbproxy tape catalog rebuild {barcode}`"
            )
    return None


def until(moment: datetime) -> str:
    """In words."""
    return "for good" if moment >= FOREVER else f"until {moment:%Y-%m-%dT%H:%M:%SZ}"
