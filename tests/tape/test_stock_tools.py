"""Unmodified mtx and sg3-utils on the emulated library: what they say must be what we say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tape import logs, memory
from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import ElementKind
from tape.emulator.library import VirtualLibrary
from tape.memory import Id
from tape.sequential import Position
from tests.tape.libraries import served, small_library
from tests.tape.shim import Shim

pytestmark = pytest.mark.real

CHANGER, FIRST, SECOND = "/dev/vsg/0", "/dev/vsg/1", "/dev/vsg/2"


@dataclass(frozen=True, slots=True)
class Bench:
    library: VirtualLibrary
    tool: Shim


@pytest.fixture
def bench(tmp_path: Path, sgshim: Path) -> Iterator[Bench]:
    with served(small_library(tmp_path / "library")) as made:
        yield Bench(made.library, Shim(sgshim, made.target.url(0).rpartition("/")[0]))


def loaded_drive(bench: Bench) -> TapeDrive:
    """The first drive, the first cartridge in it."""
    bench.tool("mtx", "-f", CHANGER, "load", 1, 0)
    drive = TapeDrive(bench.library.drive_transport(0), sleep=lambda _: None)
    drive.load()
    return drive


def by_mtx(bench: Bench) -> dict[str, str]:
    """Where each cartridge is, as ``mtx status`` has it."""
    lines = bench.tool("mtx", "-f", CHANGER, "status").stdout.splitlines()
    found = (re.match(r"\s*(.*?):Full.*?:VolumeTag ?= ?(\S+)", line) for line in lines)
    return {match[2]: match[1] for match in found if match}


def by_us(bench: Bench) -> dict[str, str]:
    elements = Changer(bench.library.changer_transport(), sleep=lambda _: None).elements()
    names = {}
    for kind, name in ((ElementKind.DRIVE, "Data Transfer Element"), (ElementKind.SLOT, "Storage Element")):
        of_kind = [element for element in elements if element.kind is kind]
        first = 1 if kind is ElementKind.SLOT else 0
        names |= {element.barcode: f"{name} {first + at}" for at, element in enumerate(of_kind) if element.full}
    slots = sum(element.kind is ElementKind.SLOT for element in elements)
    mail = [element for element in elements if element.kind is ElementKind.MAIL_SLOT]
    return names | {
        element.barcode: f"Storage Element {slots + 1 + at} IMPORT/EXPORT"
        for at, element in enumerate(mail)
        if element.full
    }


def test_mtx_says_who_the_robot_is(bench: Bench) -> None:
    said = bench.tool("mtx", "-f", CHANGER, "inquiry").stdout
    assert "Product Type: Medium Changer" in said
    assert "Vendor ID: 'VCBPROXY'" in said


def test_mtx_carries_cartridges_and_both_know_where_they_are(bench: Bench) -> None:
    assert (
        by_mtx(bench)
        == by_us(bench)
        == {
            "TAP001L8": "Storage Element 1",
            "TAP002L8": "Storage Element 2",
            "CLN001L8": "Storage Element 3",
        }
    )
    bench.tool("mtx", "-f", CHANGER, "load", 1, 1)
    bench.tool("mtx", "-f", CHANGER, "transfer", 2, 9)
    assert (
        by_mtx(bench)
        == by_us(bench)
        == {
            "TAP001L8": "Data Transfer Element 1",
            "TAP002L8": "Storage Element 9 IMPORT/EXPORT",
            "CLN001L8": "Storage Element 3",
        }
    )
    status = bench.tool("mtx", "-f", CHANGER, "status").stdout
    assert "Data Transfer Element 1:Full (Storage Element 1 Loaded)" in status
    bench.tool("mtx", "-f", CHANGER, "unload", 1, 1)
    bench.tool("mtx", "-f", CHANGER, "inventory")
    assert by_mtx(bench)["TAP001L8"] == by_us(bench)["TAP001L8"] == "Storage Element 1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", 7, 1], "Source Element Address 1030 is Empty"),
        (["load", 2, 0], "Drive 0 Full"),
        (["transfer", 4, 5], "Source Element Address 1027 is Empty"),
        (["transfer", 2, 3], "Destination Element Address 1026 is Already Full"),
    ],
)
def test_mtx_is_refused_what_cannot_be(bench: Bench, arguments: list[object], says: str) -> None:
    bench.tool("mtx", "-f", CHANGER, "load", 1, 0)
    assert says in bench.tool("mtx", "-f", CHANGER, *arguments, code=1).stderr


def test_mtx_is_told_that_a_drive_holds_its_cartridge(bench: Bench) -> None:
    drive = loaded_drive(bench)
    with drive.held():
        said = bench.tool("mtx", "-f", CHANGER, "unload", 1, 0, code=1).stderr
    assert "Additional Sense Code = 53" in said
    assert "Additional Sense Qualifier = 02" in said


def test_mtx_is_told_that_the_door_is_open(bench: Bench) -> None:
    bench.library.shelf.door_open = True
    assert "Not Ready" in bench.tool("mtx", "-f", CHANGER, "transfer", 1, 5, code=1).stderr


def test_tapeinfo_knows_the_drive_and_where_its_tape_stands(bench: Bench) -> None:
    drive = loaded_drive(bench)
    drive.locate(Position(0, 0))
    for block in (b"one", b"two"):
        drive.write(block)
    said = bench.tool("tapeinfo", "-f", FIRST).stdout
    told = dict(re.findall(r"^([\w ]+): '?(.*?)'?$", said, re.MULTILINE))
    assert told["SerialNumber"] == drive.identity.serial
    assert told["Ready"] == "yes"
    assert int(told["Block Position"]) == drive.position().block == 2
    assert (int(told["MinBlock"]), int(told["MaxBlock"])) == (1, drive.block_limits().max_bytes)
    drive.rewind()
    assert "BOP: yes" in bench.tool("tapeinfo", "-f", FIRST).stdout


def test_tapeinfo_says_that_a_drive_is_empty(bench: Bench) -> None:
    assert "Ready: no" in bench.tool("tapeinfo", "-f", SECOND).stdout


def test_tapeinfo_reads_the_alerts(bench: Bench) -> None:
    bench.library.drives[0].alerts |= {20}
    assert re.search(r"TapeAlert\[20\]:\s*Clean Now", bench.tool("tapeinfo", "-f", FIRST).stdout)


@pytest.mark.parametrize("lun", [0, 1, 2])
def test_sg_inq_reads_the_identity_that_we_read(bench: Bench, lun: int) -> None:
    unit = bench.library.luns[lun]
    said = bench.tool("sg_inq", f"/dev/vsg/{lun}").stdout
    assert f"Unit serial number: {unit.serial}" in said
    identifiers = bench.tool("sg_inq", "--page=0x83", f"/dev/vsg/{lun}").stdout
    assert unit.serial in identifiers
    assert f"[0x{unit.world_wide_name.hex()}]" in identifiers


def test_sg_logs_reads_the_capacity_that_we_read(bench: Bench) -> None:
    drive = loaded_drive(bench)
    drive.partition_in_two()
    drive.locate(Position(1, 0))
    drive.write(bytes(3 << 20))
    drive.flush()
    said = bench.tool("sg_logs", "--page=0x31", FIRST).stdout
    numbers = {
        name.strip(): int(value) for name, value in re.findall(r"^\s*(.*?) \(in MiB\): (\d+)", said, re.MULTILINE)
    }
    assert (ours := logs.capacity(drive)) is not None
    assert numbers == {
        "Main partition remaining capacity": ours.remaining_mib[0],
        "Alternate partition remaining capacity": ours.remaining_mib[1],
        "Main partition maximum capacity": ours.maximum_mib[0],
        "Alternate partition maximum capacity": ours.maximum_mib[1],
    }
    assert ours.remaining_mib == (5, 92)


def test_sg_logs_knows_every_page_that_is_listed(bench: Bench) -> None:
    loaded_drive(bench)
    said = bench.tool("sg_logs", "--all", FIRST).stdout
    assert "unable to decode" not in said.lower()
    assert "Lifetime media loads: 1" in said
    assert "Page valid: 1" in said


def test_sg_read_attr_reads_the_memory_that_we_wrote(bench: Bench) -> None:
    drive = loaded_drive(bench)
    memory.write(
        drive,
        0,
        [
            memory.ascii_value(Id.APPLICATION_NAME, "Tester", 32),
            memory.ascii_value(Id.BARCODE, "TAP001L8", 32),
            memory.text_value(Id.MEDIA_POOL, "daily", 160),
        ],
    )
    said = bench.tool("sg_read_attr", FIRST).stdout
    assert re.search(r"Application name: Tester\s", said)
    assert re.search(r"Barcode: TAP001L8\s", said)
    assert re.search(r"Media pool: daily", said)
    assert (loads := memory.read(drive, 0, Id.LOADS)) is not None
    assert f"Load count: {loads.number}" in said


def test_sg_luns_lists_the_robot_and_its_drives(bench: Bench) -> None:
    said = bench.tool("sg_luns", CHANGER).stdout
    assert [line.strip()[:4] for line in said.splitlines() if re.match(r"\s+0", line)] == ["0000", "0001", "0002"]
