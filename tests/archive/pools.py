"""A pool over an emulated library, its catalog, and a clock that a test sets: what every test of pools begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from tape.emulator.cartridge import Cartridge, Kind
from tape.emulator.library import VirtualLibrary
from tape.library import Library
from tape.ltfs.format import Maker
from vcbproxy.archive.keeper import Hand, Keeper
from vcbproxy.archive.pool import PoolShelf
from vcbproxy.catalog.allocation import Terms
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.length import Length
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.config import Allocation
from vcbproxy.config.barcodes import BarcodeRange
from vcbproxy.config.repository import Day

MAKER = Maker("VCBPROXY", "vcbproxy", "1", "proxy01")
LIBRARY = "main"
FRIDAY = datetime(2026, 11, 27, 1, tzinfo=UTC)


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

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{self.root}/catalog.db"

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
            Catalog.open(self.catalog_url) as catalog,
            Library.in_folder(self.root / "library", name=LIBRARY) as library,
        ):
            yield library, Keeper(catalog, LIBRARY, retention, Hand(MAKER, self.clock))

    @contextmanager
    def shelf(self, terms: Terms | None = None) -> Iterator[PoolShelf]:
        """One job run's."""
        with self.opened() as (library, keeper):
            yield PoolShelf(terms or self.terms(), LIBRARY, library, keeper)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        with Catalog.open(self.catalog_url) as catalog:
            yield catalog

    # ------------------------------------------------------------------ what jobs do, in short

    def archive(
        self, name: str = "web01", size: int = 1 << 20, terms: Terms | None = None, base: str | None = None
    ) -> ArchivedPoint:
        """One file as a restore point: written, and noted in the catalog."""
        with self.shelf(terms) as shelf:
            return self.put(shelf, name, size, base=base)

    def put(self, shelf: PoolShelf, name: str, size: int = 1 << 20, *, base: str | None = None) -> ArchivedPoint:
        data = content(name, size)
        path = f"/{name}/{self.clock.moment:%Y%m%dT%H%M%SZ}/scsi0-0.raw"
        with shelf.for_writing() as cartridge:
            writer = cartridge.volume.create(path)
            assert writer.write(data) == len(data)
            writer.finish({"ltfs.hash.sha256sum": sha256(data).hexdigest().encode()})
            part = ArchivedPart(
                "scsi0-0.raw", 1, path, cartridge.barcode, cartridge.volume.uuid, size, sha256(data).hexdigest()
            )
            media_set = cartridge.media_set
        point = ArchivedPoint(
            sha256(path.encode()).hexdigest()[:32], name, f"uuid of {name}", self.clock.moment, shelf.pool, media_set,
            base, (part,),
        )  # fmt: skip
        with self.catalog() as catalog:
            catalog.points.add(point)
        return point

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
        [part] = point.parts
        with self.shelf() as shelf, shelf.for_reading(part.barcode) as cartridge:
            data = bytearray(part.size_bytes)
            cartridge.volume.open(part.path).read_into(0, memoryview(data))
            return bytes(data)


def content(name: str, size: int) -> bytes:
    block = sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def barcodes(points: Sequence[ArchivedPoint]) -> list[str]:
    return [barcode for point in points for barcode in point.barcodes]
