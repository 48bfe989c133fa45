"""`vcbproxy tape media|pool|inventory|catalog`: what a person does with cartridges, and how it can end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tape.emulator.library import VirtualLibrary
from tape.encryption import Key, encrypted
from tape.library import Library
from tests import postgresql
from tests.archive.pools import World, content
from tests.archive.test_pool import foreign_ltfs
from tests.program import Program


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", "CLN001L8")


@pytest.fixture
def vcbproxy(world: World) -> Program:
    return Program(world.config)


@pytest.fixture
def tape(vcbproxy):
    return lambda *arguments, code=0: vcbproxy("tape", *arguments, "--json", code=code)


def states(tape) -> dict[str, str]:
    return {row["barcode"]: row["state"] for row in tape("media", "list").json}


def test_from_new_cartridges_to_a_rebuilt_catalog(world, tape):
    rows = tape("inventory").json
    assert [(row["barcode"], row["state"]) for row in rows] == [
        ("CLN001L8", "cleaning"),
        ("TAP001L8", "unknown"),
        ("TAP002L8", "unknown"),
        ("TAP003L8", "unknown"),
    ]
    assert [row["done"] for row in tape("media", "label", "--new", "--dry-run").json] == [False] * 3
    assert states(tape) == {"CLN001L8": "cleaning"}
    assert [row["done"] for row in tape("media", "label", "TAP001L8", "TAP002L8").json] == [True, True]
    assert states(tape) == {"CLN001L8": "cleaning", "TAP001L8": "scratch", "TAP002L8": "scratch"}
    point = world.archive("web01")
    [pool] = tape("pool", "list").json
    assert (pool["cartridges"], pool["appendable"], pool["scratch"]) == (1, 1, 1)
    shown = tape("media", "show", "TAP001L8").json
    assert shown["points"] == [point.name]
    assert shown["kept_until"] == "2026-12-27T01:00:00Z"
    [media_set] = tape("pool", "show", "daily").json["sets"]
    assert media_set["cartridges"] == ["TAP001L8"]
    assert tape("catalog", "check", "--library", "main").json == []
    world.catalog_file.unlink()
    rebuilt = tape("catalog", "rebuild").json
    assert rebuilt == {
        "cartridges": ["TAP001L8", "TAP002L8", "TAP003L8"],
        "points": [point.name],
        "gone": [],
        "problems": [],
        "pinned": [],
        "waiting": [],
        "complete": [],
    }
    assert tape("media", "show", "TAP001L8").json["points"] == [point.name]
    assert world.read(point) == content("web01", 1 << 20)


def test_a_rebuilt_set_is_kept_for_cartridges_that_were_not_seen_until_a_person_says_there_are_none(world, tape):
    world.clock.moment = datetime.now(UTC) - timedelta(days=20)
    point = world.archive("web01")
    world.catalog_file.unlink()
    done = tape("catalog", "rebuild")
    assert done.json["waiting"] == [point.media_set]
    assert "cartridges of 1 media set may lie elsewhere" in done.err
    assert "read from its cartridges" in tape("media", "show", "TAP001L8").json["because"]
    done = tape("catalog", "rebuild", "TAP001L8", "--complete").json
    assert (done["waiting"], done["complete"]) == ([], ["daily"])
    assert tape("media", "show", "TAP001L8").json["because"] == f"media set {point.media_set} is kept"


def test_what_is_not_complete_is_told(world, tape):
    world.clock.moment = datetime.now(UTC) - timedelta(days=20)
    point = world.archive("web01")
    with world.catalog() as catalog:
        catalog.points.add(replace(point, id="0" * 32, base="1" * 32, vm="other"))
        catalog.sets.put(replace(catalog.sets.listed()[0], taken_in=datetime.now(UTC)))
    done = tape("catalog", "rebuild", "TAP002L8", "--complete", code=4)
    assert done.json["complete"] == []
    assert "not all is there: other@" in done.json["problems"][-1]


def test_new_is_what_has_no_volume_yet(world, tape):
    """Also if somebody has looked at it; what is labelled is not looked at again."""
    tape("inventory", "--full", "TAP003L8")
    tape("media", "label", "TAP001L8")
    rows = tape("media", "label", "--new").json
    assert [(row["barcode"], row["done"]) for row in rows] == [("TAP002L8", True), ("TAP003L8", True)]
    assert tape("media", "label", "--new").json == []


def test_to_the_vault_and_back(world, tape):
    world.archive("web01")
    [out] = tape("media", "vault", "TAP001L8", "--export", "--due-back", "2027-01-01").json
    assert (out["vault"], out["mail_slot"]) == ("salt mine", "mail 1")
    tape("inventory")
    assert tape("catalog", "check", "--library", "main").json == []
    library = VirtualLibrary.open(world.root / "library")
    library.export_cartridge(16)
    assert tape("media", "show", "TAP001L8").json["location"] == "vault salt mine"
    assert tape("inventory").json
    assert tape("media", "show", "TAP001L8").json["location"] == "vault salt mine"
    assert tape("catalog", "check", "--library", "main").json == []
    tape("media", "return", "TAP001L8")
    assert tape("media", "show", "TAP001L8").json["location"] == "outside"
    assert "not in a vault: TAP001L8" in tape("media", "return", "TAP001L8", code=2).err
    library.import_cartridge("TAP001L8")
    tape("media", "vault", "TAP001L8")
    with Library.in_folder(world.root / "library") as opened:
        opened.import_()
    [complaint] = tape("catalog", "check", "--library", "main", code=4).json
    assert "should be in vault salt mine" in complaint["problem"]
    tape("inventory")
    assert tape("media", "show", "TAP001L8").json["location"].startswith("main slot")


def test_what_is_due(world, tape):
    with world.shelf() as shelf:
        world.fill(shelf, "large")
    assert [(row["barcode"], row["due"]) for row in tape("media", "list", "--due").json] == [
        ("TAP001L8", "to salt mine: it is full")
    ]
    tape("media", "vault", "TAP001L8", "--due-back", "2020-01-01")
    [row] = tape("media", "list", "--due").json
    assert row["due"] == "back from salt mine: it was to be back on 2020-01-01"


def test_foreign_cartridges_are_left_alone_until_released(world, tape):
    foreign_ltfs(world, "TAP001L8")
    done = tape("media", "label", "TAP001L8", code=3)
    assert "media release TAP001L8" in done.json[0]["problem"]
    seen = tape("media", "release", "TAP001L8").json
    assert not seen["released"]
    assert "OTHERS Backup 9" in seen["holds"]
    tape("media", "release", "TAP001L8", "--overwrite", "guess", code=2)
    assert not tape("media", "release", "TAP001L8", "--overwrite", seen["fingerprint"], "--dry-run").json["released"]
    assert tape("media", "label", "TAP001L8", code=3)
    assert tape("media", "release", "TAP001L8", "--overwrite", seen["fingerprint"]).json["released"]
    assert tape("media", "label", "TAP001L8").json[0]["done"]


def test_retired_is_read_and_not_written(world, tape):
    point = world.archive("web01")
    tape("media", "retire", "TAP001L8", "--reason", "worn")
    assert world.archive("web02").barcodes == ("TAP002L8",)
    assert world.read(point) == content("web01", 1 << 20)
    assert "--reason" in tape("media", "retire", "TAP001L8", code=2).err
    tape("media", "retire", "TAP001L8", "--undo")
    assert states(tape)["TAP001L8"] == "full"
    assert "knows no cartridge TAP009L8" in tape("media", "retire", "TAP009L8", "--reason", "x", code=2).err


def test_only_what_expired_is_recycled(world, tape):
    world.archive("fresh", terms=world.terms(pool="daily"))
    world.clock.pass_(days=-100)
    world.catalog_file.unlink()
    tape("catalog", "rebuild")
    assert tape("media", "recycle", "--dry-run").json == []


def test_old_ones_are_recycled(world, tape):
    world.clock.pass_(days=-1000)
    point = world.archive("old")
    [row] = tape("media", "recycle", "--dry-run").json
    assert row["points"] == [point.name]
    assert states(tape)["TAP001L8"] == "appendable"
    assert len(tape("media", "recycle").json) == 1
    assert states(tape)["TAP001L8"] == "scratch"
    assert tape("media", "recycle").json == []


def test_a_full_look_and_a_check_tell_what_is_wrong(world, tape):
    world.archive("web01")
    world.folder("TAP001L8").rename(world.root / "aside")
    world.folder("TAP003L8").rename(world.folder("TAP001L8"))
    (world.root / "aside").rename(world.folder("TAP003L8"))
    done = tape("inventory", "--full", "TAP001L8", code=3)
    assert "holds nothing" in done.json[0]["problem"]
    done = tape("inventory", "--full", code=3)
    assert any("says of itself that it is TAP001L8" in (row["problem"] or "") for row in done.json)
    library = VirtualLibrary.open(world.root / "library")
    library.shelf.full = {key: value for key, value in library.shelf.full.items() if value != "TAP001L8"}
    library.save()
    assert "should be in library main" in tape("catalog", "check", "--library", "main", code=4).json[0]["problem"]


def test_without_libraries_it_is_said_what_to_write(tmp_path):
    path = tmp_path / "vcbproxy.toml"
    path.write_text('[state]\ndirectory = "state"\n')
    done = Program(path)("tape", "inventory", "--json", code=2)
    assert "write [tape.library.NAME]" in json.loads(done.err)["message"]


@pytest.mark.parametrize("key_from", ['hardware_key_file = "drive.key"', 'hardware_key_command = "cat {key}"'])
def test_a_pool_that_drives_encrypt_is_looked_at_with_its_key(world, tape, key_from):
    """Neither the labels nor the indexes can be read without; the cartridge's memory tells whose it is."""
    key = world.root / "drive.key"
    key.write_text("5a" * 32)
    plain = world.config.read_text()
    sealed = f'{plain}encryption = "hardware"\n{key_from.format(key=key)}\n'
    world.config.write_text(sealed)
    with world.shelf(drive_session=lambda drive: encrypted(drive, Key(b"\x5a" * 32))) as shelf:
        point = world.put(shelf, "web01")
    world.catalog_file.unlink()
    (world.root / "vcbproxy.toml").write_text(plain)
    assert tape("inventory", "--full", "TAP001L8").json[0]["state"] == "foreign"
    (world.root / "vcbproxy.toml").write_text(sealed)
    assert tape("catalog", "rebuild", "TAP001L8").json["points"] == [point.name]
    assert states(tape)["TAP001L8"] == "appendable"
    assert tape("media", "release", "TAP001L8").json["lost"] == [point.name]
    key.write_text("5b" * 32)
    assert "should hold volume" in tape("inventory", "--full", "TAP001L8", code=3).json[0]["problem"]
    assert states(tape)["TAP001L8"] == "appendable"


@pytest.mark.real
@pytest.mark.xdist_group("postgresql")
def test_two_proxies_share_a_catalog_in_postgresql(world, postgres):
    """Each has a state directory of its own; what one writes the other finds."""
    (world.root / "catalog.password").write_text(postgresql.PASSWORD + "\n")
    catalog = f'[catalog]\nurl = "{postgres.create("shared")}"\npassword_file = "catalog.password"\n'
    proxies = []
    for name in ("one", "two"):
        path = world.root / f"{name}.toml"
        path.write_text(world.config.read_text().replace('"state"', f'"{name}"') + catalog)
        proxies.append(Program(path))
    one, two = proxies
    one("tape", "media", "label", "TAP001L8")
    [row] = two("tape", "media", "list", "--state", "scratch", "--json").json
    assert row["barcode"] == "TAP001L8"
    two("tape", "media", "retire", "TAP001L8", "--reason", "worn")
    assert one("tape", "media", "show", "TAP001L8", "--json").json["reason"] == "worn"
    (world.root / "catalog.password").write_text("wrong\n")
    assert postgresql.PASSWORD not in one("tape", "media", "list", code=12).err
