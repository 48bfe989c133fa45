"""A library in a folder: its cartridges are folders too, what lies where is a file.

    library/
      library.json          slots, drives, mail slots; which barcode lies in which element
      TAP001L8/ …           a cartridge each, see ``cartridge.py``

After every move ``library.json`` is written anew, so that a library can be closed, or its program killed, and opened
again as it was. A cartridge that lay in a drive then lies in it again, rewound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tape.emulator.cartridge import Cartridge, Kind
from tape.emulator.drive import DriveLun
from tape.emulator.loop import LoopTransport
from tape.emulator.lun import Lun
from tape.emulator.robot import DRIVES, MAIL, SLOTS, RobotLun, Shelf

_STATE = "library.json"
_FORMAT = "vcbproxy.library/1"
_BARCODE = re.compile("[0-9A-Z]{1,8}")
CLEANING_PREFIX = "CLN"


class VirtualLibrary:
    """A library, opened. Its devices may be used by several sessions at once."""

    def __init__(self, folder: Path, shelf: Shelf, serials: Sequence[str], serial: str) -> None:
        """Use ``create`` or ``open``."""
        self.folder = folder
        self.drives = tuple(DriveLun(number) for number in serials)
        for address, barcode in shelf.full.items():
            if address in range(DRIVES, DRIVES + len(self.drives)):
                self.drives[address - DRIVES].insert(self.cartridge(barcode))
        self.robot = RobotLun(serial, shelf, self.drives, self.cartridge, self.save)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        barcodes: Sequence[str],
        slots: int = 8,
        drives: int = 2,
        mail: int = 2,
        kind: Kind | None = None,
        serial: str = "VLIB0001",
    ) -> Self:
        """A new one, its cartridges blank and in the first slots.

        Raises:
            ValueError: more cartridges than slots, or a barcode that none can have.
            FileExistsError: there is one already.
        """
        if len(barcodes) > slots:
            raise ValueError(f"{len(barcodes)} cartridges do not fit {slots} slots")
        wrong = [barcode for barcode in barcodes if not _BARCODE.fullmatch(barcode)]
        if wrong or len(set(barcodes)) != len(barcodes):
            raise ValueError(
                f"barcodes must be unlike each other and of up to eight digits and capitals: {wrong or ''}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _STATE).exists():
            raise FileExistsError(f"{folder}: there is a library already")
        for barcode in barcodes:
            Cartridge.create(folder / barcode, kind)
        shelf = Shelf(slots, mail, drives, {SLOTS + number: barcode for number, barcode in enumerate(barcodes)})
        made = cls(folder, shelf, [f"{serial}-D{number + 1}" for number in range(drives)], serial)
        made.save()
        return made

    @classmethod
    def open(cls, folder: Path) -> Self:
        """One that is there.

        Raises:
            ValueError: the folder holds none, or what it says cannot be.
        """
        try:
            state: dict[str, Any] = json.loads((folder / _STATE).read_text("utf-8"))
            if state["format"] != _FORMAT:
                raise ValueError(f"{folder}: format {state['format']!r} is not known")
            full = {int(address): str(barcode) for address, barcode in state["full"].items()}
            sources = {int(address): int(source) for address, source in state["sources"].items()}
            shelf = Shelf(state["slots"], state["mail"], len(state["drives"]), full, sources)
            return cls(folder, shelf, state["drives"], state["serial"])
        except FileNotFoundError:
            raise ValueError(f"{folder}: no library is there") from None
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder / _STATE}: {error}") from error

    @property
    def shelf(self) -> Shelf:
        """What lies where."""
        return self.robot.shelf

    def cartridge(self, barcode: str) -> Cartridge:
        """The cartridge of a barcode, as its folder has it."""
        return Cartridge(self.folder / barcode)

    @property
    def luns(self) -> tuple[Lun, ...]:
        """The robot, and its drives: as they are served."""
        return (self.robot, *self.drives)

    @property
    def iscsi_name(self) -> str:
        """Under which they are served."""
        return f"iqn.2026-11.vcbproxy:{self.robot.serial.lower()}"

    def drive_transport(self, number: int) -> LoopTransport:
        """A session with a drive, from 0."""
        return LoopTransport(self.drives[number])

    def changer_transport(self) -> LoopTransport:
        """A session with the robot."""
        return LoopTransport(self.robot)

    def import_cartridge(self, barcode: str, kind: Kind | None = None) -> int:
        """A person puts a cartridge into the mail slot: a new one, or one that lies in the folder. Gives its element.

        Raises:
            ValueError: no mail slot is empty, or the cartridge is in the library.
        """
        shelf = self.shelf
        if barcode in shelf.full.values():
            raise ValueError(f"{barcode} is in the library already")
        free = next((address for address in range(MAIL, MAIL + shelf.mail) if address not in shelf.full), None)
        if free is None:
            raise ValueError("every mail slot is full")
        if not (self.folder / barcode).exists():
            Cartridge.create(self.folder / barcode, kind)
        shelf.full[free] = barcode
        self.robot.attention((0x28, 0x01))
        self.save()
        return free

    def export_cartridge(self, address: int) -> str:
        """A person takes a cartridge out of the mail slot; gives its barcode, the folder stays.

        Raises:
            ValueError: nothing lies there.
        """
        barcode = self.shelf.full.pop(address, None)
        if barcode is None or address not in range(MAIL, MAIL + self.shelf.mail):
            raise ValueError(f"no cartridge lies in mail slot {address}")
        self.shelf.sources.pop(address, None)
        self.robot.attention((0x28, 0x01))
        self.save()
        return barcode

    def save(self) -> None:
        """Write down what lies where."""
        shelf = self.shelf
        state = {
            "format": _FORMAT,
            "serial": self.robot.serial,
            "slots": shelf.slots,
            "mail": shelf.mail,
            "drives": [drive.serial for drive in self.drives],
            "full": {str(address): barcode for address, barcode in sorted(shelf.full.items())},
            "sources": {str(address): source for address, source in sorted(shelf.sources.items())},
        }
        aside = self.folder / f"{_STATE}.new"
        aside.write_text(json.dumps(state, indent=2) + "\n", "utf-8")
        aside.replace(self.folder / _STATE)
