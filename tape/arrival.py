"""From the robot's letting go of a cartridge until the drive is ready, and is known to hold the right one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tape import encryption, memory
from tape.errors import NoMedium, NotReady, TapeError, WrongCartridge
from tape.scsi import cdb
from tape.sequential import SequentialDrive

_NOTICED_S = 60.0  # how long a drive may take to notice what was put into it
_LONG_S = 90.0  # threading takes less, calibrating more
_LOOK_AGAIN_S = 1.0
_BECOMING_READY = (0x04, 0x01)
_log = logging.getLogger(__name__)


def thread(
    drive: SequentialDrive, barcode: str, sleep: Callable[[float], None], monotonic: Callable[[], float]
) -> None:
    """Have a drive make the cartridge ready that has been put into it.

    Raises:
        NoMedium: none has arrived.
        TapeError: it cannot be loaded.
    """
    until_s = monotonic() + _NOTICED_S
    while True:
        try:
            _await(drive, barcode, monotonic)
            drive.load()
        except NoMedium:
            if monotonic() >= until_s:
                raise
            sleep(_LOOK_AGAIN_S)
        else:
            _forget_leftover(drive)
            return


def _forget_leftover(drive: SequentialDrive) -> None:
    """A program that was killed may have left its key: what comes next would be encrypted with it, and nobody know."""
    identity = encryption.forget_leftover(drive)
    if identity:
        _log.warning("drive %s had the encryption key %s still, and has forgotten it", drive.identity.serial, identity)


def _await(drive: SequentialDrive, barcode: str, monotonic: Callable[[], float]) -> None:
    """Most drives thread as soon as the robot has let go. What takes long is said: nobody should pull a plug."""
    late_s = monotonic() + _LONG_S

    def waiting(error: NotReady) -> None:
        nonlocal late_s
        if monotonic() >= late_s:
            late_s = float("inf")
            _log.warning(
                "drive %s: cartridge %s is not ready yet (%s); a new one may be calibrated, for up to two hours",
                drive.identity.serial, barcode, error.reason,
            )  # fmt: skip

    try:
        drive.unit.run(cdb.test_unit_ready(), "test unit ready")
    except NoMedium:
        raise
    except NotReady as error:
        if (error.asc, error.ascq) == _BECOMING_READY:
            drive.wait_ready(waiting=waiting)
    except TapeError:  # an attention, or a way to the drive that does not let this through: loading will tell
        return


def identify(drive: SequentialDrive, barcode: str) -> None:
    """Hold the label against what the cartridge's memory says; a blank one says nothing.

    Raises:
        WrongCartridge: it is another one.
        TapeError: its memory cannot be read.
    """
    found = memory.read(drive, 0, memory.Id.BARCODE)
    if found is not None and found.text and not same_label(found.text, barcode):
        raise WrongCartridge(barcode=barcode, memory=found.text, drive=drive.identity.serial)


def same_label(one: str, other: str) -> bool:
    """Whether two labels name one cartridge: some robots and programs leave out what says its generation (``L8``)."""
    shorter, longer = sorted((one.strip(), other.strip()), key=len)
    return shorter == longer or (
        len(shorter) >= 6
        and longer[: len(shorter)] == shorter
        and len(longer) == len(shorter) + 2
        and longer[-2].isalpha()  # L8, M8, LA, CU: two more digits make another label
    )
