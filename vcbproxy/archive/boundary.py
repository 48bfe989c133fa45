"""Where the tape's errors become ours: once for everything that uses ``tape``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tape import errors
from vcbproxy.errors import Busy, CartridgeWanted, Error, IntegrityError, UsageError


@contextmanager
def tape_errors() -> Iterator[None]:
    """Say in our terms what the tape says in its own.

    Raises:
        CartridgeWanted: it is not in the library.
        Busy: another program or host, or another task of this one, uses the drive or the robot.
        IntegrityError: what is on the cartridge is damaged, or is not what it should be.
        UsageError: there is no such thing.
        Error: anything else.
    """
    try:
        yield
    except errors.CartridgeMissing as error:
        barcode = str(error.barcode)
        raise CartridgeWanted(f"{error}; put it in, and ask again", barcodes=(barcode,)) from error
    except (errors.InUse, errors.Reserved) as error:
        raise Busy(str(error)) from error
    except (errors.FormatError, errors.MediumError, errors.EndOfData) as error:
        raise IntegrityError(str(error)) from error
    except errors.TapeError as error:
        raise Error(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error
