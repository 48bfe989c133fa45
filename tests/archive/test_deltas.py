"""Delta images on tape: what changed since the last restore point of the same media set, audited, and laid over it."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.outcome import Outcome, Report
from jobs.tapewanted import Where
from jobs.tracking import Tracking
from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.scsi.sense import Key
from tests.archive.tapes import Tapes, by_hand, disks_in, spec
from tests.archive.test_archive_job import BadSpot
from tests.archive.test_spanning import surveyed
from tests.jobs.rehearsal import Prompter
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import CartridgeWanted, IntegrityError
from vcbproxy.lab.spec import LabSpec
from vcbproxy.lab.tracking import HONEST
from vcbproxy.units import KiB, MiB

NODE = "scsi0-0"


def tracked(disks: int = 1, size_bytes: int = 24 * MiB) -> LabSpec:
    lab = spec("vm1", disks=disks, size_bytes=size_bytes)
    return replace(lab, vms=tuple(replace(vm, change_tracking=True) for vm in lab.vms))


def write(tapes: Tapes, *offsets: int, data: bytes = b"changed!" * 64) -> None:
    for offset in offsets:
        tapes.stage.datacenter.machine("vm1").guest_write(NODE, offset, data)


def night(tapes: Tapes, **tracking: object) -> Report:
    return tapes.backed_up("vm1", tracking=Tracking(**tracking))  # type: ignore[arg-type]


def restores(tapes: Tapes, point: ArchivedPoint, to: Path) -> dict[str, str]:
    tapes.restoring().run([Where(point, to)], tapes.ledger.points).raise_unless_whole()
    return disks_in(to)


def test_a_week_of_deltas_comes_back_each_night_by_us_and_the_last_by_hand(tmp_path: Path) -> None:
    rng = random.Random(1)
    with Tapes.of(tmp_path, tracked(), 32, 64, 64) as tapes:
        night(tapes).raise_unless_ok()
        for _ in range(4):
            write(tapes, *(rng.randrange(24 * MiB - KiB) for _ in range(3)), data=rng.randbytes(KiB))
            night(tapes).raise_unless_ok()
        points = tapes.ledger.points
        assert [point.base for point in points] == [None, *(point.id for point in points[:-1])]
        full, *deltas = (sum(part.size_bytes for part in point.parts) for point in points)
        assert all(delta < full / 5 for delta in deltas), (full, deltas)
        for number, point in enumerate(points):
            assert restores(tapes, point, tmp_path / f"back{number}") == tapes.truth("vm1", len(points) - number)
        by_hand_onto(tapes, points, tmp_path / "hand")
        assert disks_in(tmp_path / "hand") == tapes.truth("vm1")
        assert surveyed(tapes.shelf) == (points, [])


def by_hand_onto(tapes: Tapes, points: list[ArchivedPoint], to: Path) -> None:
    """Each by its own RESTORE.txt, in its own directory, with the disks of the one before."""
    before: Path | None = None
    for number, point in enumerate(points):
        folder = to if point is points[-1] else to.with_name(f"{to.name}{number}")
        folder.mkdir()
        if before is not None:
            for disk in before.glob("*.raw"):
                disk.rename(folder / disk.name)
        assert "FAILED" not in by_hand(tapes.shelf, point, folder)
        before = folder


def test_what_the_guest_gave_back_is_zero_after_a_delta(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        write(tapes, 8 * MiB, data=b"x" * (4 * MiB))
        night(tapes).raise_unless_ok()
        write(tapes, 9 * MiB, data=bytes(MiB))
        night(tapes).raise_unless_ok()
        assert restores(tapes, tapes.ledger.points[-1], tmp_path / "back") == tapes.truth("vm1")


def test_nothing_changed(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked(disks=2)) as tapes:
        night(tapes).raise_unless_ok()
        night(tapes).raise_unless_ok()
        full, delta = tapes.ledger.points
        assert delta.base == full.id
        assert restores(tapes, delta, tmp_path / "back") == tapes.truth("vm1")
        by_hand_onto(tapes, [full, delta], tmp_path / "hand")
        assert disks_in(tmp_path / "hand") == tapes.truth("vm1")


def test_a_lie_about_changes_is_found_out_and_the_disk_read_whole(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, 2 * MiB)
        night(tapes).raise_unless_ok()
        tapes.stage.server.centre.area_habits = replace(HONEST, omitted=1)
        write(tapes, 13 * MiB)
        report = night(tapes, audit_fraction=1.0)
        assert report.results[0].outcome is Outcome.ALARM
        _, delta, last = tapes.ledger.points
        assert last.base is None
        assert restores(tapes, last, tmp_path / "back") == tapes.truth("vm1")
        assert tapes.ledger.is_suspect(delta.id)
        assert not tapes.ledger.is_suspect(last.id)


@pytest.mark.parametrize("lost", ["memory", "catalog", "set"])
def test_without_its_base_the_next_is_a_full_one(tmp_path: Path, lost: str) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        if lost == "memory":
            tapes.remembered.forget_all_but(())
        elif lost == "catalog":
            tapes.ledger.points.clear()
        else:
            tapes.ledger.points = [replace(point, media_set="another") for point in tapes.ledger.points]
        night(tapes).raise_unless_ok()
        assert tapes.ledger.points[-1].base is None
        assert restores(tapes, tapes.ledger.points[-1], tmp_path / "back") == tapes.truth("vm1")


def test_a_delta_whose_base_is_given_up_meanwhile_is_no_restore_point(tmp_path: Path) -> None:
    """Somebody recycles cartridges during the backup: what is written then could never be restored."""
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, MiB)
        prompter = Prompter({"released": tapes.ledger.points.clear})
        tapes.backed_up("vm1", watcher=prompter, tracking=Tracking()).raise_unless_ok()
        assert any("vm1 is backed up once more" in line and "given up meanwhile" in line for line in tapes.said)
        [point] = tapes.ledger.points
        assert point.base is None
        points, _ = surveyed(tapes.shelf)
        assert len(points) == 2, "the one that was given up, and the one that is whole"
        assert restores(tapes, point, tmp_path / "back") == tapes.truth("vm1")


def test_nothing_is_built_upon_a_cartridge_that_failed_in_the_same_night(tmp_path: Path) -> None:
    """Neither what is written once more, nor what comes after it."""
    lab = tracked()
    two = replace(lab, vms=(*lab.vms, replace(lab.vms[0], name="vm2")))
    with Tapes.of(tmp_path, two, 64, 128) as tapes:
        tapes.backed_up(tracking=Tracking()).raise_unless_ok()
        write(tapes, MiB)
        bad = tapes.shelf.befall = BadSpot("TAP001L8", 3)
        tapes.doubtful = lambda: ["TAP001L8"] if bad.met else []
        tapes.shelf.forget_what_is_full()
        tapes.backed_up(tracking=Tracking()).raise_unless_ok()
        assert bad.met
        again = tapes.ledger.points[2:]
        assert [(point.vm, point.base, point.barcodes) for point in again] == [
            ("vm1", None, ("TAP002L8",)),
            ("vm2", None, ("TAP002L8",)),
        ]


def test_damaged_memory_makes_a_full_one(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        [sums] = (tmp_path / "remembered").glob("*/*.sums")
        sums.write_bytes(b"123")
        night(tapes).raise_unless_ok()
        assert tapes.ledger.points[-1].base is None


def test_a_delta_whose_base_is_not_known_any_more_is_refused(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        night(tapes).raise_unless_ok()
        full, delta = tapes.ledger.points
        tapes.ledger.points = [delta]
        with pytest.raises(IntegrityError, match=full.id):
            restores(tapes, delta, tmp_path / "back")


def test_the_cartridge_of_the_base_is_asked_for(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked(), 6, 64) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, MiB)
        night(tapes).raise_unless_ok()
        last = tapes.ledger.points[-1]
        assert last.barcodes == ("TAP002L8",)
        tapes.shelf.away.add("TAP001L8")
        with pytest.raises(CartridgeWanted, match="TAP001L8"):
            restores(tapes, last, tmp_path / "back")
        tapes.shelf.away.clear()
        assert restores(tapes, last, tmp_path / "again") == tapes.truth("vm1")


def test_the_manifest_says_upon_what(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        night(tapes).raise_unless_ok()
        full, delta = tapes.ledger.points
        by_hand(tapes.shelf, full, tmp_path / "hand")
        (tmp_path / "hand" / "RESTORE.txt").unlink()
        by_hand(tapes.shelf, delta, tmp_path / "hand")
        vm_json = json.loads((tmp_path / "hand" / "vm.json").read_text())
        assert vm_json["base"] == {"id": full.id, "name": full.name}
        assert [image["kind"] for image in vm_json["images"]] == ["delta"]
        assert full.name in (tmp_path / "hand" / "RESTORE.txt").read_text()


def test_a_chain_that_goes_to_and_fro_between_two_cartridges_comes_back(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked(), 64, 64) as tapes:
        for number, away in enumerate(("TAP002L8", "TAP001L8", "TAP002L8", "TAP001L8")):
            tapes.shelf.away = {away}
            write(tapes, number * MiB)
            night(tapes).raise_unless_ok()
        tapes.shelf.away.clear()
        points = tapes.ledger.points
        assert [point.barcodes for point in points] == [("TAP001L8",), ("TAP002L8",)] * 2
        tapes.shelf.read.clear()
        assert restores(tapes, points[-1], tmp_path / "back") == tapes.truth("vm1")
        assert tapes.shelf.read[-4:] == ["TAP001L8", "TAP002L8"] * 2


def ends_behind_the_map(barcode: str, lun: DriveLun) -> None:
    """The first cartridge takes one more block of data."""
    blocks = itertools.count()

    def before(lun: Lun, cdb: bytes) -> None:
        assert isinstance(lun, DriveLun)
        if cdb[0] == 0x0A and lun.partition == 1 and next(blocks):
            raise Check(Key.VOLUME_OVERFLOW, 0, 2, eom=True)

    if barcode == "TAP001L8":
        lun.before = before


@pytest.mark.timeout(60)
def test_a_map_at_the_end_of_a_cartridge_and_its_image_on_the_next(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked(), 64, 64) as tapes:
        night(tapes).raise_unless_ok()
        tapes.shelf.befall = ends_behind_the_map
        write(tapes, 2 * MiB, data=random.Random(2).randbytes(4 * MiB))
        night(tapes).raise_unless_ok()
        last = tapes.ledger.points[-1]
        assert {part.file: part.barcode for part in last.parts if "delta" in part.file} == {
            f"{NODE}.delta.map": "TAP001L8",
            f"{NODE}.delta.raw.zst": "TAP002L8",
        }
        assert restores(tapes, last, tmp_path / "back") == tapes.truth("vm1")
