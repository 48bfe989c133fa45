"""Whether a cartridge may be overwritten: every row of the table; both the catalog and the cartridge are asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.archive.identify import Content, Found
from vcbproxy.archive.note import Note, decode
from vcbproxy.archive.overwriting import refusal
from vcbproxy.archive.pins import BornePin
from vcbproxy.catalog.expiry import Hold
from vcbproxy.catalog.medium import FOREVER, FORMATTING, Medium, State
from vcbproxy.catalog.records import Pin

NOW = datetime(2026, 11, 27, tzinfo=UTC)
DAY = timedelta(days=1)
BARCODE = "TAP001L8"
BLANK = Found(Content.BLANK, "nothing", "blank", "S1")
FOREIGN = Found(Content.FOREIGN, "a volume of theirs", "f@1", "S1", volume_uuid="f")
UNREADABLE = Found(Content.UNREADABLE, "noise", "unreadable S1", "S1")
EMPTY = Found(Content.OURS, "an empty volume", "e@1", "S1", empty=True, volume_uuid="e")
EXPIRED = Found(
    Content.OURS, "a volume of ours", "v@7", "S1", volume_uuid="v",
    note=Note(BARCODE, "daily", "set", retention_until=NOW - DAY),
)  # fmt: skip
UNEXPIRED = replace(EXPIRED, note=replace(EXPIRED.note, retention_until=NOW + DAY))
KNOWN = Medium(BARCODE, State.FULL, serial="S1", volume_uuid="v", pool="daily", media_set="set")
SCRATCH = Medium(BARCODE, State.SCRATCH, serial="S1")
HOLD = Hold(BARCODE, NOW + DAY, "media set set is kept")


def may(found, known=None, hold=None, pool="daily", pins=None):
    return refusal(BARCODE, found, known, hold, pool, NOW, pins or {}) is None


@pytest.mark.parametrize("known", [None, SCRATCH, KNOWN], ids=["unknown", "scratch", "expired"])
@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        (BLANK, (None, SCRATCH, KNOWN)),
        (EMPTY, (None, SCRATCH, KNOWN)),
        (EXPIRED, (KNOWN,)),
        (UNEXPIRED, ()),
        (FOREIGN, ()),
        (UNREADABLE, ()),
    ],
    ids=["blank", "empty", "expired", "unexpired", "foreign", "unreadable"],
)
def test_the_table(found, allowed, known):
    assert may(found, known) is (known in allowed)


@pytest.mark.parametrize("found", [BLANK, EMPTY, EXPIRED, UNEXPIRED, FOREIGN, UNREADABLE])
def test_what_the_catalog_holds_is_never_overwritten(found):
    assert not may(found, KNOWN, HOLD)


def test_scratch_by_the_catalog_is_that_very_volume():
    recycled = replace(SCRATCH, volume_uuid="v")
    assert may(EXPIRED, recycled)
    assert may(EXPIRED, recycled, pool="another")
    assert not may(EXPIRED, KNOWN, pool="another")
    assert not may(UNEXPIRED, recycled)


def test_what_is_formatted_for_no_pool_may_have_been_of_any():
    assert may(EXPIRED, KNOWN, pool=None)
    assert not may(UNEXPIRED, KNOWN, pool=None)


def test_a_cartridge_is_kept_up_to_its_end_and_not_at_it():
    ends = [NOW + timedelta(microseconds=step) for step in (-1, 0, 1)]
    assert [may(replace(EXPIRED, note=replace(EXPIRED.note, retention_until=end)), KNOWN) for end in ends] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("known_since", "holds", "needed", "allowed"),
    [
        (None, True, BARCODE, False),  # the catalog never heard of it
        (NOW - DAY, True, BARCODE, False),  # ... or only of what was said before
        (NOW, True, BARCODE, True),  # it decides by itself
        (NOW + DAY, True, BARCODE, True),
        (None, False, BARCODE, True),  # unpinned
        (None, True, "TAP002L8", True),  # what lies on another cartridge
    ],
)
def test_a_pin_that_is_news_to_the_catalog_keeps_what_it_needs(known_since, holds, needed, allowed):
    pin = BornePin(Pin("p", "web01@2026-11-27T01:00:00Z", holds, "", NOW), ("TAP009L8", needed))
    other = BornePin(Pin("q", "web02@2026-11-27T01:00:00Z", False, "", NOW), (BARCODE,))
    known = {} if known_since is None else {"p": known_since}
    assert may(replace(EXPIRED, pins=(other, pin)), KNOWN, pins=known) is allowed


@pytest.mark.parametrize("found", [UNEXPIRED, FOREIGN, UNREADABLE])
def test_a_person_releases_exactly_what_was_seen(found):
    released = replace(KNOWN, released=found.fingerprint)
    assert may(found, released, HOLD)
    assert not may(replace(found, fingerprint="something later"), released, HOLD)


def test_what_we_left_half_formatted_is_formatted_again_on_the_very_cartridge():
    began = replace(SCRATCH, released=FORMATTING)
    torn = replace(UNREADABLE, volume_uuid="u", unfinished=True)
    assert may(UNREADABLE, began)
    assert may(torn, began)
    assert not may(replace(torn, unfinished=False), began), "a volume of somebody else"
    assert not may(replace(UNREADABLE, serial="S2"), began)
    assert not may(replace(UNREADABLE, serial=""), replace(began, serial=""))
    assert not may(replace(UNREADABLE, serial=""), began)
    assert not may(FOREIGN, began)
    assert not may(replace(FOREIGN, volume_uuid=None), began), "records of another program"
    assert not may(UNREADABLE, replace(began, state=State.FULL))


@pytest.mark.parametrize("state", [State.RETIRED, State.DAMAGED, State.CLEANING])
def test_what_was_put_aside_stays_aside_whatever_was_released(state):
    assert not may(BLANK, replace(KNOWN, state=state, released="blank"))


def test_worm_with_data_is_never_overwritten():
    worm = replace(EXPIRED, worm=True)
    assert not may(worm, replace(KNOWN, released=worm.fingerprint))
    assert may(replace(BLANK, worm=True))
    assert may(replace(EMPTY, worm=True), SCRATCH)


def test_a_label_on_another_cartridge_is_not_trusted():
    assert may(replace(BLANK, serial=""), KNOWN), "its memory does not tell"
    assert may(BLANK, replace(KNOWN, serial="")), "it was never loaded"
    assert not may(replace(BLANK, serial="S2"), KNOWN)
    assert not may(replace(EXPIRED, note=replace(EXPIRED.note, barcode="TAP002L8")), KNOWN)
    assert not may(replace(EXPIRED, volume_uuid="w"), KNOWN)


def test_a_volume_without_an_end_is_kept():
    assert not may(replace(EXPIRED, note=replace(EXPIRED.note, retention_until=None)), KNOWN)


MOMENTS = st.none() | st.just(FOREVER) | st.datetimes(timezones=st.just(UTC))
NAMES = st.none() | st.text(min_size=1, max_size=20)


@given(st.builds(Note, st.text(max_size=8), NAMES, NAMES, MOMENTS, MOMENTS, MOMENTS, MOMENTS, st.booleans()))
def test_a_note_comes_back_as_it_was_written(note):
    assert decode(note.encode()) == replace(
        note,
        **{
            name: FOREVER
            for name in ("set_began", "first_written", "last_written", "retention_until")
            if (moment := getattr(note, name)) is not None and moment >= FOREVER
        },
    )


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"format": 2, "barcode": "x"}', b'{"format": 1}', b"\xff",
                                   b'{"format": 1, "barcode": "x", "retention_until": 5}',
                                   b'{"format": 1, "barcode": "x", "retention_until": "soon"}'])  # fmt: skip
def test_what_is_no_note_is_refused(value):
    with pytest.raises(ValueError):
        decode(value)
