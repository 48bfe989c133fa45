"""Copies from a repository onto several drives, and onto cartridges that fail; what comes back is what was stored."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jobs import tapecopy
from jobs.fromtape import TapeRestore
from jobs.intoarchive import IntoArchive
from jobs.tapewanted import Where
from jobs.watcher import Advance, Nobody
from tests.archive.shelves import FolderShelf, Noted
from tests.archive.tapes import OPTIONS
from tests.archive.test_archive_job import BadDrive, BadSpot, damage
from tests.repository.repositories import CHUNK, Written, info, made, write_point
from vcbproxy.archive.remembered import Remembered
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.clock import ManualClock
from vcbproxy.errors import Busy, CartridgeFailed, CartridgeWanted
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.units import MiB


@dataclass
class Listener(Nobody):
    """Keeps what is said; and of the first disks, lets none begin before so many have."""

    together: int = 1
    said_: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._all = threading.Barrier(self.together)

    def said(self, message: str) -> None:
        self.said_.append(message)

    @contextmanager
    def disk(self, title: str, size_bytes: int) -> Iterator[Advance]:
        self.begun.append(title)
        if len(self.begun) <= self.together:
            self._all.wait(timeout=30)
        yield lambda done: None


@dataclass
class Copies:
    """A repository, and a shelf of cartridges to copy its restore points onto."""

    folder: Path
    shelf: FolderShelf
    ledger: Noted = field(default_factory=Noted)
    listener: Listener = field(default_factory=Listener)

    def __post_init__(self) -> None:
        self.repository = made()
        self.written: list[Written] = []

    def stored(self, vm: str, hours: int, letters: str) -> None:
        self.written.append(write_point(self.repository, info(vm, hours), scsi0_0=letters))

    def copied(self, *, drives: int = 1, deltas: bool = True) -> tapecopy.Report:
        target = RepositoryTarget(self.repository, lock=False)
        remembered = Remembered(self.folder / "remembered")
        into = IntoArchive(self.shelf, self.ledger, remembered, replace(OPTIONS, lanes=drives))
        with target.locked():
            points = [one.point for one in self.written]
            return tapecopy.run(target, points, into, self.listener, ManualClock(), workers=1, deltas=deltas)

    def come_back(self) -> None:
        """Every restore point that was stored is on tape, bit for bit."""
        folders = {point: self.folder / "back" / point.id for point in self.ledger.points}
        wheres = [Where(point, folder) for point, folder in folders.items()]
        TapeRestore(self.shelf, Nobody(), ManualClock()).run(wheres, known=self.ledger.points).raise_unless_whole()
        back = {(point.vm, point.time): (folder / "scsi0-0.raw").read_bytes() for point, folder in folders.items()}
        assert back == {(one.point.vm, one.point.time): one.disks["scsi0-0"] for one in self.written}


def copies(tmp_path: Path, *capacities_mib: int) -> Copies:
    return Copies(tmp_path, FolderShelf(tmp_path / "shelf", capacities_mib))


def incompressible(size_bytes: int) -> str:
    """The letters of a disk."""
    lower = (chr(code) for code in range(1 << 16) if chr(code).islower())
    return "".join(itertools.islice(lower, size_bytes // CHUNK))


def test_two_vms_are_copied_side_by_side_onto_a_drive_each(tmp_path: Path) -> None:
    job = copies(tmp_path, 64, 64, 64)
    for number, vm in enumerate(("web01", "db01", "mail01", "dns01")):
        job.stored(vm, number, f"aB0{vm[0]}" * 20)
    job.listener = Listener(together=2)
    report = job.copied(drives=2)
    report.raise_unless_ok()
    assert [copied.source.vm for copied in report.results] == ["web01", "db01", "mail01", "dns01"]
    assert {point.barcodes for point in job.ledger.points} == {("TAP001L8",), ("TAP002L8",)}
    job.come_back()


def test_points_of_one_vm_build_upon_one_another_however_many_drives_there_are(tmp_path: Path) -> None:
    job = copies(tmp_path, 64, 64)
    for hours, letters in enumerate(("abcdef" * 100, "abcdeX" + "abcdef" * 99, "abcdeX" + "abcdef" * 98 + "Y00000")):
        job.stored("web01", hours, letters)
        job.stored("db01", hours, letters[::-1])
    job.listener = Listener(together=2)
    job.copied(drives=2).raise_unless_ok()
    of_web = [point for point in job.ledger.points if point.vm == "web01"]
    assert [point.base for point in of_web] == [None, of_web[0].id, of_web[1].id]
    assert len({point.barcodes for point in of_web}) == 1
    job.come_back()


def test_points_of_one_vm_that_stand_alone_are_spread_over_the_drives(tmp_path: Path) -> None:
    job = copies(tmp_path, 64, 64)
    for hours in range(4):
        job.stored("web01", hours, "aB" * 20 + "cD"[hours % 2])
    job.listener = Listener(together=2)
    job.copied(drives=2, deltas=False).raise_unless_ok()
    assert {point.barcodes for point in job.ledger.points} == {("TAP001L8",), ("TAP002L8",)}
    job.come_back()


def test_two_copies_of_one_restore_point_are_proved_each_by_itself(tmp_path: Path) -> None:
    """They bear the same name, and only one of them is damaged."""
    job = copies(tmp_path, 64)
    job.stored("web01", 0, "abcdef" * 10)
    job.copied(deltas=False)
    job.copied(deltas=False)
    first, second = job.ledger.points
    wheres = [Where(point, prove=True) for point in (first, second)]
    proving = TapeRestore(job.shelf, Nobody(), ManualClock())
    assert [one.point for one in proving.run(wheres).proved] == [first.id, second.id]
    damage(job.shelf, second, "scsi0-0.raw.zst")
    done = proving.run(wheres)
    assert [one.point for one in done.proved] == [first.id]
    assert list(done.failed) == [f"{second.name} ({second.id[:8]}) scsi0-0"]


class Forgetful(Noted):
    """A catalog whose first restore point is given up while the next one is written."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = 0

    def listed(self) -> list[ArchivedPoint]:
        self.looked += 1
        return super().listed()[1:] if self.looked > 2 else super().listed()


