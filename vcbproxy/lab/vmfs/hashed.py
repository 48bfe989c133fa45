"""Directories of VMFS-6. To come."""

from __future__ import annotations

from vcbproxy.lab.vmfs.directory import Entry, Patch


class HashedDirectory:
    """A hash table, dirent blocks, link blocks and a map of them."""

    def __init__(self, own: Entry, parent: Entry, *, root: bool) -> None:
        self.entries: dict[str, Entry] = {}

    @property
    def length(self) -> int:
        """The directory file's length."""
        raise NotImplementedError

    def initial(self) -> list[Patch]:
        """All of a new directory."""
        raise NotImplementedError

    def add(self, entry: Entry) -> list[Patch]:
        """A new name."""
        raise NotImplementedError

    def remove(self, name: str) -> list[Patch]:
        """One less."""
        raise NotImplementedError

    def state(self) -> object:
        """What a record keeps."""
        raise NotImplementedError
