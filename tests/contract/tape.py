"""What every way to tape devices promises: subclass ``TapeContract`` and give it a fixture ``bench``.

TapeDrive, Changer ── ScsiTransport ──▶ emulated devices        the way is what differs: a call, iSCSI, SG_IO
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from tape import logs, memory
from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import Element, ElementKind
from tape.emulator.check import Check
from tape.emulator.library import VirtualLibrary
from tape.emulator.lun import Hang, Lun
from tape.emulator.robot import DRIVES, SLOTS
from tape.errors import (
    EndOfData,
    MediumChanged,
    MediumError,
    NoMedium,
    NotReady,
    PositionLost,
    RefusedCommand,
    RemovalPrevented,
    TransportError,
    VolumeOverflow,
    WriteProtected,
)
from tape.memory import Id
from tape.scsi import cdb
from tape.scsi.sense import Key, decode
from tape.scsi.transport import ScsiTransport, Status
from tape.sequential import EndWarning, Met, Position

SIZES = (1, 3, 4095, 65_537, 512 << 10, 1 << 20)


class TapeBench(ABC):
    """A small library: its devices through the way that is tested, and a hand in it.

    LUN 0 is the robot; behind it are the drives.
    """

    def __init__(self, library: VirtualLibrary) -> None:
        self.library = library
        self._opened: list[ScsiTransport] = []

    @abstractmethod
    def open(self, lun: int) -> ScsiTransport:
        """A new session."""

    def transport(self, lun: int) -> ScsiTransport:
        made = self.open(lun)
        self._opened.append(made)
        return made

    def close(self) -> None:
        for transport in self._opened:
            transport.close()

    def changer(self) -> Changer:
        return Changer(self.transport(0), sleep=lambda _: None)

    def drive(self, number: int = 0) -> TapeDrive:
        return TapeDrive(self.transport(1 + number), sleep=lambda _: None)

    def loaded(self, barcode: str = "TAP001L8") -> TapeDrive:
        """The first drive, a cartridge in it, at the beginning."""
        changer = self.changer()
        move(changer, next(element.address for element in changer.elements() if element.barcode == barcode), DRIVES)
        drive = self.drive()
        drive.load()
        drive.locate(Position(0, 0))
        return drive

    def on(self, lun: int, operation: int, error: Exception | None) -> None:
        """Have commands of one kind fail, or no longer."""

        def fail(_lun: Lun, command: bytes) -> None:
            if command[0] == operation and error is not None:
                raise error

        self.library.luns[lun].before = fail if error is not None else None


def move(changer: Changer, source: int, destination: int) -> None:
    changer.move(Element(source, ElementKind.SLOT, True), Element(destination, ElementKind.DRIVE, False))


def read(drive: TapeDrive, size: int = 1 << 20) -> bytes | Met:
    buf = memoryview(bytearray(size))
    found = drive.read(buf)
    return found if isinstance(found, Met) else bytes(buf[:found])


def pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


class TapeContract:
    """The promises, one a test."""

    # ------------------------------------------------------------------ the way itself

    def test_who_is_there_is_said_by_each(self, bench: TapeBench) -> None:
        assert bench.changer().identity.serial == bench.library.robot.serial
        assert [bench.drive(n).identity.serial for n in (0, 1)] == [d.serial for d in bench.library.drives]

    def test_what_did_not_come_is_told_to_the_byte(self, bench: TapeBench) -> None:
        bench.loaded().write(b"short")
        transport = bench.transport(1)
        bench.drive().locate(Position(0, 0))
        transport.execute(cdb.test_unit_ready())
        buf = memoryview(bytearray(b"." * 100))
        reply = transport.execute(cdb.read(100), data_in=buf)
        assert (reply.status, reply.transferred, bytes(buf[:6])) == (Status.CHECK_CONDITION, 5, b"short.")
        found = decode(reply.sense)
        assert found is not None
        assert (found.key, found.ili, found.information) == (Key.NO_SENSE, True, 95)

    def test_an_answer_shorter_than_the_room_for_it_is_told(self, bench: TapeBench) -> None:
        buf = memoryview(bytearray(255))
        reply = bench.transport(0).execute(cdb.inquiry(255, 0x80), data_in=buf)
        assert (reply.status, reply.transferred) == (Status.GOOD, 4 + len(bench.library.robot.serial))

    def test_a_command_without_an_answer_is_given_up(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        bench.on(1, 0x0A, Hang())
        with pytest.raises(TransportError, match=r"0Ah did not get through: timed out"):
            drive.unit.transport.execute(cdb.write(3), data_out=b"one", timeout_s=1.0)
        bench.on(1, 0x0A, None)
        assert bench.drive().position() == Position(0, 0)

    def test_letting_go_twice_does_nothing(self, bench: TapeBench) -> None:
        transport = bench.transport(0)
        transport.close()
        transport.close()

    # ------------------------------------------------------------------ drives

    def test_an_empty_drive_says_so(self, bench: TapeBench) -> None:
        with pytest.raises(NoMedium):
            bench.drive().wait_ready()

    def test_blocks_of_any_length_come_back(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        for size in SIZES:
            assert drive.write(pattern(size)) is EndWarning.NONE
        drive.write_filemarks(2)
        drive.rewind()
        assert [read(drive) for _ in SIZES] == [pattern(size) for size in SIZES]
        assert [read(drive) for _ in range(3)] == [Met.FILEMARK, Met.FILEMARK, Met.END_OF_DATA]
        assert drive.position() == Position(0, len(SIZES) + 2)

    def test_the_longest_block_that_is_promised_goes_through(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        longest = drive.block_limits().max_bytes
        drive.write(pattern(longest))
        drive.rewind()
        assert read(drive, longest) == pattern(longest)

    def test_two_partitions_are_two_tapes(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        drive.partition_in_two()
        for partition in (0, 1):
            drive.locate(Position(partition, 0))
            drive.write(f"partition {partition}".encode())
            drive.write_filemarks()
        assert drive.locate_end(1) == Position(1, 2)
        drive.locate(Position(0, 0))
        assert read(drive) == b"partition 0"
        drive.locate_end(1)
        assert drive.space_filemarks(-1) == Position(1, 1)
        with pytest.raises(EndOfData):
            drive.locate(Position(1, 9))

    def test_the_end_is_announced_and_then_reached(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        block = bytes(1 << 20)
        warnings: list[EndWarning] = []

        def fill() -> None:
            while True:
                warnings.append(drive.write(block))

        with pytest.raises(VolumeOverflow):
            fill()
        assert warnings.index(EndWarning.EARLY) < len(warnings) - 2
        assert len(warnings) == 100, "every block that was announced as written is on the tape"
        drive.locate(Position(0, 99))
        assert read(drive) == block

    def test_the_cartridges_memory_is_read_and_written(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        assert memory.read(drive, 0, Id.MEDIA_POOL) is None
        memory.write(drive, 0, [memory.text_value(Id.MEDIA_POOL, "Nächte", 160)])
        assert (found := memory.read(drive, 0, Id.MEDIA_POOL)) is not None
        assert found.text == "Nächte"

    def test_counters_are_read(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        bench.library.drives[0].alerts |= {4, 20}
        assert logs.alerts(drive) == (4, 20)
        assert (found := logs.capacity(drive)) is not None
        assert found.maximum_mib == (100, 0)

    def test_a_write_that_fails_is_an_error_of_the_medium(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        bench.on(1, 0x0A, Check(Key.MEDIUM_ERROR, 0x0C))
        with pytest.raises(MediumError, match="a write failed"):
            drive.write(b"lost")

    def test_a_cartridge_with_its_tab_set_takes_no_writing(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        bench.on(1, 0x0A, Check(Key.DATA_PROTECT, 0x27))
        with pytest.raises(WriteProtected):
            drive.write(b"no")

    def test_a_reset_that_rewinds_stops_the_writing(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        for block in (b"label", b"data"):
            drive.write(block)
        bench.library.drives[0].rewound_by_reset()
        with pytest.raises(PositionLost):
            drive.write(b"over the label")

    def test_a_reset_that_moves_nothing_is_passed_over(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        drive.write(b"one")
        bench.library.drives[0].reset()
        drive.write(b"two")
        assert drive.position() == Position(0, 2)

    def test_a_changed_cartridge_is_noticed(self, bench: TapeBench) -> None:
        drive = bench.loaded()
        drive.write(b"of the first")
        changer = bench.changer()
        move(changer, DRIVES, SLOTS)
        move(changer, SLOTS + 1, DRIVES)
        with pytest.raises(MediumChanged):
            drive.write(b"for the first")

    # ------------------------------------------------------------------ robots

    def test_everything_is_listed(self, bench: TapeBench) -> None:
        elements = bench.changer().elements()
        assert [element.barcode for element in elements if element.full] == ["TAP001L8", "TAP002L8", "CLN001L8"]
        drives = [element.drive_serial for element in elements if element.kind is ElementKind.DRIVE]
        assert drives == [drive.serial for drive in bench.library.drives]

    def test_a_cartridge_goes_out_and_comes_home(self, bench: TapeBench) -> None:
        changer = bench.changer()
        before = changer.elements()
        move(changer, SLOTS, DRIVES + 1)
        assert {element.address: element.source for element in changer.elements() if element.full} == {
            DRIVES + 1: SLOTS, SLOTS + 1: None, SLOTS + 2: None,
        }  # fmt: skip
        bench.drive(1).unload()
        move(changer, DRIVES + 1, SLOTS)
        after = changer.elements()
        assert [(e.address, e.barcode) for e in after] == [(e.address, e.barcode) for e in before]

    def test_what_a_drive_holds_is_not_torn_out(self, bench: TapeBench) -> None:
        with bench.loaded().held(), pytest.raises(RemovalPrevented):
            move(bench.changer(), DRIVES, SLOTS)

    def test_moves_that_cannot_be_are_refused(self, bench: TapeBench) -> None:
        changer = bench.changer()
        for source, destination in ((SLOTS + 5, DRIVES), (SLOTS, SLOTS + 1), (SLOTS, 9)):
            with pytest.raises(RefusedCommand):
                move(changer, source, destination)

    def test_an_open_door_is_told(self, bench: TapeBench) -> None:
        changer = bench.changer()
        bench.library.shelf.door_open = True
        with pytest.raises(NotReady, match="door is open"):
            move(changer, SLOTS, DRIVES)
