"""What must be remembered of cleaning, for nobody else does: uses of cleaning cartridges, and which drives have asked.

A cleaning cartridge cannot be asked how often it still cleans, and a drive says only once that it wants to be cleaned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tape.errors import TapeError
from tape.locks import LockFolder, folder_for_all

USES_MAX = 50  # what makers promise of LTO's universal cleaning cartridge
_FORMAT = "tape.cleaning/1"
_LOCK_S = 30.0
_READABLE_BY_ALL = 0o644  # root and the service's user must read each other's


@dataclass(frozen=True, slots=True)
class Uses:
    """What is known of a cleaning cartridge.

    Attributes:
        uses: how often it has cleaned.
        expired: whether a drive has said that it is used up.
    """

    uses: int = 0
    expired: bool = False

    @property
    def left(self) -> int:
        """How often it should still clean."""
        return 0 if self.expired else max(USES_MAX - self.uses, 0)


@dataclass(frozen=True, slots=True)
class _Kept:
    cartridges: dict[str, Uses] = field(default_factory=dict)
    drives: tuple[str, ...] = ()
    """Serial numbers of those that have asked to be cleaned, and were not yet."""


class CleaningLog:
    """A file, for all programs of a host."""

    def __init__(self, path: Path) -> None:
        """Use a file; it is made with the first use."""
        self.path = path

    def of(self, barcode: str) -> Uses:
        """What is known of a cartridge.

        Raises:
            TapeError: the file cannot be read, or is none.
        """
        return self._read().cartridges.get(barcode, Uses())

    def asked(self, serial: str) -> bool:
        """Whether a drive has asked to be cleaned, and was not yet.

        Raises:
            TapeError: the file cannot be read, or is none.
        """
        return serial in self._read().drives

    def ask(self, serial: str) -> None:
        """Note that a drive asks to be cleaned.

        Raises:
            TapeError: the file cannot be written.
        """
        if not self.asked(serial):
            self._change(lambda kept: replace(kept, drives=(*kept.drives, serial)))

    def used(self, barcode: str, serial: str) -> Uses:
        """Note that a cartridge has cleaned a drive.

        Raises:
            TapeError: the file cannot be written.
        """

        def once_more(kept: _Kept) -> _Kept:
            before = kept.cartridges.get(barcode, Uses())
            cartridges = {**kept.cartridges, barcode: replace(before, uses=before.uses + 1)}
            return _Kept(cartridges, tuple(one for one in kept.drives if one != serial))

        return self._change(once_more).cartridges[barcode]

    def expired(self, barcode: str) -> None:
        """Note that a cartridge cleans no more.

        Raises:
            TapeError: the file cannot be written.
        """

        def no_more(kept: _Kept) -> _Kept:
            before = kept.cartridges.get(barcode, Uses())
            return replace(kept, cartridges={**kept.cartridges, barcode: replace(before, expired=True)})

        self._change(no_more)

    def _change(self, how: Callable[[_Kept], _Kept]) -> _Kept:
        with LockFolder(self.path.parent).held(self.path.stem, wait_s=_LOCK_S):
            kept = how(self._read())
            cartridges = {barcode: asdict(uses) for barcode, uses in kept.cartridges.items()}
            text = json.dumps({"format": _FORMAT, "cartridges": cartridges, "drives": kept.drives}, indent=2)
            try:
                folder_for_all(self.path.parent)
                aside = self.path.with_suffix(".new")
                aside.write_text(text + "\n", "utf-8")
                aside.chmod(_READABLE_BY_ALL)
                aside.replace(self.path)
            except OSError as error:
                raise TapeError(f"{self.path}: {error.strerror}") from error
            return kept

    def _read(self) -> _Kept:
        try:
            kept = json.loads(self.path.read_text("utf-8"))
            if kept["format"] != _FORMAT:
                raise TapeError(f"{self.path}: format {kept['format']!r} is not known")
            uses = {str(key): Uses(int(one["uses"]), bool(one["expired"])) for key, one in kept["cartridges"].items()}
            return _Kept(uses, tuple(str(serial) for serial in kept["drives"]))
        except FileNotFoundError:
            return _Kept()
        except OSError as error:
            raise TapeError(f"{self.path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TapeError(f"{self.path}: this is no log of cleaning cartridges ({error})") from error
