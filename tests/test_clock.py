"""Which time zone a process is in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vcbproxy.clock import local_zone

SUMMER = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Europe/Berlin", ":Europe/Berlin"])
def test_the_environment_names_it(tmp_path: Path, name: str) -> None:
    assert SUMMER.astimezone(local_zone({"TZ": name}, tmp_path / "none")).hour == 2


def test_the_machine_has_one(tmp_path: Path) -> None:
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Kolkata")
    zone = local_zone({}, tmp_path / "localtime")
    assert SUMMER.astimezone(zone).strftime("%H:%M") == "05:30"
    assert str(zone) == "Asia/Kolkata"


def test_a_machine_without_one_is_in_utc(tmp_path: Path) -> None:
    assert local_zone({"TZ": ""}, tmp_path / "none") is UTC


def test_what_is_no_zone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "localtime").write_text("noon")
    with pytest.raises(ValueError, match="magic"):
        local_zone({}, tmp_path / "localtime")
    with pytest.raises(LookupError):
        local_zone({"TZ": "Mars/North"})
