"""Writing one restore point to tape, from its first image to the entry in the catalog.

    images ─▶ configuration ─▶ SHA256SUMS, RESTORE.txt ─▶ vm.json "whole" ─▶ index committed ─▶ catalog
       └ a cartridge is full: it gets a vm.json that says          └ the commit point
         "continues", and the like, and is committed

The index names all files of the last cartridge at once, and earlier cartridges were committed when they were left: so
whoever finds a ``vm.json`` that says "whole" finds everything that it names. A crash before leaves garbage only: images
that no such file names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tape.errors import TapeError, VolumeOverflow
from tape.ltfs.index import Directory
from tape.ltfs.stream import RING_BYTES
from vcbproxy.archive import layout, restoretext
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base, Document, Image, State, encode
from vcbproxy.archive.parts import Flow, PartedFile
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.archive.sums import digest, sums_of
from vcbproxy.archive.trouble import writing
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.errors import Error, TargetError, UsageError


@dataclass(frozen=True, slots=True)
class Identity:
    """Which restore point is written.

    Attributes:
        id: 32 hex digits, never used before.
        vm: its VM's name.
        vm_uuid: the VM's instance uuid.
        encryption: what ``vm.json`` is to say of it; never a key.
    """

    id: str
    vm: str
    vm_uuid: str
    encryption: Mapping[str, Any] = field(default_factory=dict)


class TapePoint:
    """A restore point while it is written. Use it in a ``with``: leaving without ``commit`` leaves none."""

    def __init__(self, lane: TapeLane, identity: Identity, time: datetime) -> None:
        self.flow = Flow()
        self.vm_json = b""
        """As it is on tape, once it is committed."""
        self._base: Base | None = None
        self._files: list[ArchivedPart] = []
        self._lane = lane
        self._identity = identity
        self._time = time.astimezone(UTC).replace(microsecond=0)
        self._path = ""
        self._images: list[Image] = []
        self._small: dict[str, bytes] = {}
        self._names = {layout.VM_JSON, layout.SUMS, layout.RESTORE}
        self._here: list[ArchivedPart] = []  # on the present cartridge, since it was last committed
        self._committed = False
        self._file: PartedFile | None = None

    # ------------------------------------------------------------------ what goes in

    @property
    def id(self) -> str:
        """The restore point's."""
        return self._identity.id

    def taken_at(self, moment: datetime) -> None:
        """Set its time to that of the VM snapshot; before the first image."""
        assert not self._path, "its folder is there already"
        self._time = moment.astimezone(UTC).replace(microsecond=0)

    def begin_file(self, name: str, *, ring_bytes: int = RING_BYTES) -> PartedFile:
        """Begin a file of any length; the one before has to be finished or aborted.

        Raises:
            UsageError: the name is taken.
        """
        assert self._file is None or not self._file.open, "another file is not finished"
        self._claim(name)
        self._file = PartedFile(self, name, self.flow, ring_bytes=ring_bytes)
        return self._file

    def add_image(self, image: Image) -> None:
        """A disk is complete."""
        self._images.append(image)

    def add_file(self, parts: Iterable[ArchivedPart]) -> None:
        """A file of any length that is no image is complete."""
        self._files += parts

    def build_on(self, base: Base) -> None:
        """Its deltas are made upon this one; all of them are."""
        assert self._base in (None, base), "deltas upon two restore points"
        self._base = base

    def keep(self, name: str, data: bytes) -> str:
        """Keep a small file, until ``commit`` in memory; what it is called there.

        Raises:
            UsageError: the name is taken.
        """
        safe = layout.safe_name(name)
        self._claim(safe)
        self._small[safe] = bytes(data)
        return safe

    def forget_name(self, name: str) -> None:
        """What was begun by this name is no file; another may be called so."""
        self._names.discard(name)

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise UsageError(f"{self._identity.vm}: two files are called {name!r}")
        self._names.add(name)

    # ------------------------------------------------------------------ for PartedFile

    @property
    def cartridge(self) -> Cartridge:
        """The one that is written to."""
        return self._lane.cartridge

    @property
    def path(self) -> str:
        """The folder's; chosen when the first file is begun."""
        if not self._path:
            wanted = layout.folder(self._identity.vm, self._time)
            taken = self.cartridge.volume.index.find(wanted) is not None
            self._path = f"{wanted}-{self.id[:8]}" if taken else wanted
        return self._path

    def wrote(self, part: ArchivedPart) -> None:
        """A part is finished on the present cartridge."""
        self._here.append(part)

    def turn(self) -> None:
        """The cartridge is full: say on it what lies there, commit it, take the next.

        Raises:
            TargetError: it could not be committed; nothing of this restore point is safe.
            CartridgeWanted: the pool has none left.
        """
        if self._here:
            with contextlib.suppress(VolumeOverflow):  # its end came too soon: each file still says what it belongs to
                self._close_with(self._document(State.CONTINUES, {}), {})
        self._here = []
        self._lane.leave()

    # ------------------------------------------------------------------ the end

    def commit(self, manifest: Mapping[str, Any]) -> ArchivedPoint:
        """Make it a restore point; on tape when this returns, and not yet in any catalog.

        Raises:
            TargetError: it could not be written.
            CartridgeWanted: the pool has no cartridge left for the last few files.
        """
        with writing():
            closing = self._closing(dict(manifest))
            self.cartridge.volume.secure()  # the index partition follows when the cartridge is let go
        self._committed = True
        self._here = []
        return closing

    def _closing(self, manifest: dict[str, Any]) -> ArchivedPoint:
        try:
            return self._close_with(self._document(State.WHOLE, manifest), self._small)
        except VolumeOverflow:
            self.turn()
        try:
            return self._close_with(self._document(State.WHOLE, manifest), self._small)
        except VolumeOverflow as error:
            raise TargetError(f"{self.cartridge.barcode}: has no room for a few small files: {error}") from error

    def _document(self, state: State, manifest: dict[str, Any]) -> Document:
        cartridge = self.cartridge
        return Document(
            state=state,
            id=self.id,
            vm=self._identity.vm,
            vm_uuid=self._identity.vm_uuid,
            time=self._time,
            pool=self._lane.pool,
            media_set=cartridge.media_set,
            base=self._base,
            encryption=dict(self._identity.encryption),
            images=tuple(self._images),
            files=tuple(self._files),
            manifest=manifest,
        )

    def _close_with(self, document: Document, files: Mapping[str, bytes]) -> ArchivedPoint:
        """Write the small files, the document last. Afterwards all of them are there, or none.

        Raises:
            VolumeOverflow: there was no room.
            TapeError: it could not be written.
        """
        written: list[ArchivedPart] = []
        try:
            for name, data in files.items():
                written.append(self._put(name, data))
            document = replace(document, files=(*self._files, *written))
            sums = sums_of(document, self._here, self.path)
            text = restoretext.of(document, self._here)
            written += [self._put(layout.SUMS, sums), self._put(layout.RESTORE, text)]
            document = replace(document, files=(*self._files, *written))
            self.vm_json = encode(document)
            vm_json = self._put(layout.VM_JSON, self.vm_json)
        except TapeError:
            for part in written:
                self._unlist(part)
            raise
        self._here += [*written, vm_json]
        return document.point(vm_json)

    def _put(self, name: str, data: bytes) -> ArchivedPart:
        cartridge = self.cartridge
        path = f"{self.path}/{name}"
        writer = cartridge.volume.create(path, closing=True)
        try:
            if writer.write(data) < len(data):
                raise VolumeOverflow(
                    device=cartridge.barcode, command="write", reason=f"no room for {path}", key=0xD, asc=0, ascq=2
                )
            sha256 = digest(data)
            mark = layout.Mark(self.id, name, 1)
            writer.finish({layout.DIGEST: sha256.encode(), layout.MARK: mark.encode()})
        except TapeError:
            writer.abort()
            raise
        return ArchivedPart(name, 1, path, cartridge.barcode, cartridge.volume.uuid, len(data), sha256)

    def abandon(self, parts: tuple[ArchivedPart, ...]) -> None:
        """Leave finished parts out of the present cartridge's index; on earlier cartridges nobody names them."""
        for part in parts:
            self._unlist(part)
        self._here = [part for part in self._here if part not in parts]

    def _unlist(self, part: ArchivedPart) -> None:
        if not self._lane.loaded:
            return
        cartridge = self.cartridge
        if part.volume_uuid != cartridge.volume.uuid:
            return
        above, _, name = part.path.rpartition("/")
        directory = cartridge.volume.index.find(above)
        if isinstance(directory, Directory):
            directory.entries.pop(name, None)

    def _abort(self) -> None:
        """Leave nothing of it in the present cartridge's index."""
        for part in self._here:
            self._unlist(part)
        self._here = []
        path = self._path
        while path.strip("/"):
            above, _, name = path.rpartition("/")
            directory, parent = self.cartridge.volume.index.find(path), self.cartridge.volume.index.find(above or "/")
            if not (isinstance(directory, Directory) and isinstance(parent, Directory)) or directory.entries:
                break
            del parent.entries[name]
            path = above

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed or not self._path:
            return
        try:
            if self._file is not None:
                self._file.abort()
            if self._lane.loaded:
                self._abort()
        except Error:
            if error is None:
                raise  # else the first error is the one to be told
