r"""JSON as restic's programs write and read it, and the envelope in which index, snapshot and lock files lie.

    unpacked file, after unsealing     0x02 ‖ zstd of the JSON       what we write
                                       '{…' or '[…'                  plain JSON: read, never written

Written JSON equals that of Go's encoder byte for byte: fields in the order given, no spaces, UTF-8, and ``<``, ``>``,
``&``, U+2028 and U+2029 as ``\u003c`` and so on. Stock ``restic rewrite`` refuses trees that are not spelled so.

Read JSON is taken at the door by ``Fields``: what is missing or of another type is a named IntegrityError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import compression, times
from vcbproxy.repository.ids import Buffer, is_hex_id

UNPACKED_BYTES_MAX = 256 << 20
_ZSTD_JSON = b"\x02"
_GO_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_SHORT_CONTROLS = re.compile(r'\\[bf"\\]')


def dump(value: object) -> bytes:
    r"""Write JSON as Go's encoder does.

    ``<``, ``>`` and ``&`` occur only inside strings, so they can be escaped in the finished text. ``\b`` and ``\f``
    are spelled ``\u0008`` and ``\u000c``, as Go did up to 1.21; newer ones read both.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if "\\b" in text or "\\f" in text:
        text = _SHORT_CONTROLS.sub(lambda m: {"\\b": "\\u0008", "\\f": "\\u000c"}.get(m[0], m[0]), text)
    return text.translate(_GO_ESCAPES).encode("utf-8")


def parse(data: Buffer, what: str) -> Any:
    """Read JSON that came from the repository.

    Raises:
        IntegrityError: not JSON, or absurd JSON; names ``what``.
    """
    try:
        return json.loads(bytes(data), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise IntegrityError(f"{what} is not valid JSON: {error}") from error


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def encode(value: object) -> bytes:
    """The plaintext of an index, snapshot or lock file."""
    return envelope(dump(value))


def envelope(json_text: bytes) -> bytes:
    """Put finished JSON into the envelope."""
    return _ZSTD_JSON + compression.compressor(3).compress(json_text)


def decode(plain: Buffer, what: str) -> Any:
    """The JSON of an index, snapshot or lock file.

    Raises:
        IntegrityError: an unknown envelope, damaged zstd, or not JSON.
    """
    view = memoryview(plain)
    first = bytes(view[:1])
    if first == _ZSTD_JSON:
        return parse(compression.Decompressor().decompress_at_most(view[1:], UNPACKED_BYTES_MAX), what)
    if first in (b"{", b"["):
        return parse(view, what)
    raise IntegrityError(f"{what} starts with byte {first.hex() or 'nothing'}: this encoding is not known")


class Fields:
    """A JSON object from the repository, read field by field, each with the type it must have."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise IntegrityError(f"{what} is not a JSON object")
        self._value: Mapping[str, object] = value
        self.what = what

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._value.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A string; ``default`` (when given) where it is missing."""
        value = self._get(name, default)
        return value if isinstance(value, str) else self._wrong(name, "text")

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number that is not negative."""
        value = self._get(name, default)
        return value if type(value) is int and value >= 0 else self._wrong(name, "a number")

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(name, default)
        return value if isinstance(value, bool) else self._wrong(name, "true or false")

    def items(self, name: str, default: list[object] | None = None) -> list[object]:
        """A list of anything."""
        value = self._get(name, default)
        return value if isinstance(value, list) else self._wrong(name, "a list")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; empty when missing."""
        values = self.items(name, [])
        if not all(isinstance(value, str) for value in values):
            self._wrong(name, "a list of texts")
        return tuple(str(value) for value in values)

    def moment(self, name: str) -> datetime:
        """A time, as restic writes them."""
        try:
            return times.parse(self.text(name))
        except ValueError as error:
            raise IntegrityError(f"{self.what}: {error}") from error

    def id(self, name: str) -> bytes:
        """A 32-byte id in hexadecimal."""
        value = self.text(name)
        return bytes.fromhex(value) if is_hex_id(value) else self._wrong(name, "an id of 64 hex digits")

    def fields(self, name: str) -> Fields:
        """An object inside this one."""
        return Fields(self._value.get(name), f"{name!r} of {self.what}")

    def _get(self, name: str, default: object) -> object:
        value = self._value.get(name)
        return default if value is None else value

    def _wrong(self, name: str, wanted: str) -> NoReturn:
        raise IntegrityError(f"{self.what}: field {name!r} is {self._value.get(name)!r:.80}, not {wanted}")
