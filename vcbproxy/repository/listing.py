"""Index files are written while our lock is held, and mended when it turns out that it was not.

    look at our lock ─▶ write the index file ─▶ look again ─ gone ─▶ take a new lock: now nobody prunes
                                                                     │ are its packs all there?
                                                                     ├ yes ─▶ leave it: what it says is true
                                                                     └ no  ─▶ list those that are, then remove it

A prune that began after our lock was gone may have removed the packs that the file lists. But it must not simply be
withdrawn, as a snapshot record is: another backup may have read it since, have built on what it lists, and be safe.
Without the file its chunks would be in no index, and the next prune would remove them.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcbproxy.clock import Clock
from vcbproxy.errors import Busy, Error
from vcbproxy.repository import indexfile, lock
from vcbproxy.repository.backend.base import FileKind, FileName, exists
from vcbproxy.repository.commit import confirmed
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.lock import HeldLock

_TRIES = 5
_PAUSE_S = 60.0


def listed(files: Files, held: HeldLock, packs: Sequence[PackBlobs], clock: Clock, me: Identity) -> FileName:
    """Write an index file of durable packs. Gives its name.

    Raises:
        TargetError: it could not be stored, or our lock was removed: then it lists what is there, or is not there.
    """

    def save() -> FileName:
        return files.save_sealed(FileKind.INDEX, indexfile.encode(packs))

    def mend(name: FileName, error: Error) -> None:
        try:
            _mend(files, name, packs, clock, me)
        except Error as second:  # that our lock is gone is what must be told
            told = f"index file {name.stem[:8]} may list packs that were pruned meanwhile, run `vcbproxy repo check`"
            error.add_note(f"{told}: {second}")

    return confirmed(held, save, mend)


def _mend(files: Files, name: FileName, packs: Sequence[PackBlobs], clock: Clock, me: Identity) -> None:
    fresh = _acquired(files, clock, me)
    try:
        there = [pack for pack in packs if exists(files.backend, FileName(FileKind.PACK, pack.pack_id.hex()))]
        if len(there) == len(packs):
            return
        if there:
            files.save_sealed(FileKind.INDEX, indexfile.encode(there))
        files.backend.remove(name)
    finally:
        fresh.release()


def _acquired(files: Files, clock: Clock, me: Identity) -> HeldLock:
    """A new lock; a prune at work is waited for, for some minutes."""
    for _ in range(_TRIES - 1):
        try:
            return lock.acquire(files, exclusive=False, clock=clock, me=me)
        except Busy:
            clock.sleep(_PAUSE_S)
    return lock.acquire(files, exclusive=False, clock=clock, me=me)
