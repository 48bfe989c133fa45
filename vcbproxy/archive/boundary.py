"""Where the tape's errors become ours: once for everything that uses ``tape``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tape import errors
from vcbproxy.errors import Busy, CartridgeWanted, CredentialsError, Error, IntegrityError, TargetError, UsageError

_NOT_WRITTEN = (
    errors.WriteProtected,
    errors.VolumeOverflow,
    errors.PositionLost,
    errors.FilesLost,
    errors.VerifyFailed,
    errors.CannotEncrypt,
    errors.EncryptionLost,
    errors.JournalFailed,
)


@contextmanager
def tape_errors() -> Iterator[None]:
    """Say in our terms what the tape says in its own; the tape's error is the cause of ours.

    Raises:
        CartridgeWanted: it is not in the library.
        Busy: another program or host, or another task of this one, uses the drive or the robot.
        IntegrityError: what is on the cartridge is damaged, or is not what it should be.
        CredentialsError: a drive encrypted it, and this one has no key that fits.
        TargetError: nothing more can be written.
        UsageError: there is no such thing.
        Error: anything else.
    """
    try:
        yield
    except errors.TapeError as error:
        raise translated(error) from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def translated(error: errors.TapeError) -> Error:
    """The same in our terms."""
    if isinstance(error, errors.CartridgeMissing):
        return CartridgeWanted(f"{error}; put it in, and ask again", barcodes=(str(error.barcode),))
    if isinstance(error, errors.KeyWanted):
        return CredentialsError(f"{error}; which key it was written with, its vm.json says")
    if isinstance(error, errors.InUse | errors.Reserved):
        return Busy(str(error))
    if isinstance(error, errors.FormatError | errors.MediumError | errors.EndOfData | errors.WrongCartridge):
        return IntegrityError(str(error))
    if isinstance(error, _NOT_WRITTEN):
        return TargetError(str(error))
    return Error(str(error))
