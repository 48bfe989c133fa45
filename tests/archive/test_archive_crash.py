"""Power cuts while restore points are written over several cartridges: what was listed comes back, whatever follows.

A seed draws what is written and at which command of which drive everything dies. Then the volumes are recovered, as the
next job run does it, and the catalog is made anew from the cartridges.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.errors import FormatError
from tape.ltfs.recover import recover
from tape.ltfs.volume import LtfsVolume
from tests.archive.shelves import MAKER, FolderShelf
from tests.archive.test_spanning import read_back, surveyed, written
from tests.tape.volumes import Ticks
from vcbproxy.archive.lane import TapeLane
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.units import KiB

SEEDS = range(40)


class Died(BaseException):
    """The machine is gone."""


class Death:
    """At the n-th command the power fails, and nothing works any more."""

    def __init__(self, nth: int, keep: int) -> None:
        self._left = nth
        self._keep = keep
        self._luns: list[DriveLun] = []
        self.dead = False

    def __call__(self, barcode: str, lun: DriveLun) -> None:
        self._luns.append(lun)
        lun.before = self._before

    def _before(self, _lun: Lun, _cdb: bytes) -> None:
        if not self.dead:
            self._left -= 1
            if self._left > 0:
                return
            self.dead = True
            for lun in self._luns:
                lun.power_cut(self._keep)
        raise Died


def content(seed: int, number: int) -> dict[str, bytes]:
    rng = random.Random(f"{seed} {number}")
    return {f"disk{disk}": rng.randbytes(rng.randrange(1, 900 * KiB)) for disk in range(rng.randint(1, 3))}


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 100_000] for at in range(0, len(data), 100_000)]


def backups(shelf: FolderShelf, seed: int, listed: list[ArchivedPoint], numbers: range) -> None:
    with TapeLane(shelf) as lane:
        for number in numbers:
            files = {name: pieces(data) for name, data in content(seed, number).items()}
            listed.append(written(lane, files, minutes=number))


def recovered(shelf: FolderShelf) -> None:
    """As the next job run does it, on every cartridge."""
    for barcode in shelf.barcodes:
        with shelf._drive(barcode) as drive:
            try:
                LtfsVolume.mount(drive, MAKER, Ticks())
            except FormatError:
                recover(drive, MAKER, Ticks())


def assert_whole(shelf: FolderShelf, seed: int, listed: list[ArchivedPoint]) -> None:
    found, _ = surveyed(shelf)
    assert {point.id for point in listed} <= {point.id for point in found}, f"seed {seed}: lost what was listed"
    for point in found:
        number = point.time.minute
        back = read_back(shelf, point)
        expected = content(seed, number)
        assert {name: back[name] for name in expected} == expected, f"seed {seed}: {point.name} is not what was written"


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_listed_survives_a_power_cut(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    shelf = FolderShelf(tmp_path, (5, 6, 5, 64), 16 * KiB)
    listed: list[ArchivedPoint] = []
    shelf.befall = Death(rng.randrange(20, 900), rng.randrange(4))
    with pytest.raises(Died):
        backups(shelf, seed, listed, range(12))
    shelf.befall = lambda barcode, lun: None
    recovered(shelf)
    assert_whole(shelf, seed, listed)
    shelf.forget_what_is_full()
    backups(shelf, seed, listed, range(20, 22))
    assert_whole(shelf, seed, listed)
