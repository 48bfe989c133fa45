"""Months of a pool by seed: nights, deaths, lost and outdated catalogs, swapped labels; nothing that is kept is lost.

Deltas are kept with what they build upon, also while they lie in a vault and the catalog is made anew without them; and
what is pinned is kept, if a cartridge was told. By a catalog of an earlier night that nobody brought up, as the manual
says it, only what each cartridge says of itself is sure.

A death leaves the disk as it was at one of the moments at which the program looked at the clock: cartridges, the
robot's state and the catalog's file, in the middle of whatever it was doing.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.errors import FormatError, TapeError
from tape.ltfs.index import File
from tests.archive.pools import IMAGE, MAKER, Clock, World, content, written
from vcbproxy.archive.bases import chain
from vcbproxy.archive.hand import Hand
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base
from vcbproxy.archive.rebuild import Rebuilt, complete, rebuild
from vcbproxy.archive.releasing import recycle, release
from vcbproxy.catalog.allocation import Terms
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.config import Allocation
from vcbproxy.errors import CartridgeWanted, Error, IntegrityError, UsageError

SEEDS = range(int(os.environ.get("VCBPROXY_SIM_SEEDS", "4")))
NIGHTS = 14
BARCODES = ("TAP001L8", "TAP002L8", "TAP003L8", "TAP004L8")
RETENTION = timedelta(days=30)


@dataclass
class Watched(Clock):
    """A clock that copies the world at one of the moments at which it is looked at."""

    looks_left: int | None = None
    copy: Callable[[], None] = lambda: None

    def __call__(self) -> datetime:
        if self.looks_left is not None:
            self.looks_left -= 1
            if self.looks_left == 0:
                self.copy()
        return self.moment


@dataclass
class Promise:
    """A restore point that was made, and must be there until then."""

    point: ArchivedPoint
    digest: str
    until: datetime
    base: str | None = None
    pinned: bool = False
    told: bool = False


@dataclass
class Months:
    world: World
    rng: random.Random
    promises: dict[str, Promise] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    old_catalog: bytes = b""
    away: set[str] = field(default_factory=set)
    swapped: bool = False

    @property
    def clock(self) -> Watched:
        assert isinstance(self.world.clock, Watched)
        return self.world.clock

    # ------------------------------------------------------------------ what happens

    def night(self) -> None:
        self.clock.pass_(days=self.rng.choice((0, 1, 3, 9, 20)))
        happenings = (
            self.death, self.loss, self.outdated, self.swap, self.given_up, self.mended, self.quiet,
            self.carried, self.carried, self.pin, self.pin, self.unpin,
        )  # fmt: skip
        happening = self.rng.choice(happenings)
        self.told.append(happening.__name__)
        happening()
        self.archive()
        self.hold()

    def archive(self) -> None:
        allocation = self.rng.choice((Allocation.CONTINUE, Allocation.ALWAYS))
        name, size = f"vm{self.rng.randrange(3)}", self.rng.randrange(1, 6 << 20)
        terms = self.world.terms(allocation=allocation, appendable_for="20d")
        self.clock.moment += timedelta(seconds=1)
        try:
            point = self.written(name, size, terms)
        except CartridgeWanted:
            self.told.append("wanted")
            return
        except Error as error:
            self.told.append(f"failed: {error}")
            return
        until = self.clock.moment + RETENTION
        digest = sha256(content(name, size)).hexdigest()
        if point.base is None or point.base in self.promises:
            self.promises[point.id] = Promise(point, digest, until, point.base)
        for promise in self.promises.values():
            promise.told = promise.told or promise.pinned

    def written(self, name: str, size: int, terms: Terms) -> ArchivedPoint:
        """Upon the newest of the VM in the same media set, now and then, as deltas are."""
        with self.world.shelf(terms) as shelf, TapeLane(shelf) as lane:
            media_set = lane.cartridge.media_set
            with self.world.catalog() as catalog:
                below = [one for one in catalog.points.listed() if (one.vm, one.media_set) == (name, media_set)]
            base = below[-1] if below and below[-1].id in self.promises and self.rng.random() < 0.6 else None
            point = written(
                lane, name, content(name, size), self.clock.moment, Base(base.id, base.name) if base else None
            )
        with self.world.catalog() as catalog:
            catalog.points.add(point)
        return point

    def death(self) -> None:
        """In the middle of a night's work."""
        before, root = set(self.promises), self.world.root
        left = root.with_name(f"{root.name}.left")
        self.clock.copy = lambda: shutil.copytree(root, left, ignore=shutil.ignore_patterns("*.sock"))  # type: ignore[assignment,return-value]
        self.clock.looks_left = self.rng.randrange(1, 40)
        self.archive()
        self.clock.looks_left = None
        if left.exists():
            shutil.rmtree(root)
            left.rename(root)
            self.promises = {key: promise for key, promise in self.promises.items() if key in before}
            self.told.append("died")

    def loss(self) -> None:
        self.world.catalog_file.unlink(missing_ok=True)
        pinned = [promise for promise in self.promises.values() if promise.pinned]
        if not pinned and self.rng.random() < 0.3:
            return
        self.mended()
        sure = not (self.away or self.swapped)
        with self.world.catalog() as catalog:
            known = {point.id for point in catalog.points.listed() if point.pinned}
        for promise in pinned:
            assert promise.point.id in known or not (sure and promise.told), (promise, self.told)
            promise.pinned = promise.point.id in known

    def outdated(self) -> None:
        """The catalog of some earlier night, from a backup of the proxy."""
        if self.old_catalog and self.rng.random() < 0.5:
            self.world.catalog_file.write_bytes(self.old_catalog)
            if self.away or self.swapped or self.rng.random() < 0.5:
                for promise in self.promises.values():
                    promise.base, promise.pinned = None, False
            else:
                self.mended()
                for promise in self.promises.values():
                    promise.pinned = promise.pinned and promise.told
        elif self.world.catalog_file.exists():
            self.old_catalog = self.world.catalog_file.read_bytes()

    def swap(self) -> None:
        one, two = (self.world.folder(barcode) for barcode in self.rng.sample(BARCODES, 2))
        aside = self.world.root / "aside"
        one.rename(aside)
        two.rename(one)
        aside.rename(two)
        self.swapped = True

    def carried(self) -> None:
        """To the vault, or all back from there."""
        library = VirtualLibrary.open(self.world.root / "library")
        if self.away and self.rng.random() < 0.5:
            barcode = self.away.pop()
            library.import_cartridge(barcode)
            return
        barcode = self.rng.choice(BARCODES)
        if barcode not in self.away:
            library.take_out(barcode)
            self.away.add(barcode)

    def pin(self) -> None:
        with self.world.catalog() as catalog:
            known = catalog.points.listed()
            whole = [point for point in known if point.id in self.promises and _is_whole(point, known)]
            if whole:
                point = self.rng.choice(whole)
                catalog.marks.pin(point, "", self.clock.moment)
                self.promises[point.id].pinned = True
                self.promises[point.id].told = False

    def unpin(self) -> None:
        with self.world.catalog() as catalog:
            for point in catalog.points.listed():
                if point.pinned and self.rng.random() < 0.5:
                    catalog.marks.unpin(point.id, self.clock.moment)
                    if point.id in self.promises:
                        self.promises[point.id].pinned = False

    def given_up(self) -> None:
        """A person releases what lies on a cartridge; or all that has expired is recycled."""
        with self.world.opened() as (library, keeper):
            if self.rng.random() < 0.5:
                recycle(keeper, None, dry_run=False)
                return
            barcode = self.rng.choice(BARCODES)
            try:
                with library.loaded(barcode) as drive:
                    found, _ = keeper.identify(drive)
                release(keeper, barcode, found, found.fingerprint)
            except (TapeError, Error) as error:
                self.told.append(f"not released: {error}")
                return
        for key, promise in list(self.promises.items()):
            if any(part.volume_uuid == found.volume_uuid for part in promise.point.parts):
                del self.promises[key]
        for promise in self.promises.values():
            promise.base = promise.base if promise.base in self.promises else None

    def mended(self) -> Rebuilt:
        with self.world.opened() as (library, keeper):
            rebuilt = rebuild(library, keeper, recover=True)
            if not (self.away or self.swapped) and self.rng.random() < 0.5:
                with suppress(UsageError):  # some was written over long ago
                    complete(keeper)
            return rebuilt

    def quiet(self) -> None:
        """A quiet day."""

    # ------------------------------------------------------------------ what must hold

    def hold(self) -> None:
        """Everything promised is on some cartridge, whatever any catalog says."""
        there = self.on_tape()
        kept = self.kept()
        for promise in self.promises.values():
            if promise.point.id in kept:
                for part in promise.point.parts:
                    if part.file == IMAGE:
                        assert there.get((part.volume_uuid, part.path)) == part.sha256, (promise, self.told)

    def kept(self) -> set[str]:
        """What is not over, what is pinned, and all that those build upon."""
        found: set[str] = set()
        for promise in self.promises.values():
            one: Promise | None = promise if promise.until > self.clock.moment or promise.pinned else None
            while one is not None and one.point.id not in found:
                found.add(one.point.id)
                one = self.promises.get(one.base or "")
        return found

    def on_tape(self) -> dict[tuple[str, str], str]:
        """The digest of every image, by volume and path; of all cartridges, as a stranger would read them."""
        found: dict[tuple[str, str], str] = {}
        for barcode in BARCODES:
            try:
                volume = Hand(MAKER, self.clock).mount_to_read(self.world.drive_with(barcode))
            except FormatError:
                continue  # blank, or its format was cut off
            for path, entry in volume.index.root.walk():
                if isinstance(entry, File) and "raw" in path:
                    data = bytearray(entry.length)
                    volume.open(path).read_into(0, memoryview(data))
                    found[volume.uuid, path] = sha256(data).hexdigest()
        return found


def _is_whole(point: ArchivedPoint, known: list[ArchivedPoint]) -> bool:
    try:
        return bool(chain(point, known))
    except IntegrityError:
        return False


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_is_kept_is_lost(tmp_path: Path, seed: int) -> None:
    world = World.with_cartridges(tmp_path / "world", *BARCODES, kind=Kind(capacity_mib=24))
    world.clock = Watched()
    months = Months(world, random.Random(seed))
    for _ in range(NIGHTS):
        months.night()
    rebuilt = months.mended()
    months.hold()
    there = months.on_tape()
    with world.catalog() as catalog:
        listed = catalog.points.listed()
    print(f"seed {seed}: {len(months.promises)} made, {len(listed)} listed; {'; '.join(months.told)}")
    # What could not be looked at, for its label is another's, is told as a problem, and stays as it was listed.
    looked = {seen.barcode for seen in rebuilt.seen if not seen.problem}
    for point in (point for point in listed if looked.issuperset(point.barcodes)):
        for part in point.parts:
            if part.file == IMAGE:
                assert there.get((part.volume_uuid, part.path)) == part.sha256, (
                    f"{point.name} is listed, and is not there"
                )
