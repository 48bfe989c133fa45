"""Find the LUN that someone means: by path, link, name, identity or serial."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vcbproxy.errors import UsageError
from vcbproxy.san import naa
from vcbproxy.san.info import LunInfo

_LISTED_MAX = 20

# ``naa.600…:1`` is how ESXi writes partition 1 of a LUN, ``wwn-0x600…-part1`` how udev does.
_PARTITION = re.compile(r"(?P<lun>.+?)(?::|-part)(?P<number>\d+)")


def find(luns: Sequence[LunInfo], text: str) -> LunInfo:
    """The one LUN or partition that ``text`` names.

    Args:
        luns: where to look, as :func:`vcbproxy.san.discover.discover` made them.
        text: a path, a link below /dev/disk, a name, ``naa.…`` or any other spelling of the identity, or a serial. A
            LUN comes before its partitions; ``naa.…:1`` is its partition 1.

    Raises:
        UsageError: nothing of that name, or more than one.
    """
    for test in _tests(text):
        found = [info for info in luns if test(info)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{text!r} names {len(found)} LUNs: {_listed(found)}; say which by its path")
    raise UsageError(f"no LUN {text!r}; there are: {_listed(luns)}" if luns else f"no LUN {text!r}: no LUN is seen")


def _tests(text: str) -> list[Callable[[LunInfo], bool]]:
    """Ways to mean a LUN, surest first."""
    key = naa.bare(Path(text).name if text.startswith("/dev/") else text)
    tests: list[Callable[[LunInfo], bool]] = [
        lambda info: text == info.path or text in info.links or text in info.paths,
        lambda info: text == info.name,
        lambda info: "/" in text and _same_node(text, info.path),
        lambda info: bool(info.wwn) and info.wwn == key and info.partition is None,
    ]
    match = _PARTITION.fullmatch(key)
    if match is not None:
        lun, number = naa.bare(match["lun"]), int(match["number"])
        tests.append(lambda info: bool(info.wwn) and info.wwn == lun and info.partition == number)
    tests.append(lambda info: bool(info.serial) and info.serial == text and info.partition is None)
    return tests


def _same_node(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):  # one of them is not there: not the same
        return False


def _listed(luns: Sequence[LunInfo]) -> str:
    shown = [f"{info.path} ({info.canonical_name})" if info.wwn else info.path for info in luns[:_LISTED_MAX]]
    more = len(luns) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
