"""Directories of VMFS-3 and -5: an array of 140-byte entries, ``.`` and ``..`` first. And what both kinds share."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

ENTRY_BYTES = 140
NAME_MAX_BYTES = 127


@dataclass(frozen=True, slots=True)
class Entry:
    """A name and the descriptor it leads to."""

    name: str
    kind: int
    address: int
    generation: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes to write at an offset of the directory file."""

    offset: int
    data: bytes


class Directory(Protocol):
    """What a directory's content is, and how changes of names become changes of bytes."""

    entries: dict[str, Entry]
    """By name, without ``.`` and ``..``."""

    @property
    def length(self) -> int:
        """The directory file's length."""

    def initial(self) -> list[Patch]:
        """All of a new directory."""

    def add(self, entry: Entry) -> list[Patch]:
        """A new name, or a new target of one."""

    def remove(self, name: str) -> list[Patch]:
        """One name less."""

    def state(self) -> object:
        """What a record keeps of it, as JSON."""


class FlatDirectory:
    """The array; a removed entry's place is taken by the last one."""

    def __init__(self, own: Entry, parent: Entry) -> None:
        self._slots = [own, parent]
        self.entries: dict[str, Entry] = {}

    @property
    def length(self) -> int:
        """Entries times their size."""
        return len(self._slots) * ENTRY_BYTES

    def initial(self) -> list[Patch]:
        """The entries of itself and of its parent."""
        return [Patch(0, b"".join(_encode(entry) for entry in self._slots))]

    def add(self, entry: Entry) -> list[Patch]:
        """Append, or overwrite the entry of that name."""
        slot = self._slot(entry.name)
        if slot is None:
            slot = len(self._slots)
            self._slots.append(entry)
        self._slots[slot] = entry
        if slot > 1:
            self.entries[entry.name] = entry
        return [Patch(slot * ENTRY_BYTES, _encode(entry))]

    def remove(self, name: str) -> list[Patch]:
        """Move the last entry into the gap; the caller cuts the file."""
        slot = self._slot(name)
        assert slot is not None
        last = self._slots.pop()
        del self.entries[name]
        if slot == len(self._slots):
            return []
        self._slots[slot] = last
        return [Patch(slot * ENTRY_BYTES, _encode(last))]

    def state(self) -> object:
        """The slots in order."""
        return [[entry.name, entry.kind, entry.address, entry.generation] for entry in self._slots]

    @classmethod
    def restore(cls, state: list[list[object]]) -> FlatDirectory:
        """From a record."""
        slots = [Entry(str(s[0]), *(int(str(n)) for n in s[1:])) for s in state]
        found = cls(slots[0], slots[1])
        found._slots = slots
        found.entries = {entry.name: entry for entry in slots[2:]}
        return found

    def _slot(self, name: str) -> int | None:
        return next((slot for slot, entry in enumerate(self._slots) if entry.name == name), None)


def _encode(entry: Entry) -> bytes:
    name = entry.name.encode("utf-8", "surrogateescape")
    return struct.pack("<III128s", entry.kind, entry.address, entry.generation, name)
