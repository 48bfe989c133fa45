"""Where the tape's errors become ours, for all of ``vcbproxy tape``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vcbproxy.errors import Error, IntegrityError, UsageError


@contextmanager
def tape_errors() -> Iterator[None]:
    """Say in our terms what the tape says in its own.

    Raises:
        IntegrityError: what is on the cartridge is damaged, or is not what it should be.
        UsageError: there is no such thing.
        Error: anything else.
    """
    from tape import errors

    try:
        yield
    except (errors.FormatError, errors.MediumError, errors.EndOfData) as error:
        raise IntegrityError(str(error)) from error
    except errors.TapeError as error:
        raise Error(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error
