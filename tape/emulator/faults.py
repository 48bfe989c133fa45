"""Faults made on purpose: the n-th command of a kind fails as it was ordered, or any command by a seed.

    drive1:write:100=medium-error       the hundredth write to the first drive
    drive2:read:3x2=hang                the third and the fourth read of the second one is never answered
    robot:move:1=door-open              the door is opened as the robot is about to move
    any:any:500=lost-answer             each device's five-hundredth command is carried out, and nobody hears of it

Counted are commands that reach the device, each device for itself; those by which initiators only look around are not.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.library import VirtualLibrary
from tape.emulator.lun import Busy, Hang, Lun
from tape.emulator.robot import RobotLun
from tape.scsi.sense import Key

COMMANDS: dict[str, frozenset[int]] = {
    "write": frozenset({0x0A}),
    "filemarks": frozenset({0x10}),
    "read": frozenset({0x08}),
    "locate": frozenset({0x2B, 0x92}),
    "space": frozenset({0x11, 0x91}),
    "rewind": frozenset({0x01}),
    "load": frozenset({0x1B}),
    "position": frozenset({0x34}),
    "attributes": frozenset({0x8C, 0x8D}),
    "move": frozenset({0xA5, 0xA6}),
    "status": frozenset({0xB8}),
}
_LOOKING_AROUND = frozenset({0x00, 0x03, 0x05, 0x12, 0xA0, 0x1A, 0x5A})
_PATTERN = re.compile(r"(robot|any|drive\d+):([a-z]+):(\d+)(?:x(\d+))?=([a-z-]+)")

Deed = Callable[[Lun, bytes], None]


def _fails(key: Key, asc: int, ascq: int = 0, *, deferred: bool = False) -> Deed:
    def fail(_lun: Lun, _cdb: bytes) -> None:
        raise Check(key, asc, ascq, deferred=deferred)

    return fail


def _medium_error(_lun: Lun, cdb: bytes) -> None:
    raise Check(Key.MEDIUM_ERROR, 0x11 if cdb[0] in COMMANDS["read"] else 0x0C)


def _deferred_error(lun: Lun, _cdb: bytes) -> None:
    """What the drive had taken and not yet written is lost, and told with whatever comes next."""
    if isinstance(lun, DriveLun) and lun.cartridge is not None:
        lun.cartridge.power_cut()
        lun.deck.block = min(lun.deck.block, lun.cartridge.tracks[lun.deck.partition].end)
    raise Check(Key.MEDIUM_ERROR, 0x0C, deferred=True)


def _early_filemark(_lun: Lun, cdb: bytes) -> None:
    raise Check(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=int.from_bytes(cdb[2:5], "big"))


def _hang(_lun: Lun, _cdb: bytes) -> None:
    raise Hang


def _busy(_lun: Lun, _cdb: bytes) -> None:
    raise Busy


def _reset(lun: Lun, _cdb: bytes) -> None:
    lun.reset()
    lun.tell_waiting()


def _rewinding_reset(lun: Lun, _cdb: bytes) -> None:
    lun.rewound_by_reset() if isinstance(lun, DriveLun) else lun.reset()
    lun.tell_waiting()


def _power_cut(lun: Lun, _cdb: bytes) -> None:
    lun.power_cut() if isinstance(lun, DriveLun) else lun.reset()
    lun.tell_waiting()


def _open_door(lun: Lun, _cdb: bytes) -> None:
    if isinstance(lun, RobotLun):
        lun.shelf.door_open = True


def _clean_now(lun: Lun, _cdb: bytes) -> None:
    """The command is carried out; with it the drive says that it wants to be cleaned."""
    if isinstance(lun, DriveLun):
        lun.alerts.add(20)
    raise Check(Key.NO_SENSE, 0x00, 0x17)


BEFORE: dict[str, Deed] = {
    "medium-error": _medium_error,
    "deferred-error": _deferred_error,
    "hardware-error": _fails(Key.HARDWARE_ERROR, 0x44),
    "position-error": _fails(Key.MEDIUM_ERROR, 0x15, 0x01),
    "not-ready": _fails(Key.NOT_READY, 0x04, 0x01),
    "write-protected": _fails(Key.DATA_PROTECT, 0x27),
    "refused": _fails(Key.ILLEGAL_REQUEST, 0x24),
    "early-filemark": _early_filemark,
    "busy": _busy,
    "hang": _hang,
    "reset": _reset,
    "rewinding-reset": _rewinding_reset,
    "power-cut": _power_cut,
    "door-open": _open_door,
}
"""Done in place of the command, or just before it."""
AFTER: dict[str, Deed] = {"lost-answer": _hang, "clean-now": _clean_now}
"""Done once the command is carried out."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One that was ordered.

    Attributes:
        device: ``robot``, ``drive1``, ... or ``any``.
        command: of ``COMMANDS``, or ``any``.
        nth: which of them, from 1.
        times: how many in a row.
        deed: of ``BEFORE`` or ``AFTER``.
    """

    device: str
    command: str
    nth: int
    times: int
    deed: str

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read one, as above.

        Raises:
            ValueError: it is none.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no fault; write DEVICE:COMMAND:N=DEED, such as drive1:write:100=medium-error"
            )
        device, command, nth, times, deed = match.groups()
        if command != "any" and command not in COMMANDS:
            raise ValueError(f"{text!r}: commands are any, {', '.join(COMMANDS)}")
        if deed not in BEFORE and deed not in AFTER:
            raise ValueError(f"{text!r}: deeds are {', '.join((*BEFORE, *AFTER))}")
        if not int(nth):
            raise ValueError(f"{text!r}: commands are counted from 1")
        return cls(device, command, int(nth), int(times or 1), deed)

    def concerns(self, device: str, operation: int) -> bool:
        """Whether it counts such a command."""
        if self.device not in ("any", device):
            return False
        return operation not in _LOOKING_AROUND if self.command == "any" else operation in COMMANDS[self.command]


@dataclass(frozen=True, slots=True)
class Chance:
    """Faults by chance: the same seed, and the same commands, give the same faults.

    Attributes:
        seed: printed by whoever wants to see it again.
        per_command: how probable one is.
        deeds: which.
    """

    seed: int
    per_command: float
    deeds: Sequence[str] = ("medium-error", "reset", "rewinding-reset", "lost-answer", "busy", "power-cut")


class Mischief:
    """Makes the faults that were ordered, in all devices of a library."""

    def __init__(
        self,
        faults: Iterable[Fault] = (),
        chance: Chance | None = None,
        *,
        told: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Prepare it.

        Args:
            faults: those by plan.
            chance: those by a seed.
            told: hears of each that is made.
        """
        self._faults = tuple(faults)
        self._chance = chance
        self._told = told

    def befall(self, library: VirtualLibrary) -> None:
        """From now on it befalls this library's devices."""
        for number, lun in enumerate(library.luns):
            _Device(f"drive{number}" if number else "robot", self._faults, self._chance, self._told).befall(lun)


