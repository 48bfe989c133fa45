"""Long lists of chunk ids, between numpy and JSON, a hundred times as quick as one id at a time.

    ids    uint8 (n, 32)
    JSON   "0123…ef","4567…01",…        67 bytes an id, the last one without its comma

The stride is what makes it quick, and what makes it strict: text that is spelled otherwise is left to a JSON parser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.ids import ID_BYTES, Buffer

Ids = NDArray[np.uint8]

_STRIDE = 2 * ID_BYTES + 3
_ROWS = 1 << 15
_INVALID = 0xFF


def _digit_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    values = np.full(256, _INVALID, np.uint8)
    values[digits] = np.arange(16, dtype=np.uint8)
    return digits, values


_DIGITS, _VALUES = _digit_tables()


def no_ids() -> Ids:
    """The list of an empty file."""
    return np.zeros((0, ID_BYTES), np.uint8)


def json_size(count: int) -> int:
    """How many bytes ``write_json`` writes."""
    return max(0, count * _STRIDE - 1)


def write_json(ids: Ids, out: memoryview) -> None:
    """Write the text between the brackets into ``out``, which has ``json_size(len(ids))`` bytes."""
    for start in range(0, len(ids), _ROWS):  # in bites, so that the temporaries stay in the processor's cache
        rows = ids[start : start + _ROWS]
        text = np.empty((len(rows), _STRIDE), np.uint8)
        text[:, 0] = text[:, -2] = ord('"')
        text[:, -1] = ord(",")
        text[:, 1:-2:2] = _DIGITS[rows >> 4]
        text[:, 2:-2:2] = _DIGITS[rows & 15]
        place = out[start * _STRIDE : start * _STRIDE + text.size]
        place[:] = text.reshape(-1)[: len(place)].data  # of the very last id, all but the comma


def to_json(ids: Ids) -> bytes:
    """The text between the brackets."""
    out = bytearray(json_size(len(ids)))
    write_json(ids, memoryview(out))
    return bytes(out)


def from_json(text: Buffer) -> Ids | None:
    """Read the text between the brackets; None when it is not spelled as ``to_json`` does."""
    if not len(text):
        return no_ids()
    count, rest = divmod(len(text) + 1, _STRIDE)
    if rest:
        return None
    ids = np.empty((count, ID_BYTES), np.uint8)
    raw = np.frombuffer(text, np.uint8)
    for start in range(0, count, _ROWS):
        end = min(start + _ROWS, count)
        rows = raw[start * _STRIDE : end * _STRIDE]
        if end == count:
            rows = np.append(rows, np.uint8(ord(",")))
        if not _decode_rows(rows.reshape(-1, _STRIDE), ids[start:end]):
            return None
    return ids


def _decode_rows(rows: NDArray[np.uint8], out: Ids) -> bool:
    quoted = (rows[:, 0] == ord('"')) & (rows[:, -2] == ord('"')) & (rows[:, -1] == ord(","))
    values = _VALUES[rows[:, 1:-2]]
    if not quoted.all() or (values == _INVALID).any():
        return False
    np.bitwise_or(values[:, 0::2] << np.uint8(4), values[:, 1::2], out=out)
    return True
