"""A disk's chain of files as the host drives it: guest writes on top, snapshots that grow it, merges that shorten it.

    guest write ──▶ live delta          read: the newest link that has the range
    frozen delta                        merge down: what the child has goes into its parent, and the child's files go
    base

Promises: links under the live one are never written except by a merge; a descriptor always names the files that make
it whole; a child's parentCID is its parent's CID. Not locked: whoever calls holds the VM still.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator

from vcbproxy.lab import descriptor
from vcbproxy.lab.cowd import CowdFile
from vcbproxy.lab.descriptor import Descriptor, ExtentKind
from vcbproxy.lab.grains import PARENT, ZERO, GrainFile, Segment
from vcbproxy.lab.sesparse import SeSparseFile
from vcbproxy.lab.state import DiskState, Link
from vcbproxy.lab.store import Store
from vcbproxy.lab.vmfs import Allocation, LabVolume
from vcbproxy.units import MiB, align_down, align_up

_STEP_BYTES = 1 * MiB
_TRACK_FILE = b"\x53\x02\xcc\x52" + bytes(508)  # What lies in it nobody but the host reads.
_BASES = {"": ExtentKind.FLAT, "virtual": ExtentKind.RDM, "physical": ExtentKind.RDMP}
_SUFFIX = {ExtentKind.COWD: "delta", ExtentKind.SESPARSE: "sesparse"}

NewCid = Callable[[], str]


Elsewhere = Callable[[str], tuple[Store, str]]
"""By a datastore's name: its files, and how ``/vmfs/volumes`` calls it."""


