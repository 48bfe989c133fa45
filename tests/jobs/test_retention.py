"""What our retention does that stock restic's does not. A list is a string, one point a day, newest first.

    g   good          p   partial          s   suspect          P   good and pinned          .   none that day

What stays is the same string with a dash for all that goes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.retention import Duration, Rule, Verdict, judge, last_good
from vcbproxy.errors import UsageError
from vcbproxy.repository.points import PARTIAL_TAG, PINNED_TAG, SUSPECT_TAG, PointSummary, tags_of

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
TAGS = {"g": (), "p": (PARTIAL_TAG,), "s": (SUSPECT_TAG,), "P": (PINNED_TAG,)}


def point(time: datetime, letter: str = "g", *, vm: str = "web01", uuid: str | None = None, policy: str = ""):
    uuid = f"50-{vm}" if uuid is None else uuid
    one_id = f"{uuid}{policy}{time.isoformat()}"
    return PointSummary(
        id=one_id,
        original=one_id,
        vm=vm,
        instance_uuid=uuid,
        time=time,
        tags=tags_of(uuid, policy, TAGS[letter]),
        size_bytes=None,
        added_bytes=None,
        tree=bytes(32),
        path=f"/{vm}",
        records=(one_id,),
    )


def days(letters: str, *, first: datetime = NOW - timedelta(hours=2)) -> list[PointSummary]:
    return [point(first - timedelta(days=day), letter) for day, letter in enumerate(letters) if letter != "."]


def judged(points: list[PointSummary], rule: Rule) -> list[Verdict]:
    return judge(points, rule, now=NOW, zone=UTC)


def stays(letters: str, rule: Rule) -> str:
    kept = iter([verdict.keep for verdict in judged(days(letters), rule)])
    return "".join(letter if letter == "." or next(kept) else "-" for letter in letters)


@pytest.mark.parametrize(
    ("letters", "rule", "expected"),
    [
        ("ggggg", Rule(last=2), "gg---"),
        ("pgggg", Rule(last=2), "pgg--"),
        ("ppppg", Rule(last=2), "pp--g"),
        ("spspgg", Rule(daily=1), "s---g-"),
        ("ppppp", Rule(last=2), "pp---"),
        ("gggPg", Rule(last=1), "g--P-"),
        ("p.g.p.g", Rule(daily=2), "p.g.-.g"),
        ("pgpg.gg", Rule(within=Duration(days=2)), "pgp-.--"),
    ],
)
def test_what_is_not_whole_pushes_nothing_good_out(letters: str, rule: Rule, expected: str) -> None:
    assert stays(letters, rule) == expected


def test_a_partial_point_does_not_stand_for_a_day_that_has_a_whole_one() -> None:
    noon = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    points = [point(noon + timedelta(hours=2), "p"), point(noon), point(noon - timedelta(hours=1), "p")]
    points.append(point(noon - timedelta(days=5)))
    verdicts = judged(points, Rule(daily=1))
    assert [verdict.keep for verdict in verdicts] == [False, True, False, False]
    assert verdicts[0].reasons == ("a good one that day",)
    assert verdicts[3].reasons == ("1 newer day",)


def test_the_future_pushes_nothing_out_and_measures_nothing() -> None:
    forged = [point(NOW + timedelta(days=day)) for day in range(1, 40)]
    rule = Rule(last=3, daily=7, within=Duration(days=2))
    alone = judged(days("g" * 20), rule)
    beside = judged([*forged, *days("g" * 20)], rule)
    assert beside[len(forged) :] == alone
    assert {verdict.reasons for verdict in beside[: len(forged)]} == {("in the future",)}


@pytest.mark.parametrize("rule", [Rule(within=Duration(days=2)), Rule(within_daily=Duration(days=2)), Rule(daily=3)])
def test_a_vm_with_nothing_but_the_future_stays_and_hinders_no_other(rule: Rule) -> None:
    ahead = [point(NOW + timedelta(days=day), "gps"[day % 3], vm="ahead") for day in range(1, 4)]
    verdicts = judged([*ahead, *days("g" * 9)], rule)
    assert {verdict.reasons for verdict in verdicts[:3]} == {("in the future",)}
    assert verdicts[3:] == judged(days("g" * 9), rule)


def test_each_vm_and_policy_by_itself_and_names_do_not_count() -> None:
    renamed = [point(NOW, vm="new", uuid="50-a"), point(NOW - timedelta(days=1), vm="old", uuid="50-a")]
    other = [point(NOW, vm="new", uuid="50-b")]
    policies = [point(NOW - timedelta(days=day), vm="db", policy=name) for day in range(2) for name in ("gold", "dev")]
    kept = [verdict.keep for verdict in judged([*renamed, *other, *policies], Rule(last=1))]
    assert kept == [True, False, True, True, True, False, False]


def test_days_begin_at_midnight_where_the_operator_lives() -> None:
    late = [point(datetime(2026, 7, 1, hour, 30, tzinfo=UTC)) for hour in (23, 21)] + days("g", first=NOW)
    there = judge(late, Rule(daily=3), now=NOW, zone=BERLIN)
    assert [verdict.keep for verdict in there] == [True, True, True]
    assert [verdict.reasons for verdict in judge(late, Rule(daily=2), now=NOW, zone=UTC)][1] == (
        "a newer one that day",
    )


def test_the_hour_that_the_clock_shows_twice_is_two() -> None:
    twice = [point(datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (1, 0)]
    older = point(datetime(2026, 10, 24, 12, 0, tzinfo=UTC))
    kept = judge([*twice, older], Rule(hourly=2), now=NOW, zone=BERLIN)
    assert [verdict.keep for verdict in kept] == [True, True, False]
    day_of_25_hours = [
        point(datetime(2026, 10, 24, 22, 0, tzinfo=UTC)),
        point(datetime(2026, 10, 25, 22, 59, tzinfo=UTC)),
    ]
    reasons = judge([*day_of_25_hours, older], Rule(daily=2), now=NOW, zone=BERLIN)[0].reasons
    assert reasons == ("a newer one that day",)


def test_the_reasons_say_all_of_it() -> None:
    points = days("gpgP")
    rule = Rule(last=1, daily=2, within_weekly=Duration(days=2))
    assert [verdict.reasons for verdict in judged(points, rule)] == [
        ("last snapshot", "daily snapshot", "weekly within 2d"),
        ("daily snapshot (partial)",),
        ("daily snapshot",),
        ("pinned",),
    ]


@pytest.mark.parametrize("letters", ["g", "p", "gpsP"])
def test_an_empty_rule_is_refused(letters: str) -> None:
    with pytest.raises(UsageError, match="--keep-last"):
        judged(days(letters), Rule())


@pytest.mark.parametrize("text", ["", "3", "d", "0d", "1d2y", "-1d", "1w", "1.5d", "९d"])
def test_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match="no length of time"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1m", "2026-03-03 13:00"),  # as restic counts: the 31st of February is three days into March
        ("1y1m1d1h", "2025-03-02 12:00"),
        ("36h", "2026-03-30 00:00"),
        ("3d", "2026-03-28 13:00"),  # the clock was set forward on the 29th
        ("9999y", "0001-01-01 00:00"),
    ],
)
def test_lengths_of_time_go_by_the_calendar(text: str, expected: str) -> None:
    moment = datetime(2026, 3, 31, 14, 0, tzinfo=BERLIN)
    assert str(Duration.parse(text)) == text
    assert Duration.parse(text).before(moment).strftime("%Y-%m-%d %H:%M").zfill(16) == expected


@given(
    st.text("gpsP.", min_size=1, max_size=40).filter(lambda letters: set(letters) != {"."}),
    st.builds(Rule, last=st.integers(0, 3), daily=st.integers(0, 5), weekly=st.integers(0, 3)),
    st.sampled_from([UTC, BERLIN, timezone(timedelta(hours=-11))]),
)
def test_the_last_good_point_stays_whatever_the_rule(letters: str, rule: Rule, zone) -> None:
    if rule.empty:
        return
    points = days(letters)
    verdicts = judge(points, rule, now=NOW, zone=zone)
    kept = {verdict.point.id for verdict in verdicts if verdict.keep}
    assert {one.id for one in last_good(points, NOW).values()} <= kept
    assert all(verdict.reasons for verdict in verdicts)
    good = [one for one in points if one.good]
    alone = {verdict.point.id for verdict in judge(good, rule, now=NOW, zone=zone) if verdict.keep} if good else set()
    assert kept & {one.id for one in good} == alone
