"""Whether a VM is what one term of a selector says: patterns held to one fact of its summary.

None is an answer, too: the manager does not tell.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import Enum

from vcbproxy.manager.pattern import Pattern
from vcbproxy.manager.vm import Tag, VmSummary

DEEP = Pattern("**")  # in folders only: any number of levels; no other pattern has this text


class Kind(Enum):
    """What a term looks at; the value is its prefix."""

    WORD = ""  # no prefix: whatever identifies one VM
    NAME = "name"
    IPADDR = "ipaddr"
    UUID = "uuid"
    MOREF = "moref"
    POWERSTATE = "powerstate"
    FOLDER = "folder"
    TAG = "tag"
    DATASTORE = "datastore"
    ANY = "any"


def _word(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool:
    (word,) = patterns
    return word.fits(vm.name) or word.fits(vm.moref) or _address(patterns, vm) or _uuid(patterns, vm)


def _address(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool:
    (pattern,) = patterns
    if vm.host_name and pattern.fits_in_any_case(vm.host_name):
        return True
    literal = pattern.literal
    if literal is not None:
        return _plain_address(literal) in map(_plain_address, vm.ip_addresses)
    return any(pattern.fits_in_any_case(_plain_address(address)) for address in vm.ip_addresses)


@functools.lru_cache(maxsize=1 << 16)
def _plain_address(text: str) -> str:
    """An address in its one spelling: IPv6 has many."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text.casefold()


def _uuid(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool:
    wanted = uuid_digits(patterns[0].literal)
    return wanted != "" and wanted in (uuid_digits(vm.uuid), uuid_digits(vm.instance_uuid))


@functools.lru_cache(maxsize=1 << 16)
def uuid_digits(text: str | None) -> str:
    """A UUID as 32 digits, or nothing: the manager writes 8-4-4-4-12, a .vmx file pairs with blanks."""
    digits = re.sub(r"[\s{}-]", "", text or "").lower()
    return digits if re.fullmatch("[0-9a-f]{32}", digits) else ""


def _power(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool | None:
    return None if vm.power_state is None else vm.power_state.value == patterns[0].text


def _folder(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool | None:
    return None if vm.folder is None else _lies_in(patterns, vm.folder)


@functools.lru_cache(maxsize=1 << 16)
def _lies_in(patterns: tuple[Pattern, ...], folder: tuple[str, ...]) -> bool:
    if not patterns:
        return not folder
    if patterns[0] == DEEP:
        return _lies_in(patterns[1:], folder) or (bool(folder) and _lies_in(patterns, folder[1:]))
    return bool(folder) and patterns[0].fits(folder[0]) and _lies_in(patterns[1:], folder[1:])


def _datastore(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool | None:
    return None if vm.datastores is None else any(map(patterns[0].fits, vm.datastores))


def _tag(patterns: tuple[Pattern, ...], vm: VmSummary) -> bool | None:
    return None if vm.tags is None else any(tag_fits(patterns, tag) for tag in vm.tags)


def tag_fits(patterns: tuple[Pattern, ...], tag: Tag) -> bool:
    """Whether a tag fits the patterns of a tag's term."""
    *category, name = patterns
    return name.fits(tag.name) and all(pattern.fits(tag.category) for pattern in category)


HOLDS: Mapping[Kind, Callable[[tuple[Pattern, ...], VmSummary], bool | None]] = {
    Kind.WORD: _word,
    Kind.NAME: lambda patterns, vm: patterns[0].fits(vm.name),
    Kind.MOREF: lambda patterns, vm: patterns[0].fits(vm.moref),
    Kind.IPADDR: _address,
    Kind.UUID: _uuid,
    Kind.POWERSTATE: _power,
    Kind.FOLDER: _folder,
    Kind.TAG: _tag,
    Kind.DATASTORE: _datastore,
    Kind.ANY: lambda _, vm: vm.workload,
}
