"""A drive that stands alone, fed by hand: a library of one drive, whose robot is a person.

    drive 0   what its memory says that it is          slot 1   outside: the drive gives it out, somebody takes it

What lies in the drive is known by the cartridge's own memory; a blank cartridge has no label there, and is known by its
serial number once somebody has said what its label is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path

from tape import memory
from tape.elements import Element, ElementKind, Robot
from tape.errors import InUse, LibraryError, NoMedium, NotReady, TapeError
from tape.locks import LockFolder, folder_for_all
from tape.opener import Opener
from tape.scsi import cdb
from tape.sequential import SequentialDrive

_FORMAT = "tape.labels/1"
_LOCK_S = 30.0
_READABLE_BY_ALL = 0o644  # root and the service's user must read each other's
_DRIVE, _OUTSIDE = 0, 1
_NOT_READY, _GIVEN_OUT = 0x04, 0x02


class LabelBook:
    """Which label a cartridge bears whose memory does not say so: a file, for all programs of a host."""

    def __init__(self, path: Path) -> None:
        """Use a file; it is made with the first label."""
        self.path = path

    def of(self, cartridge_serial: str) -> str:
        """The label of a cartridge; nothing, if nobody has said it.

        Raises:
            TapeError: the file cannot be read, or is none.
        """
        return self._read().get(cartridge_serial, "")

    def note(self, cartridge_serial: str, barcode: str) -> None:
        """Keep what somebody has said; a label that another cartridge was said to bear is taken from that.

        Raises:
            TapeError: the file cannot be written.
        """
        with LockFolder(self.path.parent).held(self.path.stem, wait_s=_LOCK_S):
            kept = {serial: label for serial, label in self._read().items() if label != barcode}
            kept[cartridge_serial] = barcode
            try:
                folder_for_all(self.path.parent)
                aside = self.path.with_suffix(".new")
                aside.write_text(json.dumps({"format": _FORMAT, "labels": kept}, indent=2) + "\n", "utf-8")
                aside.chmod(_READABLE_BY_ALL)
                aside.replace(self.path)
            except OSError as error:
                raise TapeError(f"{self.path}: {error.strerror}") from error

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self.path.read_text("utf-8"))
            if kept["format"] != _FORMAT:
                raise TapeError(f"{self.path}: format {kept['format']!r} is not known")
            return {str(serial): str(label) for serial, label in kept["labels"].items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise TapeError(f"{self.path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TapeError(f"{self.path}: this is no book of labels ({error})") from error


def labels_beside(locks: LockFolder) -> LabelBook:
    """The one that is used with the drives whose locks lie in a folder."""
    return LabelBook(locks.folder / "labels.json")


class StandaloneDevices:
    """One drive, and whoever stands before it."""

    def __init__(self, serial: str, begin: Opener, locks: LockFolder, labels: LabelBook) -> None:
        """Use a drive.

        Args:
            serial: its number.
            begin: begins a session with it.
            locks: where the locks of all programs of this host lie.
            labels: of blank cartridges.
        """
        self._hand = _Hand(serial, begin, locks, labels)
        self._begin = begin
        self._serial = serial
        self._locks = locks

    @property
    def robot(self) -> Robot:
        """The person."""
        return self._hand

    @property
    def drives(self) -> Mapping[str, Opener]:
        """The drive."""
        return {self._serial: self._begin}

    def taken(self, serial: str, wait_s: float) -> AbstractContextManager[None]:
        """Lock the drive's file."""
        return self._locks.held(serial, wait_s=wait_s)

    def holder(self, serial: str) -> str | None:
        """Whoever has locked its file."""
        return self._locks.holder(serial)

    def close(self) -> None:
        """Nothing is open between sessions."""


class _Hand:
    """A robot that moves nothing, and looks by asking the drive."""

    def __init__(self, drive: str, begin: Opener, locks: LockFolder, labels: LabelBook) -> None:
        self._drive = drive
        self._begin = begin
        self._locks = locks
        self._labels = labels
        self._seen: tuple[bool, str] | None = None

    @property
    def name(self) -> str:
        """The drive's number."""
        return f"drive {self._drive}"

    @property
    def serial(self) -> str:
        """Its own lock is not the drive's."""
        return f"hand-{self._drive}"

    def elements(self) -> list[Element]:
        """The drive, and the world outside. A drive in use is not disturbed: it holds what it held before.

        Raises:
            InUse: another program has had it since we know of it.
            TapeError: the drive does not tell.
        """
        try:
            with self._locks.held(self._drive):
                self._seen = self._look()
        except InUse:
            if self._seen is None:
                raise
        full, barcode = self._seen
        return [
            Element(_DRIVE, ElementKind.DRIVE, full, barcode, accessible=not full, drive_serial=self._drive),
            Element(_OUTSIDE, ElementKind.SLOT, False),
        ]

    def take_stock(self) -> None:
        """There is nothing that a look does not show."""

    def move(self, source: Element, destination: Element) -> None:
        """Out of the drive, which has given the cartridge out before, is all that can be done without a person.

        Raises:
            LibraryError: it wants a person.
        """
        if source.kind is not ElementKind.DRIVE or destination.kind is ElementKind.DRIVE:
            raise LibraryError(f"{self.name} is fed by hand: put the cartridge in")
        self._seen = (False, "")

    def close(self) -> None:
        """Nothing is open between looks."""

    def _look(self) -> tuple[bool, str]:
        """Whether a cartridge is in the drive, and its label."""
        with closing(self._begin()) as drive:
            try:
                _made_ready(drive)
            except NotReady as error:
                # Given out, and not taken yet, is out: a look must not draw it in again. Else it is one for cleaning,
                # or one that the drive cannot use.
                return not isinstance(error, NoMedium) and error.asc != _NOT_READY, ""
            return True, _told(drive, memory.Id.BARCODE) or self._labels.of(_told(drive, memory.Id.SERIAL))


def _made_ready(drive: SequentialDrive) -> None:
    """Wait for a cartridge that the drive is drawing in."""
    try:
        drive.unit.run(cdb.test_unit_ready(), "test unit ready")
    except NotReady as error:
        if error.asc != _NOT_READY or error.ascq == _GIVEN_OUT:
            raise
        drive.wait_ready()


def _told(drive: SequentialDrive, identifier: memory.Id) -> str:
    found = memory.read(drive, 0, identifier)
    return found.text.strip("\0 ") if found is not None else ""


def say_label(drive: SequentialDrive, labels: LabelBook, barcode: str) -> str:
    """Note which label the cartridge in a drive bears; gives the cartridge's serial number.

    Raises:
        LibraryError: its memory says that it bears another one, or has no serial number to know it by.
        NoMedium: there is none.
        TapeError: the drive does not tell.
    """
    _made_ready(drive)
    written, serial = _told(drive, memory.Id.BARCODE), _told(drive, memory.Id.SERIAL)
    if written and written != barcode:
        raise LibraryError(f"{drive.name}: the cartridge's memory says that it is {written}")
    if not serial:
        raise LibraryError(f"{drive.name}: the cartridge does not tell a serial number to know it by")
    labels.note(serial, barcode)
    return serial
