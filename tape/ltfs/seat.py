"""That it is still the same cartridge: once there may be another in the drive, nothing that was known of it holds.

The drive says so once, to whichever command comes first; all later ones it carries out, on whatever lies in it now. Two
cartridges that were written alike end at the same block: an append to the wrong one would even look right.
"""

from __future__ import annotations

from tape.errors import MediumChanged
from tape.sequential import SequentialDrive


class Seat:
    """One cartridge's stay in a drive, from now on."""

    def __init__(self, drive: SequentialDrive) -> None:
        self._drive = drive
        self._changes = drive.unit.changes

    def hold(self) -> None:
        """Refuse to go on with another cartridge.

        Raises:
            MediumChanged: there may be one.
        """
        if self._drive.unit.changes != self._changes:
            raise MediumChanged(
                device=self._drive.name, command="go on", reason="the cartridge may have been changed; mount it again",
                key=6, asc=0x28, ascq=0,
            )  # fmt: skip
