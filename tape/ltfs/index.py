"""The index: every file and directory of a volume, and where the files' bytes lie.

    extent    file offset 0         1 MiB
    file      ├──── blocks 7, 8 ─────┼── blocks 12 … ──┤          holes between extents, and behind them, read as zeroes
    tape      │ 7 │ 8 │ index ▌ │ 12 │ …

A file's extents are kept in the order of their file offsets; they do not overlap. What an index holds that is not
understood here is kept as XML and written back, as the standard demands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from tape.errors import FormatError
from tape.ltfs import names

ROOT_UID = 1
DIGEST = "ltfs.hash.sha256sum"
"""The extended attribute that holds a file's SHA-256, in hex; a name that the standard reserves for it."""


class Lock(Enum):
    """Whether a volume takes changes."""

    UNLOCKED = "unlocked"
    LOCKED = "locked"
    PERMANENT = "permlocked"


@dataclass(frozen=True, slots=True, order=True)
class Pointer:
    """A block of a partition, known by its letter."""

    partition: str
    block: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.block}"


@dataclass(frozen=True, slots=True)
class Extent:
    """``byte_count`` bytes of a file, from ``file_offset``.

    Attributes:
        file_offset: where in the file they belong.
        start: the first block that they lie in.
        byte_offset: where they begin in that block.
        byte_count: how many they are; all blocks but the last are full.
    """

    file_offset: int
    start: Pointer
    byte_offset: int
    byte_count: int

    @property
    def file_end(self) -> int:
        """One past the last byte, in the file."""
        return self.file_offset + self.byte_count

    def blocks(self, block_bytes: int) -> int:
        """How many blocks they touch."""
        return -(-(self.byte_offset + self.byte_count) // block_bytes)


@dataclass(frozen=True, slots=True)
class Times:
    """When what happened to a file or directory, in nanoseconds since 1970."""

    created: int
    changed: int
    modified: int
    accessed: int
    backed_up: int

    @classmethod
    def all(cls, moment_ns: int) -> Times:
        """Everything at one moment."""
        return cls(moment_ns, moment_ns, moment_ns, moment_ns, moment_ns)


@dataclass(slots=True)
class File:
    """A file, or a symbolic link."""

    name: str
    uid: int
    times: Times
    length: int = 0
    extents: tuple[Extent, ...] = ()
    read_only: bool = False
    open_for_write: bool = False
    symlink: str | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def data_bytes(self) -> int:
        """How many of its bytes lie in blocks."""
        return sum(extent.byte_count for extent in self.extents)

    @property
    def hole_bytes(self) -> int:
        """How many lie nowhere, and read as zeroes."""
        return self.length - self.data_bytes


@dataclass(slots=True)
class Directory:
    """A directory and what is in it."""

    name: str
    uid: int
    times: Times
    entries: dict[str, File | Directory] = field(default_factory=dict)
    read_only: bool = False
    xattrs: dict[str, bytes] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def walk(self, above: str = "") -> Iterator[tuple[str, File | Directory]]:
        """Everything below, with its path, parents first; each directory in the order of its names."""
        pending: list[tuple[str, File | Directory]] = [(f"{above}/{entry.name}", entry) for entry in _backwards(self)]
        while pending:
            path, entry = pending.pop()
            yield path, entry
            if isinstance(entry, Directory):
                pending += [(f"{path}/{child.name}", child) for child in _backwards(entry)]


def _backwards(directory: Directory) -> list[File | Directory]:
    return [directory.entries[name] for name in sorted(directory.entries, reverse=True)]


@dataclass(slots=True)
class Index:
    """One index.

    Attributes:
        volume_uuid: of which volume; as the label says.
        generation: counts the changes; both copies of one state have the same.
        update_time_ns: when the state was as it is.
        location: of its own first block.
        previous: of the one before it, on the data partition; None in the first.
        root: the root directory, which bears the volume's name.
        highest_uid: the greatest that was ever given to a file or directory.
        creator: which program wrote it.
        comment: what that program, or its operator, had to say.
        lock: whether the volume takes changes.
        allow_policy_update: whether the placement policy may be changed.
        policy: the placement policy, as XML, or nothing.
        version: of the format.
        unknown: what else stood there, as XML.
    """

    volume_uuid: str
    generation: int
    update_time_ns: int
    location: Pointer
    root: Directory
    previous: Pointer | None = None
    highest_uid: int = ROOT_UID
    creator: str = ""
    comment: str | None = None
    lock: Lock | None = None
    allow_policy_update: bool = True
    policy: str = ""
    version: str = "2.4.0"
    unknown: tuple[str, ...] = ()

    def find(self, path: str) -> File | Directory | None:
        """What lies at a path from the root, or None."""
        here: File | Directory = self.root
        for name in _parts(path):
            if not isinstance(here, Directory) or name not in here.entries:
                return None
            here = here.entries[name]
        return here

    def new_uid(self) -> int:
        """A number that no file or directory ever had."""
        self.highest_uid += 1
        return self.highest_uid

    def make_directory(self, path: str, moment_ns: int) -> Directory:
        """A directory, and those above it, where they are not there yet.

        Raises:
            FormatError: a file is in the way; or it cannot be called that.
        """
        here = self.root
        for part in _parts(path):
            name = names.normal(part)
            found = here.entries.get(name)
            if found is None:
                found = Directory(name, self.new_uid(), Times.all(moment_ns))
                here.entries[name] = found
            if not isinstance(found, Directory):
                raise FormatError(where=path, reason=f"{name!r} is a file")
            here = found
        return here


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def split(path: str) -> tuple[str, str]:
    """A path's directory, and its last name in the form in which it is stored.

    Raises:
        FormatError: no file can be called that.
    """
    parts = _parts(path)
    if not parts:
        raise FormatError(where="a name on the volume", reason="the root is no file")
    return "/".join(parts[:-1]), names.normal(parts[-1])


def drop_beyond(index: Index, partition: str, end: int, block_bytes: int) -> list[str]:
    """Take out of an index all files of which something lies at or behind a block; gives their paths."""
    dropped: list[str] = []
    pending: list[tuple[str, Directory]] = [("", index.root)]
    while pending:
        above, here = pending.pop()
        for name, entry in list(here.entries.items()):
            if isinstance(entry, Directory):
                pending.append((f"{above}/{name}", entry))
            elif any(_reaches(extent, partition, end, block_bytes) for extent in entry.extents):
                dropped.append(f"{above}/{name}")
                del here.entries[name]
    return sorted(dropped)


def _reaches(extent: Extent, partition: str, end: int, block_bytes: int) -> bool:
    return extent.start.partition == partition and extent.start.block + extent.blocks(block_bytes) > end
