"""A file that goes on on the next cartridge where one ends.

pieces ─▶ ring ─▶ drive     full? the part is finished; what the ring still held goes first into the next part
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tape.ltfs.ring import Stats
from tape.ltfs.stream import RING_BYTES, FileStream, Written
from tape.scsi.transport import Buffer
from vcbproxy.archive import layout
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.archive.trouble import writing
from vcbproxy.catalog.records import ArchivedPart


@dataclass(frozen=True, slots=True)
class Starved:
    """How long, and how often, a drive had nothing to write."""

    seconds: float = 0.0
    times: int = 0


@dataclass(slots=True)
class Flow:
    """How well the drive was fed.

    Attributes:
        written_bytes: what it took.
        starved_s: how long it had nothing to write.
        starvations: how often.
        held_up_s: how long we waited for it.
    """

    written_bytes: int = 0
    starved_s: float = 0.0
    starvations: int = 0
    held_up_s: float = 0.0

    def add(self, stats: Stats, starved: Starved) -> None:
        """One more part."""
        self.written_bytes += stats.written_bytes
        self.starved_s += starved.seconds
        self.starvations += starved.times
        self.held_up_s += stats.held_up_s


class Folder(Protocol):
    """The restore point's folder, on whichever cartridge is written to now."""

    @property
    def id(self) -> str:
        """The restore point's."""

    @property
    def cartridge(self) -> Cartridge:
        """That cartridge; it has room."""

    @property
    def path(self) -> str:
        """The folder's."""

    def wrote(self, part: ArchivedPart) -> None:
        """A part is finished there."""

    def turn(self) -> None:
        """It is full: close it, and take the next."""


class PartedFile:
    """One file while it is written. For one thread; nothing else is written to the cartridge meanwhile."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        flow: Flow,
        *,
        ring_bytes: int = RING_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin it; nothing is on tape before the first piece."""
        self.name = name
        self._folder = folder
        self._flow = flow
        self._ring_bytes = ring_bytes
        self._monotonic = monotonic
        self._stream: FileStream | None = None
        self._parts: list[ArchivedPart] = []
        self._given: Starved | None = None

    @property
    def open(self) -> bool:
        """Whether a part of it is on its way."""
        return self._stream is not None

    @property
    def parts(self) -> tuple[ArchivedPart, ...]:
        """Those that are finished."""
        return tuple(self._parts)

    def fill(self) -> float | None:
        """How full the ring before the drive is, 0 to 1; None between two cartridges. For any thread."""
        stats = self.stats
        return None if stats is None else stats.fill_bytes / stats.ring_bytes

    @property
    def stats(self) -> Stats | None:
        """How the ring of the present part fares; for any thread."""
        stream = self._stream
        return None if stream is None else stream.stats()

    def write(self, piece: Buffer) -> None:
        """Hand over a piece, which nobody may change afterwards.

        Raises:
            TargetError: it could not be written.
            CartridgeWanted: the pool has no cartridge left.
        """
        with writing():
            stream = self._stream or self._begin(())
            if not stream.write(piece):
                self._go_on(self._finish_part(stream))

    def given(self) -> None:
        """All was handed over, and what becomes of it is not known yet: from here on the drive waits for that."""
        stats = self.stats
        self._given = Starved() if stats is None else Starved(stats.starved_s, stats.starvations)

    def finish(self) -> tuple[ArchivedPart, ...]:
        """All was handed over: wait until it is written. Safe once every cartridge that it lies on is committed.

        Raises:
            TargetError: it could not be written.
            CartridgeWanted: the pool has no cartridge left.
        """
        with writing():
            stream = self._stream or self._begin(())
            while True:
                written = self._finish_part(stream)
                if not written.rest:
                    break
                stream = self._go_on(written)
        return tuple(self._parts)

    def abort(self) -> None:
        """Leave the part that was begun out of the index. Parts on cartridges before are named by nobody."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with writing():
                stream.__exit__(None, None, None)

    def _begin(self, rest: tuple[memoryview, ...]) -> FileStream:
        path = f"{self._folder.path}/{layout.part_name(self.name, len(self._parts) + 1)}"
        writer = self._folder.cartridge.volume.create(path)
        stream = FileStream(writer, rest=rest, ring_bytes=self._ring_bytes, monotonic=self._monotonic)
        self._stream = stream.__enter__()
        return stream

    def _go_on(self, written: Written) -> FileStream:
        self._folder.turn()
        return self._begin(written.rest)

    def _finish_part(self, stream: FileStream) -> Written:
        number = len(self._parts) + 1
        mark = layout.Mark(self._folder.id, self.name, number)
        written = stream.finish({layout.MARK: mark.encode()})
        self._stream = None
        stats = written.stats
        if self._given is None:
            self._flow.add(stats, Starved(stats.starved_s, stats.starvations))
        else:
            self._flow.add(stats, self._given)
            self._given = Starved()
        if written.file is not None:
            cartridge = self._folder.cartridge
            part = ArchivedPart(
                file=self.name,
                number=number,
                path=f"{self._folder.path}/{written.file.name}",
                barcode=cartridge.barcode,
                volume_uuid=cartridge.volume.uuid,
                size_bytes=written.taken,
                sha256=written.sha256,
            )
            self._parts.append(part)
            self._folder.wrote(part)
            cartridge.volume.checkpoint()  # a large restore point is not to hang on its journal alone
        return written
