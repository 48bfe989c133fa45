"""What a catalog promises, whatever database it lies in."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalog.examples import NOON, point
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.medium import FOREVER, MediaSet, Medium, State
from vcbproxy.catalog.records import Pin
from vcbproxy.errors import UsageError

FILLED = Medium(
    "TAP001L8",
    State.APPENDABLE,
    serial="0123456789",
    volume_uuid="5f0e12ab-0000-4000-8000-000000000001",
    pool="daily",
    media_set="daily-1",
    first_written=NOON,
    last_written=NOON + timedelta(microseconds=1),
    retention_until=FOREVER,
    bytes_written=18 * 10**12,
    capacity_bytes=18 * 10**12,
    remaining_bytes=0,
    worm=True,
    library="main",
    slot=1024,
    vault="salt mine",
    vaulted=NOON,
    due_back=NOON,
    loads=12,
    made_on="20260101",
    life_written_mib=1 << 40,
    life_read_mib=7,
    last_drive="IBM 1013000ABC",
    errors=3,
    reason="why not",
    released="volume x",
    seen=NOON,
)


def test_a_cartridge_comes_back_as_it_was_noted(catalog):
    catalog.media.put(FILLED)
    blank = Medium("TAP002L8", State.SCRATCH)
    catalog.media.put(blank)
    assert catalog.media.get("TAP001L8") == FILLED
    assert catalog.media.get("TAP009L8") is None
    assert catalog.media.listed() == [FILLED, blank]
    assert catalog.media.listed(pool="daily") == catalog.media.listed(library="main") == [FILLED]
    catalog.media.put(replace(FILLED, vault=None, errors=4))
    assert catalog.media.get("TAP001L8") == replace(FILLED, vault=None, errors=4)
    catalog.media.remove("TAP001L8")
    catalog.media.remove("TAP001L8")
    assert catalog.media.listed() == [blank]


def test_times_of_any_zone_come_back_as_the_same_moment(catalog):
    there = NOON.astimezone(timezone(timedelta(hours=9)))
    catalog.media.put(replace(FILLED, seen=there))
    found = catalog.media.get("TAP001L8")
    assert found.seen == NOON
    assert found.seen.utcoffset() == timedelta()


def test_a_restore_point_comes_back_with_its_parts_in_their_order(catalog):
    one = point("web01", "TAP002L8", "TAP001L8", "TAP003L8")
    catalog.points.add(one)
    assert catalog.points.listed() == [one]
    assert catalog.points.listed()[0].barcodes == ("TAP002L8", "TAP001L8", "TAP003L8")
    assert catalog.points.get(one.id) == one
    assert catalog.points.listed(pool="other") == []


def test_an_outline_says_what_the_record_says(catalog):
    one, two = point("web01", "TAP002L8", "TAP001L8", "TAP002L8"), point("web02", base="0" * 32)
    catalog.points.add(one)
    catalog.points.add(two)
    whole = {record.id: record for record in catalog.points.listed()}
    for outline in catalog.points.outlines():
        record = whole[outline.id]
        assert (outline.name, outline.base) == (record.name, record.base)
        assert sorted(outline.barcodes) == sorted(record.barcodes)


def test_a_restore_point_noted_again_is_replaced(catalog):
    catalog.points.add(point("web01", "TAP001L8", "TAP002L8"))
    again = point("web01", "TAP003L8")
    catalog.points.add(again)
    assert catalog.points.listed() == [again]
    assert catalog.points.of_cartridge("TAP001L8") == []


def test_restore_points_of_a_cartridge_and_their_end(catalog):
    one, two = point("web01", "TAP001L8", "TAP002L8"), point("web02", "TAP002L8")
    catalog.points.add(one)
    catalog.points.add(two)
    assert catalog.points.of_cartridge("TAP001L8") == [one]
    assert {found.vm for found in catalog.points.of_cartridge("TAP002L8")} == {"web01", "web02"}
    catalog.points.remove(one.id)
    catalog.points.remove(one.id)
    assert catalog.points.listed() == [two]
    assert catalog.points.of_cartridge("TAP001L8") == []


def test_a_restore_point_is_found_by_its_names(catalog):
    old, new = point("web01", time=NOON - timedelta(days=1)), point("web01")
    catalog.points.add(new)
    catalog.points.add(old)
    assert catalog.points.find("web01@latest") == new
    assert catalog.points.find(old.name) == old
    assert catalog.points.find("uuid of web01@latest") == new
    assert catalog.points.find(old.id[:8]) == old


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("web02@latest", "there are some of: web01, twin"),
        ("web01@yesterday", "belongs 'latest' or a time"),
        ("web01@2020-01-01T00:00:00Z", "no restore point"),
        ("web01", "neither VM@latest"),
        ("ffff", "no restore point"),
        ("1111", "means 2 restore points"),
        ("twin@latest", "2 VMs are called"),
    ],
)
def test_what_names_no_restore_point_is_answered_with_those_there_are(catalog, text, complaint):
    catalog.points.add(point("web01", point_id="1111" + 28 * "0"))
    catalog.points.add(point("twin", point_id="1111" + 28 * "a"))
    catalog.points.add(replace(point("twin", point_id="2222" + 28 * "b"), vm_uuid="another"))
    with pytest.raises(UsageError, match=complaint):
        catalog.points.find(text)


def test_what_is_known_of_a_restore_point_beside_its_parts(catalog):
    one = replace(point("web01"), size_bytes=1 << 42, partial=True)
    catalog.points.add(one)
    assert catalog.points.listed() == [one]
    assert catalog.points.get(one.id) == one


def test_a_pin_holds_until_it_is_taken_back(catalog):
    one, two = point("web01"), point("web02", time=NOON + timedelta(hours=1))
    catalog.points.add(one)
    catalog.points.add(two)
    catalog.marks.pin(one, "year end", NOON)
    assert catalog.points.listed() == [replace(one, pinned=True, pinned_because="year end"), two]
    catalog.points.add(one)
    assert catalog.points.get(one.id).pinned, "read from its cartridges again"
    catalog.points.remove(one.id)
    catalog.points.add(one)
    assert catalog.points.get(one.id).pinned_because == "year end"
    catalog.marks.pin(one, "", NOON)
    assert (catalog.points.get(one.id).pinned, catalog.points.get(one.id).pinned_because) == (True, "")
    catalog.marks.unpin(one.id, NOON - timedelta(days=1))
    assert catalog.points.listed() == [one, two]
    catalog.marks.unpin(two.id, NOON)
    assert list(catalog.marks.pins()) == [one.id]


PINS = st.builds(
    Pin,
    point=st.sampled_from(("1" * 32, "2" * 32)),
    name=st.just("web01@latest"),
    holds=st.booleans(),
    reason=st.sampled_from(("", "a")),
    changed=st.integers(0, 3).map(lambda hours: NOON + timedelta(hours=hours)),
)


@settings(max_examples=15)
@given(st.lists(PINS, unique_by=lambda pin: (pin.point, pin.changed)), st.randoms())
def test_whatever_comes_first_the_last_word_on_a_pin_counts(pins, rng):
    """Catalogs and cartridges tell in any order, also twice."""
    with tempfile.TemporaryDirectory() as folder, Catalog.open(f"sqlite:///{folder}/catalog.db") as catalog:
        told = [*pins, *pins]
        rng.shuffle(told)
        for pin in told:
            catalog.marks.take_in([pin])
        assert catalog.marks.pins() == {
            point: max((pin for pin in pins if pin.point == point), key=lambda pin: pin.changed)
            for point in {pin.point for pin in pins}
        }


def test_only_what_says_nothing_any_more_is_tidied(catalog):
    one, gone, kept = point("web01"), point("web02"), point("web03")
    catalog.points.add(one)
    for each in (one, gone, kept):
        catalog.marks.pin(each, "", NOON)
    catalog.marks.unpin(one.id, NOON)
    catalog.marks.unpin(gone.id, NOON)
    catalog.marks.tidy()
    assert {pin.point: pin.holds for pin in catalog.marks.pins().values()} == {one.id: False, kept.id: True}


def test_a_suspicion_stays(catalog):
    one = point("web01")
    copy = replace(point("web02", time=NOON + timedelta(hours=1)), suspect_because="a copy of one that was")
    catalog.points.add(one)
    catalog.points.add(copy)
    assert [found.suspect for found in catalog.points.listed()] == [False, True]
    catalog.points.suspect([one.id, copy.id, "0" * 32], "an audit")
    assert [found.suspect_because for found in catalog.points.listed()] == ["an audit", "a copy of one that was"]
    catalog.points.add(one)
    catalog.points.remove(copy.id)
    catalog.points.add(replace(copy, suspect_because=""))
    assert [found.suspect for found in catalog.points.listed()] == [True, True]


def test_all_of_a_transaction_happens_or_nothing(catalog):
    def half_of_it():
        with catalog.transaction():
            catalog.media.put(FILLED)
            catalog.points.add(point())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_of_it()
    assert catalog.media.listed() == []
    assert catalog.points.listed() == []


def test_a_change_that_is_refused_changes_nothing(catalog):
    catalog.media.put(FILLED)

    def refuse(known):
        raise UsageError(f"not {known.barcode}")

    with pytest.raises(UsageError, match="not TAP001L8"):
        catalog.media.change("TAP001L8", refuse)
    assert catalog.media.get("TAP001L8") == FILLED


def test_a_new_media_set_closes_those_before_it(catalog):
    first, second = MediaSet("daily-1", "daily", NOON), MediaSet("daily-2", "daily", NOON + timedelta(days=1))
    assert catalog.sets.current("daily", lambda newest: newest or first) == first
    assert catalog.sets.current("daily", lambda newest: newest) == first
    catalog.sets.put(MediaSet("other-1", "other", NOON))
    assert catalog.sets.current("daily", lambda newest: second) == second
    assert catalog.sets.listed(pool="daily") == [replace(first, closed=True), second]
    assert not catalog.sets.get("other-1").closed


def test_no_change_of_many_writers_is_lost(place):
    """Each thread opens the catalog for itself, as processes do; the first of them makes it."""
    failures = []

    def failed_once_more(known):
        medium = known or Medium("TAP001L8", State.SCRATCH)
        return replace(medium, errors=medium.errors + 1)

    def count():
        try:
            with place.open() as catalog:
                for _ in range(10):
                    catalog.media.change("TAP001L8", failed_once_more)
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    with place.open() as catalog:
        assert catalog.media.get("TAP001L8").errors == 40
