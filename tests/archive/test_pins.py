"""A pinned restore point on tape: nothing that it needs is given up in any way, and a lost catalog keeps it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from tape.emulator.kinds import Kind
from tests.archive.pools import FRIDAY, World, written
from tests.catalog.examples import point
from vcbproxy.archive.keeper import Unfit
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base
from vcbproxy.archive.pins import PREFIX, bear, borne
from vcbproxy.archive.rebuild import complete, rebuild
from vcbproxy.archive.releasing import recycle, release
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.config import Allocation
from vcbproxy.errors import UsageError

ALWAYS = Allocation.ALWAYS


@pytest.fixture
def world(tmp_path):
    """A full image, a delta upon it in another set, and a stranger's restore point: a cartridge for each."""
    world = World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", "TAP004L8", kind=Kind(capacity_mib=24))
    terms = world.terms(allocation=ALWAYS)
    base = world.archive("web01", terms=terms)
    world.clock.pass_(hours=1)
    with world.shelf(terms) as shelf, TapeLane(shelf) as lane:
        delta = written(lane, "web01", b"changed", world.clock.moment, base=Base(base.id, base.name))
    with world.catalog() as catalog:
        catalog.points.add(delta)
    world.clock.pass_(hours=1)
    world.archive("other", terms=terms)
    world.clock.pass_(hours=1)
    return world


def pin(world: World, index: int = 1, reason: str = "for the auditors"):
    with world.catalog() as catalog:
        point = catalog.points.listed()[index]
        catalog.marks.pin(point, reason, world.clock.moment)
        return catalog.points.listed()[index]


def unpin(world: World, index: int = 1) -> None:
    with world.catalog() as catalog:
        catalog.marks.unpin(catalog.points.listed()[index].id, world.clock.moment)


def recyclable(world: World) -> list[str]:
    with world.opened() as (_, keeper):
        return [medium.barcode for medium, _ in recycle(keeper, None, dry_run=True)]


def lose_the_catalog(world: World) -> list[str]:
    """... and make it anew, of all cartridges. Gives what these say is pinned."""
    world.catalog_file.unlink()
    with world.opened() as (library, keeper):
        rebuilt = rebuild(library, keeper)
        assert rebuilt.told == []
        complete(keeper)
    return rebuilt.pinned


def pinned(world: World) -> dict[str, str]:
    with world.catalog() as catalog:
        return {point.name: point.pinned_because for point in catalog.points.listed() if point.pinned}


def test_what_it_lies_on_and_what_it_builds_upon_is_kept(world):
    point = pin(world)
    assert (point.pinned, point.pinned_because) == (True, "for the auditors")
    world.clock.moment = FRIDAY + timedelta(days=80)
    assert recyclable(world) == ["TAP003L8"]
    with world.opened() as (_, keeper):
        assert keeper.holds()["TAP001L8"].because == f"{point.name} is pinned (for the auditors): it is kept"
    unpin(world)
    assert recyclable(world) == ["TAP001L8", "TAP002L8", "TAP003L8"]


def test_no_backup_takes_its_cartridges(world):
    pin(world)
    world.clock.moment = FRIDAY + timedelta(days=80)
    terms = world.terms(allocation=ALWAYS)
    taken = []
    for name in ("a", "b"):
        taken += world.archive(name, terms=terms).barcodes
        world.clock.pass_(hours=1)
    assert taken == ["TAP004L8", "TAP003L8"]


def test_nobody_releases_what_it_needs(world):
    pin(world)
    with world.opened() as (library, keeper):
        with library.loaded("TAP001L8") as drive:
            found, volume = keeper.identify(drive)
        assert not release(keeper, "TAP001L8", found, None).released
        with pytest.raises(UsageError, match=r"needs TAP001L8, and is pinned"):
            release(keeper, "TAP001L8", found, found.fingerprint)
        with library.loaded("TAP001L8") as drive, pytest.raises(Unfit, match="is pinned"):
            keeper.label(drive, "TAP001L8", found, volume)
    unpin(world)
    with world.opened() as (library, keeper):
        assert release(keeper, "TAP001L8", found, found.fingerprint).released


def test_a_pin_that_was_written_along_survives_the_catalog(world):
    reason = 'for the "auditors" <é> & 😀, ]]> %41'
    point = pin(world, reason=reason)
    world.archive("tonight", terms=world.terms(allocation=ALWAYS))
    assert lose_the_catalog(world) == [point.name]
    assert pinned(world) == {point.name: reason}
    world.clock.moment = FRIDAY + timedelta(days=80)
    assert recyclable(world) == ["TAP003L8", "TAP004L8"]


def test_the_last_word_counts_wherever_it_stands(world):
    """Pinned, written along; unpinned, written along on another cartridge: the first one is an old word."""
    pin(world)
    world.archive("tonight", terms=world.terms(allocation=ALWAYS))
    world.clock.moment = FRIDAY + timedelta(days=31)
    unpin(world)
    with world.opened() as (_, keeper):
        recycle(keeper, None, dry_run=False)
    world.archive("later", terms=world.terms(allocation=ALWAYS))
    with world.catalog() as catalog:
        assert not any(one.holds for one in catalog.marks.pins().values())


