"""`vcbproxy points` of what lies on cartridges: which, where, how long, and what holds them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.archive.pools import World
from tests.archive.tapes import spec
from tests.archive.test_archive_cli import lab_with_tape
from tests.archive.test_deltas import tracked
from tests.program import Program
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.config import Allocation
from vcbproxy.lab.tracking import HONEST
from vcbproxy.units import MiB


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A full one, a delta upon it in a vault, and another VM's."""
    world = World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", "TAP004L8")
    world.clock.moment = datetime.now(UTC).replace(microsecond=0)
    terms = world.terms(allocation=Allocation.ALWAYS)
    base = world.archive("web01", terms=terms)
    world.clock.pass_(seconds=1)
    world.archive("web01", terms=terms, base=base.id)
    world.clock.pass_(seconds=1)
    world.archive("db01", terms=terms)
    with world.catalog() as catalog:
        catalog.media.change("TAP002L8", lambda known: replace(known, library=None, slot=None, vault="salt mine"))
    return world


@pytest.fixture
def vcbproxy(world: World) -> Program:
    return Program(world.config)


def listed(world: World) -> list[ArchivedPoint]:
    with world.catalog() as catalog:
        return catalog.points.listed()


def test_a_list_says_where_they_are_and_how_long(world, vcbproxy):
    base, delta, _ = listed(world)
    rows = vcbproxy("points", "list", "--vm", "web01", "--json").json
    assert [(row["method"], row["base"], row["barcodes"], row["away"]) for row in rows] == [
        ("full", None, ["TAP001L8"], []),
        ("incremental", base.id, ["TAP002L8"], ["TAP002L8 (vault salt mine)"]),
    ]
    assert [row["size_bytes"] for row in rows] == [1 << 20, 1 << 20]
    assert [row["partial"] for row in rows] == [False, False]
    end = f"{world.clock.moment + timedelta(days=30, seconds=-1):%Y-%m-%dT%H:%M:%SZ}"
    assert [row["kept_until"] for row in rows] == [end, end], "the full one is kept as long as what builds upon it"
    shown = vcbproxy("points", "list").out.splitlines()[0].split("  ")
    assert [name.strip() for name in shown if name.strip()][-3:] == ["BARCODES", "AWAY", "KEPT UNTIL"]
    assert [row["vm"] for row in vcbproxy("points", "list", "--on", "tape:daily", "--json").json][-1] == "db01"
    assert delta.id == rows[-1]["point_id"]
    assert "no pool other" in vcbproxy("points", "list", "--on", "tape:other", code=2).err
    assert "--on takes tape or tape:POOL" in vcbproxy("points", "list", "--on", "disk", code=2).err


def test_one_by_itself_names_what_a_restore_needs(world, vcbproxy):
    base, delta, _ = listed(world)
    shown = vcbproxy("points", "show", "web01@latest", "--json").json
    assert (shown["on"], shown["base"], shown["builds_upon"]) == ("tape:daily", base.id, [base.name])
    assert [(one["barcode"], one["in_library"], one["points"]) for one in shown["cartridges"]] == [
        ("TAP001L8", True, [base.name]),
        ("TAP002L8", False, [delta.name]),
    ]
    assert shown["cartridges"][1]["where"] == "vault salt mine"
    assert [(disk["key"], disk["bytes_stored"], disk["barcodes"]) for disk in shown["disks"]] == [
        ("scsi0-0", 1 << 20, ["TAP002L8"])
    ]
    text = vcbproxy("points", "show", delta.id[:8]).out
    assert "vault salt mine" in text
    with world.catalog() as catalog:
        catalog.points.remove(base.id)
    done = vcbproxy("points", "show", "web01@latest", "--json", code=4)
    assert done.json["builds_upon"] == []
    assert f"builds on restore point {base.id}, which is not in the catalog" in done.err


def test_pinned_until_unpinned(world, vcbproxy):
    _, delta, other = listed(world)
    done = vcbproxy("points", "pin", "web01@latest", "--reason", "year end", "--json")
    assert [(row["pinned"], row["pinned_because"], row["kept_until"]) for row in done.json] == [
        (True, "year end", "forever")
    ]
    assert "kept until unpinned: TAP001L8, TAP002L8" in done.err
    for barcode in ("TAP001L8", "TAP002L8"):
        row = vcbproxy("tape", "media", "show", barcode, "--json").json
        assert (row["kept_until"], row["because"]) == ("forever", f"{delta.name} is pinned (year end): it is kept")
    fingerprint = vcbproxy("tape", "media", "release", "TAP001L8", "--json").json["fingerprint"]
    refused = vcbproxy("tape", "media", "release", "TAP001L8", "--overwrite", fingerprint, code=2)
    assert "is pinned: `vcbproxy points unpin` first" in refused.err
    assert vcbproxy("points", "pin", delta.id, "--json").json[0]["pinned_because"] == "year end", "as it was"
    assert [row["pinned"] for row in vcbproxy("points", "list", "--json").json] == [False, True, False]
    rows = vcbproxy("points", "unpin", delta.id[:8], other.id, "--json").json
    assert [row["pinned"] for row in rows] == [False, False]
    assert vcbproxy("tape", "media", "release", "TAP001L8", "--overwrite", fingerprint, "--json").json["released"]


