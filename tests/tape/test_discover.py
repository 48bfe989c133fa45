"""Drives and libraries of this machine, found in a sysfs that is made of files (and, in the guest, in the real one)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import TransportError
from tape.scsi import discover
from tape.scsi.unit import CHANGER, TAPE

DISK = 0


class Sysfs:
    """The few files that say which SCSI devices there are."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self, address: str, kind: int, serial: str | None, nodes: dict[str, list[str]], state: str = "running"
    ) -> None:
        """A device; ``nodes`` are its device nodes by class, a serial of None is one that the kernel did not read."""
        folder = self.root / "class/scsi_device" / address / "device"
        folder.mkdir(parents=True)
        facts = {"type": str(kind), "vendor": "IBM     ", "model": "ULT3580-TD8     ", "rev": "H991", "state": state}
        for name, text in facts.items():
            (folder / name).write_text(f"{text}\n")
        if serial is not None:
            page = bytes((kind, 0x80)) + len(serial).to_bytes(2, "big") + serial.encode()
            (folder / "vpd_pg80").write_bytes(page)
        for class_, names in nodes.items():
            for name in names:
                (folder / class_ / name).mkdir(parents=True)

    def discover(self, told: str = "") -> list[discover.Device]:
        def ask(path: Path) -> str:
            if not told:
                raise TransportError(device=path, command="open", reason="Permission denied")
            return told

        return discover.discover(self.root, Path("/dev"), ask)


def tape_nodes(number: int, sg: int) -> dict[str, list[str]]:
    tapes = [f"{rewinding}st{number}{mode}" for rewinding in ("", "n") for mode in ("", "a", "l", "m")]
    return {"scsi_generic": [f"sg{sg}"], "scsi_tape": tapes}


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_drives_and_libraries_are_found_with_their_serial_numbers(sysfs: Sysfs) -> None:
    sysfs.add("10:0:0:3", CHANGER, "LIB0001", {"scsi_generic": ["sg9"], "scsi_changer": ["sch0"]})
    sysfs.add("2:0:0:1", TAPE, "  DRV0002 ", tape_nodes(0, 3))
    sysfs.add("2:0:0:2", TAPE, "DRV0001\0\0", tape_nodes(1, 4))
    sysfs.add("0:0:0:0", DISK, "DISK", {"scsi_generic": ["sg0"]})
    found = sysfs.discover()
    assert [(one.kind, one.serial, str(one.path), str(one.nst), one.problem) for one in found] == [
        (TAPE, "DRV0002", "/dev/sg3", "/dev/nst0", ""),
        (TAPE, "DRV0001", "/dev/sg4", "/dev/nst1", ""),
        (CHANGER, "LIB0001", "/dev/sg9", "None", ""),
    ]
    assert str(found[0]) == "IBM ULT3580-TD8 DRV0002 at /dev/sg3"
    assert list(discover.drives(found)) == ["DRV0002", "DRV0001"]
    assert list(discover.changers(found)) == ["LIB0001"]


def test_a_machine_without_scsi_has_none(tmp_path: Path) -> None:
    assert discover.discover(tmp_path) == []


def test_a_serial_number_that_the_kernel_did_not_read_is_asked_for(sysfs: Sysfs) -> None:
    sysfs.add("2:0:0:1", TAPE, None, tape_nodes(0, 3))
    [found] = sysfs.discover(told="OLD0001")
    assert (found.serial, found.problem) == ("OLD0001", "")


def test_a_device_that_does_not_tell_who_it_is_is_listed_with_the_reason_and_matched_with_nothing(sysfs: Sysfs) -> None:
    sysfs.add("2:0:0:1", TAPE, None, tape_nodes(0, 3))
    sysfs.add("2:0:0:2", TAPE, "", tape_nodes(1, 4))
    sysfs.add("2:0:0:3", TAPE, None, {"scsi_tape": ["nst2"]})
    found = sysfs.discover()
    refused = "/dev/sg{}: open did not get through: Permission denied"
    assert [one.problem for one in found] == [refused.format(3), refused.format(4), "it has no serial number"]
    assert discover.drives(found) == {}


def test_without_the_generic_driver_the_tape_drivers_device_is_the_way(sysfs: Sysfs) -> None:
    sysfs.add("2:0:0:1", TAPE, "DRV0001", {"scsi_tape": ["st0", "nst0a", "nst0"]})
    [found] = sysfs.discover()
    assert (found.sg, found.path) == (None, Path("/dev/nst0"))


def test_of_two_ways_to_one_drive_the_one_that_works_is_taken(sysfs: Sysfs) -> None:
    sysfs.add("2:0:0:1", TAPE, "DRV0001", tape_nodes(0, 3), state="offline")
    sysfs.add("3:0:0:1", TAPE, "DRV0001", tape_nodes(1, 4))
    sysfs.add("4:0:0:1", TAPE, "DRV0001", tape_nodes(2, 5))
    found = sysfs.discover()
    assert [one.problem for one in found] == ["the kernel holds it to be offline", "", ""]
    assert discover.drives(found)["DRV0001"].address == "3:0:0:1"
