"""Snapshot records are written while our lock is held, and known to have been held; index files: ``listing``.

    look at our lock ─▶ write the record ─▶ look again ─ gone ─▶ withdraw it

Somebody may take our lock for stale (his clock is wrong, this machine slept), remove it, and prune what we rely on. A
prune that does not see our file listed them before it was there, and began after our lock was gone. So when the lock is
still there, after the file, every prune sees that. One look before is not enough: the process may sleep in between.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from vcbproxy.errors import Error
from vcbproxy.repository.backend.base import Backend, FileName
from vcbproxy.repository.lock import HeldLock


def committed(backend: Backend, held: HeldLock, save: Callable[[], FileName]) -> FileName:
    """Write a snapshot record; all it needs is durable. Gives its name.

    Raises:
        TargetError: it could not be stored, or our lock was removed: then there is no such file.
    """

    def withdraw(name: FileName, _: Error) -> None:
        with suppress(Error):  # that our lock is gone is what must be told
            backend.remove(name)

    return confirmed(held, save, withdraw)


def confirmed(held: HeldLock, save: Callable[[], FileName], undo: Callable[[FileName, Error], None]) -> FileName:
    """Write a file between two looks at our lock. Gives its name.

    Args:
        held: the lock that must be there all the time.
        save: writes the file.
        undo: told of a file that was written although the lock was gone by then, and of the error that says so.

    Raises:
        TargetError: it could not be stored, or our lock was removed.
    """
    held.confirm()
    name = save()
    try:
        held.confirm_kept()
    except Error as error:
        undo(name, error)
        raise
    return name
