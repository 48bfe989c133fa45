"""The life of a snapshot as a table: every (state, event) pair, and what must hold of all of them."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.program import ROOT
from vcbproxy.errors import CredentialsError, ManagerError, TaskFailed
from vcbproxy.manager.faults import Trouble
from vcbproxy.manager.lifecycle import ENDS, REMEDIES, TABLE, Event, State, after, event_of

MAY_EXIST = frozenset(State) - {State.GONE, State.CONSOLIDATING, State.STUCK}
BAD = frozenset(Event) - {Event.ASK, Event.DONE}


def documented() -> dict[tuple[State, Event], State]:
    """The table in docs/design.md: a row a state, a column an event."""
    text = (ROOT / "docs" / "design.md").read_text()
    section = text[text.index("life of a VM snapshot") :]
    rows = [re.findall(r"[a-z]+", line) for line in section.splitlines() if line.startswith("| ")]
    events = [Event(word) for word in rows[0]]
    table = {}
    for name, *following in rows[1 : 1 + len(State)]:
        table |= {(State(name), event): State(word) for event, word in zip(events, following, strict=True)}
    return table


def test_every_pair_is_decided_and_documented() -> None:
    assert set(TABLE) == set(itertools.product(State, Event))
    assert documented() == TABLE


@pytest.mark.parametrize("state", sorted(MAY_EXIST, key=lambda state: state.value))
@pytest.mark.parametrize("event", sorted(BAD, key=lambda event: event.value))
def test_trouble_never_makes_us_believe_that_it_is_gone(state: State, event: Event) -> None:
    """Only a look that finds no marker does: from REMOVING, by DONE."""
    assert after(state, event) not in (State.GONE, State.CONSOLIDATING)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("first", Event)
def test_every_way_leads_to_an_end(state: State, first: Event) -> None:
    """Whatever happens first: when steps succeed from then on it ends gone, when they are late, gone or stuck."""
    for event, ends in ((Event.DONE, {State.GONE, State.STUCK}), (Event.LATE, ENDS)):
        here = after(state, first)
        for _ in State:
            here = after(here, event)
        assert here in ends
    if state is not State.STUCK:
        assert after(state, Event.INTERRUPT) is not State.STUCK, "a first Ctrl-C never ends the clean-up"


@pytest.mark.parametrize("event", sorted(BAD, key=lambda event: event.value))
def test_what_is_held_is_removed_whatever_happens(event: Event) -> None:
    for state in (State.CREATED, State.READING):
        assert after(state, event) is State.REMOVING


def test_it_is_gone_only_after_removing_and_consolidating() -> None:
    ways = {state for (state, _), following in TABLE.items() if following is State.GONE}
    assert ways == {State.GONE, State.CONSOLIDATING}
    assert {
        pair for pair, following in TABLE.items() if following is State.CONSOLIDATING and pair[0] is not following
    } == {(State.REMOVING, Event.DONE)}


def test_every_state_that_can_stick_says_what_to_do() -> None:
    sticking = {state for (state, _), following in TABLE.items() if following is State.STUCK} - {State.STUCK}
    assert set(REMEDIES) == sticking
    assert after(State.STUCK, Event.ASK) is State.REMOVING, "the clean-up goes on where we gave up"


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (ManagerError("x", trouble=Trouble.BUSY), Event.BUSY),
        (TaskFailed(task="t", entity="e", reason="r", trouble=Trouble.BUSY), Event.BUSY),
        (ManagerError("x", trouble=Trouble.UNFINISHED), Event.LATE),
        (ManagerError("x", trouble=Trouble.CONNECTION), Event.LOST),
        (TaskFailed(task="t", entity="e", reason="host lost", trouble=Trouble.CONNECTION), Event.LOST),
        (ManagerError("x", trouble=Trouble.SESSION), Event.LOST),
        (ManagerError("the task is forgotten", trouble=Trouble.GONE), Event.LOST),
        (ManagerError("the answer makes no sense", trouble=Trouble.OTHER), Event.LOST),
        (TaskFailed(task="t", entity="e", reason="r", trouble=Trouble.OTHER), Event.FAULT),
        (TaskFailed(task="t", entity="e", reason="r", trouble=Trouble.QUIESCE), Event.FAULT),
        (ManagerError("x", trouble=Trouble.PERMISSION), Event.FAULT),
        (CredentialsError("x", trouble=Trouble.PERMISSION), Event.FAULT),
    ],
)
def test_what_an_error_tells(error: ManagerError | CredentialsError, event: Event) -> None:
    assert event_of(error) is event
