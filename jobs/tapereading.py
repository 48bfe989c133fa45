"""How restore points on tape are read: which cartridges there are, who is told, and who brings one that is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from jobs.watcher import Watcher
from vcbproxy.archive import reader
from vcbproxy.archive.agekeys import Identities
from vcbproxy.archive.manifest import Document
from vcbproxy.archive.remembered import Remembered
from vcbproxy.archive.shelf import Cartridge, Shelf
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.clock import Clock
from vcbproxy.errors import CartridgeWanted, IntegrityError

_LOOK_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class TapeReading:
    """How it is done.

    Attributes:
        shelf: gives the cartridges.
        watcher: is told.
        clock: paces the waiting for a person who brings a cartridge.
        wait: for a cartridge that is not there; else that is an error.
        overwrite: files that exist, once the new ones are whole.
        workers: threads that decompress, for each disk.
        identities: for images that are encrypted.
        remembered: what this proxy knows without a cartridge.
        salvage: of damaged disks, write what can still be read, under another name.
    """

    shelf: Shelf
    watcher: Watcher
    clock: Clock
    wait: bool = False
    overwrite: bool = False
    workers: int = 2
    identities: Identities | None = None
    remembered: Remembered | None = None
    salvage: bool = False

    def readable(self, points: Sequence[ArchivedPoint]) -> tuple[dict[str, Document], dict[str, IntegrityError]]:
        """What restore points consist of, and why that cannot be told of the others; both by their ids.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
        """
        found = {point.id: known for point in points if (known := self._remembered(point)) is not None}
        lost: dict[str, IntegrityError] = {}
        unknown = [point for point in points if point.id not in found]
        for barcode in dict.fromkeys(reader.last_word(point).barcode for point in unknown):
            here = [point for point in unknown if reader.last_word(point).barcode == barcode]
            with self.loaded(barcode) as cartridge:
                for point in here:
                    try:
                        found[point.id] = reader.document_of(cartridge, point)
                    except IntegrityError as error:
                        error.add_note("RESTORE.txt beside it says how to bring it back by hand")
                        lost[point.id] = error
        return found, lost

    def documents(self, points: Sequence[ArchivedPoint]) -> Mapping[str, Document]:
        """What restore points consist of, by their ids.

        Raises:
            CartridgeWanted: a cartridge is not there, and is not waited for.
            IntegrityError: a ``vm.json`` cannot be read.
        """
        found, lost = self.readable(points)
        for error in lost.values():
            raise error
        return found

    def _remembered(self, point: ArchivedPoint) -> Document | None:
        """By this proxy's own copy, where that is what lies on the cartridge."""
        if self.remembered is None:
            return None
        return self.remembered.document_like(point.id, reader.last_word(point).sha256)

    @contextmanager
    def loaded(self, barcode: str) -> Iterator[Cartridge]:
        """A cartridge in a drive; it is asked for when it is not in the library.

        Raises:
            CartridgeWanted: it is not there, and is not waited for.
        """
        with ExitStack() as stack:
            asked = False
            while True:
                try:
                    cartridge = stack.enter_context(self.shelf.for_reading(barcode))
                    break
                except CartridgeWanted as error:
                    if not self.wait:
                        raise
                    if not asked:
                        self.watcher.said(f"{error}; waiting for it")
                        asked = True
                    self.clock.sleep(_LOOK_AGAIN_S)
            yield cartridge
