"""A shelf of emulated cartridges, and a catalog in memory: what archives are written to here."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge as Emulated
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.recover import for_reading
from tape.ltfs.volume import LtfsVolume
from tests.tape.volumes import Ticks
from vcbproxy.archive.shelf import Cartridge
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import CartridgeWanted

MAKER = Maker("TESTERS", "Tester", "1.0", "here")
BLOCK = 64 * 1024


@dataclass
class FolderShelf:
    """Cartridges in folders, taken in their order; each thread has a drive of its own.

    Attributes:
        root: where the folders are.
        capacities_mib: of the cartridges, in their order.
        away: labels of those that lie elsewhere.
    """

    root: Path
    capacities_mib: tuple[int, ...] = (64,)
    block_bytes: int = BLOCK
    pool: str = "daily"
    away: set[str] = field(default_factory=set)
    read: list[str] = field(default_factory=list)
    befall: Callable[[str, DriveLun], None] = lambda barcode, lun: None
    _full: set[str] = field(default_factory=set)
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for number, capacity_mib in enumerate(self.capacities_mib, 1):
            barcode = f"TAP{number:03}L8"
            if not (self.root / barcode).exists():
                Emulated.create(self.root / barcode, Kind(capacity_mib=capacity_mib))
                with self._drive(barcode) as drive:
                    naming = Naming(barcode, str(uuid.uuid4()), self.pool, "set1")
                    make_volume(drive, naming, MAKER, 10**18, block_bytes=self.block_bytes)

    @property
    def barcodes(self) -> list[str]:
        return [f"TAP{number:03}L8" for number in range(1, len(self.capacities_mib) + 1)]

    @contextmanager
    def for_writing(self) -> Iterator[Cartridge]:
        barcode = self._taken()
        try:
            with self._mounted(barcode) as cartridge:
                with cartridge.volume:
                    yield cartridge
                if cartridge.volume.full:
                    self._full.add(barcode)
        except BaseException:
            self._full.add(barcode)
            raise
        finally:
            self._busy.discard(barcode)

    def forget_what_is_full(self) -> None:
        """A new job run finds out by itself."""
        self._full.clear()

    def _taken(self) -> str:
        with self._lock:
            for barcode in self.barcodes:
                if barcode not in self._full | self._busy | self.away:
                    self._busy.add(barcode)
                    return barcode
        raise CartridgeWanted(f"pool {self.pool} has no cartridge left", barcodes=())

    @contextmanager
    def for_reading(self, barcode: str) -> Iterator[Cartridge]:
        if barcode in self.away or barcode not in self.barcodes:
            raise CartridgeWanted(f"{barcode} is wanted", barcodes=(barcode,))
        self.read.append(barcode)
        with self._drive(barcode) as drive:
            yield Cartridge(barcode, "set1", for_reading(drive, MAKER, Ticks()))

    @contextmanager
    def _mounted(self, barcode: str) -> Iterator[Cartridge]:
        with self._drive(barcode) as drive:
            yield Cartridge(barcode, "set1", LtfsVolume.mount(drive, MAKER, Ticks()))

    @contextmanager
    def _drive(self, barcode: str) -> Iterator[TapeDrive]:
        lun = DriveLun(f"VDRV-{barcode}")
        lun.insert(Emulated(self.root / barcode))
        self.befall(barcode, lun)
        drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
        drive.load()
        try:
            yield drive
        finally:
            drive.close()


def read_file(folder: Path, path: str) -> bytes:
    """A file of a cartridge in a folder, read by a drive of its own."""
    lun = DriveLun("VDRV-READ")
    lun.insert(Emulated(folder))
    with closing(TapeDrive(LoopTransport(lun), sleep=lambda _: None)) as drive:
        drive.load()
        file = LtfsVolume.mount(drive, MAKER, Ticks()).open(path)
        data = bytearray(file.size_bytes)
        file.read_into(0, memoryview(data))
        return bytes(data)


@dataclass
class Noted:
    """A catalog that is a list."""

    points: list[ArchivedPoint] = field(default_factory=list)

    def add(self, point: ArchivedPoint) -> None:
        self.points.append(point)

    def listed(self) -> list[ArchivedPoint]:
        return list(self.points)

    def suspect(self, points: Collection[str], because: str) -> None:
        self.points = [replace(one, suspect_because=because) if one.id in points else one for one in self.points]

    def is_suspect(self, point_id: str) -> bool:
        return next(one.suspect for one in self.points if one.id == point_id)
