"""A library in a folder: its cartridges are folders too, what lies where is a file.

    library/
      library.json          slots, drives, mail slots; which barcode lies in which element
      TAP001L8/ …           a cartridge each, see ``cartridge.py``

After every move ``library.json`` is written anew, so that a library can be closed, or its program killed, and opened
again as it was. A cartridge that lay in a drive then lies in it again, rewound.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind, kind_of, read_kind
from tape.emulator.loop import LoopTransport
from tape.emulator.lun import MEDIUM_CHANGED, Lun
from tape.emulator.pace import AT_ONCE, Clock, Pace, Timing
from tape.emulator.robot import DRIVES, MAIL_ACCESSED, SLOTS, ElementKind, RobotLun, Shelf

_STATE = "library.json"
_FORMAT = "vcbproxy.library/1"
_ELEMENTS_MAX = 4096
_DRIVES_MAX = 64
_MAIL_MAX = 64


class VirtualLibrary:
    """A library, opened. Its devices may be used by several sessions at once."""

    def __init__(
        self,
        folder: Path,
        shelf: Shelf,
        serials: Sequence[str],
        serial: str,
        *,
        read_only: bool = False,
        durable: bool = False,
        timing: Timing = AT_ONCE,
        clock: Clock | None = None,
    ) -> None:
        """Use ``create`` or ``open``; drives are empty until ``thread``."""
        self.folder = folder
        self._read_only = read_only
        self._durable = durable
        self.drives = tuple(DriveLun(number, pace=Pace(timing, clock)) for number in serials)
        self.robot = RobotLun(serial, shelf, self.drives, self.cartridge, self.save, Pace(timing, clock))

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
        durable: bool = False,
    ) -> Self:
        """A new one, its cartridges blank and in the first slots.

        Args:
            folder: in which it will be; it may exist.
            barcodes: of the cartridges; their labels say of which generation they are, and which clean.
            slots: how many places for cartridges.
            drives: how many drives.
            mail: how many import/export places.
            kind: what cartridges are like in all that their labels do not say.
            serial: the robot's number; the drives' begin with it.
            durable: whether what drives flush must outlast a crash of this machine: not for tests, which wait for it.

        Raises:
            ValueError: it cannot be: more cartridges than slots, a barcode that none can have or two of one.
            FileExistsError: there is one already.
        """
        if len(barcodes) > slots:
            raise ValueError(f"{len(barcodes)} cartridges do not fit {slots} slots")
        if len(set(barcodes)) != len(barcodes):
            raise ValueError("barcodes must be unlike each other")
        if not (1 <= slots <= _ELEMENTS_MAX and 1 <= drives <= _DRIVES_MAX and 0 <= mail <= _MAIL_MAX):
            raise ValueError(f"slots: 1 to {_ELEMENTS_MAX}, drives: 1 to {_DRIVES_MAX}, mail slots: up to {_MAIL_MAX}")
        kinds = {barcode: kind_of(barcode, kind) for barcode in barcodes}
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _STATE).exists():
            raise FileExistsError(f"{folder}: there is a library already")
        for barcode in barcodes:
            Cartridge.create(folder / barcode, kinds[barcode])
        shelf = Shelf(slots, mail, drives, {SLOTS + number: barcode for number, barcode in enumerate(barcodes)})
        serials = [f"{serial}-D{number + 1}" for number in range(drives)]
        made = cls(folder, shelf, serials, serial, durable=durable)
        made.save()
        return made

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        read_only: bool = False,
        look_only: bool = False,
        timing: Timing = AT_ONCE,
        clock: Clock | None = None,
    ) -> Self:
        """One that is there.

        Args:
            folder: where it is.
            read_only: as if the tab of every cartridge were set.
            look_only: only to see what lies where, which may be done while another program uses it.
            timing: how long drives take for everything.
            clock: by which they take that.

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
            durable = bool(state.get("durable", False))
            opened = cls(
                folder,
                shelf,
                state["drives"],
                state["serial"],
                read_only=read_only,
                durable=durable,
                timing=timing,
                clock=clock,
            )
        except FileNotFoundError:
            raise ValueError(f"{folder}: no library is there") from None
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder / _STATE}: {error}") from error
        if not look_only:
            opened._thread()
        return opened

    def _thread(self) -> None:
        """Put into the drives what lies in them."""
        for address in self.shelf.elements(ElementKind.DRIVE):
            if address in self.shelf.full:
                self.drives[address - DRIVES].insert(self.cartridge(self.shelf.full[address]))

    @property
    def shelf(self) -> Shelf:
        """What lies where."""
        return self.robot.shelf

    def cartridge(self, barcode: str) -> Cartridge:
        """The cartridge of a barcode, as its folder has it."""
        return Cartridge(self.folder / barcode, read_only=self._read_only, durable=self._durable)

    def kind_of(self, barcode: str) -> Kind:
        """What kind a cartridge is, without taking it in hand.

        Raises:
            ValueError: its folder does not say.
        """
        return read_kind(self.folder / barcode)

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

    # ------------------------------------------------------------------ hands in it

    def import_cartridge(self, barcode: str, kind: Kind | None = None) -> int:
        """A person puts a cartridge into the mail slot: a new one, or one that lies in the folder. Gives its element.

        Raises:
            ValueError: no mail slot is empty, the cartridge is in the library, or none can bear this label.
        """
        with self.robot.hands() as shelf:
            if barcode in shelf.full.values():
                raise ValueError(f"{barcode} is in the library already")
            free = next((address for address in shelf.elements(ElementKind.MAIL) if address not in shelf.full), None)
            if free is None:
                raise ValueError("every mail slot is full: have the robot take a cartridge out of one")
            wanted = kind_of(barcode, kind)
            if not (self.folder / barcode).exists():
                Cartridge.create(self.folder / barcode, wanted)
            shelf.full[free] = barcode
            self.robot.attention(MAIL_ACCESSED)
            self.save()
            return free

    def export_cartridge(self, address: int) -> str:
        """A person takes a cartridge out of the mail slot; gives its barcode, the folder stays.

        Raises:
            ValueError: nothing lies there.
        """
        with self.robot.hands() as shelf:
            if shelf.kind_of(address) is not ElementKind.MAIL or address not in shelf.full:
                raise ValueError(f"no cartridge lies in mail slot {address}")
            barcode = shelf.full.pop(address)
            shelf.sources.pop(address, None)
            self.robot.attention(MAIL_ACCESSED)
            self.save()
            return barcode

    def take_out(self, barcode: str) -> None:
        """The robot brings a cartridge to the mail slot, if it does not lie there, and a person takes it out.

        Raises:
            ValueError: it is not in the library, it lies in a drive, or no mail slot is empty.
        """
        with self.robot.hands() as shelf:
            here = next((address for address, found in shelf.full.items() if found == barcode), None)
            if here is None:
                raise ValueError(f"{barcode} is not in the library")
            if shelf.kind_of(here) is ElementKind.DRIVE:
                raise ValueError(f"{barcode} lies in a drive: have it unloaded first")
            if shelf.kind_of(here) is ElementKind.SLOT:
                free = next((mail for mail in shelf.elements(ElementKind.MAIL) if mail not in shelf.full), None)
                if free is None:
                    raise ValueError("every mail slot is full: take out what lies there first")
                self.robot.carry(here, free)
                here = free
            self.export_cartridge(here)

    def open_door(self) -> None:
        """Nothing moves any more."""
        with self.robot.hands() as shelf:
            shelf.door_open = True

    def close_door(self) -> None:
        """The robot reads all labels anew; whatever was known of what lies where is void."""
        with self.robot.hands() as shelf:
            shelf.door_open = False
            self.robot.attention(MEDIUM_CHANGED)

    def exchange_by_hand(self, first: int, second: int) -> None:
        """A person opens the door and lets the contents of two slots change places, and closes it again."""
        with self.robot.hands() as shelf:
            one, other = shelf.full.pop(first, None), shelf.full.pop(second, None)
            for address, barcode in ((second, one), (first, other)):
                if barcode is not None:
                    shelf.full[address] = barcode
                shelf.sources.pop(address, None)
            self.robot.attention(MEDIUM_CHANGED)
            self.save()

    def save(self) -> None:
        """Write down what lies where."""
        shelf = self.shelf
        state = {
            "format": _FORMAT,
            "serial": self.robot.serial,
            "durable": self._durable,
            "slots": shelf.slots,
            "mail": shelf.mail,
            "drives": [drive.serial for drive in self.drives],
            "full": {str(address): barcode for address, barcode in sorted(shelf.full.items())},
            "sources": {str(address): source for address, source in sorted(shelf.sources.items())},
        }
        aside = self.folder / f"{_STATE}.new"
        with aside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(state, indent=2) + "\n")
            if self._durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(self.folder / _STATE)
