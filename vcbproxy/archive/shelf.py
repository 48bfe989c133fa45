"""Where cartridges come from: the seam between what is written and whoever owns the media.

writer of images ──▶ Shelf ──▶ a cartridge of the pool with room, in a drive, its volume mounted
                       ▲
                       └─ the library's pools, or in tests a row of emulated cartridges
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from tape.errors import MediumError
from tape.ltfs.volume import LtfsVolume


@dataclass(frozen=True, slots=True)
class Cartridge:
    """One that lies in a drive.

    Attributes:
        barcode: its label.
        media_set: those that it is kept and expires together with.
        volume: its LTFS volume, mounted.
        unreadable: told of each place of it that cannot be read: whoever reads on elsewhere leaves it without an error.
    """

    barcode: str
    media_set: str
    volume: LtfsVolume
    unreadable: Callable[[MediumError], None] = lambda error: None


class Shelf(Protocol):
    """Cartridges to write to and to read from. May be asked by several threads, each using a drive of its own."""

    @property
    def pool(self) -> str:
        """The pool's name."""
        ...

    def for_writing(self) -> AbstractContextManager[Cartridge]:
        """A cartridge with room, that no other thread writes to. Left without an error, its volume is committed.

        One left full is not given again. Left with an error, what was committed stays, and the drive is let go.

        Raises:
            CartridgeWanted: the pool has none left; which labels would do is said.
            Busy: every drive is taken.
        """
        ...

    def for_reading(self, barcode: str) -> AbstractContextManager[Cartridge]:
        """A certain cartridge; its volume is not written to.

        Raises:
            CartridgeWanted: it is not in the library.
            Busy: every drive is taken.
        """
        ...
