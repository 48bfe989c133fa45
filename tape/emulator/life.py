"""What a cartridge's memory notes of its life: loads, drives, how much was written; and how cleaning uses one up.

Noted when the robot carries it: a cartridge that somebody only looks into, in its folder, is left as it was.
"""

from __future__ import annotations

from tape.elements import CLEANING_PREFIX
from tape.emulator.cartridge import Cartridge
from tape.memory import Attribute, Form, Id

CLEANINGS_MAX = 50
_CLEAN_NOW, _CLEAN_PERIODIC, _EXPIRED = 20, 21, 22
_MIB = 1 << 20
_LAST_DRIVES = 4
_DRIVE_BYTES = 40


def is_cleaning(cartridge: Cartridge | None) -> bool:
    """Whether it is one for cleaning, by its label."""
    return cartridge is not None and cartridge.barcode.startswith(CLEANING_PREFIX)


def is_new(cartridge: Cartridge) -> bool:
    """Whether this is its first load, which counts itself before."""
    return _number(cartridge, Id.LOADS) <= 1


def note_load(tape: Cartridge, vendor: str, serial: str) -> None:
    """It goes into a drive: whose, and which one."""
    _add(tape, Id.LOADS, 1)
    known = tape.attributes(0)
    for place in range(_LAST_DRIVES - 1, 0, -1):
        if (before := known.get(Id.LAST_DRIVE + place - 1)) is not None:
            moved = Attribute(Id.LAST_DRIVE + place, Form.ASCII, before[5:], True)
            tape.set_attribute(0, moved.id, moved.encode())
    name = (vendor.ljust(8)[:8] + serial).encode("ascii").ljust(_DRIVE_BYTES)[:_DRIVE_BYTES]
    tape.set_attribute(0, Id.LAST_DRIVE, Attribute(Id.LAST_DRIVE, Form.ASCII, name, True).encode())


def note_traffic(tape: Cartridge, *, written_bytes: int, read_bytes: int) -> None:
    """It comes out of a drive, in which so much was done."""
    _add(tape, Id.MIB_WRITTEN_IN_LIFE, written_bytes // _MIB)
    _add(tape, Id.MIB_READ_IN_LIFE, read_bytes // _MIB)


def clean(tape: Cartridge, alerts: set[int]) -> None:
    """A cleaning cartridge does its work, as often as it can; loads are counted before. The drive's alerts change."""
    if _number(tape, Id.LOADS) > CLEANINGS_MAX:
        alerts.add(_EXPIRED)
    else:
        alerts -= {_CLEAN_NOW, _CLEAN_PERIODIC}


def _number(tape: Cartridge, identifier: Id) -> int:
    return int.from_bytes(tape.attributes(0).get(identifier, b"")[5:], "big")


def _add(tape: Cartridge, identifier: Id, count: int) -> None:
    value = (_number(tape, identifier) + count).to_bytes(8, "big")
    tape.set_attribute(0, identifier, Attribute(identifier, Form.BINARY, value, True).encode())
