"""What texts name which restore point, wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy import pointname
from vcbproxy.errors import UsageError
from vcbproxy.pointname import NoSuchPoint, choose, doubt, period, some_of


@dataclass(frozen=True)
class Point:
    vm: str
    time: datetime
    ids: tuple[str, ...]
    suspect: bool = False
    uuid: str = ""

    @property
    def instance_uuid(self) -> str:
        return self.uuid or f"uuid of {self.vm}"

    @property
    def name(self) -> str:
        return f"{self.vm}@{self.time:%Y-%m-%dT%H:%M:%SZ}"


def point(number: int, when: str, vm: str = "web01", **facts: object) -> Point:
    return Point(vm, datetime.fromisoformat(when).replace(tzinfo=UTC), (f"{number:04x}" * 8,), **facts)


POINTS = [
    point(1, "2025-12-31T23:59:59.999999"),
    point(2, "2026-10-01T03:00:00"),
    point(3, "2026-11-01T03:00:00"),
    point(4, "2026-11-01T03:00:30"),
    point(5, "2026-11-01T15:00:00"),
    point(6, "2026-11-02T00:00:00"),
    point(7, "2026-11-02T00:30:00", vm="cafe"),
]


def number_of(text: str) -> int:
    return POINTS.index(choose(POINTS, text, "here")) + 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("web01@latest", 6),
        ("uuid of web01@latest", 6),
        ("web01@2025", 1),
        ("web01@2026-10", 2),
        ("web01@2026-10-01", 2),
        ("web01@2026-11-01T15", 5),
        ("web01@2026-11-01T15:00", 5),
        ("web01@2026-11-01 15:00", 5),
        ("web01@2026-11-01T03:00:00Z", 3),
        ("web01@2026-11-01t03:00:30z", 4),
        ("web01@2026-11-01T03:00:30.5Z", 4),
        ("web01@2026-11-01T05:00:30+02:00", 4),
        ("web01@2026-10-31T22:00:30-0500", 4),
        ("web01@2025-12-31T23:59:59", 1),
        ("web01@2026-11-02", 6),
        ("0005", 5),
        ("0006" * 8, 6),
        ("cafe@latest", 7),
    ],
)
def test_what_names_one(text: str, number: int) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("text", "error", "complaint"),
    [
        (
            "web01@2026-11-01",
            UsageError,
            "means 3 restore points here; there are 3: 00030003 web01@2026-11-01T03:00:00Z",
        ),
        ("web01@2026-11-01T03:00", UsageError, "means 2 restore points"),
        ("web01@2024", NoSuchPoint, "no restore point 'web01@2024' here; there are 6: … 0002"),
        ("web01@2026-11-01T16:00", NoSuchPoint, "no restore point"),
        ("web02@latest", NoSuchPoint, "no restore points of 'web02' here; there are some of: web01, cafe"),
        ("Wen01@latest", NoSuchPoint, "there are some of: web01, cafe"),
        ("web01@2026-11-1", UsageError, "after the @ belongs 'latest' or a time"),
        ("web01@2026-13", UsageError, "after the @ belongs"),
        ("web01@2026-11-31", UsageError, "after the @ belongs"),
        ("web01@2026-11-01T03:00+24:00", UsageError, "after the @ belongs"),
        ("web01@2026-11-01Z", UsageError, "after the @ belongs"),
        ("web01@", UsageError, "after the @ belongs"),
        ("web01", UsageError, "write web01@latest"),
        ("cafe", NoSuchPoint, "no restore point 'cafe' here; write cafe@latest"),
        ("000", UsageError, "4 digits or more"),
        ("ffff", NoSuchPoint, "no restore point 'ffff'"),
        ("", UsageError, "neither"),
    ],
)
def test_what_does_not(text: str, error: type[UsageError], complaint: str) -> None:
    with pytest.raises(error) as caught:
        choose(POINTS, text, "here")
    assert type(caught.value) is error
    assert complaint in str(caught.value)


def test_twins_and_ids_that_begin_alike() -> None:
    twins = [*POINTS, point(8, "2026-11-03T00:00", uuid="another"), point(3, "2026-11-04T00:00", uuid="another")]
    with pytest.raises(UsageError, match="2 VMs are called 'web01'; write <instance uuid>@latest: another, uuid of"):
        choose(twins, "web01@latest", "here")
    assert choose(twins, "another@latest", "here") == twins[-1]
    with pytest.raises(UsageError, match="means 2 restore points"):
        choose(twins, "0003", "here")


def test_nothing_at_all() -> None:
    for text in ("web01@latest", "abcd"):
        with pytest.raises(NoSuchPoint, match="none at all"):
            choose([], text, "here")


MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(MOMENTS, st.sampled_from((4, 7, 10, 13, 16, 19)), st.sampled_from(("", "Z")))
def test_any_beginning_of_its_time_names_a_moment(moment: datetime, length: int, zone: str) -> None:
    text = moment.isoformat()[:length] + (zone if length > 10 else "")
    found = period(text)
    assert moment in found
    assert found.start.isoformat()[:length] == text.removesuffix("Z")
    assert found.end == datetime.max.replace(tzinfo=UTC) or found.end.isoformat()[:length] != text.removesuffix("Z")


@given(MOMENTS, st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_any_zone_means_the_same_moment(moment: datetime, minutes: int) -> None:
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    try:
        there = moment.replace(tzinfo=None) + timedelta(minutes=minutes)
    except OverflowError:
        return
    text = f"{there:%Y-%m-%dT%H:%M}".rjust(16, "0") + f"{sign}{hours:02}:{rest:02}"
    assert period(text).start == moment.replace(second=0, microsecond=0)


def test_a_suspect_one_is_never_used_without_a_word() -> None:
    suspect = point(9, "2026-11-03T00:00", suspect=True)
    assert doubt(POINTS, POINTS[0]) == ""
    assert doubt([*POINTS, suspect], suspect).endswith("of this VM that is not: 00060006 web01@2026-11-02T00:00:00Z")
    assert "no restore point of this VM is not" in doubt([POINTS[-1], suspect], suspect)


def test_the_page_s_examples_are_times() -> None:
    assert pointname.__doc__ is not None
    for text in ("2026-11-22T01:00:00Z", "2026-11-22T03:00+02:00", "2026-11-22"):
        assert text in pointname.__doc__
        period(text)


def test_the_latest_is_not_simply_what_a_wrong_clock_has_dated() -> None:
    """A vCenter that believed in 2027 for a night: its point would be restored as the latest for months."""
    listed = [*POINTS[:6], point(8, "2027-03-01T03:00:00")]
    now = datetime(2026, 11, 2, 1, tzinfo=UTC)
    with pytest.raises(
        UsageError, match=r"web01@2027-03-01T03:00:00Z is dated in the future.*00060006 web01@2026-11-02"
    ):
        choose(listed, "web01@latest", "here", now)
    assert choose(listed, "web01@2027", "here", now) == listed[-1]
    assert choose(listed[:-1], "web01@latest", "here", now) == listed[-2]
    assert choose(listed[:-1], "web01@latest", "here", now - timedelta(hours=23)) == listed[-2], "clocks differ"
    assert choose(listed, "web01@latest", "here", datetime(2027, 3, 1, tzinfo=UTC)) == listed[-1]


def test_the_names_that_were_most_likely_meant_come_first() -> None:
    names = [f"app{number}" for number in range(40)] + ["db01 "]
    assert some_of(names, "DB01") == "'db01 ', app0, app1, app10, app11 and 36 more"
    assert some_of([], "db01") == "none at all"
