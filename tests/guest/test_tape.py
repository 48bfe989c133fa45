"""A proxy at a tape library: one boot of a guest, one suite (tests/guest/inside/tape.py), and what must be true of it.

The library is emulated here and served over iSCSI; its drives are attached in the reverse of the order in which the
robot numbers them, so that whoever goes by numbers takes the wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tape.emulator.cartridge import Cartridge, Kind
from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.library import VirtualLibrary
from tape.emulator.robot import SLOTS
from tests.contract.drive import CAPACITY_MIB, PROMISES
from tests.guest import machine
from tests.guest.hands import hands

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("guest"), pytest.mark.timeout(machine.TIMEOUT_S + 60)]

CARTRIDGES = {"TAP001L8": 400, "TAP002L8": CAPACITY_MIB, "TAP003L8": CAPACITY_MIB, "TAP004L8": 400}
"""By label, in MiB."""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Run]:
    folder = tmp_path_factory.mktemp("library")
    library = VirtualLibrary.create(folder, barcodes=[], slots=8)
    for number, (barcode, capacity_mib) in enumerate(CARTRIDGES.items()):
        Cartridge.create(folder / barcode, Kind(capacity_mib=capacity_mib))
        library.shelf.full[SLOTS + number] = barcode
    deeds = {
        "open the door": lambda: setattr(library.shelf, "door_open", True),
        "close the door": lambda: setattr(library.shelf, "door_open", False),
        "reset drive 0, which rewinds": library.drives[0].rewound_by_reset,
    }
    with (
        IscsiTarget([*reversed(library.drives), library.robot], library.iscsi_name) as target,
        hands(deeds) as port,
    ):
        settings = {"target": target.name, "port": target.port, "hands": port, "folder": str(folder)}
        run = machine.run("tape", tmp_path_factory.mktemp("guest"), machine.TIMEOUT_S, settings)
    steps = ", ".join(f"{step.name} {step.seconds:.0f} s" for step in run.steps.values())
    print(f"the guest ran {run.seconds:.0f} s, of which it computed {run.cpu_s:.0f} s: {steps}")
    return run


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
