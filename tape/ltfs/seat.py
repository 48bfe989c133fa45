"""That it is still the same cartridge, and who of us may move it.

Once there may be another cartridge in the drive, nothing that was known of the one before holds.

The drive says so once, to whichever command comes first; all later ones it carries out, on whatever lies in it now. Two
cartridges that were written alike end at the same block: an append to the wrong one would even look right.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tape.errors import MediumChanged
from tape.sequential import SequentialDrive


class Seat:
    """One cartridge's stay in a drive, from now on."""

    def __init__(self, drive: SequentialDrive) -> None:
        self._drive = drive
        self._changes = drive.unit.changes
        self._owner: int | None = None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """For the length of a ``with``, only this thread moves the tape: a ring's, while a file streams through it."""
        assert self._owner is None, "two threads want the same drive"
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = None

    def hold(self) -> None:
        """Refuse to go on with another cartridge.

        Raises:
            MediumChanged: there may be one.
        """
        assert self._owner in (None, threading.get_ident()), "the drive belongs to the thread that streams a file"
        if self._drive.unit.changes != self._changes:
            raise MediumChanged(
                device=self._drive.name, command="go on", reason="the cartridge may have been changed; mount it again",
                key=6, asc=0x28, ascq=0,
            )  # fmt: skip
