"""`vcbproxy tape drive` and `tape changer`, on emulated libraries, in a folder and behind a portal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.library import VirtualLibrary
from tape.library import Library
from tape.locks import LockFolder
from tape.ltfs.format import Maker, Naming, make_volume
from tape.scsi.iscsi import IscsiTransport
from tape.scsi.reservation import reserved
from tape.scsi.reservationkey import key_of
from tests.program import Program

ONE, TWO = "VLIB0001-D1", "VLIB0001-D2"
NAME = "iqn.2026-11.test:library"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    VirtualLibrary.create(tmp_path / "library", barcodes=("TAP001L8", "TAP002L8", "CLN001L8"), slots=4, mail=2)
    return tmp_path / "library"


@pytest.fixture
def vcbproxy(tmp_path: Path, folder: Path) -> Program:
    config = tmp_path / "vcbproxy.toml"
    config.write_text(f'[state]\ndirectory = "{tmp_path / "state"}"\n[tape.library.main]\nfolder = "{folder}"\n')
    return Program(config)


def places(vcbproxy: Program) -> dict[str, str]:
    rows = vcbproxy("tape", "changer", "status", "--json").json
    return {row["cartridge"]: row["place"] for row in rows if row["full"]}


def test_what_lies_where_is_listed(vcbproxy: Program) -> None:
    lines = vcbproxy("tape", "changer", "status").out.splitlines()
    assert lines[0].split() == ["PLACE", "CARTRIDGE", "DRIVE", "FROM", "CLEANINGS", "LEFT"]
    assert [line.split() for line in lines if line.startswith("slot")][:2] == [
        ["slot", "1", "TAP001L8", "-", "-", "-"],
        ["slot", "2", "TAP002L8", "-", "-", "-"],
    ]
    assert [line.split()[:2] for line in lines if line.startswith("drive")] == [["drive", "0"], ["drive", "1"]]


def test_a_cartridge_goes_into_a_drive_and_home(vcbproxy: Program) -> None:
    assert vcbproxy("tape", "changer", "load", "TAP002L8", TWO, "--json").json[0]["from"] == "slot 2"
    assert places(vcbproxy)["TAP002L8"] == "drive 1"
    listed = vcbproxy("tape", "drive", "list", "--json").json
    assert [(row["number"], row["drive"], row["cartridge"]) for row in listed if row["library"] == "main"] == [
        (0, ONE, None),
        (1, TWO, "TAP002L8"),
    ]
    vcbproxy("tape", "drive", "unload", "drive 1")
    assert places(vcbproxy)["TAP002L8"] == "slot 2"
    assert "nothing is in drive" in vcbproxy("tape", "drive", "unload", "1", code=1).err


@pytest.mark.parametrize("name", [ONE, "0", "drive 0", "drive:0"])
def test_a_drive_has_several_names(vcbproxy: Program, name: str) -> None:
    assert vcbproxy("tape", "drive", "load", name, "TAP001L8", "--json").json == {"drive": ONE, "cartridge": "TAP001L8"}


@pytest.mark.parametrize(
    ("name", "says"), [("VLIB", "several drives begin with VLIB"), ("7", "no drive 7"), ("X", f"0 = {ONE}, 1 = {TWO}")]
)
def test_a_drive_that_is_none_or_two_is_not_guessed(vcbproxy: Program, name: str, says: str) -> None:
    assert says in vcbproxy("tape", "drive", "status", name, code=2).err


def test_a_cartridge_is_moved_by_label_or_place(vcbproxy: Program) -> None:
    vcbproxy("tape", "changer", "move", "TAP001L8", "slot 4")
    assert places(vcbproxy)["TAP001L8"] == "slot 4"
    vcbproxy("tape", "changer", "move", "slot:4", "drive:1")
    vcbproxy("tape", "changer", "unload", "1", "mail 2")
    assert places(vcbproxy)["TAP001L8"] == "mail 2"
    full = vcbproxy("tape", "changer", "move", "TAP001L8", "slot 2", code=1).err
    assert "the destination is full" in full
    assert "it lies in mail slot" in full
    assert "no slot 9" in vcbproxy("tape", "changer", "move", "TAP001L8", "slot 9", code=2).err
    assert "put it in" in vcbproxy("tape", "changer", "move", "TAP009L8", "slot 4", code=14).err


def test_cartridges_leave_and_come_in(vcbproxy: Program, folder: Path) -> None:
    done = vcbproxy("tape", "changer", "export", "TAP001L8", "TAP002L8", "CLN001L8", "--json", code=3)
    assert [row["cartridge"] for row in done.json] == ["TAP001L8", "TAP002L8"]
    assert "2 of 3 cartridges exported: main: no mail slot is empty" in done.err
    hands = VirtualLibrary.open(folder)
    hands.export_cartridge(0x10)
    hands.import_cartridge("NEW001L8")
    assert [row["cartridge"] for row in vcbproxy("tape", "changer", "import", "--json").json] == [
        "NEW001L8",
        "TAP002L8",
    ]
    assert "nothing lay in the mail slots" in vcbproxy("tape", "changer", "import").err
    vcbproxy("tape", "changer", "export", "TAP001L8", code=14)


def test_nothing_is_exported_when_one_is_not_there(vcbproxy: Program) -> None:
    vcbproxy("tape", "changer", "export", "TAP001L8", "TAP009L8", code=14)
    assert places(vcbproxy)["TAP001L8"] == "slot 1"


def test_a_drives_and_a_cartridges_state(vcbproxy: Program) -> None:
    empty = vcbproxy("tape", "drive", "status", "0", "--json").json
    assert (empty["state"], empty["cartridge"], empty["loads"]) == ("no cartridge is in it", None, None)
    vcbproxy("tape", "drive", "load", "0", "TAP001L8")
    found = vcbproxy("tape", "drive", "status", "0", "--json").json
    assert (found["state"], found["cartridge"], found["loads"], found["medium"]) == ("ready", "TAP001L8", 1, "data")
    assert "IBM ULT3580-TD8" in vcbproxy("tape", "drive", "status", "0").out


def test_a_drive_is_cleaned_and_the_uses_counted(vcbproxy: Program, tmp_path: Path) -> None:
    for uses in (1, 2):
        done = vcbproxy("tape", "drive", "clean", "1", "--json").json
        assert done == {"drive": TWO, "cartridge": "CLN001L8", "uses": uses, "uses_left": 50 - uses}
    assert (tmp_path / "state" / "tape" / "cleaning.json").stat().st_mode & 0o777 == 0o644
    listed = vcbproxy("tape", "changer", "status", "--json").json
    assert {row["cartridge"]: row["cleanings_left"] for row in listed if row["full"]} == {
        "TAP001L8": None,
        "TAP002L8": None,
        "CLN001L8": 48,
    }
    assert "is no cleaning cartridge" in vcbproxy("tape", "drive", "clean", "1", "--with", "TAP001L8", code=1).err
    assert "holds no data" in vcbproxy("tape", "drive", "load", "1", "CLN001L8", code=1).err


def test_which_library_must_be_clear(tmp_path: Path, folder: Path) -> None:
    config = tmp_path / "vcbproxy.toml"
    config.write_text("")
    without = Program(config)
    assert "[tape.library.NAME]" in without("tape", "changer", "status", code=2).err
    assert "no library main is configured" in without("tape", "changer", "status", "--library", "main", code=2).err
    assert without("tape", "changer", "status", "--library", folder, "--json").json[2]["cartridge"] == "TAP001L8"
    (tmp_path / "nothing").mkdir()
    assert "no library is there" in without("tape", "changer", "status", "--library", tmp_path / "nothing", code=1).err


def test_an_emulated_library_that_another_program_has_is_busy(vcbproxy: Program, folder: Path) -> None:
    with LockFolder(folder, command="vcbproxy tape library serve").held("library"):
        told = vcbproxy("tape", "changer", "status", code=11).err
    assert "vcbproxy tape library serve" in told


# ---------------------------------------------------------------------- volumes in drives


def formatted(folder: Path, barcode: str) -> None:
    with Library.in_folder(folder) as library, library.loaded(barcode) as drive:
        make_volume(drive, Naming(barcode, str(uuid4())), Maker("TESTERS", "Tester", "1"), 0)


def test_a_volume_in_a_librarys_drive_is_looked_into_there(vcbproxy: Program, folder: Path) -> None:
    formatted(folder, "TAP001L8")
    vcbproxy("tape", "drive", "load", "0", "TAP001L8")
    assert vcbproxy("tape", "volume", "check", "0", "--json").json["generation"] == 1
    assert vcbproxy("tape", "volume", "check", ONE, "--library", "main", "--json").json["files"] == 0
    assert "no cartridge" in vcbproxy("tape", "volume", "check", "1", code=1).err
    assert places(vcbproxy)["TAP001L8"] == "drive 0"


def test_a_cartridge_of_a_library_that_is_in_use_is_read_and_not_written(vcbproxy: Program, folder: Path) -> None:
    formatted(folder, "TAP001L8")
    with LockFolder(folder, command="vcbproxy tape library serve").held("library"):
        vcbproxy("tape", "volume", "check", folder / "TAP001L8")
        vcbproxy("tape", "volume", "recover", folder / "TAP001L8", "--dry-run")
        assert "library serve" in vcbproxy("tape", "volume", "recover", folder / "TAP001L8", code=11).err
    vcbproxy("tape", "volume", "recover", folder / "TAP001L8")


def test_a_device_file_that_is_none_is_told(vcbproxy: Program) -> None:
    assert "/dev/full" in vcbproxy("tape", "volume", "ls", "/dev/full", code=1).err
    assert "No such file" in vcbproxy("tape", "drive", "status", "/dev/sg4711", code=1).err


def test_a_drive_that_another_program_writes_is_not_rewound_by_a_look(portal: str, tmp_path: Path) -> None:
    vcbproxy = behind(portal, tmp_path)
    with LockFolder(tmp_path / "state" / "tape", command="vcbproxy backup --to tape:daily").held(ONE):
        assert "vcbproxy backup" in vcbproxy("tape", "volume", "ls", "0", code=11).err


# ---------------------------------------------------------------------- behind a portal, several programs


@pytest.fixture
def portal(folder: Path) -> Iterator[str]:
    library = VirtualLibrary.open(folder)
    with IscsiTarget([library.robot, *library.drives], NAME) as target:
        yield f"iscsi://{target.portal}/{NAME}"


def behind(portal: str, tmp_path: Path) -> Program:
    config = tmp_path / "portal.toml"
    config.write_text(f'[state]\ndirectory = "{tmp_path / "state"}"\n[tape.library.main]\nportal = "{portal}"\n')
    return Program(config)


def test_a_drive_in_use_is_busy_and_its_user_named(portal: str, tmp_path: Path) -> None:
    vcbproxy = behind(portal, tmp_path)
    with LockFolder(tmp_path / "state" / "tape", command="vcbproxy backup --to tape:daily").held(ONE):
        assert "(vcbproxy backup --to tape:daily)" in vcbproxy("tape", "drive", "status", "0", code=11).err
        listed = vcbproxy("tape", "drive", "list", "--json").json
        assert "vcbproxy backup" in listed[0]["in_use_by"]
        vcbproxy("tape", "changer", "load", "TAP001L8", "0", code=11)
        vcbproxy("tape", "changer", "load", "TAP001L8", "1")
    vcbproxy("tape", "changer", "unload", "1")


def test_a_drive_without_a_robot_is_fed_by_hand(tmp_path: Path) -> None:
    lun = DriveLun(ONE)
    lun.insert(Cartridge.create(tmp_path / "TAP001L8"))
    with IscsiTarget([lun], NAME) as target:
        vcbproxy = behind(f"iscsi://{target.portal}/{NAME}", tmp_path)
        assert "put it in" in vcbproxy("tape", "drive", "load", "0", "TAP001L8", code=14).err
        vcbproxy("tape", "drive", "label", "0", "TAP001L8")
        vcbproxy("tape", "drive", "load", "0", "TAP001L8")
        assert vcbproxy("tape", "drive", "status", "0", "--json").json["cartridge"] == "TAP001L8"
        assert vcbproxy("tape", "drive", "list", "--json").json[0]["cartridge"] == "TAP001L8"
        assert "put it in" in vcbproxy("tape", "drive", "load", "0", "TAP002L8", code=14).err
        assert lun.threaded
        vcbproxy("tape", "drive", "unload", "0")
        assert not lun.threaded


def test_another_host_that_has_reserved_a_drive_is_told(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "reserving.toml"
    library = VirtualLibrary.open(folder)
    with IscsiTarget([library.robot, *library.drives], NAME) as target:
        portal = f"iscsi://{target.portal}/{NAME}"
        config.write_text(
            f'[state]\ndirectory = "{tmp_path / "state"}"\n[tape.library.main]\nportal = "{portal}"\nreserve = true\n'
        )
        vcbproxy = Program(config)
        theirs = TapeDrive(IscsiTransport(f"{portal}/1"))
        with reserved(theirs.unit, key_of("proxy02")):
            assert "(proxy" in vcbproxy("tape", "drive", "status", "0", code=11).err
        assert vcbproxy("tape", "drive", "status", "0", "--json").json["drive"] == ONE
        theirs.close()


def test_a_portal_that_does_not_answer_is_told_and_others_are_listed(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "two.toml"
    config.write_text(
        f'[state]\ndirectory = "{tmp_path / "state"}"\n[tape.library.main]\nfolder = "{folder}"\n'
        '[tape.library.gone]\nportal = "iscsi://127.0.0.1:1/iqn.gone"\n'
    )
    done = Program(config)("tape", "drive", "list", "--json", code=3)
    assert [row["drive"] for row in done.json if row["library"] == "main"] == [ONE, TWO]
    assert "127.0.0.1:1" in done.err