def test_a_pin_of_what_is_gone_is_told_and_taken_back(world, vcbproxy):
    _, _, other = listed(world)
    vcbproxy("points", "pin", other.id)
    with world.catalog() as catalog:
        catalog.points.remove(other.id)
    found = vcbproxy("tape", "catalog", "check", "--json", code=4).json
    [told] = [one for one in found if one["about"] == other.name]
    assert f"`vcbproxy points unpin {other.id[:8]} --on tape`" in told["problem"]
    assert vcbproxy("points", "unpin", other.id[:8], "--json").json == []
    assert not any(one["about"] == other.name for one in vcbproxy("tape", "catalog", "check", "--json").json)


def test_what_cannot_be_pinned_is_refused_and_nothing_else_is_pinned_either(world, vcbproxy):
    base, delta, other = listed(world)
    assert "no restore point" in vcbproxy("points", "pin", other.id, "web01@2020", code=2).err
    assert "at most 200" in vcbproxy("points", "pin", other.id, "--reason", "x" * 201, code=2).err
    with world.catalog() as catalog:
        catalog.points.remove(base.id)
    assert "not in the catalog" in vcbproxy("points", "pin", other.id, delta.id, code=4).err
    assert not any(point.pinned for point in listed(world))


def test_the_same_words_find_the_place(tmp_path: Path) -> None:
    """Of the repository unless it is said otherwise; what lies on tape alone is pointed at."""
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        [row] = lab.vcbproxy("points", "list", "--on", "tape", "--json").json
        there = f"{row['point']} vm1@{row['time']} lies on tape (TAP001L8)"
        for command in (("restore", "vm1@latest", "--to", tmp_path / "no"), ("points", "show", row["point"])):
            gone = lab.vcbproxy(*command, code=10).err
            assert f"{there}: add" in gone, "the repository is lost, and this is what is left"
        lab.new_repository()
        for command in (
            ("points", "show", "vm1@latest"),
            ("points", "pin", row["point"]),
            ("points", "unpin", f"vm1@{row['time'][:10]}"),
            ("restore", "vm1@latest", "--to", tmp_path / "no"),
            ("verify", row["point"]),
            ("forget", row["point"]),
            ("forget", "vm1@all", "--dry-run"),
        ):
            assert there in lab.vcbproxy(*command, code=2).err, command
        assert "add --from tape" in lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "no", code=2).err
        assert "tape media release" in lab.vcbproxy("forget", row["point"], code=2).err
        lab.vcbproxy("backup", "vm1")
        assert lab.vcbproxy("points", "show", "vm1@latest", "--json").json["on"] == "repository"
        shown = lab.vcbproxy("points", "show", "vm1@latest", "--on", "tape", "--json").json
        assert shown["manifest"]["method"] == "full"
        assert [(disk["key"], disk["size_bytes"] > 0) for disk in shown["disks"]] == [("scsi0-0", True)]


def test_a_suspect_is_shown_and_never_restored_without_a_word(tmp_path: Path) -> None:
    """Found by the audit of the third night; also by a catalog that is made anew."""
    with lab_with_tape(tmp_path, tracked()) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        lab.datacenter.machine("vm1").guest_write("scsi0-0", 2 * MiB, b"changed")
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        lab.datacenter.machine("vm1").guest_write("scsi0-0", 13 * MiB, b"and this was not told")
        lab.server.centre.area_habits = replace(HONEST, omitted=1)
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily", "--audit", "1", code=3)
        lab.server.centre.area_habits = HONEST
        for _ in range(2):
            rows = lab.vcbproxy("points", "list", "--on", "tape", "--json").json
            assert [row["suspect"] for row in rows] == [False, True, False]
            suspect = rows[1]["point"]
            assert lab.vcbproxy("points", "show", suspect, "--on", "tape", "--json").json["suspect_because"]
            [catalog] = lab.directory.rglob("catalog.db")
            catalog.unlink()
            lab.vcbproxy("tape", "catalog", "rebuild")
        done = lab.vcbproxy("restore", suspect, "--from", "tape", "--to", tmp_path / "back", code=3)
        assert f"is suspect; the newest of this VM that is not: {rows[2]['point']}" in done.err.splitlines()[0]
        assert "restored, but" in done.err
        assert "is suspect" in lab.vcbproxy("verify", suspect, "--from", "tape").err
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "good")


def test_a_copy_of_what_was_found_out_since_is_suspect_too(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, tracked()) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        lab.datacenter.machine("vm1").guest_write("scsi0-0", 2 * MiB, b"changed")
        lab.vcbproxy("backup", "vm1")
        lab.vcbproxy("copy", "vm1@latest", "--to", "tape:daily")
        lab.server.centre.area_habits = replace(HONEST, omitted=1)
        lab.datacenter.machine("vm1").guest_write("scsi0-0", 13 * MiB, b"and this was not told")
        lab.vcbproxy("backup", "vm1", "--audit", "1", code=3)
        rows = lab.vcbproxy("points", "list", "--json").json
        assert [(row["on"], row["suspect"]) for row in rows] == [
            ("repository", False),
            ("repository", True),
            ("tape:daily", True),
            ("repository", False),
        ]
        lab.vcbproxy("copy", "vm1@latest", "--to", "tape:daily")
        rows = lab.vcbproxy("points", "list", "--on", "tape", "--json").json
        assert [row["suspect"] for row in rows] == [True, False]
