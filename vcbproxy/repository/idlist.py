"""Long lists of chunk ids, between numpy and JSON, a hundred times as quick as one id at a time.

    ids    uint8 (n, 32)
    JSON   "0123…ef","4567…01",…        67 bytes an id, the last one without its comma

The stride is what makes it quick, and what makes it strict: text that is spelled otherwise is left to a JSON parser.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository import pages
from vcbproxy.repository.ids import ID_BYTES, Buffer

Ids = NDArray[np.uint8]

STRIDE = 2 * ID_BYTES + 3
ROWS = 1 << 15
_LOWER_DIGITS = np.zeros(256, np.bool_)
_LOWER_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = True
_CASE = np.uint64(0x4040404040404040)


def no_ids() -> Ids:
    """The list of an empty file."""
    return np.zeros((0, ID_BYTES), np.uint8)


def json_size(count: int) -> int:
    """How long the text between the brackets is."""
    return max(0, count * STRIDE - 1)


def json_pieces(ids: Ids) -> Iterator[memoryview]:
    """The text between the brackets, by bites: a list of millions is never held as text."""
    for start in range(0, len(ids), ROWS):
        rows = ids[start : start + ROWS]
        text = np.empty((len(rows), STRIDE), np.uint8)
        text[:, 0] = text[:, -2] = ord('"')
        text[:, -1] = ord(",")
        text[:, 1:-2] = np.frombuffer(binascii.hexlify(rows.data), np.uint8).reshape(-1, 2 * ID_BYTES)
        last = start + len(rows) == len(ids)
        yield text.reshape(-1)[: text.size - last].data  # of the very last id, all but the comma
        pages.let_go(rows)


def to_json(ids: Ids) -> bytes:
    """The text between the brackets, as a whole."""
    return b"".join(json_pieces(ids))


def from_json(text: Buffer) -> Ids | None:
    """Read the text between the brackets; None when it is not spelled as ``to_json`` does."""
    if not len(text):
        return no_ids()
    ids, used = leading_rows(b"%b]" % bytes(text))
    return ids if used == len(text) + 1 else None


def leading_rows(text: Buffer) -> tuple[Ids, int]:
    """Read as many ids as ``text`` begins with, spelled as ``json_pieces`` does, up to the closing bracket.

    Returns:
        The ids, and how many bytes they took: a multiple of the stride; the last ends with ``]`` if the list does.
    """
    count = len(text) // STRIDE
    rows = np.frombuffer(text, np.uint8, count * STRIDE).reshape(-1, STRIDE)
    ends = rows[:, -1] == ord("]")
    sane = (rows[:, 0] == ord('"')) & (rows[:, -2] == ord('"')) & (ends | (rows[:, -1] == ord(",")))
    count = _true_at_first(sane)
    if ends[:count].any():
        count = int(np.argmax(ends[:count])) + 1
    digits = np.ascontiguousarray(rows[:count, 1:-2])
    values = _from_lower_digits(digits)
    if values is None:
        count = _true_at_first(np.all(_LOWER_DIGITS[digits], axis=1))
        values = binascii.unhexlify(digits[:count].data)
    return np.frombuffer(values, np.uint8).reshape(-1, ID_BYTES), count * STRIDE


def _true_at_first(flags: NDArray[np.bool_]) -> int:
    return len(flags) if flags.all() else int(np.argmin(flags))


def _from_lower_digits(digits: NDArray[np.uint8]) -> bytes | None:
    """Their values; None when any is no digit, or a capital, which the library would take.

    A capital has bit 6 and lacks bit 5; a decimal digit lacks bit 6, a small letter has both.
    """
    words = digits.view(np.uint64)
    if (words & ~(words << np.uint64(1)) & _CASE).any():
        return None
    try:
        return binascii.unhexlify(digits.data)
    except ValueError:
        return None
