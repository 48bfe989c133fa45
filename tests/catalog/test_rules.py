"""Lengths of time, which set goes on, which cartridge is next, and what is kept: the rules without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalog.examples import NOON, point
from vcbproxy.catalog.allocation import Terms, candidates, goes_on, last_weekday
from vcbproxy.catalog.expiry import before_a_pause, holds
from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import FOREVER, MediaSet, Medium, State
from vcbproxy.config import Allocation
from vcbproxy.config.barcodes import BarcodeRange
from vcbproxy.config.repository import Day
from vcbproxy.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def terms(allocation: Allocation = Allocation.CONTINUE, appendable_for: str = "forever", weekday: Day | None = None):
    barcodes = (BarcodeRange.parse("TAP001L8-TAP009L8"),)
    return Terms("daily", barcodes, allocation, weekday, Length.parse(appendable_for), Length.parse("30d"), BERLIN)


@pytest.mark.parametrize(
    ("length", "moment", "end"),
    [
        ("30d", "2026-11-27T01:00", "2026-12-27T01:00"),
        ("36h", "2026-11-27T01:00", "2026-11-28T13:00"),
        ("1m", "2026-01-31T01:00", "2026-02-28T01:00"),
        ("1y", "2028-02-29T01:00", "2029-02-28T01:00"),
        ("1y6m1d", "2026-08-31T00:00", "2028-03-01T00:00"),
        ("0h", "2026-11-27T01:00", "2026-11-27T01:00"),
    ],
)
def test_lengths_by_the_calendar(length, moment, end):
    assert Length.parse(length).after(at(moment)) == at(end)


def test_lengths_without_end():
    assert Length.parse("forever").after(NOON) == FOREVER
    assert Length.parse("9000y").after(NOON) == FOREVER
    for wrong in ("", "5", "1w", "-1d", "1d1y"):
        with pytest.raises(ConfigError):
            Length.parse(wrong)


@given(st.integers(0, 20), st.integers(0, 30), st.datetimes(timezones=st.just(UTC)))
def test_a_longer_length_never_ends_sooner(months, days, here):
    assert Length(months=months, days=days).after(here) <= Length(months=months, days=days + 1).after(here)
    assert Length(months=months, days=days).after(here) >= here


@pytest.mark.parametrize(
    ("began", "now", "expected"),
    [
        ("2026-11-27T01:00", "2026-11-27T20:00", True),  # both on Friday
        ("2026-11-26T22:59", "2026-11-27T20:00", False),  # 23:59 in Berlin, on Thursday
        ("2026-11-26T23:00", "2026-11-27T20:00", True),  # midnight there
        ("2026-11-20T01:00", "2026-11-26T20:00", True),
        ("2026-11-20T01:00", "2026-11-27T20:00", False),
        ("2026-11-28T01:00", "2026-11-27T20:00", True),  # begun in the future: the clock was set back
    ],
)
def test_a_set_of_the_week(began, now, expected):
    weekly = terms(Allocation.WEEKLY, weekday=Day.FRI)
    assert goes_on(MediaSet("s", "daily", at(began)), weekly, at(now)) is expected


def test_when_a_set_goes_on():
    newest = MediaSet("s", "daily", NOON)
    assert not goes_on(None, terms(), NOON)
    assert goes_on(newest, terms(), NOON + 999 * DAY)
    assert not goes_on(newest, terms(Allocation.ALWAYS), NOON)
    assert goes_on(newest, terms(appendable_for="7d"), NOON + 6 * DAY)
    assert not goes_on(newest, terms(appendable_for="7d"), NOON + 7 * DAY)
    assert not goes_on(MediaSet("s", "daily", NOON, closed=True), terms(), NOON)


def test_the_last_weekday_is_today_too():
    assert last_weekday(Day.FRI, NOON, UTC) == NOON.replace(hour=0)
    assert last_weekday(Day.SAT, NOON, UTC) == NOON.replace(hour=0) - 6 * DAY


FULL = Medium("TAP001L8", State.FULL, pool="daily", media_set="old", last_written=NOON)


def chosen(*media, present=(), held=(), taken=()):
    every = {medium.barcode for medium in media} | set(present)
    found = candidates(media, held, terms(), "now", every, taken)
    return [medium.barcode for medium in found.here]


def test_the_order_of_cartridges():
    order = chosen(
        FULL,
        Medium("TAP006L8", State.FULL, pool="daily", media_set="old", first_written=NOON - DAY / 2),
        Medium("TAP007L8", State.FULL, pool="daily", media_set="old"),
        Medium("TAP002L8", State.FULL, pool="daily", media_set="old", last_written=NOON - DAY),
        Medium("TAP004L8", State.SCRATCH),
        Medium("TAP005L8", State.APPENDABLE, pool="daily", media_set="now", last_written=NOON),
        present=["TAP003L8"],
    )
    assert order == ["TAP005L8", "TAP004L8", "TAP003L8", "TAP007L8", "TAP002L8", "TAP006L8", "TAP001L8"]


def test_a_pool_takes_what_any_of_its_ranges_has():
    two = replace(terms(), barcodes=(BarcodeRange.parse("TAP001L8-TAP009L8"), BarcodeRange.parse("OLD001L7-OLD009L7")))
    assert [two.may_take(barcode) for barcode in ("TAP002L8", "OLD009L7", "OLD010L7")] == [True, True, False]


@pytest.mark.parametrize(
    "medium",
    [
        Medium("TAP001L8", State.RETIRED, pool="daily"),
        Medium("TAP001L8", State.DAMAGED, pool="daily"),
        Medium("TAP001L8", State.FOREIGN),
        Medium("TAP001L8", State.CLEANING),
        Medium("TAP001L8", State.FULL, pool="daily", media_set="now"),  # of the very set that is written
        Medium("TAP001L8", State.FULL, pool="other"),
        Medium("TAP001L8", State.APPENDABLE, pool="other", media_set="theirs"),
        Medium("TAP001L8", State.FULL, pool="daily", worm=True),
        Medium("XAP001L8", State.SCRATCH),
    ],
)
def test_cartridges_that_are_never_chosen(medium):
    assert chosen(medium) == []


def test_what_is_held_taken_or_elsewhere_is_not_chosen():
    assert chosen(FULL, held=["TAP001L8"]) == []
    assert chosen(FULL, taken=["TAP001L8"]) == []
    found = candidates([FULL, Medium("TAP002L8", State.SCRATCH)], [], terms(), "now", ["TAP002L8", "CLN001L8"], [])
    assert [medium.barcode for medium in found.here] == ["TAP002L8"]
    assert found.elsewhere == ("TAP001L8",)


RETENTION = {"daily": Length.parse("30d")}


def kept(media, sets=(), points=(), now=NOON):
    return {hold.barcode: hold.until for hold in holds(media, sets, points, RETENTION, now)}


def test_a_set_is_kept_as_long_as_its_youngest_cartridge():
    old = Medium("TAP001L8", State.FULL, pool="daily", media_set="s", retention_until=NOON - DAY)
    young = Medium("TAP002L8", State.APPENDABLE, pool="daily", media_set="s", retention_until=NOON + DAY)
    assert kept([old, young]) == {"TAP001L8": NOON + DAY, "TAP002L8": NOON + DAY}
    assert kept([old, young], now=NOON + DAY) == {}


def test_the_catalog_s_set_and_the_present_rule_may_say_later():
    medium = Medium("TAP001L8", State.FULL, pool="daily", media_set="s", retention_until=NOON - DAY)
    later = MediaSet("s", "daily", NOON, retention_until=NOON + 2 * DAY)
    assert kept([medium], [later]) == {"TAP001L8": NOON + 2 * DAY}
    ruled = MediaSet("s", "daily", NOON, last_written=NOON - DAY, retention_until=NOON - DAY)
    assert kept([medium], [ruled]) == {"TAP001L8": NOON + 29 * DAY}


def test_what_nobody_knows_the_end_of_is_kept():
    assert kept([Medium("TAP001L8", State.FULL)]) == {"TAP001L8": FOREVER}
    assert kept([Medium("TAP001L8", State.FULL, media_set="s")]) == {"TAP001L8": FOREVER}


def test_a_cartridge_of_no_set_is_kept_by_what_it_says_and_by_its_pool_s_rule():
    """... whichever is later; and by its own word alone, where its pool has no rule any more, or never had one."""
    medium = Medium("TAP001L8", State.FULL, pool="daily", last_written=NOON - DAY, retention_until=NOON + DAY)
    assert kept([medium]) == {"TAP001L8": NOON + 29 * DAY}
    assert kept([replace(medium, retention_until=NOON + 90 * DAY)]) == {"TAP001L8": NOON + 90 * DAY}
    for pool in ("gone", None):
        assert kept([replace(medium, pool=pool)]) == {"TAP001L8": NOON + DAY}


def test_what_a_recycled_cartridge_once_said_keeps_no_other():
    old = Medium("TAP001L8", State.FULL, pool="daily", media_set="s", retention_until=NOON - DAY)
    recycled = Medium("TAP002L8", State.SCRATCH, pool="daily", media_set="s", retention_until=NOON + DAY)
    assert kept([old, recycled]) == {}


def test_scratch_and_foreign_are_not_held():
    assert kept([Medium("TAP001L8", State.SCRATCH), Medium("TAP002L8", State.FOREIGN)]) == {}


def test_all_that_a_kept_delta_needs_is_kept_through_several_bases():
    def cartridge(number, days):
        return Medium(
            f"TAP00{number}L8", State.FULL, pool="x", media_set=f"s{number}", retention_until=NOON + days * DAY
        )

    first = point("a", "TAP001L8", time=NOON - 3 * DAY)
    second = point("a", "TAP002L8", "TAP003L8", time=NOON - 2 * DAY, base=first.id)
    third = point("a", "TAP004L8", time=NOON - DAY, base=second.id)
    other = point("b", "TAP005L8")
    media = [cartridge(1, -9), cartridge(2, -9), cartridge(3, -9), cartridge(4, 5), cartridge(5, -1)]
    found = kept(media, points=[first, second, third, other])
    assert found == dict.fromkeys(("TAP001L8", "TAP002L8", "TAP003L8", "TAP004L8"), NOON + 5 * DAY)


def test_what_lies_on_cartridges_of_different_ends_is_kept_as_long_as_the_last_of_them():
    base = point("a", "TAP001L8", time=NOON - DAY)
    delta = point("a", "TAP002L8", "TAP003L8", base=base.id)
    ends = {1: -9, 2: 3, 3: 9}
    media = [
        Medium(f"TAP00{number}L8", State.FULL, media_set=f"s{number}", retention_until=NOON + days * DAY)
        for number, days in ends.items()
    ]
    assert kept(media, points=[base, delta]) == {medium.barcode: NOON + 9 * DAY for medium in media}


def test_bases_that_go_round_in_a_circle_end():
    one = point("a", "TAP001L8", point_id="1" * 32, base="2" * 32)
    two = point("b", "TAP002L8", point_id="2" * 32, base="1" * 32)
    medium = Medium("TAP001L8", State.FULL, media_set="s", retention_until=NOON + DAY)
    assert kept([medium], points=[one, two]) == {"TAP001L8": NOON + DAY, "TAP002L8": NOON + DAY}


@pytest.mark.parametrize(
    ("began", "now", "before"),
    [
        ([], 0, ""),
        ([0], 89, ""),
        ([0], 90, ""),
        ([0, 90], 100, ""),
        ([0], 91, "a"),
        ([0, 60, 120], 200, ""),
        ([0, 60, 200], 210, "ab"),
        ([0, 200, 210], 400, "abc"),
        ([200, 0], 210, "b"),
    ],
)
def test_what_was_written_before_a_long_pause(began, now, before):
    sets = [MediaSet("abc"[number], "daily", NOON + days * DAY) for number, days in enumerate(began)]
    found, since = before_a_pause(sets, NOON + now * DAY)
    assert found == set(before)
    assert (since is None) == (not before)


def test_a_set_that_was_written_to_meanwhile_makes_no_pause():
    first = MediaSet("a", "daily", NOON, last_written=NOON + 180 * DAY)
    assert before_a_pause([first, MediaSet("b", "daily", NOON + 200 * DAY)], NOON + 210 * DAY) == (set(), None)
    beside_it = MediaSet("c", "other", NOON + 50 * DAY)
    newest = MediaSet("b", "daily", NOON + 200 * DAY)
    assert before_a_pause([first, beside_it, newest], NOON + 210 * DAY) == (set(), None)


def rebuilt(days: int, retention: timedelta | None = None, **facts: object):
    """A set of one cartridge, written to so many days before noon and read then."""
    last = NOON - days * DAY
    until = FOREVER if retention is None else last + retention
    medium = Medium("TAP001L8", State.FULL, pool="daily", media_set="s", last_written=last, retention_until=until)
    one = MediaSet("s", "daily", last, last_written=last, retention_until=until, taken_in=NOON)
    return holds([medium], [replace(one, **facts)], [], RETENTION, NOON)


@pytest.mark.parametrize(
    ("days", "retention", "end"),
    [
        (20, 30, 33),  # three days more: months are of different length
        (20, 365, 368),  # the cartridge was promised more than the present rule says
        (20, 1, 30),  # ... and less: the rule holds at once
        (90, 30, 33),  # over by its own word
        (0, 30, 33),
    ],
)
def test_what_was_read_from_cartridges_is_kept_as_if_it_was_written_to_then(days, retention, end):
    [hold] = rebuilt(days, retention * DAY)
    assert hold.until == NOON + end * DAY
    assert hold.for_unseen is (end - (max(retention, 30) - days) > 4)


@pytest.mark.parametrize(
    "facts",
    [
        {"last_written": None},
        {"retention_until": None},
        {"retention_until": NOON - 21 * DAY},  # before it was written last: a clock was wrong
        {"pool": "gone"},  # of which the configuration says nothing any more
    ],
)
def test_a_set_of_which_little_is_known_is_kept_as_its_cartridges_say(facts):
    assert rebuilt(20, 30 * DAY, **facts)[0].until == NOON + 33 * DAY


def test_the_longest_promise_of_any_cartridge_may_be_that_of_one_that_was_not_seen():
    """An older rule was longer: that of what was written first, not that of what was written last."""

    def cartridge(barcode, state, days_ago, retention):
        last = NOON - days_ago * DAY
        return Medium(
            barcode, state, pool="daily", media_set="s", last_written=last, retention_until=last + retention * DAY
        )

    media = [
        cartridge("TAP001L8", State.FULL, 40, 365),
        cartridge("TAP002L8", State.FULL, 10, 30),
        cartridge("TAP003L8", State.SCRATCH, 10, 3000),
    ]
    one = MediaSet("s", "daily", NOON - 40 * DAY, media[1].last_written, media[0].retention_until, taken_in=NOON)
    assert kept(media, [one]) == dict.fromkeys(("TAP001L8", "TAP002L8"), NOON + 368 * DAY)


def test_of_which_nobody_knows_the_end_nobody_knows_it_afterwards():
    assert rebuilt(20)[0].until == FOREVER
    assert not rebuilt(20)[0].for_unseen
    assert rebuilt(20, FOREVER - NOON)[0].until == FOREVER
    [hold] = rebuilt(20, timedelta(days=7900 * 365))
    assert hold.until > NOON + timedelta(days=7800 * 365)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))
def test_no_cartridge_that_was_not_seen_is_kept_longer(seen, unseen, retention):
    """Whatever was written, and when, before the catalog was lost, by a rule that some cartridge that is here bears."""
    here = rebuilt(seen, retention * DAY)
    end_of_the_other = NOON - unseen * DAY + max(retention, 30) * DAY
    assert end_of_the_other <= NOON or here[0].until >= end_of_the_other


def test_what_is_pinned_is_kept_with_all_that_it_builds_upon():
    media = [Medium(f"TAP00{n}L8", State.FULL, media_set="s", retention_until=NOON - DAY) for n in (1, 2, 3)]
    base = point("a", "TAP001L8", time=NOON - DAY)
    delta = point("a", "TAP002L8", base=base.id)
    over = point("b", "TAP002L8", "TAP003L8")  # beside it, and not pinned
    found = holds(media, [], [base, delta, over], {}, NOON, {delta.id: "year end", "0" * 32: ""})
    assert {hold.barcode: hold.until for hold in found} == {"TAP001L8": FOREVER, "TAP002L8": FOREVER}
    assert {hold.because for hold in found} == {f"{delta.name} is pinned (year end): it is kept"}


def test_pins_in_a_circle_end():
    one = point("a", "TAP001L8", point_id="1" * 32, base="2" * 32)
    two = point("b", "TAP002L8", point_id="2" * 32, base="1" * 32)
    assert len(holds([], [], [one, two], {}, NOON, {one.id: ""})) == 2