def test_an_old_word_does_not_pin_again_what_was_unpinned(world):
    pin(world)
    world.archive("tonight", terms=world.terms(allocation=ALWAYS))
    world.clock.pass_(hours=1)
    unpin(world)
    with world.opened() as (library, keeper):
        rebuild(library, keeper)
    assert pinned(world) == {}
    pin(world, reason="again")
    with world.opened() as (library, keeper):
        rebuild(library, keeper)
    assert list(pinned(world).values()) == ["again"]


def test_a_clock_that_was_set_back_cannot_keep_a_pin(world):
    pin(world)
    world.clock.pass_(days=-100)
    unpin(world)
    assert pinned(world) == {}


def test_an_older_catalog_does_not_give_away_what_the_cartridge_says_is_pinned(world):
    """The second of the two that are asked: the catalog is of before the pin, the cartridge was written after it."""
    terms = world.terms()  # goes on on the cartridge that was written last
    before = world.catalog_file.read_bytes()
    point = pin(world, 2)
    assert world.archive("later", terms=terms).barcodes == point.barcodes == ("TAP003L8",)
    world.catalog_file.write_bytes(before)
    with world.opened() as (library, keeper):
        medium = keeper.catalog.media.get("TAP003L8")
        with library.loaded("TAP003L8") as drive:
            found, _ = keeper.identify(drive)
        keeper.catalog.points.remove(keeper.catalog.points.listed()[2].id)
    world.clock.moment = FRIDAY + timedelta(days=80)
    with world.opened() as (library, keeper):
        assert keeper.holds() == {}
        assert "is pinned, which the catalog does not know" in keeper.refusal("TAP003L8", found, medium, "daily")
        rebuild(library, keeper, ["TAP003L8"])
        assert "is pinned (for the auditors): it is kept for good" in keeper.refusal("TAP003L8", found, medium, "daily")


def test_writing_to_a_cartridge_loses_no_pin_that_only_it_knows(world):
    before = world.catalog_file.read_bytes()
    point = pin(world, 2)
    world.archive("later")
    world.catalog_file.write_bytes(before)
    world.archive("later still")
    assert pinned(world) == {point.name: "for the auditors"}


def test_a_catalog_that_fails_does_not_keep_what_was_written_from_being_safe(world):
    pin(world)
    with world.shelf(world.terms(allocation=ALWAYS)) as shelf, TapeLane(shelf) as lane:
        assert lane.cartridge.barcode == "TAP004L8"
        with closing(sqlite3.connect(world.catalog_file)) as database:
            database.execute("ALTER TABLE pin RENAME TO lost")
        point = written(lane, "tonight", b"data", world.clock.moment)
    lose_the_catalog(world)
    assert world.read(point) == b"data"


def test_any_ltfs_program_shows_them(world):
    point = pin(world)
    with world.shelf(world.terms(allocation=ALWAYS)) as shelf, TapeLane(shelf) as lane:
        written(lane, "tonight", b"data", world.clock.moment)
        xattrs = lane.cartridge.volume.index.root.xattrs
    assert json.loads(xattrs[PREFIX + point.id]) == {
        "format": 1,
        "name": point.name,
        "pinned": True,
        "reason": "for the auditors",
        "changed": "2026-11-27T04:00:00Z",
        "cartridges": ["TAP001L8", "TAP002L8"],
    }


@pytest.mark.parametrize("letter", ["x", "é", "😀", '"', "\x01"])
def test_a_reason_however_long_makes_no_attribute_that_others_would_not_read(letter, tmp_path):
    with Catalog.open("sqlite:////" + str(tmp_path / "catalog.db")) as catalog:
        named = point("web01", *(f"TAP{number:03}L8" for number in range(60)))
        catalog.points.add(named)
        catalog.marks.pin(named, "why: " + 5000 * letter, FRIDAY)
        xattrs = {}
        bear(xattrs, catalog)
    [value] = xattrs.values()
    [told] = borne(xattrs)
    assert 4000 < len(value) <= 4096
    assert told.cartridges == named.barcodes
    assert told.pin.reason == ("why: " + 5000 * letter)[: len(told.pin.reason)]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"format": 2}',
        b'{"format": 1}',
        b'{"format": 1, "name": "x", "pinned": 1, "reason": "", "changed": "2026-11-27T04:00:00Z", "cartridges": []}',
        b'{"format": 1, "name": "x", "pinned": true, "reason": "", "changed": "2026-11-27T04:00:00", "cartridges": []}',
        b'{"format": 1, "name": "x", "pinned": true, "reason": "", "changed": 7, "cartridges": []}',
        b'{"format": 1, "name": "x", "pinned": true, "reason": "", "changed": "2026-11-27T04:00:00Z", "cartridges": 7}',
    ],
)
def test_what_is_no_pin_is_passed_over(value, tmp_path):
    xattrs = {f"{PREFIX}{'0' * 32}": value, "other": b"x"}
    assert borne(xattrs) == []
    with Catalog.open("sqlite:////" + str(tmp_path / "catalog.db")) as catalog:
        before = dict(xattrs)
        bear(xattrs, catalog)
    assert xattrs == before, "a newer version knows what it means"
