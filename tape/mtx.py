"""The robot by the program ``mtx``, for whoever trusts it more than us, or whose robot it is known to get along with.

    mtx -f /dev/sg4 status     slots from 1, mail slots numbered on behind them, drives from 0
    mtx -f /dev/sg4 load 3 1   slot 3 into drive 1;   unload 3 1   and back;   transfer 3 9   from place to place

``mtx`` tells no serial numbers of drives: see ``tape.drivemap``. It tells failures in sentences and dumps of sense
data, which become the same errors as those of ``tape.changer``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from typing_extensions import override

from tape.elements import Element, ElementKind, Robot
from tape.errors import (
    FormatError,
    MediumChanged,
    TapeError,
    TransportError,
    UnitAttention,
)
from tape.scsi import sense
from tape.scsi.sense import Key, Sense

_STATUS_S = 300.0
_MOVE_S = 900.0
_INVENTORY_S = 3600.0
_TRIES_MAX = 4

_HEADER = re.compile(
    r"Storage Changer .*:(?P<drives>\d+) Drives, (?P<slots>\d+) Slots \( (?P<mail>\d+) Import/Export \)"
)
_DRIVE = re.compile(r"Data Transfer Element (?P<number>\d+):(?P<state>Full|Empty)\s*(?P<source>\([^)]*\))?(?P<rest>.*)")
_SLOT = re.compile(r"Storage Element (?P<number>\d+)(?P<mail> IMPORT/EXPORT)?:(?P<state>Full|Empty)(?P<rest>.*)")
_LABEL = re.compile(r":VolumeTag ?=(?P<label>[^:]*)")
_FULL = re.compile(r"Drive \d+ Full|Destination Element Address \d+ is Already Full")
_EMPTY = re.compile(r"Source Element Address \d+ is Empty|Data Transfer Element \d+ is Empty")
_SENSE = re.compile(
    r"Sense Key=(?P<key>[^\n]*)\n.*?Additional Sense Code = (?P<asc>[0-9A-Fa-f]{2}).*?"
    r"Additional Sense Qualifier = (?P<ascq>[0-9A-Fa-f]{2})",
    re.DOTALL,
)
_DEFERRED = re.compile(r"Error Code=7[13]")


@dataclass(frozen=True, slots=True)
class Ended:
    """How the program ended."""

    code: int
    output: str
    errors: str


Run = Callable[[Sequence[str], float], Ended]
"""Runs the program with arguments, for so many seconds at most."""


class MtxRobot(Robot):
    """One robot, moved by ``mtx``."""

    def __init__(self, path: str, serial: str, run: Run | None = None) -> None:
        """Use it.

        Args:
            path: of its sg device.
            serial: its serial number, which ``mtx`` does not tell.
            run: runs the program; by default, the one that PATH leads to.
        """
        self._path = path
        self._serial = serial
        self._run = run or _run

    @property
    @override
    def name(self) -> str:
        """Its path."""
        return self._path

    @property
    @override
    def serial(self) -> str:
        """Its serial number."""
        return self._serial

    @override
    def elements(self) -> list[Element]:
        """What ``mtx status`` says."""
        return list(parse(self._patiently(["status"], "status", _STATUS_S, also_moves=True), self.name))

    @override
    def take_stock(self) -> None:
        """``mtx inventory``."""
        self._patiently(["inventory"], "inventory", _INVENTORY_S, also_moves=True)

    @override
    def move(self, source: Element, destination: Element) -> None:
        """``mtx load``, ``unload`` or ``transfer``."""
        drives = source.kind is ElementKind.DRIVE, destination.kind is ElementKind.DRIVE
        match drives:
            case (True, True):
                raise TapeError(f"{self.name}: mtx carries nothing from drive to drive: by way of a slot")
            case (False, True):
                command = ["load", str(source.address), str(destination.address)]
            case (True, False):
                command = ["unload", str(destination.address), str(source.address)]
            case _:
                command = ["transfer", str(source.address), str(destination.address)]
        self._patiently(command, f"move from {source} to {destination}", _MOVE_S, also_moves=False)

    @override
    def close(self) -> None:
        """Nothing is open between commands."""

    def _patiently(self, command: Sequence[str], what: str, timeout_s: float, *, also_moves: bool) -> str:
        """A command that met a unit attention was not carried out: again, unless it may be wrong by now."""
        for _ in range(_TRIES_MAX):
            try:
                return self._done(command, what, timeout_s)
            except UnitAttention as error:
                if isinstance(error, MediumChanged) and not also_moves:
                    raise
        return self._done(command, what, timeout_s)

    def _done(self, command: Sequence[str], what: str, timeout_s: float) -> str:
        ended = self._run(["-f", self._path, *command], timeout_s)
        if ended.code:
            raise failure(ended, self.name, what)
        return ended.output


def parse(output: str, where: str) -> Iterator[Element]:
    """The elements in what ``mtx status`` prints.

    Raises:
        FormatError: it is not that, or not all of it.
    """
    header = _HEADER.search(output)
    if header is None:
        raise FormatError(where=where, reason=f"this is no status by mtx: {output[:80]!r}")
    found = [element for line in output.splitlines() if (element := _element(line, where)) is not None]
    drives = sum(element.kind is ElementKind.DRIVE for element in found)
    mail = sum(element.kind is ElementKind.MAIL_SLOT for element in found)
    told = int(header["drives"]), int(header["slots"]), int(header["mail"])
    if (drives, len(found) - drives, mail) != told:
        reason = f"mtx announced {told[0]} drives and {told[1]} slots, and listed {drives} and {len(found) - drives}"
        raise FormatError(where=where, reason=reason)
    yield from found


def _element(line: str, where: str) -> Element | None:
    line = line.strip("\0 ")
    drive, slot = _DRIVE.fullmatch(line), _SLOT.fullmatch(line)
    matched = drive or slot
    if matched is None:
        if "Element" in line:
            raise FormatError(where=where, reason=f"a line by mtx that is not known: {line!r}")
        return None
    full = matched["state"] == "Full"
    label = _LABEL.search(matched["rest"])
    barcode = label["label"].strip("\0 ") if label is not None and full else ""
    if drive is not None:
        source = re.search(r"Storage Element (\d+) Loaded", drive["source"] or "")
        return Element(
            int(drive["number"]), ElementKind.DRIVE, full, barcode, source=int(source[1]) if source and full else None
        )
    kind = ElementKind.MAIL_SLOT if matched["mail"] else ElementKind.SLOT
    return Element(int(matched["number"]), kind, full, barcode)


def failure(ended: Ended, where: str, what: str) -> TapeError:
    """The error that a failed run of ``mtx`` stands for."""
    told = _SENSE.search(ended.errors)
    if told is not None:
        deferred = _DEFERRED.search(ended.errors) is not None
        return sense.failure(
            Sense(_key(told["key"]), int(told["asc"], 16), int(told["ascq"], 16), deferred=deferred), where, what
        )
    last = ended.errors.strip().splitlines()[-1] if ended.errors.strip() else f"mtx ended with {ended.code}"
    for pattern, ascq in ((_FULL, 0x0D), (_EMPTY, 0x0E)):
        if pattern.search(last):
            return sense.failure(Sense(Key.ILLEGAL_REQUEST, 0x3B, ascq), where, f"{what} ({last})")
    return TransportError(device=where, command=what, reason=f"mtx says: {last}")


def _key(words: str) -> int:
    """A sense key by the words of ``mtx``; one it has no word for is a failure of no known kind."""
    named = {
        "No Sense": Key.NO_SENSE,
        "Recovered Error": Key.RECOVERED,
        "Not Ready": Key.NOT_READY,
        "Medium Error": Key.MEDIUM_ERROR,
        "Hardware Error": Key.HARDWARE_ERROR,
        "Illegal Request": Key.ILLEGAL_REQUEST,
        "Unit Attention": Key.UNIT_ATTENTION,
        "Data Protect": Key.DATA_PROTECT,
        "Blank Check": Key.BLANK_CHECK,
        "Aborted Command": Key.ABORTED,
        "Volume Overflow": Key.VOLUME_OVERFLOW,
        "Miscompare": Key.MISCOMPARE,
    }
    return named.get(words.strip(), Key.VENDOR)


def _run(arguments: Sequence[str], timeout_s: float) -> Ended:
    """Run the program that PATH leads to.

    Raises:
        TapeError: there is none.
        TransportError: it did not end in time; what the robot does now is not known.
    """
    try:
        done = subprocess.run(
            ["mtx", *arguments], capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise TapeError("there is no program mtx; install it, or let us speak to the robot ourselves (smc)") from None
    except subprocess.TimeoutExpired:
        reason = f"mtx has not ended after {timeout_s:.0f} s"
        raise TransportError(device=arguments[1], command=arguments[2], reason=reason) from None
    return Ended(done.returncode, done.stdout, done.stderr)
