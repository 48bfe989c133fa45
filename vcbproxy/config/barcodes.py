"""Ranges of barcodes: which cartridges a pool may use.

    TAP001L8 - TAP040L8       the same before and behind one number of as many digits; the first end up to the last

A barcode has up to eight characters: six of the library's owner, and two that name the generation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BARCODE = re.compile(r"[0-9A-Z]{1,8}")
_GENERATION = re.compile(r"(?:L[0-9ABCDTUVWXYZ]|M8)$")
CLEANING_PREFIX = "CLN"


@dataclass(frozen=True, slots=True)
class BarcodeRange:
    """Barcodes that differ in one number only.

    Attributes:
        prefix: what stands before the number.
        first: the least number.
        last: the greatest.
        digits: how many digits the number has.
        suffix: what stands behind it: the generation.
    """

    prefix: str
    first: int
    last: int
    digits: int
    suffix: str

    @classmethod
    def parse(cls, text: str) -> BarcodeRange:
        """Read ``TAP001L8-TAP040L8``, or one barcode.

        Raises:
            ValueError: it is none.
        """
        ends = [end.strip() for end in text.split("-")]
        if len(ends) > 2 or not all(_BARCODE.fullmatch(end) for end in ends):
            raise ValueError(f'{text!r} is no range of barcodes; write "TAP001L8-TAP040L8"')
        parts = [_parted(end) for end in ends]
        (prefix, low, suffix), (other, high, behind) = parts[0], parts[-1]
        if (prefix, suffix, len(low)) != (other, behind, len(high)) or (len(ends) == 2 and not low):
            raise ValueError(f"{text!r}: both ends must be alike but for one number of as many digits")
        if any(end.startswith(CLEANING_PREFIX) for end in ends):
            raise ValueError(f"{text!r}: labels that begin with {CLEANING_PREFIX} are those of cleaning cartridges")
        made = cls(prefix, int(low or 0), int(high or 0), len(low), suffix)
        if made.last < made.first:
            raise ValueError(f"{text!r}: its end comes before its beginning")
        return made

    def __contains__(self, barcode: object) -> bool:
        if not isinstance(barcode, str) or not barcode.startswith(self.prefix) or not barcode.endswith(self.suffix):
            return False
        number = barcode[len(self.prefix) : len(barcode) - len(self.suffix)]
        if len(number) != self.digits or not ((number.isdecimal() and number.isascii()) or not number):
            return False
        return self.first <= int(number or 0) <= self.last

    def __iter__(self) -> Iterator[str]:
        for number in range(self.first, self.last + 1):
            yield self._barcode(number)

    def __len__(self) -> int:
        return self.last - self.first + 1

    def _barcode(self, number: int) -> str:
        return f"{self.prefix}{number:0{self.digits}}{self.suffix}" if self.digits else f"{self.prefix}{self.suffix}"

    def __str__(self) -> str:
        low, high = self._barcode(self.first), self._barcode(self.last)
        return low if low == high else f"{low}-{high}"


def _parted(barcode: str) -> tuple[str, str, str]:
    """What stands before its number, the number, what stands behind it; the number is the last one before the end."""
    generation = _GENERATION.search(barcode) if len(barcode) > 2 else None
    suffix = generation.group() if generation else ""
    stem = barcode[: len(barcode) - len(suffix)]
    found = re.search(r"([0-9]*)([A-Z]*)$", stem)
    assert found is not None, "it matches nothing at all, too"
    return stem[: found.start()], found.group(1), found.group(2) + suffix
