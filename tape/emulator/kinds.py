"""Which kind of cartridge a barcode stands for: its last two characters say so (LTO's labels)."""

from __future__ import annotations

import re
from dataclasses import replace

from tape.emulator.cartridge import Kind

BARCODE = re.compile("[0-9A-Z]{1,8}")
_DENSITIES = {"L5": 0x58, "L6": 0x5A, "L7": 0x5C, "M8": 0x5D, "L8": 0x5E, "L9": 0x60}
_WRITE_ONCE = {"LV": "L5", "LW": "L6", "LX": "L7", "LY": "L8", "LZ": "L9"}


def kind_of(barcode: str, like: Kind | None = None) -> Kind:
    """The kind that a label says, in all else like another.

    Raises:
        ValueError: no cartridge can bear such a label.
    """
    if not BARCODE.fullmatch(barcode):
        raise ValueError(f"{barcode!r} is no barcode: up to eight digits and capitals")
    like = like if like is not None else Kind()
    ending = barcode[-2:]
    generation = _WRITE_ONCE.get(ending, ending)
    if generation not in _DENSITIES:
        return like
    worm = like.worm or ending in _WRITE_ONCE
    return replace(like, generation=generation, density=_DENSITIES[generation], worm=worm)
