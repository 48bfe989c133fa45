"""The seam between a repository and the place that keeps its files.

A backend keeps named files that are written once, whole, and never changed. It knows kinds and names, nothing of what
the files hold. Several threads may use one backend at once.

    kind         path below the repository's location       name
    CONFIG       config                                      (none)
    KEY          keys/<name>                                 64 hex digits: SHA-256 of the file
    LOCK         locks/<name>                                "
    SNAPSHOT     snapshots/<name>                            "
    INDEX        index/<name>                                "
    PACK         data/<first two digits>/<name>              "
    PARAMETERS   vcbproxy/config                             (none); restic ignores directories it does not know
    WAITING      vcbproxy/waiting/<name>                     as LOCK; packs that were taken out of the index
    SUSPECT      vcbproxy/suspect/<name>                     as LOCK; a pack that was found damaged

Files with other names (leftovers ``*-tmp-*``, an operator's notes) are never listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from vcbproxy.errors import TargetError
from vcbproxy.repository.ids import Buffer, is_hex_id


class FileKind(Enum):
    """What a stored file is for."""

    CONFIG = "config"
    KEY = "keys"
    LOCK = "locks"
    SNAPSHOT = "snapshots"
    INDEX = "index"
    PACK = "data"
    PARAMETERS = "vcbproxy"
    WAITING = "vcbproxy/waiting"
    SUSPECT = "vcbproxy/suspect"

    @property
    def single(self) -> bool:
        """Whether there is at most one file of this kind, without a name of its own."""
        return self in (FileKind.CONFIG, FileKind.PARAMETERS)

    @property
    def restics(self) -> bool:
        """Whether stock restic has a directory for them; ours are made when the first file comes."""
        return not self.single and "/" not in self.value


class Heat(Enum):
    """How soon a file is read again: a hint for whoever has places of different price."""

    HOT = "hot"
    """By every job: all but packs of data."""
    COLD = "cold"
    """By a restore, if ever."""


@dataclass(frozen=True, slots=True)
class FileName:
    """Which file: its kind and, except for the single ones, its 64 hex digits.

    ``heat`` is for ``save`` to look at and no part of the name: a listing does not know it.
    """

    kind: FileKind
    stem: str = ""
    heat: Heat = field(default=Heat.HOT, compare=False)

    def __post_init__(self) -> None:
        assert self.kind.single == (not self.stem), f"a {self.kind.value} file named {self.stem!r}"
        assert self.kind.single or is_hex_id(self.stem), f"not an id: {self.stem!r}"

    @property
    def path(self) -> str:
        """Where it lies below the repository's location, in restic's ``default`` layout."""
        match self.kind:
            case FileKind.CONFIG:
                return "config"
            case FileKind.PARAMETERS:
                return "vcbproxy/config"
            case FileKind.PACK:
                return f"data/{self.stem[:2]}/{self.stem}"
            case _:
                return f"{self.kind.value}/{self.stem}"


CONFIG = FileName(FileKind.CONFIG)
PARAMETERS = FileName(FileKind.PARAMETERS)


@dataclass(frozen=True, slots=True)
class Stored:
    """One line of a listing."""

    name: FileName
    size_bytes: int


SETTLE_S = 0.2  # restic's own


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long a place is told to refuse the removal of a file.

    Attributes:
        least: what belongs to a restore point stays locked at least this long after it was made.
        slack: locks are set longer by this, so that each is renewed once in a while and not every night.
    """

    least: timedelta
    slack: timedelta


class Retaining(Protocol):
    """What a place offers that can refuse to remove files (Object Lock). New files but locks are locked by ``save``."""

    @property
    def keeping(self) -> Keeping:
        """How long."""

    def kept_until(self, name: FileName) -> datetime | None:
        """Until when the file is locked; None when it is not.

        Raises:
            FileMissing: no such file.
            TargetError: it could not be asked.
        """

    def keep_until(self, name: FileName, until: datetime) -> None:
        """Lock the file until then; a lock that lasts longer already must not be shortened by the caller.

        Raises:
            FileMissing: no such file.
            TargetError: it could not be locked.
        """


