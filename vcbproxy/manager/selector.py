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

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vcbproxy.errors import UsageError
from vcbproxy.manager.holding import DEEP, HOLDS, Kind, uuid_digits
from vcbproxy.manager.pattern import Pattern, parts
from vcbproxy.manager.vm import Power, Tag, VmSummary

__all__ = ["Kind", "Selector", "Term", "folder_text", "needs", "tag_text"]

_PREFIXES = {**{kind.value: kind for kind in Kind if kind.value}, "ip": Kind.IPADDR}
_NOT = "not:"
_AND = re.compile(rf"\\.|(\s+and\s+)(?=(?:{_NOT})?(?:{'|'.join(_PREFIXES)}):)", re.DOTALL)
_POWER = {
    **{state.value.lower(): state for state in Power},
    "on": Power.ON,
    "off": Power.OFF,
}


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
        found = HOLDS[self.kind](self.patterns, vm)
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
