"""From the LUN onto cartridges and back, bit for bit: by our command's job, and by cat, zstd and sha256sum alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from jobs.fromtape import TapeRestore
from jobs.intoarchive import ArchiveOptions
from jobs.tapewanted import Where
from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.ltfs.index import File
from tape.scsi.sense import Key
from tests.archive.shelves import FolderShelf
from tests.archive.tapes import OPTIONS, Tapes, by_hand, disks_in, spec
from tests.archive.test_spanning import surveyed
from tests.jobs.rehearsal import Prompter, QuickClock
from vcbproxy.archive import reader
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import CartridgeFailed, CartridgeWanted, IntegrityError
from vcbproxy.lab.spec import ContentSpec, DiskSpec
from vcbproxy.units import MiB


def test_a_vm_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1")) as tapes:
        report = tapes.backed_up("vm1")
        report.raise_unless_ok()
        [point] = tapes.ledger.points
        assert report.results[0].point == point.id
        assert report.results[0].media is not None
        assert report.results[0].media["barcodes"] == ["TAP001L8"]
        tapes.restored(tmp_path / "back", point).raise_unless_whole()
        assert disks_in(tmp_path / "back" / "vm1") == tapes.truth("vm1")
        assert (tmp_path / "back" / "vm1" / "vm1.vmx").read_bytes()
        said = by_hand(tapes.shelf, point, tmp_path / "hand")
        assert disks_in(tmp_path / "hand") == tapes.truth("vm1")
        assert "scsi0-0.raw: OK" in said
        assert "FAILED" not in said


def test_three_vms_over_three_cartridges_and_the_catalog_lost(tmp_path: Path) -> None:
    """The exhibit: spanning, a catalog made anew from the cartridges, a restore by us and one by hand."""
    with Tapes.of(tmp_path, spec("vm1", "vm2", "vm3", size_bytes=4 * MiB, used=0.9), 9, 9, 32) as tapes:
        report = tapes.backed_up()
        report.raise_unless_ok()
        assert len(report.results) == 3
        before = tapes.ledger.points
        assert {barcode for point in before for barcode in point.barcodes} == set(tapes.shelf.barcodes)
        assert any(part.number == 2 for point in before for part in point.parts), "nothing spans"

        tapes.ledger.points = []
        points, told = surveyed(tapes.shelf)
        assert (points, told) == (sorted(before, key=lambda point: (point.time, point.id)), [])

        [vm1] = [point for point in points if point.vm == "vm1"]
        tapes.restored(tmp_path / "back", vm1).raise_unless_whole()
        assert disks_in(tmp_path / "back" / "vm1") == tapes.truth("vm1")
        spanning = next(point for point in points if len(point.barcodes) > 1)
        said = by_hand(tapes.shelf, spanning, tmp_path / "hand")
        assert disks_in(tmp_path / "hand") == tapes.truth(spanning.vm)
        assert said.count(": OK\n") >= 4
        assert "FAILED" not in said


def test_several_points_are_restored_in_one_pass_over_each_cartridge(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1", "vm2", "vm3", used=0.9), 9, 9, 32) as tapes:
        tapes.backed_up().raise_unless_ok()
        points = tapes.ledger.points
        wheres = [Where(point, tmp_path / "back" / point.vm) for point in points]
        documents = tapes.restoring().documents(points)
        tapes.shelf.read.clear()
        tapes.restoring().run(wheres, documents=documents).raise_unless_whole()
        assert tapes.shelf.read == ["TAP001L8", "TAP002L8", "TAP003L8"]
        for point in points:
            assert disks_in(tmp_path / "back" / point.vm) == tapes.truth(point.vm)


def test_a_restore_point_whose_last_word_is_damaged_fails_alone(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1", "vm2", disks=1), 64) as tapes:
        tapes.backed_up().raise_unless_ok()
        first, second = tapes.ledger.points
        damage_last_word(tapes, first)
        wheres = [Where(point, tmp_path / "back" / point.vm) for point in (first, second)]
        restored = tapes.restoring().run(wheres)
        assert [disk.path.parent.name for disk in restored.disks] == ["vm2"]
        assert disks_in(tmp_path / "back" / "vm2") == tapes.truth("vm2")
        with pytest.raises(IntegrityError, match=r"RESTORE\.txt"):
            restored.raise_unless_whole()


def damage_last_word(tapes: Tapes, point: ArchivedPoint) -> None:
    """One bit of its ``vm.json``."""
    last = reader.last_word(point)
    for record in (tapes.shelf.root / last.barcode).glob("1_*_R"):
        data = bytearray(record.read_bytes())
        if hashlib.sha256(data).hexdigest() == last.sha256:
            data[40] ^= 1
            record.write_bytes(data)
            return
    raise AssertionError("it was not found")


def test_the_rings_of_several_drives_share_what_one_may_hold() -> None:
    assert ArchiveOptions(lanes=4).lane_ring_bytes * 4 == ArchiveOptions().lane_ring_bytes == 256 * MiB
    assert ArchiveOptions(lanes=100).lane_ring_bytes == 32 * MiB


def test_several_drives_at_once(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1", "vm2", "vm3", "vm4", disks=1), 64, 64, 64) as tapes:
        report = tapes.backed_up(options=replace(OPTIONS, lanes=2))
        report.raise_unless_ok()
        assert [result.vm for result in report.results] == ["vm1", "vm2", "vm3", "vm4"]
        used = {point.barcodes for point in tapes.ledger.points}
        assert used == {("TAP001L8",), ("TAP002L8",)}, "two drives, each VM on one of them"
        tapes.restored(tmp_path / "back", *tapes.ledger.points).raise_unless_whole()
        for vm in ("vm1", "vm2", "vm3", "vm4"):
            assert disks_in(tmp_path / "back" / vm) == tapes.truth(vm)


def test_of_several_drives_one_takes_the_largest_vm_at_once(tmp_path: Path) -> None:
    """Begun last it would keep one drive busy, and the others would idle."""
    lab = spec("vm1", "vm2", "vm3", "vm4", disks=1)
    large = replace(lab.vms[3], disks=(DiskSpec(32 * MiB, content=ContentSpec(used=0.9)),))
    with Tapes.of(tmp_path, replace(lab, vms=(*lab.vms[:3], large)), 64, 64, 64) as tapes:
        watcher = Prompter()
        report = tapes.backed_up(options=replace(OPTIONS, lanes=2), watcher=watcher)
        report.raise_unless_ok()
        assert [result.vm for result in report.results] == ["vm1", "vm2", "vm3", "vm4"]
        assert "vm4" in watcher.titles[0] + watcher.titles[1]


def test_a_pool_that_runs_dry_ends_the_job_run_and_leaves_what_was_done(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1", "vm2", "vm3", used=0.9), 9, 9) as tapes:
        with pytest.raises(CartridgeWanted) as caught:
            tapes.backed_up()
        assert caught.value.exit_code == 14
        assert "restore points were made of" in "".join(caught.value.__notes__)
        assert all(tapes.stage.datacenter.machine(vm).state.snapshots == [] for vm in ("vm1", "vm2", "vm3"))
        points, told = surveyed(tapes.shelf)
        assert (points, told) == (tapes.ledger.points, [])
        tapes.restored(tmp_path / "back", *points).raise_unless_whole()


def test_a_disk_that_moved_is_read_again_and_only_the_second_image_counts(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1", disks=1, used=0.9), 5, 64) as tapes:
        moved = partial(tapes.stage.datacenter.moves.storage_vmotion, "vm1", "ds2")
        report = tapes.backed_up("vm1", watcher=Prompter({"disk 1 read": moved}))
        report.raise_unless_ok()
        assert report.results[0].disks[0].attempts == 2
        [point] = tapes.ledger.points
        assert surveyed(tapes.shelf) == ([point], [])
        tapes.restored(tmp_path / "back", point).raise_unless_whole()
        assert disks_in(tmp_path / "back" / "vm1") == tapes.truth("vm1")


def test_a_damaged_block_fails_one_disk_by_name_and_brings_the_other_back(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1")) as tapes:
        tapes.backed_up("vm1").raise_unless_ok()
        [point] = tapes.ledger.points
        damage(tapes.shelf, point, "scsi0-0.raw.zst")
        restored = tapes.restored(tmp_path / "back", point)
        with pytest.raises(IntegrityError, match=r"scsi0-0.raw.zst: frame 0 is damaged") as caught:
            restored.raise_unless_whole()
        assert caught.value.exit_code == 4
        back = disks_in(tmp_path / "back" / "vm1")
        assert back == {"scsi0-1": tapes.truth("vm1")["scsi0-1"]}
        assert not list((tmp_path / "back" / "vm1").glob("*.partial"))


def damage(shelf: FolderShelf, point: ArchivedPoint, file: str) -> None:
    """Turn some bits in the middle of an image, as they lie on the cartridge."""
    part = next(part for part in point.parts if part.file == file)
    with shelf.for_reading(part.barcode) as cartridge:
        entry = cartridge.volume.index.find(part.path)
        assert isinstance(entry, File)
        block = entry.extents[0].start.block + part.size_bytes // 2 // shelf.block_bytes
    [record] = (shelf.root / part.barcode).glob(f"1_{block}_R")
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 0x55
    record.write_bytes(data)


def test_a_missing_cartridge_is_asked_for(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1")) as tapes:
        tapes.backed_up("vm1").raise_unless_ok()
        [point] = tapes.ledger.points
        tapes.shelf.away.add("TAP001L8")
        with pytest.raises(CartridgeWanted, match="TAP001L8"):
            tapes.restored(tmp_path / "back", point)
        brought = Bringing(tapes.stage.clock, tapes.shelf.away.clear)
        watcher = Prompter()
        job = TapeRestore(tapes.shelf, watcher, brought, wait=True)
        job.run([Where(point, tmp_path / "back")]).raise_unless_whole()
        assert any("TAP001L8" in line and "waiting" in line for line in watcher.told)
        assert disks_in(tmp_path / "back") == tapes.truth("vm1")


class Bringing:
    """A clock by which somebody does something while it is slept."""

    def __init__(self, clock: QuickClock, bring: Callable[[], None]) -> None:
        self._clock = clock
        self._bring = bring

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        self._bring()


_WRITE = 0x0A


class BadSpot:
    """A cartridge that cannot be written to from the n-th block on."""

    def __init__(self, barcode: str, nth: int) -> None:
        self._barcode = barcode
        self._left = nth

    @property
    def met(self) -> bool:
        """Whether anybody has come so far."""
        return self._left < 0

    def __call__(self, barcode: str, lun: DriveLun) -> None:
        if barcode == self._barcode:
            lun.before = self._before

    def _before(self, lun: Lun, cdb: bytes) -> None:
        if cdb[0] == _WRITE:
            self._left -= 1
            if self._left < 0:
                raise Check(Key.MEDIUM_ERROR, 0x0C)


@pytest.mark.parametrize("nth", [3, 40, 85])
def test_a_bad_cartridge_costs_a_reading_and_not_the_night(tmp_path: Path, nth: int) -> None:
    with Tapes.of(tmp_path, spec("vm1", "vm2", "vm3", used=0.9), 64, 64) as tapes:
        tapes.shelf.befall = BadSpot("TAP001L8", nth)
        tapes.backed_up().raise_unless_ok()
        assert any("onto another cartridge" in line for line in tapes.said)
        points = tapes.ledger.points
        assert [point.vm for point in points] == ["vm1", "vm2", "vm3"]
        assert points[-1].barcodes == ("TAP002L8",)
        tapes.shelf.befall = lambda barcode, lun: None
        tapes.restored(tmp_path / "back", *points).raise_unless_whole()
        for vm in ("vm1", "vm2", "vm3"):
            assert disks_in(tmp_path / "back" / vm) == tapes.truth(vm)
        assert tapes.stage.datacenter.machine("vm1").state.snapshots == []


def test_bad_cartridges_one_after_the_other_end_the_job_run(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec("vm1", disks=1), 64, 64, 64, 64) as tapes:
        tapes.shelf.befall = BadDrive()
        with pytest.raises(CartridgeFailed):
            tapes.backed_up("vm1")
        assert tapes.ledger.points == []


class BadDrive(BadSpot):
    """Every cartridge fails."""

    def __init__(self) -> None:
        super().__init__("", 3)

    def __call__(self, barcode: str, lun: DriveLun) -> None:
        lun.before = self._before
