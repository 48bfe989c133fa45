"""A library with several tasks, hands in it, faults and a second program, by seed: nothing is lost, mixed up or shared.

Each task writes its cartridge's label onto the cartridge that it was given, and reads what the last task left there:
a cartridge that is handed out for another, or to two tasks at once, would be found out by its own content.
VCBPROXY_LIBRARY_SEEDS asks for more than 20 of them.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tape.changer import Changer
from tape.devices import ScsiDevices
from tape.drive import TapeDrive
from tape.emulator.check import Check
from tape.emulator.library import VirtualLibrary
from tape.emulator.lun import Lun
from tape.emulator.robot import DRIVES, SLOTS
from tape.errors import HardwareError, InUse, LibraryError, NotReady
from tape.library import Library
from tape.locks import LockFolder
from tape.scsi.sense import Key
from tape.sequential import SequentialDrive

BARCODES = tuple(f"TAP{number:03}L8" for number in range(1, 6))
TASKS, ROUNDS = 3, 6
SEEDS = int(os.environ.get("VCBPROXY_LIBRARY_SEEDS", "20"))


class World:
    """An emulated library, two programs that share it, and everything that happens to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.virtual = VirtualLibrary.create(folder / "library", barcodes=BARCODES, slots=6, drives=2, mail=1)
        ticks = itertools.count()
        locks = LockFolder(folder / "locks", sleep=lambda _: None, monotonic=lambda: float(next(ticks)))
        self.programs = [Library(self._devices(locks), name=f"program {one}", sleep=lambda _: None) for one in "ab"]
        self.held: dict[str, str] = {}
        self._lock = threading.Lock()

    def _devices(self, locks: LockFolder) -> ScsiDevices:
        virtual = self.virtual
        drives: dict[str, Callable[[], SequentialDrive]] = {
            lun.serial: lambda number=number: TapeDrive(virtual.drive_transport(number), sleep=lambda _: None)
            for number, lun in enumerate(virtual.drives)
        }
        return ScsiDevices(Changer(virtual.changer_transport(), sleep=lambda _: None), drives, locks)

    # ------------------------------------------------------------------ what happens to it

    def trouble(self, lun: Lun, command: bytes) -> None:
        """Before a move: now and then the robot fails, hands are in the library, or the door is opened."""
        if command[0] != 0xA5 or self.random.random() > 0.25:
            return
        self.random.choice((self._fails, self._hands, self._door))()

    def _fails(self) -> None:
        raise Check(Key.HARDWARE_ERROR, 0x15, 0x01)

    def _door(self) -> None:
        self.virtual.shelf.door_open = True

    def _hands(self) -> None:
        """Somebody swaps what lies in two slots, and the robot notices."""
        shelf = self.virtual.shelf
        one, two = self.random.sample(range(SLOTS, SLOTS + 6), 2)
        contents = {one: shelf.full.pop(two, None), two: shelf.full.pop(one, None)}
        shelf.full.update({address: barcode for address, barcode in contents.items() if barcode is not None})
        raise Check(Key.UNIT_ATTENTION, 0x28, 0x00)

    # ------------------------------------------------------------------ what tasks do

    def task(self, number: int) -> int:
        """Use cartridges one after the other; gives how many were."""
        own = random.Random(f"{number}")
        used = 0
        for _ in range(ROUNDS):
            barcode = own.choice(BARCODES)
            library = self.programs[own.randrange(2)]
            try:
                with library.loaded(barcode, wait_s=own.choice((0.0, 0.0, 0.1))) as drive:
                    self._use(drive, barcode, own)
                    used += 1
            except (LibraryError, InUse, NotReady, HardwareError):
                continue
            finally:
                self.virtual.shelf.door_open = False
        return used

    def _use(self, drive: SequentialDrive, barcode: str, own: random.Random) -> None:
        with self._lock:
            assert barcode not in self.held, f"{barcode} was given to two tasks"
            assert drive.identity.serial not in self.held.values(), f"{drive.name} was given to two tasks"
            self.held[barcode] = drive.identity.serial
        try:
            buf = bytearray(100)
            found = drive.read(memoryview(buf))
            assert not isinstance(found, int) or buf[:found] == barcode.encode(), f"{barcode} holds {bytes(buf)!r}"
            drive.rewind()
            drive.write(barcode.encode())
            drive.flush()
        finally:
            with self._lock:
                del self.held[barcode]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_lost_mixed_up_or_shared(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    world = World(tmp_path, seed)
    world.virtual.robot.before = world.trouble
    with ThreadPoolExecutor(TASKS) as pool:
        used = list(pool.map(world.task, range(seed * TASKS, seed * TASKS + TASKS)))
    world.virtual.robot.before = None
    assert sum(used) > 0
    assert sorted(world.virtual.shelf.full.values()) == sorted(BARCODES)
    for program in world.programs:
        program.seating.put_away()
    assert not any(address in world.virtual.shelf.full for address in range(DRIVES, DRIVES + 2))
    assert sorted(world.virtual.shelf.full.values()) == sorted(BARCODES)
    for barcode in BARCODES:
        with world.programs[0].loaded(barcode) as drive:
            buf = bytearray(100)
            found = drive.read(memoryview(buf))
            assert not isinstance(found, int) or buf[:found] == barcode.encode()
    for program in world.programs:
        program.__exit__(None, None, None)
