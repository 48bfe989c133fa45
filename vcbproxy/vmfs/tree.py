"""Finds files by their path: directories, symbolic links, ``.`` and ``..``; within one view.

In: a path such as ``/web01/web01-flat.vmdk``. Out: its inode, held to the generation in its directory. Promised: a
link that leads off the volume is refused by name, one that leads in a circle ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vcbproxy.errors import PathNotFound, Unreadable, VmfsError
from vcbproxy.vmfs import directory, layout, runs
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.directory import Entry
from vcbproxy.vmfs.inode import FileType, Inode
from vcbproxy.vmfs.span import LogicalVolume
from vcbproxy.vmfs.view import ROOT, View

_LINKS_MAX = 16
_TARGET_MAX = 4096
_DEPTH_MAX = 256


@dataclass(frozen=True, slots=True)
class Tree:
    """The names of a volume, as one view sees them."""

    volume: LogicalVolume
    fs: FileSystem
    view: View

    def find(self, path: str, follow: bool = True) -> Inode:
        """The file at a path; ``follow`` says whether a link at its very end is followed.

        Raises:
            PathNotFound: there is none.
            VmfsError: a directory or file descriptor on the way is damaged, or links lead in a circle.
        """
        trail: list[Inode] = [self.root()]
        todo = _parts(path)[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                del trail[max(1, len(trail) - 1) :]
                continue
            found = self._child(trail, name, path)
            if found.type is FileType.SYMLINK and (todo or follow):
                links += 1
                if links > _LINKS_MAX:
                    raise self._error(path, f"more than {_LINKS_MAX} symbolic links on the way", found)
                absolute, rest = self._target(found)
                trail = trail[:1] if absolute else trail
                todo.extend(rest[::-1])
                continue
            trail.append(found)
            if len(trail) + len(todo) > _DEPTH_MAX:
                raise self._error(path, f"more than {_DEPTH_MAX} directories deep", found)
        return trail[-1]

    def root(self) -> Inode:
        """The root directory."""
        return self.view.inode(ROOT, "/")

    def entries(self, inode: Inode) -> Iterator[Entry]:
        """What a directory holds, ``.`` and ``..`` among them.

        Raises:
            VmfsError: not a directory, or damaged.
        """
        if not inode.is_directory:
            raise self._error(inode.name, f"is not a directory but a {inode.type.name.lower()}", inode)
        content = runs.Mapped(inode.name, self.view.map_of(inode), (self.volume,))
        return directory.entries(self.fs, inode, content)

    def inode_of(self, entry: Entry, path: str) -> Inode:
        """The file an entry names.

        Raises:
            VmfsError: entry and file descriptor do not belong together.
        """
        inode = self.view.inode(entry.address, path, entry.generation)
        if inode.type is not entry.type:
            said = "unknown" if entry.type is None else entry.type.name
            raise self._error(path, f"is a {inode.type.name} by its file descriptor, {said} by its directory", inode)
        return inode

    def link_target(self, inode: Inode) -> str:
        """Where a symbolic link leads, as it is written; it ends where its file or its text does."""
        return layout.text(self.view.read(inode, _TARGET_MAX))

    def _child(self, trail: list[Inode], name: str, path: str) -> Inode:
        parent = trail[-1]
        if not parent.is_directory:
            raise PathNotFound(volume=self.fs.name, file=path)
        where = "/" + "/".join([inode.name.rsplit("/", 1)[-1] for inode in trail[1:]] + [name])
        matches = list(dict.fromkeys(entry for entry in self.entries(parent) if entry.name == name))
        if not matches:
            raise PathNotFound(volume=self.fs.name, file=path)
        if len(matches) == 1:
            return self.inode_of(matches[0], where)
        living = [inode for entry in matches if (inode := self._if_alive(entry, where)) is not None]
        if len(living) != 1:
            reason = f"is {len(matches)} times in its directory, and {len(living)} of the files are there"
            raise self._error(where, reason, parent)
        return living[0]

    def _if_alive(self, entry: Entry, path: str) -> Inode | None:
        """The file of an entry, unless the entry outlived it: a deleted file's name may stay beside its successor's."""
        try:
            return self.inode_of(entry, path)
        except VmfsError:
            return None

    def _target(self, inode: Inode) -> tuple[bool, list[str]]:
        """Where a link leads on this volume: whether from its root, and the names on the way."""
        target = self.link_target(inode)
        if not target.startswith("/"):
            return False, _parts(target)
        parts = _parts(target)
        if parts[:2] == ["vmfs", "volumes"] and len(parts) > 2 and parts[2] in (self.fs.label, self.fs.uuid):
            return True, parts[3:]
        reason = f"is a symbolic link off this volume, to {target}"
        raise Unreadable(volume=self.fs.name, file=inode.name, reason=reason)

    def _error(self, file: str, reason: str, inode: Inode) -> VmfsError:
        return VmfsError(volume=self.fs.name, file=file, reason=reason, offset=inode.offset)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
