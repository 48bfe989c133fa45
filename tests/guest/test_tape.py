"""A proxy at a tape library: one boot of a guest, one suite (tests/guest/inside/tape.py), and what must be true of it.

The library is emulated here and served over iSCSI; its drives are attached in the reverse of the order in which the
robot numbers them, so that whoever goes by numbers takes the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.emulator.robot import SLOTS
from tests.contract.drive import CAPACITY_MIB, PROMISES
from tests.guest import machine
from tests.guest.hands import hands

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("guest"), pytest.mark.timeout(machine.TIMEOUT_S + 60)]

CARTRIDGES = {
    "TAP001L8": 400,
    "TAP002L8": CAPACITY_MIB,
    "TAP003L8": CAPACITY_MIB,
    "TAP004L8": 400,
    "TAP005L8": 10,
    "TAP006L8": 10,
}
"""By label, in MiB."""


class Hand:
    """Somebody at a drive, who minds no lock."""

    def __init__(self, drive: DriveLun) -> None:
        self._drive = drive
        self._held: Cartridge | None = None

    def pull(self) -> None:
        self._drive.removal_prevented = False
        self._held = self._drive.take_out()

    def put_back(self) -> None:
        assert self._held is not None, "pulled before"
        self._drive.insert(self._held)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> machine.Run:
    with TemporaryDirectory(dir="/dev/shm") as folder:  # on a busy disk a flush of the drive takes seconds
        run = at_a_library(Path(folder), tmp_path_factory.mktemp("guest"))
    steps = ", ".join(f"{step.name} {step.seconds:.0f} s" for step in run.steps.values())
    print(f"the guest ran {run.seconds:.0f} s, of which it computed {run.cpu_s:.0f} s: {steps}")
    return run


def at_a_library(folder: Path, out: Path) -> machine.Run:
    """Boot the guest; what happens to the library without it is done by hands on this side."""
    library = VirtualLibrary.create(folder, barcodes=[], slots=8)
    for number, (barcode, capacity_mib) in enumerate(CARTRIDGES.items()):
        Cartridge.create(folder / barcode, Kind(capacity_mib=capacity_mib))
        library.shelf.full[SLOTS + number] = barcode
    deeds: dict[str, Callable[[], object]] = {
        "open the door": lambda: setattr(library.shelf, "door_open", True),
        "close the door": lambda: setattr(library.shelf, "door_open", False),
    }
    for number, drive in enumerate(library.drives):
        hand = Hand(drive)
        deeds[f"reset drive {number}, which rewinds"] = drive.rewound_by_reset
        deeds[f"pull the cartridge out of drive {number}"] = hand.pull
        deeds[f"put the cartridge back into drive {number}"] = hand.put_back
    with (
        IscsiTarget([*reversed(library.drives), library.robot], library.iscsi_name) as target,
        hands(deeds) as port,
    ):
        settings = {"target": target.name, "port": target.port, "hands": port}
        return machine.run("tape", out, machine.TIMEOUT_S, settings)


def test_the_kernel_numbers_drives_in_another_order_than_the_robot(guest: machine.Run) -> None:
    devices = guest.step("library_comes_up").facts["devices"]
    assert [(one["kind"], one["serial"], one["sg"], one["nst"], one["problem"]) for one in devices] == [
        ("drive", "VLIB0001-D2", "/dev/sg0", "/dev/nst0", ""),
        ("drive", "VLIB0001-D1", "/dev/sg1", "/dev/nst1", ""),
        ("library", "VLIB0001", "/dev/sg2", "None", ""),
    ]


def test_elements_and_devices_are_matched_by_serial_number(guest: machine.Run) -> None:
    assert guest.step("drives_are_matched").facts["elements"] == [
        [256, "VLIB0001-D1", "/dev/sg1"],
        [257, "VLIB0001-D2", "/dev/sg0"],
    ]


def test_udev_names_devices_by_serial_number_and_gives_them_to_the_group_tape(guest: machine.Run) -> None:
    facts = guest.step("library_comes_up").facts
    by_serial = {link.rpartition("/")[2]: node for link, node in facts["links"].items()}
    assert by_serial["scsi-VLIB0001-D1-nst"] == "/dev/nst1"
    assert by_serial["scsi-VLIB0001-D2-nst"] == "/dev/nst0"
    assert by_serial["scsi-VLIB0001"] == "/dev/sg2"
    assert set(facts["groups"].values()) == {"tape"}


def test_stock_programs_work_on_the_emulated_library(guest: machine.Run) -> None:
    said = guest.step("stock_programs_work").facts
    assert "Product Type: Medium Changer" in said["inquiry"]
    assert "Data Transfer Element 0:Empty" in said["before"]
    assert "Storage Element 2:Full :VolumeTag=TAP002L8" in said["before"]
    assert "Data Transfer Element 0:Full (Storage Element 2 Loaded):VolumeTag = TAP002L8" in said["loaded"]
    assert "SerialNumber: 'VLIB0001-D1'" in said["tapeinfo"], "the drive of element 0 is the kernel's second"
    assert "Ready: yes" in said["tapeinfo"]
    assert "Main partition maximum capacity (in MiB): 24" in said["sg_logs"]
    assert said["dd"], "what dd wrote, dd reads"
    assert said["tell"].strip() == "At block 9.", (
        "behind eight blocks and the filemark with which the driver ended them"
    )
    assert "LTO-8" in said["mt"]
    assert "ONLINE" in said["mt"]


def test_a_drive_keeps_its_promises_through_its_generic_device(guest: machine.Run) -> None:
    facts = guest.step("generic_devices_keep_promises").facts
    assert (facts["drive"], facts["tried"]) == ("IBM ULT3580-TD8 VLIB0001-D1", len(PROMISES))
    assert facts["broken"] == {}, "".join(facts["broken"].values())


def test_a_drive_keeps_its_promises_through_the_tape_driver(guest: machine.Run) -> None:
    facts = guest.step("tape_devices_keep_promises").facts
    assert (facts["drive"], facts["tried"]) == ("IBM ULT3580-TD8 VLIB0001-D2", len(PROMISES))
    assert facts["broken"] == {}, "".join(facts["broken"].values())


WRITTEN = ("one", "two", "three")


def test_a_volume_is_written_and_read_through_generic_devices(guest: machine.Run) -> None:
    facts = guest.step("a_volume_by_generic_devices").facts
    assert facts == {"drive": "/dev/sg1", "files": whole(*WRITTEN), "generation": 3, "by_memory": True}


def test_a_volume_that_the_tape_driver_wrote_is_one_like_any_other(guest: machine.Run) -> None:
    """Written through /dev/nst alone, read through it, and through a generic device: by its memory, and by search."""
    facts = guest.step("a_volume_by_the_tape_driver").facts
    assert facts["drive"] == "/dev/nst1"
    for way in ("by_driver", "by_generic"):
        assert facts[way] == {"files": whole(*WRITTEN), "generation": 3, "by_memory": True}
    assert facts["searched"] == {"files": whole(*WRITTEN), "generation": 3, "by_memory": False}


def test_a_member_of_the_group_tape_needs_no_other_right(guest: machine.Run) -> None:
    facts = guest.step("as_a_member_of_the_group_tape").facts
    told = {"files": whole(*WRITTEN, "by a member"), "generation": 4}
    assert facts["generic"] == told | {"drive": "/dev/sg1", "by_memory": True}
    assert facts["driver"] == told | {"drive": "/dev/nst1", "by_memory": False}, "the memory is for root to ask for"
    assert facts["driver's, seen by generic"]["searched"] == told | {"by_memory": False}


def test_anyone_else_is_told_what_is_missing(guest: machine.Run) -> None:
    said = guest.step("as_nobody").facts["said"]
    assert said.endswith("Permission denied; its group is `tape`: is this user in it?")


def test_a_reset_in_the_middle_of_writing_is_noticed(guest: machine.Run) -> None:
    """One that moved nothing is passed over; one that rewound the tape ends the file, and nothing is written there."""
    facts = guest.step("resets").facts
    assert facts["own"] == ""
    assert facts["others"].startswith("PositionLost: /dev/sg1: the tape stands at block 0 of partition 0, not at block")
    assert facts["searched"]["files"] == whole(*WRITTEN, "by a member", "own")


def test_after_a_reset_the_tape_driver_writes_nothing_either(guest: machine.Run) -> None:
    """Not even the filemark with which it ends, on closing, what it believes to have written."""
    facts = guest.step("resets_under_the_tape_driver").facts
    for name in ("own", "others"):
        assert facts[name].startswith("PositionLost: /dev/nst1: the tape stands at")
    assert [facts["orphans before own"], facts["orphans before others"], facts["orphans after both"]] == [0, 1, 1]
    assert facts["searched"]["files"] == whole(*WRITTEN, "by a member")


def test_nothing_is_moved_while_the_door_is_open(guest: machine.Run) -> None:
    facts = guest.step("the_door_is_opened").facts
    assert facts["move"].startswith("MoveFailed: library VLIB0001: TAP001L8 was not carried")
    assert "its door is open" in facts["move"]
    assert set(facts["after"]) == set(CARTRIDGES)


def test_a_cartridge_that_was_pulled_out_and_put_back_is_not_written_on(guest: machine.Run) -> None:
    facts = guest.step("a_cartridge_is_pulled_out").facts
    assert facts["without"].startswith("NoMedium: ")
    assert facts["back"].startswith("PositionLost: ")
    assert facts["orphans"] == 1, "the block that was written before"
    assert facts["searched"]["files"] == whole(*WRITTEN, "by a member", "own")


def test_a_lab_goes_to_tape_and_comes_back_by_the_real_commands(guest: machine.Run) -> None:
    """Over two cartridges, one after the other in one drive: neither holds all of it."""
    facts = guest.step("a_lab_is_archived").facts
    assert (facts["outcomes"], facts["snapshots"]) == (["ok", "ok"], [[], []])
    assert facts["barcodes"] == ["TAP005L8", "TAP006L8"]
    assert facts["back"] == facts["truth"], "bit for bit"
    assert [(row["number"], row["drive"], row["device"], row["in_use_by"]) for row in facts["drives"]] == [
        (0, "VLIB0001-D1", "/dev/sg1", None),
        (1, "VLIB0001-D2", "/dev/sg0", None),
    ]


def test_a_cartridge_of_the_archive_is_looked_into_by_either_device(guest: machine.Run) -> None:
    facts = guest.step("a_lab_is_archived").facts
    assert (facts["checked"]["name"], facts["checked"]["damaged"]) == ("TAP005L8", [])
    assert facts["checked"]["files_read"] == facts["checked"]["files"] > 0
    assert facts["by nst"] == facts["by sg"]


def whole(*names: str) -> dict[str, bool]:
    return dict.fromkeys(names, True)
