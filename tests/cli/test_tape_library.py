"""`vcbproxy tape library`: made, served, reached into while it is served; one program at a time."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import ElementKind
from tape.errors import HardwareError, MediumChanged, NotReady, TransportError, WriteProtected
from tape.scsi.iscsi import IscsiTransport
from tape.sequential import Position
from tests.program import Program

SLOT, DRIVE, MAIL = 1024, 256, 16


@pytest.fixture
def vcbproxy() -> Program:
    return Program()


@pytest.fixture
def folder(vcbproxy: Program, tmp_path: Path) -> Path:
    made = tmp_path / "library"
    vcbproxy("tape", "library", "create", made, "--barcodes", "TAP001L8-TAP003L8", "--barcodes", "CLN001L8")
    return made


@contextmanager
def serving(vcbproxy: Program, folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL, without a LUN, and the process; the first line tells that it is ready."""
    process = vcbproxy.start("tape", "library", "serve", folder, "--listen", "127.0.0.1:0", *options)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("iscsi://127.0.0.1:"), process.communicate(timeout=30)
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def rows(vcbproxy: Program, folder: Path) -> dict[int, str]:
    """Barcode by element, of what is not empty."""
    listed = vcbproxy("tape", "library", "show", folder, "--json").json
    return {row["element"]: row["barcode"] for row in listed if row["barcode"]}


def test_a_library_is_made_as_it_was_ordered(vcbproxy: Program, tmp_path: Path) -> None:
    options = ["--slots", "5", "--drives", "3", "--mail-slots", "1", "--capacity", "100M", "--serial", "MYLIB"]
    barcodes = ["--barcodes", "TAP001L8-TAP002L8", "--barcodes", "CLN001L8", "--barcodes", "WRM001LY"]
    made = vcbproxy("tape", "library", "create", tmp_path / "made", *options, *barcodes, "--json").json
    assert [(row["type"], row["drive"], row["barcode"], row["kind"]) for row in made] == [
        ("drive", "MYLIB-D1", None, None),
        ("drive", "MYLIB-D2", None, None),
        ("drive", "MYLIB-D3", None, None),
        ("slot", None, "TAP001L8", "data"),
        ("slot", None, "TAP002L8", "data"),
        ("slot", None, "CLN001L8", "cleaning"),
        ("slot", None, "WRM001LY", "worm"),
        ("slot", None, None, None),
        ("mail slot", None, None, None),
    ]
    assert made[3]["capacity_bytes"] == 100 << 20


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--slots", "1", "--barcodes", "TAP001L8-TAP002L8"], "2 cartridges do not fit 1 slots"),
        (["--barcodes", "TAP001L8", "--barcodes", "TAP001L8"], "unlike each other"),
        (["--barcodes", "tap001l8"], "no range of barcodes"),
        (["--barcodes", "CLN0000001"], "no barcode"),
        (["--capacity", "1M"], "at least 16.0 MiB"),
        (["--capacity", "much"], "not a size"),
    ],
)
def test_a_library_that_cannot_be_is_not_made(vcbproxy: Program, tmp_path: Path, options: list[str], says: str) -> None:
    assert says in vcbproxy("tape", "library", "create", tmp_path / "made", *options, code=2).err
    assert not (tmp_path / "made" / "library.json").exists()


def test_what_is_there_is_not_made_again(vcbproxy: Program, folder: Path) -> None:
    assert "there is a library already" in vcbproxy("tape", "library", "create", folder, code=2).err
    assert "no library is there" in vcbproxy("tape", "library", "show", folder.parent, code=2).err


def test_a_served_library_is_used_and_is_left_as_it_stood(vcbproxy: Program, folder: Path) -> None:
    with serving(vcbproxy, folder) as (url, process):
        changer = Changer(IscsiTransport(f"{url}/0"))
        slots = [element for element in changer.elements() if element.kind is ElementKind.SLOT]
        drives = [element for element in changer.elements() if element.kind is ElementKind.DRIVE]
        changer.move(slots[0], drives[1])
        drive = TapeDrive(IscsiTransport(f"{url}/2"))
        drive.load()
        drive.locate(Position(0, 0))
        drive.write(b"kept")
        drive.flush()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        with pytest.raises(TransportError):
            drive.position()
        drive.close()
        changer.close()
    assert not (folder / "door.sock").exists()
    assert rows(vcbproxy, folder) == {
        DRIVE + 1: "TAP001L8", SLOT + 1: "TAP002L8", SLOT + 2: "TAP003L8", SLOT + 3: "CLN001L8",
    }  # fmt: skip
    assert (folder / "TAP001L8" / "0_0_R").read_bytes() == b"kept"


def test_one_program_at_a_time_has_the_folder(vcbproxy: Program, folder: Path) -> None:
    with serving(vcbproxy, folder) as (_, process):
        said = vcbproxy("tape", "library", "serve", folder, "--listen", "127.0.0.1:0", code=11).err
        assert f"in use by process {process.pid}" in said
        process.kill()
        process.wait(timeout=30)
    with serving(vcbproxy, folder):  # what a killed one leaves is in nobody's way
        pass


