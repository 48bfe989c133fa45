"""Who writes on tape, when, and how volumes are mounted by us: the same for all cartridges of a job run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tape.errors import JournalFailed
from tape.ltfs.format import Maker
from tape.ltfs.journal import Journal
from tape.ltfs.recover import for_reading, recover
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hand:
    """Who writes, and when.

    Attributes:
        maker: as labels and indexes have it.
        now: the time, UTC.
        journals: the folder for what is not yet in an index; see ``tape.ltfs.journal``. None: no journals.
    """

    maker: Maker
    now: Callable[[], datetime]
    journals: Path | None = None

    def now_ns(self) -> int:
        """The time, as LTFS has it."""
        moment = self.now()
        return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000

    def mount(self, drive: SequentialDrive) -> LtfsVolume:
        """The volume in a drive, to be written to.

        Raises:
            TapeError: as ``LtfsVolume.mount``.
        """
        return LtfsVolume.mount(drive, self.maker, self.now_ns, journal=self._journal())

    def mount_to_read(self, drive: SequentialDrive) -> LtfsVolume:
        """The volume in a drive, to be read from: also one whose last writer did not finish, as it was before.

        Raises:
            TapeError: as ``LtfsVolume.mount``.
        """
        return for_reading(
            drive, self.maker, self.now_ns, older=lambda error: _log.warning("%s; read as it was before", error)
        )

    def recover(self, drive: SequentialDrive) -> None:
        """Make the volume in a drive whole whose writer died.

        Raises:
            TapeError: as ``tape.ltfs.recover``.
        """
        try:
            done = recover(drive, self.maker, self.now_ns, self._journal())
        except JournalFailed as error:  # of a state that the tape has left behind: it says nothing of this one
            _log.warning("%s", error)
            done = recover(drive, self.maker, self.now_ns)
        _log.warning(
            "%s: its last writer had not finished; %d files found again, %d lost",
            drive.name, len(done.found), len(done.lost),
        )  # fmt: skip

    def _journal(self) -> Journal | None:
        return None if self.journals is None else Journal(self.journals)
