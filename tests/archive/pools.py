"""A pool over an emulated library, its catalog, and a clock that a test sets: what every test of pools begins with."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from tape.devices import EmulatedDevices
from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.emulator.loop import LoopTransport
from tape.library import Library
from tape.ltfs.format import Maker
from vcbproxy.archive.hand import Hand
from vcbproxy.archive.keeper import Keeper
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base, Image
from vcbproxy.archive.manifest import Kind as ImageKind
from vcbproxy.archive.point import Identity, TapePoint
from vcbproxy.archive.pool import PoolShelf
from vcbproxy.catalog.allocation import Terms
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import State
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.config import Allocation
from vcbproxy.config.barcodes import BarcodeRange
from vcbproxy.config.repository import Day

MAKER = Maker("VCBPROXY", "vcbproxy", "1", "proxy01")
LIBRARY = "main"
IMAGE = "scsi0-0.raw.zst"
FRIDAY = datetime(2026, 11, 27, 1, tzinfo=UTC)
CONFIG = """
[state]
directory = "state"

[tape.library.main]
folder = "library"

[tape.pool.daily]
barcodes = ["TAP001L8-TAP099L8"]
retention = "30d"
vault = "salt mine"
"""


@dataclass
class Clock:
    """The time, as the test sets it."""

    moment: datetime = FRIDAY

    def __call__(self) -> datetime:
        return self.moment

    def pass_(self, **length: float) -> None:
        self.moment += timedelta(**length)


@dataclass
class World:
    """One library in a folder, with a catalog beside it."""

    root: Path
    clock: Clock = field(default_factory=Clock)
    retention: dict[str, str] = field(default_factory=lambda: {"daily": "30d"})
    befall: Callable[[DriveLun], None] = lambda lun: None
    """Done to each drive of the library as it is opened."""

    @classmethod
    def with_cartridges(cls, root: Path, *barcodes: str, kind: Kind | None = None, drives: int = 2) -> World:
        VirtualLibrary.create(
            root / "library", barcodes=barcodes, drives=drives, kind=kind or Kind(capacity_mib=100), serial="LIB1"
        )
        return cls(root)

    def folder(self, barcode: str) -> Path:
        return self.root / "library" / barcode

    def cartridge(self, barcode: str) -> Cartridge:
        return Cartridge(self.folder(barcode))

    def drive_with(self, barcode: str) -> TapeDrive:
        """A drive of its own, whatever the library says; the cartridge lies in it."""
        lun = DriveLun(f"ALONE-{barcode}")
        lun.insert(self.cartridge(barcode))
        drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
        drive.load()
        return drive

    @property
    def catalog_file(self) -> Path:
        return self.root / "state" / "catalog.db"

    @property
    def config(self) -> Path:
        """A configuration for the program, with paths that go with the folder."""
        path = self.root / "vcbproxy.toml"
        path.write_text(CONFIG)
        return path

    def terms(self, pool: str = "daily", allocation: Allocation = Allocation.CONTINUE, **options: object) -> Terms:
        return Terms(
            pool,
            tuple(BarcodeRange.parse(text) for text in options.get("barcodes", ("TAP001L8-TAP099L8",))),  # type: ignore[attr-defined]
            allocation,
            Day.FRI if allocation is Allocation.WEEKLY else None,
            Length.parse(str(options.get("appendable_for", "forever"))),
            Length.parse(self.retention.get(pool, "30d")),
            UTC,
        )

    @contextmanager
    def opened(self) -> Iterator[tuple[Library, Keeper]]:
        retention = {pool: Length.parse(text) for pool, text in self.retention.items()}
        with (
            Catalog.open(f"sqlite:///{self.catalog_file}") as catalog,
            Library(devices := EmulatedDevices(self.root / "library"), name=LIBRARY) as library,
        ):
            for drive in devices.library.drives:
                self.befall(drive)
            yield library, Keeper(catalog, LIBRARY, retention, Hand(MAKER, self.clock))

    @contextmanager
    def shelf(self, terms: Terms | None = None, **options: Any) -> Iterator[PoolShelf]:
        """One job run's."""
        with self.opened() as (library, keeper):
            yield PoolShelf(terms or self.terms(), LIBRARY, library, keeper, **options)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        with Catalog.open(f"sqlite:///{self.catalog_file}") as catalog:
            yield catalog

    def state(self, barcode: str) -> tuple[State, int]:
        """What the catalog says of a cartridge, and how often it has failed."""
        with self.catalog() as catalog:
            medium = catalog.media.get(barcode)
            assert medium is not None
            return medium.state, medium.errors

    def break_catalog(self) -> None:
        """From now on it answers with errors."""
        with closing(sqlite3.connect(self.catalog_file)) as database:
            database.execute("ALTER TABLE medium RENAME TO lost")
            database.commit()

    # ------------------------------------------------------------------ what jobs do, in short

    def archive(
        self, name: str = "web01", size: int = 1 << 20, terms: Terms | None = None, base: str | None = None
    ) -> ArchivedPoint:
        """One file as a restore point: written, and noted in the catalog."""
        with self.shelf(terms) as shelf:
            return self.put(shelf, name, size, base=base)

    def put(self, shelf: PoolShelf, name: str, size: int = 1 << 20, *, base: str | None = None) -> ArchivedPoint:
        with TapeLane(shelf) as lane:
            point = written(lane, name, content(name, size), self.clock.moment)
        point = replace(point, base=base)
        with self.catalog() as catalog:
            catalog.points.add(point)
        return point

    def leave_half_written(self, barcode: str) -> None:
        """As a writer that died: data behind the last index, and a memory that knows that something was written."""
        tape = self.cartridge(barcode)
        tape.tracks[1].write(tape.tracks[1].end, b"what no index names" * 1000)
        tape.flush()
        for coherency in self.folder(barcode).glob("attr_*_80c"):
            coherency.unlink()

    def fill(self, shelf: PoolShelf, name: str) -> str:
        """A file that leaves no room on its cartridge; gives the label."""
        with shelf.for_writing() as cartridge:
            writer = cartridge.volume.create(f"/{name}")
            piece = content(name, 4 << 20)
            while writer.write(piece) == len(piece):
                continue
            writer.finish()
            assert cartridge.volume.full
            return cartridge.barcode

    def read(self, point: ArchivedPoint) -> bytes:
        """Its image, from however many cartridges."""
        data = b""
        with self.shelf() as shelf:
            for part in sorted((part for part in point.parts if part.file == IMAGE), key=lambda part: part.number):
                with shelf.for_reading(part.barcode) as cartridge:
                    piece = bytearray(part.size_bytes)
                    cartridge.volume.open(part.path).read_into(0, memoryview(piece))
                data += piece
        return data


def written(lane: TapeLane, name: str, data: bytes, moment: datetime, base: Base | None = None) -> ArchivedPoint:
    """A restore point of one image, as jobs write it, but for its being compressed."""
    with TapePoint(lane, Identity(uuid4().hex, name, f"uuid of {name}"), moment) as point:
        if base is not None:
            point.build_on(base)
        file = point.begin_file(IMAGE)
        for at in range(0, len(data), 1 << 20):
            file.write(data[at : at + (1 << 20)])
        point.add_image(Image("scsi0:0", IMAGE, ImageKind.FULL, len(data), sha256(data).hexdigest(), file.finish()))
        return point.commit({})


def content(name: str, size: int) -> bytes:
    block = sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def barcodes(points: Sequence[ArchivedPoint]) -> list[str]:
    return [barcode for point in points for barcode in point.barcodes]
