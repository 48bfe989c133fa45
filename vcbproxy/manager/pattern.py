r"""Patterns for names: ``*`` any signs, ``?`` one sign, ``\`` before a sign takes its meaning away.

Nothing else is special. ``[`` is not: it is common in the names of VMs and rare in anybody's patterns. Comparison is
exact, case and all, but blind to how Unicode composes a letter: an é typed on one system is the é stored by another.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vcbproxy.errors import UsageError

_STAR, _ONE = "*", "?"
_ESCAPED = frozenset(r"*?\/")


@dataclass(frozen=True, slots=True)
class Pattern:
    r"""One pattern, in its canonical spelling: ``str`` of it parses to the same again.

    Attributes:
        text: signs without meaning stand bare, ``*``, ``?``, ``\`` and ``/`` that mean themselves behind a ``\``.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> Pattern:
        r"""Read a pattern.

        Raises:
            UsageError: a ``\`` before a letter, a digit or nothing.
        """
        found: list[str] = []
        for sign in map(_canonical, signs(text)):
            if (found[-1:], sign) != ([_STAR], _STAR):  # ** is *
                found.append(sign)
        return cls("".join(found))

    @classmethod
    def exactly(cls, value: str) -> Pattern:
        """The pattern that only this name fits."""
        return cls("".join(f"\\{sign}" if sign in _ESCAPED else sign for sign in composed(value)))

    def __str__(self) -> str:
        return self.text

    @property
    def literal(self) -> str | None:
        """The one name that fits; None when several might."""
        found = list(signs(self.text))
        return None if _STAR in found or _ONE in found else "".join(sign[-1] for sign in found)

    def fits(self, value: str) -> bool:
        """Whether a name fits."""
        return _matcher(self.text)(composed(value)) is not None

    def fits_in_any_case(self, value: str) -> bool:
        """Whether it fits when capitals do not count, as in host names."""
        return _matcher(self.text.casefold())(composed(value).casefold()) is not None


def composed(text: str) -> str:
    """The text with its letters composed (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def signs(text: str) -> Iterator[str]:
    r"""The signs of a pattern, each with the ``\`` before it.

    Raises:
        UsageError: a ``\`` before a letter, a digit or nothing: who writes that means the ``\`` itself.
    """
    rest = iter(composed(text))
    for sign in rest:
        if sign != "\\":
            yield sign
            continue
        escaped = next(rest, "")
        if not escaped or escaped.isalnum():
            raise UsageError(rf"{text!r}: \ takes away the meaning of the sign after it; write \\ for a \ itself")
        yield sign + escaped


def parts(text: str, separator: str) -> list[str]:
    r"""The text between separators, where no ``\`` is before them."""
    found = [""]
    for sign in signs(text):
        if sign == separator:
            found.append("")
        else:
            found[-1] += sign
    return found


def _canonical(sign: str) -> str:
    bare = sign[-1]
    if sign in (_STAR, _ONE):
        return sign
    return f"\\{bare}" if bare in _ESCAPED else bare


@functools.lru_cache(maxsize=4096)
def _matcher(text: str) -> Callable[[str], object]:
    known = {_STAR: ".*", _ONE: "."}
    return re.compile("".join(known.get(s) or re.escape(s[-1]) for s in signs(text)), re.DOTALL).fullmatch
