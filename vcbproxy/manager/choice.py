"""Which VMs several selectors mean together. Pure: summaries and selectors in, summaries out.

    chosen = all that the selectors mean, in their order, each VM once, less what the exclusions mean

A selector that means no VM is an error: whoever wrote it believes that something is protected by it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence

from vcbproxy.errors import NothingProtected, UsageError
from vcbproxy.manager.selector import Kind, Selector, Term, folder_text, tag_text
from vcbproxy.manager.vm import VmSummary

_LISTED_MAX = 10
_NEAR_MAX = 3


def refuse(selector: str, error: UsageError) -> None:
    """What becomes of a selector that cannot be met, unless the caller knows better: nothing at all is done."""
    raise error


def choose(
    everything: Sequence[VmSummary],
    selectors: Sequence[Selector],
    unmet: Callable[[str, UsageError], None] = refuse,
) -> list[VmSummary]:
    """The VMs that selectors mean.

    Args:
        everything: the inventory, with the facts that ``selector.needs`` names.
        selectors: at least one that is no exclusion.
        unmet: told of each selector that means no VM, or should mean one and means several or one that is left out by
            another; when it returns, the others count.

    Raises:
        UsageError: there is nothing but exclusions, ``unmet`` says so, or no selector could be met.
        NothingProtected: the exclusions leave nothing.
    """
    exclusions = [selector for selector in selectors if selector.excludes]
    wanted = [selector for selector in selectors if not selector.excludes]
    if not wanted:
        raise UsageError(f"{_quoted(exclusions)}: nothing is selected that it could be taken from; any: is every VM")
    left_out = {vm.moref: exclusion for vm in everything for exclusion in exclusions if exclusion.means(vm)}
    problems: list[UsageError] = []
    found: dict[str, VmSummary] = {}
    for selector in wanted:
        meant = [vm for vm in everything if selector.means(vm)]
        problem = _problem(everything, selector, meant, left_out)
        if problem:
            problems.append(UsageError(problem))
            unmet(str(selector), problems[-1])
            continue
        found.update((vm.moref, vm) for vm in meant if vm.moref not in left_out)
    if not found and problems:
        raise problems[0]
    if not found:
        raise NothingProtected(f"{_quoted(exclusions)} leaves nothing of {_quoted(wanted)}: nothing was protected")
    return list(found.values())


def _problem(
    everything: Sequence[VmSummary], selector: Selector, meant: Sequence[VmSummary], left_out: Mapping[str, Selector]
) -> str:
    """Why a selector cannot be met; nothing when it can."""
    text = repr(str(selector))
    if not any(selector.holds(vm) for vm in meant):  # a folder misspelt must not pass for VMs whose folder is unknown
        return _nothing(everything, selector, meant)
    if selector.single and len(meant) > 1:
        return f"{text} stands for {len(meant)} virtual machines: {listed(meant)}; choose one by its moref"
    if selector.single and meant[0].moref in left_out:
        by = str(left_out[meant[0].moref])
        return f"{text} is asked for by name and left out by {by!r}: drop one of the two"
    return ""


def listed(vms: Sequence[VmSummary]) -> str:
    """VMs as a message names them: no name need be unique."""
    more = f" and {len(vms) - _LISTED_MAX} more" if len(vms) > _LISTED_MAX else ""
    return ", ".join(f"{vm.name} (moref:{vm.moref})" for vm in vms[:_LISTED_MAX]) + more


def _nothing(everything: Sequence[VmSummary], selector: Selector, doubtful: Sequence[VmSummary]) -> str:
    """Say that a selector means nothing for sure, and what may have been meant."""
    hint = next((hint for term in selector.terms if (hint := _hint(everything, term))), "")
    remedy = "has this user the role Read-only from the datacenter down?"
    doubt = f"; whether it means {listed(doubtful)} the manager does not tell: {remedy}" if doubtful else ""
    return f"no virtual machine {str(selector)!r}{hint or f' among the {len(everything)} there are'}{doubt}"


def _hint(everything: Sequence[VmSummary], term: Term) -> str:
    text = term.patterns[-1].literal if term.patterns else None
    match term.kind:
        case Kind.WORD if text and text[0] in "!-~^":
            return f"; to leave VMs out write not:{text[1:]}"
        case Kind.WORD | Kind.NAME:
            known = {vm.name: vm.name for vm in everything}
        case Kind.FOLDER:
            text = str(term).partition(":")[2]
            known = {path: path for vm in everything if vm.folder is not None for path in [folder_text(vm.folder)]}
        case Kind.TAG:
            text = str(term).partition(":")[2]
            tags = {tag: tag_text(tag) for vm in everything for tag in vm.tags or ()}
            known = {name: full for tag, full in tags.items() for name in (tag.name, full)}
        case Kind.DATASTORE:
            known = {name: name for vm in everything for name in vm.datastores or ()}
        case _:
            return ""
    near = _near(text, known) if text else []
    if not near and term.kind is Kind.WORD and text and ":" in text:
        kinds = " ".join(f"{kind.value}:" for kind in Kind if kind.value)
        return f"; selectors begin with one of {kinds}"
    return f"; there is {', '.join(dict.fromkeys(known[name] for name in near))}" if near else ""


def _near(text: str, names: Iterable[str]) -> list[str]:
    """Names that differ little, or in nothing but capitals."""
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    return [folded[name] for name in difflib.get_close_matches(text.casefold(), folded, n=_NEAR_MAX)]


def _quoted(selectors: Iterable[Selector]) -> str:
    return ", ".join(repr(str(selector)) for selector in selectors)
