"""What goes wrong while a cartridge is written, in our terms: never that something stored is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tape.errors import FilesLost, MediumError, TapeError, VerifyFailed, WriteProtected
from vcbproxy.archive.boundary import tape_errors
from vcbproxy.errors import CartridgeFailed, Error, IntegrityError, TargetError

_OF_THE_CARTRIDGE = (MediumError, WriteProtected, VerifyFailed, FilesLost)


@contextmanager
def writing() -> Iterator[None]:
    """While something is written.

    Raises:
        CartridgeFailed: the cartridge does not take it; another one may.
        TargetError: it could not be written.
        Busy: another program or host has the device.
        CartridgeWanted: it is not in the library.
    """
    try:
        with tape_errors():
            yield
    except Error as error:
        cause = error.__cause__
        if isinstance(cause, _OF_THE_CARTRIDGE) and not isinstance(error, CartridgeFailed):
            raise CartridgeFailed(str(error)) from cause
        if isinstance(error, IntegrityError) and isinstance(cause, TapeError):
            raise TargetError(str(error)) from cause
        raise
