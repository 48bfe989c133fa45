"""tgtd's library: robot and drives that are not ours, for our changer and drive, and for the real mtx.

It is another library than the emulated one in many ways that matter: its robot is LUN 3, an empty element has a volume
tag of blanks, its pages come without their last eight bytes, and its drives answer neither LOCATE nor READ ATTRIBUTE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tape import memory
from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import Element, ElementKind, by_barcode
from tape.errors import PositionLost, RefusedCommand
from tape.memory import Id
from tape.scsi.iscsi import IscsiTransport
from tape.sequential import Met, Position
from tests.tape import tgt
from tests.tape.shim import Shim
from tests.tape.tgt import BARCODES, CHANGER, DRIVES, FIRST_DRIVE, FIRST_MAIL_SLOT, FIRST_SLOT, TgtLibrary

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("tgt")]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TgtLibrary]:
    with tgt.running(tmp_path_factory.mktemp("tgt")) as made:
        yield made


@pytest.fixture
def changer(library: TgtLibrary) -> Iterator[Changer]:
    """The robot; afterwards every cartridge lies in its first place again."""
    made = Changer(IscsiTransport(library.url(CHANGER)), sleep=lambda _: None)
    yield made
    for at, barcode in enumerate(BARCODES):
        here, home = by_barcode(made.elements(), barcode), _at(made, FIRST_SLOT + at)
        if here.address != home.address:
            made.move(here, home)
    made.close()


def _at(changer: Changer, address: int) -> Element:
    return next(element for element in changer.elements() if element.address == address)


def _places(changer: Changer) -> dict[str, int]:
    return {element.barcode: element.address for element in changer.elements() if element.full}


def test_everything_is_listed(changer: Changer) -> None:
    elements = changer.elements()
    assert {kind: sum(element.kind is kind for element in elements) for kind in ElementKind} == {
        ElementKind.ROBOT: 1,
        ElementKind.SLOT: 8,
        ElementKind.MAIL_SLOT: 2,
        ElementKind.DRIVE: 2,
    }
    assert _places(changer) == {barcode: FIRST_SLOT + at for at, barcode in enumerate(BARCODES)}
    assert changer.identity.serial == "VLIB0001"
    # The last drive's number lies in the bytes that are missing: not known, rather than half of it.
    assert [element.drive_serial for element in elements if element.kind is ElementKind.DRIVE] == ["VDRV0001", ""]


def test_cartridges_are_carried_and_found_again(changer: Changer) -> None:
    changer.move(_at(changer, FIRST_SLOT), _at(changer, FIRST_DRIVE))
    changer.move(_at(changer, FIRST_SLOT + 1), _at(changer, FIRST_MAIL_SLOT))
    assert _places(changer) == {
        "TST001L8": FIRST_DRIVE,
        "TST002L8": FIRST_MAIL_SLOT,
        "TST003L8": FIRST_SLOT + 2,
        "TST004L8": FIRST_SLOT + 3,
    }
    assert _at(changer, FIRST_DRIVE).source == FIRST_SLOT


@pytest.mark.parametrize(
    ("source", "destination"),
    [(FIRST_SLOT + 6, FIRST_DRIVE), (FIRST_SLOT, FIRST_SLOT + 1), (FIRST_SLOT, FIRST_SLOT + 99)],
)
def test_moves_that_cannot_be_are_refused_and_change_nothing(changer: Changer, source: int, destination: int) -> None:
    before = _places(changer)
    with pytest.raises(RefusedCommand):
        changer.move(Element(source, ElementKind.SLOT, True), Element(destination, ElementKind.SLOT, False))
    assert _places(changer) == before


def test_blocks_and_filemarks_come_back_from_its_drive(library: TgtLibrary, changer: Changer) -> None:
    changer.move(_at(changer, FIRST_SLOT + 2), _at(changer, FIRST_DRIVE + 1))
    with closing(TapeDrive(IscsiTransport(library.url(DRIVES[1])), sleep=lambda _: None)) as drive:
        assert drive.identity.serial == "VDRV0002"
        drive.wait_ready()
        drive.rewind()
        blocks = [bytes((n,)) * (1000 + n) for n in range(5)] + [bytes(512 << 10)]
        for block in blocks:
            drive.write(block)
        drive.write_filemarks()
        assert drive.expected == Position(0, 7)
        assert drive.position() == Position(0, 0), "it always says so: LTFS volumes are safe from such a drive"
        drive.rewind()
        buf = memoryview(bytearray(1 << 20))
        for block in blocks:
            found = drive.read(buf)
            assert isinstance(found, int)
            assert bytes(buf[:found]) == block
        assert drive.read(buf) is Met.FILEMARK
        assert drive.read(buf) is Met.END_OF_DATA


def test_what_its_drive_cannot_do_is_refused_in_so_many_words(library: TgtLibrary, changer: Changer) -> None:
    changer.move(_at(changer, FIRST_SLOT), _at(changer, FIRST_DRIVE))
    with closing(TapeDrive(IscsiTransport(library.url(DRIVES[0])), sleep=lambda _: None)) as drive:
        drive.wait_ready()
        with pytest.raises(RefusedCommand):
            drive.locate(Position(0, 0))
        with pytest.raises(PositionLost):
            drive.write(b"somewhere")
        assert memory.read(drive, 0, Id.BARCODE) is None


def test_mtx_and_we_see_and_do_the_same(library: TgtLibrary, changer: Changer, sgshim: Path) -> None:
    mtx = Shim(sgshim, library.target)
    robot = f"/dev/vsg/{CHANGER}"
    assert _by_mtx(mtx, robot) == {barcode: f"Storage Element {at}" for at, barcode in enumerate(BARCODES, 1)}
    mtx("mtx", "-f", robot, "load", 1, 0)
    mtx("mtx", "-f", robot, "transfer", 2, 9)
    assert _places(changer)["TST001L8"] == FIRST_DRIVE
    assert _places(changer)["TST002L8"] == FIRST_MAIL_SLOT
    changer.move(_at(changer, FIRST_SLOT + 3), _at(changer, FIRST_DRIVE + 1))
    assert _by_mtx(mtx, robot) == {
        "TST001L8": "Data Transfer Element 0",
        "TST002L8": "Storage Element 9 IMPORT/EXPORT",
        "TST003L8": "Storage Element 3",
        "TST004L8": "Data Transfer Element 1",
    }
    assert "Product ID: 'VDRIVE " in mtx("tapeinfo", "-f", f"/dev/vsg/{DRIVES[0]}").stdout


def _by_mtx(mtx: Shim, robot: str) -> dict[str, str]:
    lines = mtx("mtx", "-f", robot, "status").stdout.splitlines()
    found = (re.match(r"\s*(.*?):Full.*?:VolumeTag ?= ?(\S+)", line) for line in lines)
    return {match[2]: match[1] for match in found if match}
