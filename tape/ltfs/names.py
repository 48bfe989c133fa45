"""Names as LTFS has them: any characters but a slash and NUL, in Unicode's composed form, 255 at most.

Since 2.4 what XML or another system cannot bear is written percent-encoded, and marked so: a name with a colon, a
control character, or one that XML forbids. Readers undo it; a name without the mark is taken as it stands.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from tape.errors import FormatError

NAME_CHARACTERS_MAX = 255
_ENCODED = re.compile("[:\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def normal(name: str) -> str:
    """A name in the form in which it is stored.

    Raises:
        FormatError: no file can be called that.
    """
    made = unicodedata.normalize("NFC", name)
    hold_valid(made)
    return made


def hold_valid(name: str) -> None:
    """Refuse what is no name of one file or directory.

    Raises:
        FormatError: empty, dots alone, too long, or with a slash, a NUL or half a character in it.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise FormatError(where="a name on the volume", reason=f"{name!r} is none")
    if len(name) > NAME_CHARACTERS_MAX:
        raise FormatError(where="a name on the volume", reason=f"{name[:20]!r}… has {len(name)} characters")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise FormatError(where="a name on the volume", reason=f"{name!r} is not Unicode")


def encoded(text: str) -> tuple[str, bool]:
    """As it stands in XML, before XML's own escaping; and whether it is percent-encoded."""
    if _ENCODED.search(text) is None:
        return text, False
    return quote(text, safe=""), True


def decoded(text: str, is_encoded: bool) -> str:
    """What stood in XML, as it was meant.

    Raises:
        FormatError: it is marked as percent-encoded, and is not.
    """
    if not is_encoded:
        return text
    if _ESCAPE.search(text):
        raise FormatError(where="a name on the volume", reason=f"{text!r} is not percent-encoded")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(where="a name on the volume", reason=f"{text!r} is not UTF-8") from error