class _Device:
    """One device's counts, and its dice."""

    def __init__(self, name: str, faults: Sequence[Fault], chance: Chance | None, told: Callable[[str], None]) -> None:
        self._name = name
        self._counts = dict.fromkeys(faults, 0)
        self._chance = chance
        self._dice = random.Random(f"{chance.seed} {name}" if chance is not None else 0)
        self._told = told
        self._after: str | None = None

    def befall(self, lun: Lun) -> None:
        lun.before, lun.after = self._before, self._afterwards

    def _before(self, lun: Lun, cdb: bytes) -> None:
        self._after = None
        deed = self._ordered(cdb[0]) or self._drawn(cdb[0])
        if deed is None:
            return
        self._told(f"{self._name}: {deed} at {cdb[0]:02X}h")
        if deed in AFTER:
            self._after = deed
        else:
            BEFORE[deed](lun, cdb)

    def _afterwards(self, lun: Lun, cdb: bytes) -> None:
        if self._after is not None:
            AFTER[self._after](lun, cdb)

    def _ordered(self, operation: int) -> str | None:
        found = None
        for fault in self._counts:
            if fault.concerns(self._name, operation):
                self._counts[fault] += 1
                if fault.nth <= self._counts[fault] < fault.nth + fault.times:
                    found = found or fault.deed
        return found

    def _drawn(self, operation: int) -> str | None:
        if self._chance is None or operation in _LOOKING_AROUND or self._dice.random() >= self._chance.per_command:
            return None
        return self._dice.choice(self._chance.deeds)
