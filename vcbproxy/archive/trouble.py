"""What goes wrong while a cartridge is written, in our terms: never that something stored is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tape.errors import TapeError
from vcbproxy.archive.boundary import tape_errors
from vcbproxy.errors import IntegrityError, TargetError


@contextmanager
def writing() -> Iterator[None]:
    """While something is written.

    Raises:
        TargetError: it could not be.
        Busy: another program or host has the device.
        CartridgeWanted: it is not in the library.
    """
    try:
        with tape_errors():
            yield
    except IntegrityError as error:
        if not isinstance(error.__cause__, TapeError):
            raise
        raise TargetError(str(error)) from error.__cause__
