"""A catalog made anew while cartridges lie elsewhere: nothing that these need is given up before they were seen."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tests.archive.pools import FRIDAY, World, written
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base
from vcbproxy.archive.rebuild import complete, rebuild
from vcbproxy.archive.releasing import recycle
from vcbproxy.catalog.medium import FOREVER
from vcbproxy.config import Allocation
from vcbproxy.errors import CartridgeWanted, UsageError


@pytest.fixture
def world(tmp_path):
    """A full image on the first cartridge; twenty days later a delta on the second, and that is in a vault."""
    world = World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", kind=Kind(capacity_mib=24))
    base = world.archive("web01")
    with world.shelf() as shelf:
        assert world.fill(shelf, "large") == "TAP001L8"
    world.clock.pass_(days=20)
    with world.shelf() as shelf, TapeLane(shelf) as lane:
        delta = written(lane, "web01", b"changed", world.clock.moment, base=Base(base.id, base.name))
        assert delta.barcodes == ("TAP002L8",)
    world.clock.pass_(days=5)
    carry_away(world, "TAP002L8")
    world.catalog_file.unlink()
    return world


def carry_away(world: World, barcode: str) -> None:
    VirtualLibrary.open(world.root / "library").take_out(barcode)


def bring_back(world: World, barcode: str) -> None:
    VirtualLibrary.open(world.root / "library").import_cartridge(barcode)


def rebuilt(world: World):
    with world.opened() as (library, keeper):
        return rebuild(library, keeper)


def recyclable(world: World) -> list[str]:
    with world.opened() as (_, keeper):
        return [medium.barcode for medium, _ in recycle(keeper, None, dry_run=True)]


def test_a_base_outlives_the_deltas_in_a_vault(world):
    """The first cartridge says day 30, the one that is away day 50: that is not known here."""
    rebuilt(world)
    for day in (31, 49):
        world.clock.moment = FRIDAY + timedelta(days=day)
        assert recyclable(world) == []
        with pytest.raises(CartridgeWanted, match=r"may be overwritten from 2027-01-24; or sooner, .* --complete"):
            world.archive("tonight", terms=world.terms(allocation=Allocation.ALWAYS))
    bring_back(world, "TAP002L8")
    assert rebuilt(world).told == []
    with world.catalog() as catalog:
        assert [point.base is None for point in catalog.points.listed()] == [True, False]


def test_when_the_hold_ends(world):
    rebuilt(world)
    world.clock.moment = FRIDAY + timedelta(days=25 + 30 - 1)
    assert recyclable(world) == []
    with world.opened() as (_, keeper):
        hold = keeper.holds()["TAP001L8"]
        assert "2026-12-22" in hold.because, "when it was read from its cartridges"
        assert "catalog rebuild --complete" in hold.because
    world.clock.moment = FRIDAY + timedelta(days=25 + 30 + 3)
    assert recyclable(world) == ["TAP001L8"]


def test_a_longer_promise_that_was_made_before_counts(world):
    """The rule was a year when the cartridges were written; that on those away is as long."""
    world.retention["daily"] = "1y"
    bring_back(world, "TAP002L8")
    with world.opened() as (library, keeper):
        rebuild(library, keeper)
    world.archive("later")
    carry_away(world, "TAP002L8")
    world.catalog_file.unlink()
    world.retention["daily"] = "1d"
    rebuilt(world)
    with world.opened() as (_, keeper):
        assert keeper.holds()["TAP001L8"].until < FRIDAY + timedelta(days=60), "nothing seen says a year"
    bring_back(world, "TAP002L8")
    rebuilt(world)
    with world.opened() as (_, keeper):
        assert keeper.holds()["TAP001L8"].until > FRIDAY + timedelta(days=380)


def test_a_person_says_that_no_other_cartridge_is_missing(world):
    bring_back(world, "TAP002L8")
    assert rebuilt(world).told == []
    world.clock.moment = FRIDAY + timedelta(days=51)
    assert recyclable(world) == []
    with world.opened() as (_, keeper):
        assert complete(keeper) == ["daily"]
        assert complete(keeper) == []
    assert sorted(recyclable(world)) == ["TAP001L8", "TAP002L8"]


def test_a_person_who_is_wrong_is_told(world):
    """What builds on something that was not seen, or lies partly elsewhere, is proof that something is missing."""
    bring_back(world, "TAP002L8")
    carry_away(world, "TAP001L8")
    rebuilt(world)
    with world.opened() as (_, keeper), pytest.raises(UsageError, match=r"builds upon .*, which was not seen"):
        complete(keeper)


def test_a_part_elsewhere_is_proof_too(tmp_path):
    world = World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", kind=Kind(capacity_mib=24))
    point = world.archive("large", 30 << 20)
    first, *_ = point.barcodes
    carry_away(world, first)
    world.catalog_file.unlink()
    rebuilt(world)
    with world.opened() as (_, keeper), pytest.raises(UsageError, match=f"lies on {first}, which was not seen"):
        complete(keeper)


def test_a_cartridge_that_knows_more_than_the_catalog_is_taken_in_likewise(world):
    """The catalog of an earlier night was put back: what it does not know may be more than what is seen."""
    bring_back(world, "TAP002L8")
    rebuilt(world)
    with world.opened() as (_, keeper):
        complete(keeper)
    before = world.catalog_file.read_bytes()
    world.clock.pass_(days=1)
    world.archive("later")
    world.catalog_file.write_bytes(before)
    world.clock.pass_(days=10)
    rebuilt(world)
    with world.opened() as (_, keeper):
        assert keeper.holds()["TAP001L8"].until >= world.clock.moment + timedelta(days=30)


def test_cartridges_that_come_back_one_by_one_hold_nothing_for_longer(world):
    """Nothing was written after the catalog was lost: the first rebuild has told how long what is away may be kept."""
    rebuilt(world)
    with world.opened() as (_, keeper):
        until = keeper.holds()["TAP001L8"].until
    world.clock.pass_(days=10)
    bring_back(world, "TAP002L8")
    assert len(rebuilt(world).waiting) == 1
    with world.opened() as (_, keeper):
        assert {hold.until for hold in keeper.holds().values()} == {until}


def test_what_was_recycled_and_is_looked_at_again_is_no_news(world):
    bring_back(world, "TAP002L8")
    rebuilt(world)
    with world.opened() as (_, keeper):
        complete(keeper)
    world.clock.pass_(days=60)
    with world.opened() as (_, keeper):
        assert len(recycle(keeper, None, dry_run=False)) == 2
    assert rebuilt(world).waiting == []


def test_a_look_that_tells_nothing_new_holds_nothing(world):
    bring_back(world, "TAP002L8")
    rebuilt(world)
    with world.opened() as (_, keeper):
        complete(keeper)
        before = keeper.holds()
    world.clock.pass_(days=1)
    rebuilt(world)
    with world.opened() as (_, keeper):
        assert keeper.holds() == before


def test_for_good_stays_for_good(world):
    world.retention["daily"] = "forever"
    rebuilt(world)
    with world.opened() as (_, keeper):
        assert keeper.holds()["TAP001L8"].until == FOREVER
