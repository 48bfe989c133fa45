"""Who listens to drives: what they complain of is passed on, and those that ask for it are cleaned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tape import alerts, cleaning
from tape.alerts import Alert, Severity
from tape.cleaninglog import CleaningLog
from tape.errors import InUse, TapeError
from tape.seating import Seating
from tape.sequential import SequentialDrive

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a drive complains of.

    Attributes:
        serial: the drive's number.
        barcode: of the cartridge that is in it.
        alert: the complaint.
    """

    serial: str
    barcode: str
    alert: Alert

    def __str__(self) -> str:
        return f"drive {self.serial}, cartridge {self.barcode}: {self.alert}"


def _log_it(heard: Heard) -> None:
    level = logging.INFO if heard.alert.severity is Severity.INFORMATION else logging.WARNING
    _log.log(level, "%s", heard)


class Attendant:
    """Of the drives of one library."""

    def __init__(self, log: CleaningLog | None, heard: Callable[[Heard], None] | None) -> None:
        """Begin to listen.

        Args:
            log: if drives that ask for it are cleaned: where that is remembered.
            heard: told what drives complain of; else it is logged.
        """
        self._cleaning_log = log
        self._heard = heard or _log_it

    def hear(self, serial: str, barcode: str, drive: SequentialDrive) -> None:
        """Pass on what a drive complains of: it does so once. One that cannot be asked is no reason to fail."""
        try:
            found = alerts.read(drive)
        except TapeError as error:
            _log.warning("what drive %s complains of cannot be read: %s", serial, error)
            return
        for one in found:
            self._heard(Heard(serial, barcode, one))
        if alerts.wants_cleaning(found) and self._cleaning_log is not None:
            try:
                self._cleaning_log.ask(serial)
            except TapeError as error:
                _log.warning("that drive %s asks to be cleaned could not be noted: %s", serial, error)

    def clean_if_asked(
        self, seating: Seating, serial: str, *, sleep: Callable[[float], None], monotonic: Callable[[], float]
    ) -> None:
        """Clean a drive that has asked for it, now or before; if that cannot be, it is tried again the next time."""
        log = self._cleaning_log
        if log is None:
            return
        try:
            if not log.asked(serial):
                return
            done = cleaning.clean(seating, serial, log, sleep=sleep, monotonic=monotonic)
        except InUse:
            return  # whoever has it now will see to it
        except TapeError as error:
            _log.warning("drive %s asks to be cleaned, and was not: %s", serial, error)
        else:
            _log.info("drive %s was cleaned with %s, which can do so %d times more", serial, done.barcode, done.left)
