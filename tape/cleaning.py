"""Drives cleaned: with cartridges labelled CLN…, whose uses are counted, for nobody can ask them how many are left.

drive asks (TapeAlert 20, 21) ──▶ cleaning cartridge into it ──▶ minutes ──▶ given out by the drive ──▶ home
                                                                    └ TapeAlert 22: used up, never taken again
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tape import alerts
from tape.cleaninglog import CleaningLog
from tape.elements import CLEANING_PREFIX, ElementKind, Inventory
from tape.errors import LibraryError, NoMedium, NotReady, UnitAttention
from tape.scsi import cdb
from tape.seating import Seating
from tape.sequential import SequentialDrive

_ARRIVAL_S = 60.0
_CLEANING_S = 1800.0  # some take ten minutes
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was done.

    Attributes:
        barcode: with which cartridge.
        uses: how often that has cleaned, this time among them.
        left: how often it should still do.
    """

    barcode: str
    uses: int
    left: int


def clean(
    seating: Seating,
    serial: str,
    log: CleaningLog,
    *,
    barcode: str | None = None,
    wait_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Cleaned:
    """Clean a drive; a cartridge that idles in it is brought home before.

    Args:
        seating: of the drive's library.
        serial: the drive's number.
        log: where uses are counted.
        barcode: the cartridge to take; else the most used of those that can still clean.
        wait_s: how long to wait for the drive.
        sleep: waits so many seconds.
        monotonic: a clock, in seconds.

    Raises:
        CartridgeMissing: the one that was asked for is not in the library.
        LibraryError: there is none that can clean, or this one can no more.
        InUse: the drive is taken.
        TapeError: it failed; the cartridge may still be in the drive.
    """
    tried: set[str] = set()
    while True:
        chosen = _chosen(seating.inventory(), log, barcode, tried)
        tried.add(chosen)
        with seating.seated(chosen, serial, wait_s=wait_s) as drive:
            _wait_cleaned(seating, serial, drive, sleep, monotonic)
            found = {one.number for one in alerts.read(drive)}
        if found & {alerts.CLEANING_EXPIRED, alerts.CLEANING_INVALID}:
            log.expired(chosen)
            if barcode is not None:
                raise LibraryError(f"{seating.name}: {alerts.alert(min(found))}; take {chosen} out")
            continue
        known = log.used(chosen, serial)
        if alerts.CLEAN_NOW in found:
            log.ask(serial)
            raise LibraryError(f"{seating.name}: drive {serial} still asks to be cleaned, after {chosen} cleaned it")
        return Cleaned(chosen, known.uses, known.left)


def cartridges(inventory: Inventory) -> list[str]:
    """Labels of the cleaning cartridges that lie in slots."""
    slots = inventory.of_kind(ElementKind.SLOT)
    return [one.barcode for one in slots if one.full and one.barcode.startswith(CLEANING_PREFIX)]


def _chosen(inventory: Inventory, log: CleaningLog, barcode: str | None, tried: set[str]) -> str:
    if barcode is not None:
        inventory.where(barcode)
        if not barcode.startswith(CLEANING_PREFIX):
            raise LibraryError(f"{inventory.name}: {barcode} is no cleaning cartridge: those are labelled CLN…")
        if not log.of(barcode).left:
            raise LibraryError(f"{inventory.name}: {barcode} is used up; take it out")
        return barcode
    usable = [one for one in cartridges(inventory) if log.of(one).left and one not in tried]
    if not usable:
        there = ", ".join(cartridges(inventory)) or "none at all"
        raise LibraryError(
            f"{inventory.name}: no cleaning cartridge that can still clean; there are: {there}; "
            "put in one that is labelled CLN…"
        )
    return max(usable, key=lambda one: log.of(one).uses)


def _wait_cleaned(
    seating: Seating,
    serial: str,
    drive: SequentialDrive,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> None:
    """Until the drive has given the cartridge out, by its own word or as the robot sees it."""
    start_s = monotonic()
    begun = False
    while monotonic() < start_s + _CLEANING_S:
        state = _state(drive)
        if state is _State.NOTHING and (begun or monotonic() >= start_s + _ARRIVAL_S):
            return
        if state is _State.LOADED:
            raise LibraryError(f"{seating.name}: drive {serial} takes what it was given for a data cartridge")
        given_out = seating.inventory().drive(serial).accessible
        if begun and given_out and state is _State.CLEANING_CARTRIDGE:
            return
        begun = begun or state is not _State.NOTHING
        sleep(_LOOK_AGAIN_S)
    raise LibraryError(f"{seating.name}: drive {serial} has not finished cleaning after {_CLEANING_S / 60:.0f} minutes")


class _State(Enum):
    """What a drive says of what is in it."""

    NOTHING = "nothing"
    CLEANING_CARTRIDGE = "cleaning cartridge"
    BUSY = "busy"
    LOADED = "loaded"


def _state(drive: SequentialDrive) -> _State:
    try:
        drive.unit.run(cdb.test_unit_ready(), "test unit ready")
    except NoMedium:
        return _State.NOTHING
    except NotReady as error:
        return _State.CLEANING_CARTRIDGE if error.asc == 0x30 else _State.BUSY
    except UnitAttention:
        return _State.BUSY
    return _State.LOADED
