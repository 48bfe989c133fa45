"""Several selectors together: they add up, exclusions take away, and whoever asks for nothing is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manager.summaries import EVERYTHING
from vcbproxy.errors import NothingProtected, UsageError
from vcbproxy.manager.choice import choose
from vcbproxy.manager.selector import Selector


def chosen(*texts: str) -> list[str]:
    return [vm.moref for vm in choose(EVERYTHING, [Selector.parse(text) for text in texts])]


def test_selectors_add_up_in_their_order_each_vm_once() -> None:
    assert chosen("db01", "web*", "name:*01") == ["vm-2", "vm-1"]
    assert chosen("moref:vm-1", "web01", "db01") == ["vm-1", "vm-2"]


def test_an_exclusion_takes_away_from_all_wherever_it_stands() -> None:
    assert chosen("not:tag:gold", "name:web*", "name:twin", "tag:silver") == ["vm-4"]
    assert chosen("tag:gold", "not:name:no-such") == ["vm-1", "vm-5"], "an exclusion may mean nothing"


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["web1"], "no virtual machine 'web1'; there is web01"),
        (["WEB01"], "; there is web01"),
        (["nothing-like-it"], f"among the {len(EVERYTHING)} there are"),
        (["db01", "name:web*", "name:no*"], r"no virtual machine 'name:no\*'"),
        (["folder:/DC0/prdo/web"], "there is /DC0/prod/web"),
        (["tag:Backup/gld"], "there is Backup/gold"),
        (["tag:glod"], "there is .*/gold"),
        (["folder:/DC0/nowhere"], r"whether it means lost \(moref:vm-7\) the manager does not tell"),
        (["twin"], r"2 virtual machines: twin \(moref:vm-4\), twin \(moref:vm-5\); choose one by its moref"),
        (["flder:/DC0/prod"], "selectors begin with one of name: ipaddr: "),
        (["!name:web01"], "to leave VMs out write not:name:web01"),
        (["not:name:x"], "any: is every VM"),
        (["web01", "not:tag:gold"], "asked for by name and left out by 'not:tag:gold'"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        chosen(*texts)


def test_a_vm_of_which_the_manager_does_not_tell_comes_with_those_of_which_it_does() -> None:
    assert chosen("folder:/DC0/prod/**", "not:powerstate:on") == ["vm-7"]


def test_exclusions_that_leave_nothing_protect_nothing() -> None:
    with pytest.raises(NothingProtected, match=r"'not:name:web\*' leaves nothing of 'tag:Backup/gold'"):
        chosen("tag:Backup/gold", "not:name:web*")


sets = st.sampled_from(
    ["any:", "name:*", "tag:gold", "folder:/DC0/**", "powerstate:on", "datastore:nfs", "moref:vm-1*"]
)


@given(st.lists(sets, min_size=1, max_size=4), st.lists(sets, max_size=3))
def test_the_algebra_of_sets(wanted: list[str], unwanted: list[str]) -> None:
    """Chosen is the union less what each exclusion means by itself, whatever the order."""
    union = {moref for text in wanted for moref in chosen(text)}
    taken = {vm.moref for vm in EVERYTHING for text in unwanted if Selector.parse(f"not:{text}").means(vm)}
    texts = [*(f"not:{text}" for text in unwanted), *wanted]
    for order in (texts, texts[::-1]):
        if union - taken:
            assert set(chosen(*order)) == union - taken
        else:
            with pytest.raises(NothingProtected):
                chosen(*order)


@given(sets, sets)
def test_and_means_both(one: str, other: str) -> None:
    both = Selector.parse(f"{one} and {other}")
    for vm in EVERYTHING:
        assert both.means(vm) == (Selector.parse(one).means(vm) and Selector.parse(other).means(vm))


def test_a_caller_may_go_on_without_what_cannot_be_met() -> None:
    told: list[str] = []
    texts = ["nobody", "web01", "twin", "tag:none", "db01", "not:db01"]
    found = choose(EVERYTHING, [Selector.parse(text) for text in texts], lambda text, error: told.append(text))
    assert [vm.moref for vm in found] == ["vm-1"]
    assert told == ["nobody", "twin", "tag:none", "db01"]