def test_cartridges_come_and_go_while_it_is_served_and_when_it_is_not(vcbproxy: Program, folder: Path) -> None:
    with serving(vcbproxy, folder) as (url, _):
        changer = Changer(IscsiTransport(f"{url}/0"))
        assert vcbproxy("tape", "library", "import", folder, "NEW001L8", "--json").json == {
            "barcode": "NEW001L8",
            "element": MAIL,
        }
        elements = {element.address: element for element in changer.elements()}
        assert elements[MAIL].barcode == "NEW001L8"
        out = vcbproxy("tape", "library", "export", folder, "TAP002L8", "--json").json
        assert out["folder"] == str(folder / "TAP002L8")
        with pytest.raises(MediumChanged):
            changer.move(elements[MAIL], elements[SLOT + 1])
        changer.move(elements[MAIL], elements[SLOT + 1])
        assert "TAP002L8 is not in the library" in vcbproxy("tape", "library", "export", folder, "TAP002L8", code=2).err
        changer.close()
    vcbproxy("tape", "library", "import", folder, "TAP002L8")
    assert rows(vcbproxy, folder) == {
        SLOT: "TAP001L8", SLOT + 1: "NEW001L8", SLOT + 2: "TAP003L8", SLOT + 3: "CLN001L8", MAIL: "TAP002L8",
    }  # fmt: skip
    assert "is in the library already" in vcbproxy("tape", "library", "import", folder, "TAP002L8", code=2).err


def test_a_door_opened_in_the_middle_is_told(vcbproxy: Program, folder: Path) -> None:
    assert "not being served" in vcbproxy("tape", "library", "door", folder, "open", code=2).err
    with serving(vcbproxy, folder) as (url, _):
        changer = Changer(IscsiTransport(f"{url}/0"))
        elements = {element.address: element for element in changer.elements()}
        vcbproxy("tape", "library", "door", folder, "open")
        with pytest.raises(NotReady, match="door is open"):
            changer.move(elements[SLOT], elements[DRIVE])
        vcbproxy("tape", "library", "door", folder, "closed")
        with pytest.raises(MediumChanged):
            changer.move(elements[SLOT], elements[DRIVE])
        changer.move(elements[SLOT], elements[DRIVE])
        changer.close()


def test_a_library_served_read_only_takes_no_writing(vcbproxy: Program, folder: Path) -> None:
    with serving(vcbproxy, folder, "--read-only") as (url, _):
        changer = Changer(IscsiTransport(f"{url}/0"))
        elements = {element.address: element for element in changer.elements()}
        changer.move(elements[SLOT], elements[DRIVE])
        drive = TapeDrive(IscsiTransport(f"{url}/1"))
        drive.load()
        drive.locate(Position(0, 0))
        with pytest.raises(WriteProtected):
            drive.write(b"no")
        drive.close()
        changer.close()


def test_faults_are_made_as_ordered_and_told(vcbproxy: Program, folder: Path) -> None:
    with serving(vcbproxy, folder, "--fault", "robot:move:1=hardware-error") as (url, process):
        changer = Changer(IscsiTransport(f"{url}/0"))
        elements = {element.address: element for element in changer.elements()}
        with pytest.raises(HardwareError):
            changer.move(elements[SLOT], elements[DRIVE])
        changer.move(elements[SLOT], elements[DRIVE])
        changer.close()
        process.send_signal(signal.SIGTERM)
        assert "robot: hardware-error at A5h" in process.communicate(timeout=30)[1]
    assert "is no fault" in vcbproxy("tape", "library", "serve", folder, "--fault", "often", code=2).err


def test_a_robot_that_takes_its_time_is_ended_at_once(vcbproxy: Program, folder: Path) -> None:
    """A move takes ten seconds by the clock; whoever ends the library does not wait for it."""
    with serving(vcbproxy, folder, "--real-time", "--fault-seed", "1", "--fault-rate", "0") as (url, process):
        changer = Changer(IscsiTransport(f"{url}/0"))
        elements = {element.address: element for element in changer.elements()}

        def move() -> None:
            with suppress(TransportError):  # it may be cut off, or just be told that it is done
                changer.move(elements[SLOT], elements[DRIVE])

        moving = threading.Thread(target=move)
        moving.start()
        moving.join(0.5)
        assert moving.is_alive(), "it was there at once"
        process.send_signal(signal.SIGTERM)
        assert "--fault-seed 1 --fault-rate 0" in process.communicate(timeout=8)[1]
        moving.join()
        changer.close()
    assert "TAP001L8" in rows(vcbproxy, folder).values()


@pytest.mark.parametrize("listen", ["3260", "127.0.0.1:", "127.0.0.1:99999", ":3260"])
def test_where_nobody_can_listen_is_said(vcbproxy: Program, folder: Path, listen: str) -> None:
    assert "write an address and a port" in vcbproxy("tape", "library", "serve", folder, "--listen", listen, code=2).err


def test_an_address_of_another_machine_is_not_listened_on(vcbproxy: Program, folder: Path) -> None:
    said = vcbproxy("tape", "library", "serve", folder, "--listen", "192.0.2.1:3260", code=1).err
    assert "cannot listen on 192.0.2.1:3260" in said
