r"""Selectors: which VMs are meant, said in one line each. Pure: text in, terms out, matched against summaries.

    web01                                         one VM by name, moref, UUID, address or host name; else an error
    web*          name:web*                       a set; none at all is an error
    folder:/DC0/prod/** and powerstate:on         all of it must hold
    not:name:*-test                               taken away from all that the other selectors mean

    selector = term { " and " term }        term = [ "not:" ] ( kind ":" pattern | word )

Several selectors add up. What the manager cannot tell of a VM (its power state, its folder) counts as a match, and
never as a reason to leave it out: a VM too many in a backup is better than one too few.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from vcbproxy.errors import UsageError
from vcbproxy.manager.pattern import Pattern, parts
from vcbproxy.manager.vm import Power, Tag, VmSummary


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


_PREFIXES = {**{kind.value: kind for kind in Kind if kind.value}, "ip": Kind.IPADDR}
_NOT = "not:"
_AND = re.compile(rf"\\.|(\s+and\s+)(?=(?:{_NOT})?(?:{'|'.join(_PREFIXES)}):)", re.DOTALL)
_POWER = {
    **{state.value.lower(): state for state in Power},
    "on": Power.ON,
    "off": Power.OFF,
}
DEEP = Pattern("**")  # in folders only: any number of levels; no other pattern has this text


@dataclass(frozen=True, slots=True)
class Term:
    """One condition.

    Attributes:
        patterns: of a folder one for each level, ``DEEP`` for any number of them; of a tag the category's, if there is
            one, and the name's; of ``any`` none; of all others one.
    """

    kind: Kind
    patterns: tuple[Pattern, ...]
    negated: bool = False

    @classmethod
    def parse(cls, text: str) -> Term:
        """Read a term.

        Raises:
            UsageError: it is none; the message says why.
        """
        negated = text.startswith(_NOT)
        rest = text.removeprefix(_NOT)
        prefix, colon, value = rest.partition(":")
        if colon and prefix in _PREFIXES:
            kind = _PREFIXES[prefix]
            return cls(kind, _READ[kind](value), negated)
        if negated and rest.startswith(_NOT):
            raise UsageError(f"{text!r}: one not: is enough")
        if not rest:
            raise UsageError(f"{text!r}: a selector without anything to select by")
        pattern = Pattern.parse(rest)
        return cls(Kind.WORD if pattern.literal is not None else Kind.NAME, (pattern,), negated)

    def __str__(self) -> str:
        first, *more = (str(pattern) for pattern in self.patterns) if self.patterns else ("",)
        match self.kind:
            case Kind.FOLDER:
                value = f"/{'/'.join([first, *more])}" if self.patterns else "/"
            case Kind.TAG:
                value = "/".join([first, *more])
            case _:
                value = first
        if re.search(r"\sand\s|\s$", value):  # would be read as the end of this term
            value = re.sub(r"(\s)", r"\\\1", value)
        prefix = f"{self.kind.value}:" if self.kind.value else ""
        return f"{_NOT if self.negated else ''}{prefix}{value}"

    def holds(self, vm: VmSummary) -> bool | None:
        """Whether it holds for a VM; None when the manager does not tell."""
        found = _HOLDS[self.kind](self.patterns, vm)
        return found if found is None or not self.negated else not found


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that must all hold, or one that takes away."""

    terms: tuple[Term, ...]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read a selector.

        Raises:
            UsageError: it is none; the message says why.
        """
        terms = tuple(Term.parse(piece) for piece in _pieces(text))
        if len(terms) > 1 and terms[0].negated:
            raise UsageError(f"{text!r}: begin with what is wanted (any: for every VM), then say what is not")
        if len(terms) > 1 and terms[0].kind is Kind.WORD:
            word = terms[0].patterns[0]
            raise UsageError(f"{text!r}: {word} alone stands for one VM; with more conditions write name:{word}")
        return cls(terms)

    def __str__(self) -> str:
        return " and ".join(str(term) for term in self.terms)

    @property
    def excludes(self) -> bool:
        """Whether it takes away."""
        return self.terms[0].negated

    @property
    def single(self) -> bool:
        """Whether it must stand for exactly one VM."""
        return not self.excludes and self.terms[0].kind is Kind.WORD

    def holds(self, vm: VmSummary) -> bool | None:
        """Whether all its conditions hold for a VM; None when that hangs on what the manager does not tell."""
        found = [term.holds(vm) for term in self.terms]
        return False if False in found else None if None in found else True

    def means(self, vm: VmSummary) -> bool:
        """Whether it means a VM: to take it, or, of an exclusion, to leave it out. In doubt a VM is taken."""
        return self.holds(vm) is False if self.excludes else self.holds(vm) is not False


def needs(selectors: Iterable[Selector]) -> frozenset[Kind]:
    """What must be known of VMs to tell which are meant."""
    return frozenset(term.kind for selector in selectors for term in selector.terms)


def folder_text(folder: Iterable[str]) -> str:
    """A VM's folder as the pattern that means exactly it."""
    return "/" + "/".join(Pattern.exactly(name).text for name in folder)