def test_what_lost_its_base_while_it_was_written_is_copied_whole(tmp_path: Path) -> None:
    job = copies(tmp_path, 64)
    job.ledger = Forgetful()
    for hours, letters in enumerate(("abcdef" * 100, "abcdeX" + "abcdef" * 99)):
        job.stored("web01", hours, letters)
    job.copied().raise_unless_ok()
    assert any("copied once more, all of it: web01@" in line for line in job.listener.said_)
    [point] = job.ledger.listed()
    assert point.base is None
    job.written = job.written[1:]
    job.ledger = Noted([point])
    job.come_back()


class FewDrives(FolderShelf):
    """Its library has one drive."""

    def _taken(self) -> str:
        if self._busy:
            raise Busy("every drive is taken")
        return super()._taken()


@pytest.mark.parametrize("short", ["of drives", "of cartridges"])
def test_who_has_fewer_drives_than_wanted_goes_on_with_those(tmp_path: Path, short: str) -> None:
    """One that is in service must not cost the night; nor must a pool that has one cartridge left, but with room."""
    few = FewDrives(tmp_path / "shelf", (64, 64)) if short == "of drives" else FolderShelf(tmp_path / "shelf", (64,))
    job = Copies(tmp_path, few)
    for number, vm in enumerate(("web01", "db01", "mail01", "dns01")):
        job.stored(vm, number, f"aB0{vm[0]}" * 20)
    job.copied(drives=3).raise_unless_ok()
    told = [line for line in job.listener.said_ if "one drive less" in line]
    assert told
    assert "every drive is taken" in told[0] or "no cartridge left" in told[0]
    job.come_back()


def test_who_has_none_at_all_says_so(tmp_path: Path) -> None:
    job = copies(tmp_path, 64)
    job.shelf.away.add("TAP001L8")
    for number, vm in enumerate(("web01", "db01")):
        job.stored(vm, number, "ab")
    with pytest.raises(CartridgeWanted):
        job.copied(drives=2)


@pytest.mark.parametrize("drives", [1, 2])
@pytest.mark.parametrize("nth", [3, 14, 20])
def test_a_bad_cartridge_costs_a_copy_and_not_the_job(tmp_path: Path, nth: int, drives: int) -> None:
    job = copies(tmp_path, 64, 64, 64)
    for number, vm in enumerate(("web01", "db01", "web01", "db01")):
        job.stored(vm, number, incompressible(MiB) + "XY"[number // 2])
    job.shelf.befall = BadSpot("TAP001L8", nth)
    job.copied(drives=drives).raise_unless_ok()
    assert any("copied once more, onto another cartridge" in line for line in job.listener.said_)
    job.shelf.befall = lambda barcode, lun: None
    job.come_back()


def test_bad_cartridges_one_after_the_other_end_the_job(tmp_path: Path) -> None:
    job = copies(tmp_path, 64, 64, 64, 64)
    job.stored("web01", 0, "ab" * 20)
    job.shelf.befall = BadDrive()
    with pytest.raises(CartridgeFailed) as caught:
        job.copied()
    assert len([line for line in job.listener.said_ if "once more" in line]) == 2
    assert "before that, copied: nothing" in caught.value.__notes__
    assert job.ledger.points == []


def test_a_drive_that_finds_no_cartridge_any_more_does_not_end_the_others(tmp_path: Path) -> None:
    job = copies(tmp_path, 6, 64)
    for number in range(6):
        job.stored(f"web{number:02}", number, incompressible(3 * MiB))
    job.listener = Listener(together=2)
    with pytest.raises(CartridgeWanted) as caught:
        job.copied(drives=2)
    assert any("what the other drives have room for goes on" in line for line in job.listener.said_)
    done = {point.name for point in job.ledger.points}
    assert len(done) == 5, "all but the one that met the end"
    assert all(name in caught.value.__notes__[0] for name in done)
    job.written = [one for one in job.written if one.point.name in done]
    job.come_back()


def test_a_pool_that_runs_dry_in_all_lanes_ends_the_job_and_leaves_what_was_done(tmp_path: Path) -> None:
    job = copies(tmp_path, 9, 9)
    for number in range(8):
        job.stored(f"web{number:02}", number, incompressible(3 * MiB))
    with pytest.raises(CartridgeWanted) as caught:
        job.copied(drives=2)
    done = {point.name for point in job.ledger.points}
    assert all(name in caught.value.__notes__[0] for name in done)
    job.written = [one for one in job.written if one.point.name in done]
    job.come_back()