class Sweeping(Protocol):
    """What a place offers where writers that were killed leave something behind."""

    def sweep(self, before: datetime) -> int:
        """Remove what was left by writers that began before a moment; how much it was.

        Raises:
            TargetError: it could not be looked for or removed.
        """


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between backends, as data."""

    connections: int
    """How many transfers at once are worth while."""
    settle_s: float = SETTLE_S
    """How long what is saved may be missing from the listings of others; 0 where a listing can never be behind."""
    retaining: Retaining | None = None
    """Who locks files there against removal, if they are to be locked."""
    sweeping: Sweeping | None = None
    """Who removes there what killed writers left."""
    remote: bool = False
    """Whether each request costs a round trip, so that a local copy of what is read often pays."""


class FileMissing(TargetError):
    """The backend has no such file."""

    template = "{location}: no file {path}"


class FileShort(TargetError):
    """A stored file is shorter than what should be read of it."""

    template = "{location}: {path} ends before {end}"


class FileUnreadable(TargetError):
    """A stored file is there, and its bytes are lost: the medium below fails. Damage, not an outage."""

    template = "{location}: cannot read {path}: {reason}"


class FileExists(TargetError):
    """A single file (the config) is there already; it is never written over."""

    template = "{location}: {path} exists already and is not written over"


class FileLocked(TargetError):
    """The place refuses to remove a file before a time, whoever asks (Object Lock)."""

    template = "{location}: {path} is locked until {until}, and cannot be removed before"


class Unavailable(TargetError):
    """The place did not answer, broke off or was too busy; the same may work later."""

    template = "{location}: cannot {action}: {reason}"


class Backend(Protocol):
    """A place that keeps a repository's files."""

    @property
    def location(self) -> str:
        """What messages call it."""

    @property
    def traits(self) -> Traits:
        """How it differs from other backends."""

    def create(self) -> None:
        """Make what ``save`` needs to exist (directories, a bucket); harmless when it is there.

        Raises:
            TargetError: it cannot be made.
        """

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Keep a file made of ``parts``; durable, whole and visible when this returns, invisible when it raises.

        Saving a content-named file again is harmless.

        Raises:
            FileExists: ``name`` is a single file (config, parameters) and is there already.
            TargetError: it could not be stored (full, read-only, gone).
        """

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf`` from ``offset`` of the file.

        Raises:
            FileMissing: no such file.
            FileShort: it ends before ``buf`` is full.
            FileUnreadable: the medium below fails.
            TargetError: it could not be read.
        """

    def size(self, name: FileName) -> int:
        """The file's size in bytes.

        Raises:
            FileMissing: no such file.
            TargetError: it could not be asked.
        """

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """All files of a kind, in no particular order; strange names are left out.

        Raises:
            TargetError: it could not be listed.
        """

    def remove(self, name: FileName) -> None:
        """Remove a file.

        Raises:
            FileMissing: no such file.
            TargetError: it could not be removed.
        """


def load_all(backend: Backend, name: FileName, size_max: int) -> bytes:
    """A whole small file.

    Raises:
        TargetError: it is missing, unreadable, or larger than ``size_max``.
    """
    size_bytes = backend.size(name)
    if size_bytes > size_max:
        raise TargetError(f"{backend.location}: {name.path} has {size_bytes} bytes, more than {size_max} are not sane")
    buf = bytearray(size_bytes)
    backend.load(name, 0, memoryview(buf))
    return bytes(buf)


def exists(backend: Backend, name: FileName) -> bool:
    """Whether the file is there.

    Raises:
        TargetError: the backend could not be asked.
    """
    try:
        backend.size(name)
    except FileMissing:
        return False
    return True
