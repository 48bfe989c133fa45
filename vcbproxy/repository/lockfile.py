"""What a lock file says, which of them are there, and which are stale: their holders are surely gone.

stale     older than 30 minutes, or its process is gone from this very host. Never removed in passing:
that is ``repo unlock``'s work, the operator's decision
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from vcbproxy.clock import Clock
from vcbproxy.errors import IntegrityError
from vcbproxy.repository import codec, times
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, FileShort
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.ids import Buffer

STALE = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class LockRecord:
    """What a lock file says."""

    time: datetime
    exclusive: bool
    identity: Identity

    def encode(self) -> bytes:
        """The plaintext of the file."""
        who = self.identity
        fields: dict[str, object] = {
            "time": times.precise(self.time),
            "exclusive": self.exclusive,
            "hostname": who.hostname,
            "username": who.username,
            "pid": who.pid,
        }
        fields |= {name: value for name, value in (("uid", who.uid), ("gid", who.gid)) if value}
        return codec.encode(fields)

    @classmethod
    def decode(cls, plain: Buffer, what: str) -> LockRecord:
        """Read one.

        Raises:
            IntegrityError: malformed.
        """
        fields = codec.Fields(codec.decode(plain, what), what)
        who = Identity(
            fields.text("hostname", ""),
            fields.text("username", ""),
            fields.number("pid", 0),
            fields.number("uid", 0),
            fields.number("gid", 0),
        )
        return cls(fields.moment("time"), fields.flag("exclusive", False), who)

    def is_stale(self, now: datetime, me: Identity) -> bool:
        """Whether its holder is surely gone: too old, or a process of this host that is no more."""
        if now - self.time > STALE:
            return True
        return self.identity.hostname == me.hostname and not _alive(self.identity.pid)

    def __str__(self) -> str:
        who = self.identity
        mode = "exclusively" if self.exclusive else "for reading or adding"
        return f"held {mode} by {who.username}@{who.hostname}, process {who.pid}, since {times.canonical(self.time)}"


@dataclass(frozen=True, slots=True)
class FoundLock:
    """A lock file in the repository; ``record`` is None when it cannot be read."""

    name: FileName
    record: LockRecord | None
    damage: str = ""

    def __str__(self) -> str:
        return str(self.record) if self.record else f"{self.name.path}, unreadable: {self.damage}"


def found(files: Files) -> Iterator[FoundLock]:
    """All locks that are there. Empty files, which a full disk leaves, are none (as newer restic has it)."""
    for stored in files.backend.list(FileKind.LOCK):
        if stored.size_bytes == 0:
            continue
        try:
            yield FoundLock(stored.name, load(files, stored.name))
        except FileMissing:
            continue  # released while we listed
        except (IntegrityError, FileShort) as error:
            yield FoundLock(stored.name, None, str(error))


def remove_stale(files: Files, *, everything: bool, clock: Clock, me: Identity) -> list[FoundLock]:
    """Remove the locks whose holders are gone, or all; returns those removed."""
    removed = []
    for lock in found(files):
        stale = lock.record is not None and lock.record.is_stale(clock.now(), me)
        if stale or everything:
            try:
                files.backend.remove(lock.name)
            except FileMissing:
                continue
            removed.append(lock)
    return removed


def load(files: Files, name: FileName) -> LockRecord:
    """One lock file.

    Raises:
        IntegrityError: it is damaged.
        TargetError: it cannot be read.
    """
    return LockRecord.decode(files.load_sealed(name), f"{files.location}: {name.path}")


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
