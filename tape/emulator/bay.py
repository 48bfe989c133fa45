"""A drive as its own pages see it: what is in it, and what was counted."""

from __future__ import annotations

from typing import Protocol

from tape.emulator.cartridge import Cartridge
from tape.emulator.deck import Deck
from tape.emulator.pace import Pace


class Bay(Protocol):
    """What mode and log pages tell of, and change."""

    deck: Deck
    pace: Pace
    cartridge: Cartridge | None
    alerts: set[int]
    """TapeAlert flags that are up."""
    loads: int
    cleanings: int