def tag_text(tag: Tag) -> str:
    """A tag as the pattern that means exactly it."""
    return f"{Pattern.exactly(tag.category)}/{Pattern.exactly(tag.name)}"


def _pieces(text: str) -> list[str]:
    r"""The text between `` and ``s; a blank behind a ``\`` belongs to a name."""
    found, begin = [], 0
    for joint in _AND.finditer(text):
        if joint[1]:
            found.append(text[begin : joint.start()])
            begin = joint.end()
    return [*found, text[begin:]]


# Reading what follows a prefix.


def _read_one(value: str) -> tuple[Pattern, ...]:
    if not value:
        raise UsageError("a selector without anything after its colon")
    return (Pattern.parse(value),)


def _read_uuid(value: str) -> tuple[Pattern, ...]:
    digits = uuid_digits(value)
    if not digits:
        raise UsageError(f"{value!r} is not a UUID of 32 digits")
    return (Pattern(digits),)


def _read_power(value: str) -> tuple[Pattern, ...]:
    state = _POWER.get(value.lower())
    if state is None:
        raise UsageError(f"{value!r} is no power state; there are on, off, suspended")
    return (Pattern(state.value),)


def _read_folder(value: str) -> tuple[Pattern, ...]:
    levels = parts(value, "/")
    from_top = levels[0] == ""
    levels = levels[1:] if from_top else levels
    if not levels or "" in levels:
        raise UsageError(
            f"folder:{value}: write /DC/folder for the VMs right in a folder, /DC/folder/** for all below it as well; "
            "without the first / it may lie anywhere"
        )
    found = tuple(DEEP if level == "**" else Pattern.parse(level) for level in levels)
    return found if from_top or found[0] is DEEP else (DEEP, *found)


def _read_tag(value: str) -> tuple[Pattern, ...]:
    found = parts(value, "/")
    if not 1 <= len(found) <= 2 or "" in found:
        raise UsageError(f"tag:{value}: write tag:name or tag:category/name, and \\/ for a / in a name")
    return tuple(Pattern.parse(part) for part in found)


def _read_any(value: str) -> tuple[Pattern, ...]:
    if value:
        raise UsageError(f"any:{value}: any: is every VM; nothing follows it")
    return ()


_READ: Mapping[Kind, Callable[[str], tuple[Pattern, ...]]] = {
    Kind.NAME: _read_one,
    Kind.IPADDR: _read_one,
    Kind.MOREF: _read_one,
    Kind.DATASTORE: _read_one,
    Kind.UUID: _read_uuid,
    Kind.POWERSTATE: _read_power,
    Kind.FOLDER: _read_folder,
    Kind.TAG: _read_tag,
    Kind.ANY: _read_any,
}


# Matching. None: the manager does not tell.


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


_HOLDS: Mapping[Kind, Callable[[tuple[Pattern, ...], VmSummary], bool | None]] = {
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
