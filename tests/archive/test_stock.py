"""Taking stock, making the catalog anew, giving cartridges up: what the catalog says afterwards is what is on tape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tests.archive.pools import LIBRARY, World, content, written
from tests.archive.test_pool import foreign_ltfs, foreign_records
from vcbproxy.archive import stock
from vcbproxy.archive.keeper import Unfit
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base
from vcbproxy.archive.rebuild import rebuild
from vcbproxy.archive.releasing import recycle, release
from vcbproxy.catalog.medium import State
from vcbproxy.config import Allocation
from vcbproxy.errors import UsageError


@pytest.fixture
def world(tmp_path):
    return World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", "CLN001L8")


@pytest.fixture
def small(tmp_path):
    return World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", kind=Kind(capacity_mib=24))


def everything(world):
    """The catalog but for what it counts by itself."""
    with world.catalog() as catalog:
        counted = {"loads": 0, "life_written_mib": 0, "life_read_mib": 0, "last_drive": None}
        media = [
            replace(one, seen=None, slot=0, library=LIBRARY, **counted)  # the drive goes on counting
            for one in catalog.media.listed()
        ]
        return media, catalog.sets.listed(), catalog.points.listed()


def test_a_lost_catalog_is_made_anew_from_the_cartridges(small):
    """Several media sets, a restore point over several cartridges, a full one, one with room."""
    terms = small.terms(allocation=Allocation.ALWAYS)
    with small.shelf(terms) as shelf:
        points = [small.put(shelf, "web01", 3 << 20), small.put(shelf, "large", 30 << 20)]
        assert len(points[1].barcodes) > 1
    small.clock.pass_(days=1)
    points.append(small.archive("web02", terms=terms))
    before = everything(small)
    small.catalog_file.unlink()
    with small.opened() as (library, keeper):
        rebuilt = rebuild(library, keeper)
    assert rebuilt.told == []
    assert rebuilt.problems == {}
    media, sets, found = everything(small)
    assert found == before[2]
    assert media == before[0]
    assert [replace(one, closed=False, taken_in=None) for one in sets] == [
        replace(one, closed=False) for one in before[1]
    ]
    sizes = {"web01": 3 << 20, "large": 30 << 20, "web02": 1 << 20}
    for point in points:
        assert small.read(point) == content(point.vm, sizes[point.vm])


def test_a_cartridge_whose_writer_died_is_told_and_mended_if_one_says_so(world):
    point = world.archive("web01")
    world.leave_half_written("TAP001L8")
    world.catalog_file.unlink()
    with world.opened() as (library, keeper):
        [seen] = rebuild(library, keeper, ["TAP001L8"]).seen
        assert "rebuild --recover" in seen.problem
        assert seen.medium.state is State.FOREIGN
        rebuilt = rebuild(library, keeper, ["TAP001L8"], recover=True)
        assert [one.problem for one in rebuilt.seen] == [""]
        assert keeper.catalog.points.listed() == [point]
    assert world.archive("web02").barcodes == ("TAP001L8",)


def test_a_set_goes_on_after_the_catalog_was_made_anew(world):
    world.archive("web01")
    world.catalog_file.unlink()
    with world.opened() as (library, keeper):
        rebuild(library, keeper)
    assert world.archive("web02").barcodes == ("TAP001L8",)


def test_what_is_gone_from_its_cartridge_leaves_the_catalog(world):
    point = world.archive("web01")
    with world.catalog() as catalog:
        catalog.points.add(replace(point, id="0" * 32, vm="ghost"))
    with world.opened() as (library, keeper):
        rebuilt = rebuild(library, keeper, ["TAP001L8"])
    assert [one.vm for one in rebuilt.gone] == ["ghost"]
    assert [one.vm for one in rebuilt.points] == ["web01"]


def test_a_point_over_several_cartridges_outlives_a_look_at_some_of_them(small):
    """The others are in a vault, or were not named: nothing that was seen denies it."""
    point = small.archive("large", 40 << 20)
    assert len(point.barcodes) > 1
    for barcode in point.barcodes:
        with small.opened() as (library, keeper):
            assert rebuild(library, keeper, [barcode]).gone == []
            assert keeper.catalog.points.listed() == [point]
    assert small.read(point) == content("large", 40 << 20)


def test_a_point_is_gone_with_a_part_of_it(small):
    """... wherever its last word lies."""
    point = small.archive("large", 40 << 20)
    with small.opened() as (library, keeper):
        parts = (replace(point.parts[0], path="/large/nowhere"), *point.parts[1:])
        keeper.catalog.points.add(replace(point, parts=parts))
        assert rebuild(library, keeper, [point.parts[0].barcode]).gone


def test_another_cartridge_under_a_known_label_takes_no_restore_points_away(world):
    point = world.archive("web01")
    world.folder("TAP001L8").rename(world.root / "aside")
    other = World.with_cartridges(world.root / "other", "TAP001L8")
    other.archive("stranger")
    other.folder("TAP001L8").rename(world.folder("TAP001L8"))
    with world.opened() as (library, keeper):
        rebuilt = rebuild(library, keeper, ["TAP001L8"])
        assert "it should hold volume" in rebuilt.seen[0].problem or "knows cartridge" in rebuilt.seen[0].problem
        assert point in keeper.catalog.points.listed()


def test_a_delta_whose_base_was_not_seen_is_told(world):
    terms = world.terms(allocation=Allocation.ALWAYS)
    base = world.archive("web01", terms=terms)
    with world.shelf(terms) as shelf, TapeLane(shelf) as lane:
        delta = written(lane, "web01", b"changed", world.clock.moment, base=Base(base.id, base.name))
    world.catalog_file.unlink()
    with world.opened() as (library, keeper):
        rebuilt = rebuild(library, keeper, list(delta.barcodes))
        [told] = rebuilt.told
        assert f"{delta.name} cannot be restored until the cartridges of {base.id}" in told
        assert rebuild(library, keeper).told == []


def test_what_lies_where_by_the_labels(world):
    world.archive("web01")
    library = VirtualLibrary.open(world.root / "library")
    address = next(address for address, barcode in library.shelf.full.items() if barcode == "TAP001L8")
    del library.shelf.full[address]
    library.save()
    with world.opened() as (opened, keeper):
        seen = {one.barcode: one for one in stock.by_labels(opened.inventory(), keeper)}
    assert seen["TAP001L8"].problem == "it is not in library main any more"
    assert seen["TAP002L8"].medium is None
    assert seen["CLN001L8"].medium.state is State.CLEANING
    with world.catalog() as catalog:
        assert catalog.media.get("TAP001L8").location == "outside"
        assert catalog.media.get("TAP002L8") is None


def test_what_came_back_by_itself_is_in_no_vault_any_more(world):
    world.archive("web01")
    with world.catalog() as catalog:
        catalog.media.change("TAP001L8", lambda known: replace(known, vault="salt mine", library=None))
    with world.opened() as (library, keeper):
        stock.by_labels(library.inventory(), keeper)
        assert keeper.catalog.media.get("TAP001L8").vault is None


def test_a_look_at_each_cartridge_tells_what_it_is(world):
    world.archive("web01")
    foreign_ltfs(world, "TAP002L8")
    with world.opened() as (library, keeper):
        looked = rebuild(library, keeper, points_too=False)
    assert [(one.barcode, one.medium.state, one.problem) for one in looked.seen] == [
        ("TAP001L8", State.APPENDABLE, ""),
        ("TAP002L8", State.FOREIGN, ""),
        ("TAP003L8", State.SCRATCH, ""),
    ]


def test_another_cartridge_under_a_known_label_is_told_and_the_catalog_keeps_what_it_had(world):
    point = world.archive("web01")
    world.folder("TAP001L8").rename(world.root / "aside")
    world.folder("TAP003L8").rename(world.folder("TAP001L8"))
    with world.opened() as (library, keeper):
        [seen] = rebuild(library, keeper, ["TAP001L8"], points_too=False).seen
        known = keeper.catalog.media.get("TAP001L8")
    assert "and holds nothing" in seen.problem
    assert (known.state, known.volume_uuid) == (State.APPENDABLE, point.parts[0].volume_uuid)


# ---------------------------------------------------------------------- given up


def found_on(library, keeper, barcode):
    with library.loaded(barcode) as drive:
        return keeper.identify(drive)[0]


@pytest.mark.parametrize("foreign", [foreign_ltfs, foreign_records])
def test_what_is_not_ours_is_released_in_two_steps(world, foreign):
    foreign(world, "TAP001L8")
    with world.opened() as (library, keeper):
        found = found_on(library, keeper, "TAP001L8")
        assert not release(keeper, "TAP001L8", found, None).released
        assert not release(keeper, "TAP001L8", found, "something else").released
        assert release(keeper, "TAP001L8", found, found.fingerprint).released
    assert world.archive("web01").barcodes == ("TAP001L8",)


def test_what_was_written_after_it_was_released_is_safe(world):
    foreign_ltfs(world, "TAP001L8")
    with world.opened() as (library, keeper):
        found = found_on(library, keeper, "TAP001L8")
        release(keeper, "TAP001L8", found, found.fingerprint)
    foreign_ltfs(world, "TAP001L8")  # another program formats it anew
    assert world.archive("web01").barcodes == ("TAP002L8",)


def test_a_restore_point_given_up_before_its_time_takes_with_it_what_builds_upon_it(world):
    terms = world.terms(allocation=Allocation.ALWAYS)
    base = world.archive("web01", terms=terms)
    world.archive("web01", terms=terms, base=base.id)
    other = world.archive("other", terms=terms)
    with world.opened() as (library, keeper):
        found = found_on(library, keeper, "TAP001L8")
        outcome = release(keeper, "TAP001L8", found, found.fingerprint)
        assert outcome.hold is not None
        assert {point.base for point in outcome.lost} == {None, base.id}
        assert [point.id for point in keeper.catalog.points.listed()] == [other.id]
    assert world.archive("new", terms=terms).barcodes == ("TAP001L8",)


def test_what_was_retired_is_not_released(world):
    world.archive("web01")
    with world.opened() as (library, keeper):
        keeper.catalog.media.change("TAP001L8", lambda known: replace(known, state=State.RETIRED, reason="worn"))
        with pytest.raises(UsageError, match="retired, and not written to: worn"):
            release(keeper, "TAP001L8", found_on(library, keeper, "TAP001L8"), "x")


def test_expired_cartridges_serve_other_pools_once_they_are_recycled(world):
    world.retention["other"] = "1d"
    world.archive("web01")
    other = world.terms("other")
    world.clock.pass_(days=31)
    with world.opened() as (_, keeper):
        assert [medium.barcode for medium, _ in recycle(keeper, None, dry_run=True)] == ["TAP001L8"]
        assert recycle(keeper, "other", dry_run=False) == []
        assert keeper.catalog.points.listed() != []
        [(medium, points)] = recycle(keeper, None, dry_run=False)
        assert (medium.pool, [point.vm for point in points]) == ("daily", ["web01"])
        assert keeper.catalog.points.listed() == []
    assert world.archive("x", terms=other).barcodes == ("TAP001L8",)


def test_a_recycled_cartridge_that_was_written_to_since_is_safe(world):
    """Another proxy with another catalog: the volume is not the one that was recycled."""
    world.archive("web01")
    world.clock.pass_(days=31)
    with world.opened() as (_, keeper):
        recycle(keeper, None, dry_run=False)
    ours = world.catalog_file.read_bytes()
    world.catalog_file.unlink()
    with world.opened() as (library, keeper):
        rebuild(library, keeper)
    kept = world.archive("web02", terms=world.terms(allocation=Allocation.ALWAYS))
    assert kept.barcodes == ("TAP002L8",)
    world.clock.pass_(days=1)
    with world.opened() as (library, keeper):
        rebuild(library, keeper)
    assert world.archive("again", terms=world.terms(allocation=Allocation.ALWAYS)).barcodes == ("TAP003L8",)
    world.catalog_file.write_bytes(ours)
    with world.opened() as (library, keeper), library.loaded("TAP002L8") as drive:
        found, volume = keeper.look(drive, "TAP002L8")
        with pytest.raises(Unfit, match="which the catalog does not know"):
            keeper.label(drive, "TAP002L8", found, volume)