class Chain:
    """One disk's files: on one datastore, but for a linked clone's parents."""

    def __init__(
        self,
        store: Store,
        disk: DiskState,
        delta_kind: ExtentKind,
        new_cid: NewCid,
        elsewhere: Elsewhere | None = None,
        raw: Store | None = None,
    ) -> None:
        """Drive the chain of ``disk``; ``raw`` holds the LUN that its base is, when it is one."""
        self.store = store
        self._raw = raw
        self.disk = disk
        self._delta_kind = delta_kind
        self._new_cid = new_cid
        self._elsewhere = elsewhere
        self._deltas: dict[str, GrainFile] = {}

    @classmethod
    def create(
        cls,
        store: Store,
        disk: DiskState,
        delta_kind: ExtentKind,
        new_cid: NewCid,
        path: str,
        raw: Store | None = None,
    ) -> Chain:
        """Make the base: a descriptor, and its flat file or the mapping of its LUN."""
        kind = _BASES[disk.mapping]
        extent_path = f"{path.removesuffix('.vmdk')}-{kind.value}.vmdk"
        disk.links.append(Link(path, extent_path, kind, new_cid()))
        if disk.raw is None:
            store.create_file(extent_path, size_bytes=disk.size_bytes, allocation=disk.allocation)
        else:
            assert isinstance(store, LabVolume), "the specification puts mappings on VMFS alone"
            assert raw is not None
            raw.create_file(f"/{disk.raw.path}", size_bytes=disk.size_bytes)
            store.rdm(extent_path, disk.raw.wwn, disk.size_bytes)
        chain = cls(store, disk, delta_kind, new_cid, raw=raw)
        store.create_file(path, data=chain._descriptor(0).text().encode())
        return chain

    def read(self, offset: int, length: int, level: int | None = None) -> bytes:
        """What the disk holds, seen from a link of the chain (the live one by default)."""
        buf = bytearray(length)
        self._fill(len(self.disk.links) - 1 if level is None else level, offset, memoryview(buf))
        return bytes(buf)

    def write(self, offset: int, data: bytes) -> None:
        """A guest write: any range, to the live link."""
        if offset < 0 or offset + len(data) > self.disk.size_bytes:
            raise ValueError(f"{self.disk.live.path}: {len(data)} bytes at {offset} are past the end")
        top = len(self.disk.links) - 1
        if self.disk.live.kind.is_base:
            self._write_base(self.disk.live, offset, data)
            return
        delta = self._delta(top)
        start = align_down(offset, delta.grain_bytes)
        end = align_up(offset + len(data), delta.grain_bytes)
        if (start, end) != (offset, offset + len(data)):
            # Part of a grain: the rest of it comes from wherever it is now.
            whole = bytearray(self.read(start, end - start))
            whole[offset - start : offset - start + len(data)] = data
            data = bytes(whole)
        delta.write(start, data)

    def zero(self, offset: int, length: int) -> None:
        """A guest writes zeroes to whole 4 KiB pages; SE-sparse files only mark them."""
        if self.disk.live.kind.is_base:
            self._write_base(self.disk.live, offset, bytes(length))
        else:
            self._delta(len(self.disk.links) - 1).zero(offset, length)

    def ranges(self, level: int | None = None) -> list[tuple[int, int]]:
        """(offset, length) in order, of all that may be other than zeroes, seen from a link."""
        top = len(self.disk.links) - 1 if level is None else level
        base = self.disk.links[0]
        found = list(self._store_of(base).data_ranges(self._bytes_at(base)))
        for number in range(1, top + 1):
            found += [(segment.start, segment.length) for segment in self._delta(number).written()]
        return _union(found, self.disk.size_bytes)

    def grow(self, path: str) -> Link:
        """Freeze the live link under a new, empty one; when that fails, all is as before."""
        extent_path = f"{path.removesuffix('.vmdk')}-{_SUFFIX[self._delta_kind]}.vmdk"
        link = Link(path, extent_path, self._delta_kind, self._new_cid())
        self._create_delta(extent_path, posixpath.basename(self.disk.live.path))
        self.disk.links.append(link)
        try:
            if self.disk.tracking_id:
                if not self.disk.links[-2].shared:
                    self._track(len(self.disk.links) - 2)
                self._track(len(self.disk.links) - 1)
            self.store.create_file(path, data=self._descriptor(len(self.disk.links) - 1).text().encode())
        except Exception:
            # The descriptor comes last, so that when making it fails it is not ours to delete.
            self.disk.links.pop()
            self._delete(link.extent_path, link.track_path)
            raise
        return link

    def branch_off(self, level: int, path: str, needed: set[str]) -> None:
        """Let the disk go on from the link at ``level``; what grew out of it is put aside as far as it is needed."""
        cut = self.disk.links[level + 1 :]
        del self.disk.links[level + 1 :]
        while cut and cut[-1].path not in needed:
            self._forget(cut.pop())
        if cut:
            self.disk.aside, self.disk.aside_from = cut, self.disk.live.path
        self.grow(path)

    def prune(self, needed: set[str]) -> None:
        """Delete what is aside and no longer needed, from its end."""
        while self.disk.aside and self.disk.aside[-1].path not in needed:
            self._forget(self.disk.aside.pop())
        if not self.disk.aside:
            self.disk.aside_from = ""

    def _forget(self, link: Link) -> None:
        self._deltas.pop(link.path, None)
        self._delete(link.path, link.extent_path, link.track_path)

    def resize(self, size_bytes: int) -> None:
        """Give a disk without deltas another size."""
        base = self.disk.live
        self.store.truncate(base.extent_path, size_bytes)
        self.disk.size_bytes = size_bytes
        self._rewrite(0)

    def _bytes_at(self, link: Link) -> str:
        """The file with a link's bytes, in ``_store_of`` it."""
        return f"/{self.disk.raw.path}" if self.disk.raw is not None and link.kind.is_raw else link.extent_path

    def _write_base(self, base: Link, offset: int, data: bytes) -> None:
        self._store_of(base).write(self._bytes_at(base), offset, data)

    def _store_of(self, link: Link) -> Store:
        if link.kind.is_raw:
            assert self._raw is not None
            return self._raw
        if link.datastore and self._elsewhere is not None:
            return self._elsewhere(link.datastore)[0]
        return self.store

    def _hint(self, link: Link, parent: Link) -> str:
        """How a descriptor names its parent: beside it, or by its whole path."""
        if posixpath.dirname(link.path) == posixpath.dirname(parent.path) and link.datastore == parent.datastore:
            return posixpath.basename(parent.path)
        assert self._elsewhere is not None
        return f"/vmfs/volumes/{self._elsewhere(parent.datastore or self.disk.datastore)[1]}{parent.path}"

    def _create_delta(self, extent_path: str, parent_name: str) -> None:
        if self._delta_kind is ExtentKind.COWD:
            CowdFile.create(self.store, extent_path, self.disk.size_bytes, parent_name)
        else:
            SeSparseFile.create(self.store, extent_path, self.disk.size_bytes)

    def merge_down(self, level: int) -> Link:
        """Put the link above ``level`` into that link; returns the one that is gone.

        The parent takes the child's CID with its content, so that a grandchild's parentCID stays right.
        """
        parent, child = self.disk.links[level], self.disk.links[level + 1]
        target = None if parent.kind.is_base else self._delta(level)
        for segment in _stepped(self._delta(level + 1).written()):
            if target is None:
                self._write_base(parent, segment.start, self.read(segment.start, segment.length, level + 1))
            elif segment.file_offset == ZERO:
                target.zero(segment.start, segment.length)
            else:
                # Grains may be larger in the parent: the rest of one comes from wherever the child finds it.
                start = align_down(segment.start, target.grain_bytes)
                end = align_up(segment.start + segment.length, target.grain_bytes)
                target.write(start, self.read(start, end - start, level + 1))
        del self.disk.links[level + 1]
        self._deltas.pop(child.path, None)
        parent.cid = child.cid
        self._rewrite(level)
        if level + 1 < len(self.disk.links):
            self._rewrite(level + 1)
        self._delete(child.path, child.extent_path, child.track_path)
        return child

    def level_of(self, path: str) -> int:
        """Where in the chain a descriptor is.

        Raises:
            KeyError: nowhere.
        """
        for level, link in enumerate(self.disk.links):
            if link.path == path:
                return level
        raise KeyError(path)

    def _fill(self, level: int, offset: int, buf: memoryview) -> None:
        link = self.disk.links[level]
        if link.kind.is_base:
            buf[:] = self._store_of(link).read(self._bytes_at(link), offset, len(buf))
            return
        delta = self._delta(level)
        start = align_down(offset, delta.grain_bytes)
        end = align_up(offset + len(buf), delta.grain_bytes)
        for segment in delta.segments(start, end - start):
            # The part of the segment that was asked for.
            first = max(segment.start, offset)
            last = min(segment.start + segment.length, offset + len(buf))
            piece = buf[first - offset : last - offset]
            if segment.file_offset == PARENT:
                self._fill(level - 1, first, piece)
            elif segment.file_offset == ZERO:
                piece[:] = bytes(len(piece))
            else:
                where = segment.file_offset + first - segment.start
                piece[:] = self._store_of(link).read(link.extent_path, where, len(piece))

    def _delta(self, level: int) -> GrainFile:
        link = self.disk.links[level]
        delta = self._deltas.get(link.path)
        if delta is None:
            opened = CowdFile if link.kind is ExtentKind.COWD else SeSparseFile
            delta = self._deltas[link.path] = opened(self._store_of(link), link.extent_path)
        return delta

    def _descriptor(self, level: int) -> Descriptor:
        link = self.disk.links[level]
        parent = self.disk.links[level - 1] if level else None
        return Descriptor(
            kind=link.kind,
            extent_name=posixpath.basename(link.extent_path),
            capacity_bytes=self.disk.size_bytes,
            cid=link.cid,
            parent_cid=parent.cid if parent else descriptor.NO_PARENT,
            parent_hint=self._hint(link, parent) if parent else "",
            uuid=bytes.fromhex(self.disk.uuid),
            thin=self.disk.allocation is Allocation.THIN and self.disk.raw is None,
            track_name=posixpath.basename(link.track_path),
        )

    def _delete(self, *paths: str) -> None:
        for path in paths:
            if path and self.store.exists(path):
                self.store.delete(path)

    def _track(self, level: int) -> None:
        """Give a link the file in which a host notes changed areas; its descriptor names it."""
        link = self.disk.links[level]
        if link.track_path:
            return
        link.track_path = link.path.removesuffix(".vmdk") + "-ctk.vmdk"
        self.store.create_file(link.track_path, data=_TRACK_FILE)
        if link is not self.disk.live:  # Whose descriptor is not written yet.
            self._rewrite(level)

    def _rewrite(self, level: int) -> None:
        replace(self.store, self.disk.links[level].path, self._descriptor(level).text().encode())


def replace(store: Store, path: str, data: bytes) -> None:
    """Give a small file new content under its old name: whoever opens it finds the old or the new, never half."""
    store.create_file(path + "~", data=data)
    store.rename(path + "~", path)


def _stepped(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Cut long segments, so that a merge holds little in memory."""
    for segment in segments:
        for skipped in range(0, segment.length, _STEP_BYTES):
            where = segment.file_offset if segment.file_offset < 0 else segment.file_offset + skipped
            yield Segment(segment.start + skipped, min(_STEP_BYTES, segment.length - skipped), where)


def _union(ranges: list[tuple[int, int]], size_bytes: int) -> list[tuple[int, int]]:
    return list(_joined(sorted((start, min(start + length, size_bytes)) for start, length in ranges)))


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    held: tuple[int, int] | None = None
    for start, end in ranges:
        if held is not None and start <= held[1]:
            held = (held[0], max(held[1], end))
            continue
        if held is not None and held[1] > held[0]:
            yield held[0], held[1] - held[0]
        held = (start, end)
    if held is not None and held[1] > held[0]:
        yield held[0], held[1] - held[0]
