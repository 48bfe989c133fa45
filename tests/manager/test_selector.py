"""What selectors mean, term by term: a table of texts and the VMs they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.manager.summaries import EVERYTHING, INSTANCE, UUID
from vcbproxy.errors import UsageError
from vcbproxy.manager.pattern import Pattern
from vcbproxy.manager.selector import Kind, Selector, Term, folder_text, needs, tag_text
from vcbproxy.manager.vm import Power, Tag, VmSummary


def means(text: str) -> list[str]:
    return [vm.moref for vm in EVERYTHING if Selector.parse(text).means(vm)]


@pytest.mark.parametrize(
    ("text", "morefs"),
    [
        # a word: whatever identifies one VM, exactly
        ("web01", "1"),
        ("Web01", ""),
        ("web0", ""),
        ("WEB01.L", "1"),
        ("10.0.0.1", "1"),
        ("fe80::1", "1"),
        ("FE80:0::1", "1"),
        ("vm-1", "1"),
        (UUID, "1"),
        (UUID.upper(), "1"),
        ("56 4d 9c 1a 71 a5 7f 1c-3f 7c 01 23 45 67 89 ab", "1"),
        (INSTANCE, "1"),
        ("vm-2", "2 3"),
        ("twin", "4 5"),
        ("!odd", "9"),
        ("axb [old]", "11"),
        (r"a\*b [old]", "10"),
        (r"dom\\srv", "15"),
        ("caf\u00e9", "12 13"),
        # names
        ("name:vm-2", "3"),
        ("name:web*", "1"),
        ("web*", "1"),
        ("name:?eb*", "1 8"),
        ("a*b [old]", "10 11"),
        ("name:ip:10.0.0.1", "6"),
        ("name:!odd", "9"),
        (r"name:tom\ and name:jerry", "14"),
        ("cafe\u0301*", "12 13"),
        # what identifies
        ("moref:vm-2", "2"),
        ("moref:vm-1?", "10 11 12 13 14 15"),
        ("ip:10.0.0.1", "1"),
        ("ipaddr:10.0.0.*", "1"),
        ("ipaddr:2001:DB8::7", "12"),
        ("ipaddr:2001:db8::*", "12"),
        ("ipaddr:*.L", "1"),
        (f"uuid:{{{UUID.upper()}}}", "1"),
        # where it lies; what the manager does not tell of vm-7 counts as a match
        ("folder:/DC0/prod", "2 7"),
        ("folder:/DC0/prod/*", "1 7"),
        ("folder:/DC0/prod/**", "1 2 7"),
        ("folder:/*/test", "4 5 7"),
        ("folder:test", "4 5 7"),
        ("folder:prod/**", "1 2 7"),
        ("folder:/DC0/**/web", "1 7"),
        (r"folder:half\/half/50%", "10 7"),
        ("folder:/dc0/prod", "7"),
        ("datastore:nfs", "2 7"),
        ("datastore:n?s", "2 7"),
        # what it is
        ("powerstate:off", "3 7"),
        ("powerstate:poweredOff", "3 7"),
        ("powerstate:suspended", "6 7"),
        ("tag:gold", "1 5"),
        ("tag:Backup/gold", "1"),
        ("tag:Backup/*", "1 4"),
        ("tag:shop", "1"),
        ("any:", "1 2 3 4 5 6 7 9 10 11 12 13 14 15"),
        # several conditions
        ("folder:/DC0/** and tag:gold", "1"),
        ("twin* and folder:/DC1/**", "5"),
        ("name:* and not:any:", "8"),
        ("any: and not:powerstate:on", "3 6 7"),
        ("name:lost and not:powerstate:on and not:folder:/DC0/** and not:datastore:*", "7"),
        # what exclusions take away: what the manager does not tell is no reason to
        ("not:tag:gold", "1 5"),
        ("not:powerstate:off", "3"),
        ("not:folder:/DC0/**", "1 2 3 4 6 8 9 10 11 12 13 14 15"),
        ("not:twin", "4 5"),
        ("not:w*", "1"),
    ],
)
def test_what_a_selector_means(text: str, morefs: str) -> None:
    assert sorted(means(text)) == sorted(f"vm-{number}" for number in morefs.split())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "without anything"),
        ("not:", "without anything"),
        ("name:", "after its colon"),
        ("ip:", "after its colon"),
        ("uuid:web01", "not a UUID"),
        ("uuid:", "not a UUID"),
        ("powerstate:up", "no power state"),
        ("any:thing", "nothing follows"),
        ("folder:", "right in a folder"),
        ("folder:/", "right in a folder"),
        ("folder:/DC0/", "right in a folder"),
        ("folder://DC0", "right in a folder"),
        ("tag:a/b/c", r"for a / in a name"),
        ("tag:/gold", r"for a / in a name"),
        ("not:not:name:x", "one not:"),
        ("not:tag:x and name:y", "begin with what is wanted"),
        ("web01 and powerstate:on", "write name:web01"),
        (r"name:a\b", r"write \\\\ for"),
        ("web01\\", r"write \\\\ for"),
    ],
)
def test_what_is_no_selector_says_why(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Selector.parse(text)


@pytest.mark.parametrize("text", ["powerstate:on", "folder:/DC0", "datastore:san1"])
def test_what_the_manager_does_not_tell_is_in_doubt_either_way(text: str) -> None:
    [lost] = [vm for vm in EVERYTHING if vm.name == "lost"]
    assert Selector.parse(text).holds(lost) is None
    assert Selector.parse(f"any: and not:{text}").holds(lost) is None
    assert Selector.parse(f"name:x and {text}").holds(lost) is False


def test_only_a_word_must_stand_for_one() -> None:
    for text in ("web01", "10.0.0.1", r"a\*b", "unknown:kind"):
        assert Selector.parse(text).single
    for text in ("name:web01", "web*", "moref:vm-1", "not:web01", "any:"):
        assert not Selector.parse(text).single


def test_a_selector_says_what_it_needs_to_know() -> None:
    assert needs([Selector.parse("name:x and not:tag:y"), Selector.parse("folder:z")]) == {
        Kind.NAME,
        Kind.TAG,
        Kind.FOLDER,
    }


# Any text at all, with what is special in it more often than chance has it.
texts = st.text(st.one_of(st.characters(), st.sampled_from("*?\\/: adn\u0301")), min_size=1, max_size=12)
names = texts.filter(lambda text: "\0" not in text)
patterns = st.one_of(names.map(Pattern.exactly), st.sampled_from(["*", "web*", "?", r"\?*"]).map(Pattern.parse))
folders = st.lists(st.one_of(patterns, st.just(Pattern("**"))), min_size=1, max_size=4).map(tuple)


def terms(negated: st.SearchStrategy[bool]) -> st.SearchStrategy[Term]:
    one = st.sampled_from([Kind.NAME, Kind.IPADDR, Kind.MOREF, Kind.DATASTORE])
    return st.one_of(
        st.builds(Term, one, st.tuples(patterns), negated),
        st.builds(Term, st.just(Kind.FOLDER), folders, negated),
        st.builds(Term, st.just(Kind.TAG), st.lists(patterns, min_size=1, max_size=2).map(tuple), negated),
        st.builds(Term, st.just(Kind.POWERSTATE), st.sampled_from(Power).map(lambda p: (Pattern(p.value),)), negated),
        st.builds(Term, st.just(Kind.ANY), st.just(()), negated),
    )


@settings(deadline=None)
@given(terms(st.just(False)), st.lists(terms(st.booleans()), max_size=3))
def test_what_is_printed_is_read_again_as_the_same(first: Term, more: list[Term]) -> None:
    selector = Selector((first, *more))
    assert Selector.parse(str(selector)) == selector


@settings(deadline=None)
@given(terms(st.just(True)))
def test_an_exclusion_that_is_printed_is_read_again_as_the_same(term: Term) -> None:
    assert Selector.parse(str(Selector((term,)))) == Selector((term,))


@settings(deadline=None)
@given(texts)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selector = Selector.parse(text)
    except UsageError:
        return
    assert Selector.parse(str(selector)) == selector


@settings(deadline=None)
@given(names, names)
def test_a_name_is_meant_by_its_own_pattern_and_by_no_other(name: str, other: str) -> None:
    pattern = Pattern.parse(str(Pattern.exactly(name)))
    assert pattern.fits(name)
    assert pattern.literal is not None
    assert pattern.fits(other) == (Pattern.exactly(other) == pattern)


@settings(deadline=None)
@given(st.lists(names, min_size=1, max_size=4), st.lists(names, max_size=2))
def test_a_folder_as_it_is_shown_means_exactly_it(folder: list[str], below: list[str]) -> None:
    selector = Selector.parse(f"folder:{folder_text(folder)}")
    assert selector.means(VmSummary("vm-1", "x", folder=tuple(folder)))
    assert selector.means(VmSummary("vm-1", "x", folder=(*folder, *below))) == (not below)
    assert Selector.parse(f"folder:{folder_text(folder)}/**").means(VmSummary("vm-1", "x", folder=(*folder, *below)))


@settings(deadline=None)
@given(names, names)
def test_a_tag_as_it_is_shown_means_it(category: str, name: str) -> None:
    tag = Tag(category, name)
    assert Selector.parse(f"tag:{tag_text(tag)}").means(VmSummary("vm-1", "x", tags=frozenset([tag])))
