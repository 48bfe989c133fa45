"""A drive through the kernel's tape driver, on a model of that (tests/tape/kernel.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.errors import NoMedium, PositionLost, RefusedCommand, TapeError, WriteProtected
from tape.ltfs.format import Naming
from tape.ltfs.recover import recover
from tape.ltfs.volume import LtfsVolume
from tape.scsi.transport import Buffer, Reply
from tape.scsi.unit import TAPE, Identity
from tape.sequential import Met, Position, SequentialDrive
from tape.st.drive import StDrive
from tape.st.mtio import Option
from tape.st.transport import UNKNOWN_COMMAND
from tests.contract.drive import CAPACITY_MIB, PROMISES, read
from tests.tape.kernel import ModelledDriver
from tests.tape.volumes import MAKER, UUID, Ticks, content

IDENTITY = Identity(TAPE, "IBM", "ULT3580-TD8", "HB83", "VDRV0001")


class NoRoot:
    """What the kernel answers to whoever is not root."""

    name = "/dev/nst0"
    transfer_bytes_max = 1 << 20

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        return UNKNOWN_COMMAND

    def close(self) -> None:
        pass


class Machine:
    """A drive, and the driver that has it."""

    def __init__(self, folder: Path, kind: Kind | None = None) -> None:
        self.lun = DriveLun("VDRV0001")
        self.tape = Cartridge.create(folder / "TAP001L8", kind or Kind(capacity_mib=400))
        self.lun.insert(self.tape)
        self.driver = ModelledDriver(self.lun)

    def opened(self, *, root: bool = True) -> StDrive:
        transport = LoopTransport(self.lun) if root else NoRoot()
        drive = StDrive(self.driver, transport, IDENTITY, sleep=lambda _: None)
        if root:
            drive.unit.attend()  # this transport is a session of its own; the kernel's is not
        drive.load()
        return drive


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_drive_keeps_its_promises(promise: Callable[[SequentialDrive], None], tmp_path: Path) -> None:
    promise(Machine(tmp_path, Kind(capacity_mib=CAPACITY_MIB)).opened())


@pytest.mark.parametrize("root", [True, False])
def test_a_volume_is_written_mounted_and_read(machine: Machine, root: bool) -> None:
    drive = machine.opened(root=root)
    LtfsVolume.format(drive, Naming("TAP001L8", UUID), MAKER, Ticks())
    for name, seed in (("/one", 1), ("/two", 2)):
        with LtfsVolume.mount(drive, MAKER, Ticks()) as volume:
            writer = volume.create(name)
            writer.write(content(seed, 900_000))
            writer.finish()
    drive.close()
    drive = machine.opened(root=root)
    volume = LtfsVolume.mount(drive, MAKER, Ticks())
    assert volume.by_memory is root, "whoever is not root may not ask for the cartridge's memory"
    buf = bytearray(900_000)
    volume.open("/two").read_into(0, memoryview(buf))
    assert buf == content(2, 900_000)


def test_options_that_only_root_may_set_are_asked_for(machine: Machine) -> None:
    with pytest.raises(TapeError, match=r"as root: mt-st -f /dev/nst0 stsetoptions can-partitions scsi2logical"):
        StDrive(ModelledDriver(machine.lun, root=False), NoRoot(), IDENTITY)
    set_up = Option.CAN_PARTITIONS | Option.LOGICAL
    StDrive(ModelledDriver(machine.lun, root=False, options=set_up), NoRoot(), IDENTITY)


def test_an_empty_drive_and_a_locked_cartridge_say_so(tmp_path: Path) -> None:
    empty = DriveLun("VDRV0001")
    drive = StDrive(ModelledDriver(empty), NoRoot(), IDENTITY)
    with pytest.raises(NoMedium):
        drive.load()
    locked = Machine(tmp_path, Kind(capacity_mib=100, write_protected=True)).opened()
    with pytest.raises(WriteProtected):
        locked.write(b"no")


def written(machine: Machine) -> list[bytes | Met]:
    """What is on the tape, up to its end."""
    drive = machine.opened()
    drive.locate(Position(0, 0))
    found = [read(drive)]
    while found[-1] is not Met.END_OF_DATA:
        found.append(read(drive))
    return found[:-1]


@pytest.mark.parametrize("ours", [True, False], ids=["of our kernel's making", "by somebody else"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "used on"])
def test_after_a_reset_nothing_is_written(machine: Machine, ours: bool, closed: bool) -> None:
    drive = machine.opened()
    for block in (b"one", b"two", b"three"):
        drive.write(block)
    (machine.driver.reset if ours else machine.lun.rewound_by_reset)()
    with pytest.raises(PositionLost):
        drive.write(b"four")
    with pytest.raises(PositionLost):
        drive.write(b"five")
    if closed:
        drive.close()
    else:
        drive.locate(Position(0, 2))
        assert read(drive) == b"three"
    assert written(machine) == [b"one", b"two", b"three"]


def test_a_reset_that_another_command_was_told_of_is_not_forgotten(machine: Machine) -> None:
    drive = machine.opened()
    drive.write(b"one")
    machine.lun.rewound_by_reset()
    assert drive.block_limits().min_bytes == 1
    with pytest.raises(PositionLost):
        drive.write(b"two")
    drive.close()
    assert written(machine) == [b"one"]


def test_a_flush_behind_a_reset_that_another_command_was_told_of_promises_nothing(machine: Machine) -> None:
    drive = machine.opened()
    drive.write(b"one")
    machine.lun.power_cut()
    assert drive.block_limits().min_bytes == 1
    with pytest.raises(PositionLost):
        drive.flush()
    drive.close()


def test_a_reset_long_past_is_not_complained_of_at_the_next_filemark(machine: Machine) -> None:
    drive = machine.opened()
    drive.write(b"one")
    drive.write_filemarks()
    drive.close()
    machine.driver.reset()
    drive = machine.opened()
    drive.locate(Position(0, 0))
    assert [read(drive) for _ in range(3)] == [b"one", Met.FILEMARK, Met.END_OF_DATA]


def test_a_volume_whose_writer_met_a_reset_is_made_whole_through_the_driver(machine: Machine) -> None:
    drive = machine.opened()
    LtfsVolume.format(drive, Naming("TAP001L8", UUID), MAKER, Ticks())
    writer = LtfsVolume.mount(drive, MAKER, Ticks()).create("/lost")
    writer.write(bytes(600_000))
    machine.driver.reset()
    with pytest.raises(PositionLost):
        writer.write(bytes(600_000))
    drive.close()
    assert recover(machine.opened(), MAKER, Ticks()).orphan_blocks == 1


def test_a_cartridge_that_is_held_is_let_go_also_after_a_reset(machine: Machine) -> None:
    drive = machine.opened()
    drive.write(b"one")
    with drive.held():
        assert machine.lun.removal_prevented
        machine.driver.reset()
        with pytest.raises(PositionLost):
            drive.write(b"two")
    assert not machine.lun.removal_prevented
    drive.unload()
    assert machine.lun.take_out() is machine.tape


def test_a_partition_that_is_not_there_is_refused(machine: Machine) -> None:
    with pytest.raises(RefusedCommand, match="no partition 1"):
        machine.opened().locate_end(1)


def test_what_a_reset_may_have_undone_is_looked_at_before_the_tape_is_written_again(machine: Machine) -> None:
    drive = machine.opened()
    calls: list[Position | None] = []
    with drive.guarded(lambda: calls.append(drive.expected)):
        drive.write(b"one")
        assert calls == []
        machine.driver.reset()
        with pytest.raises(TapeError):
            drive.write(b"two")
        drive.locate(Position(0, 0))
        assert calls == [None]
        drive.write(b"one")
    drive.rewind()
    assert calls == [None]
