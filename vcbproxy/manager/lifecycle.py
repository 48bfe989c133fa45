"""The life of one VM snapshot of ours, as a table: (state, event) -> state. Pure: nothing here talks to anyone.

    start ───▶ GONE ──ask──▶ ASKED ──done──▶ CREATED ──done──▶ READING
                ▲          lost │ │ fault       │ anything        │ anything
                │          late ▼ └─────────┐   │ else            │ at all
                │           AWAITED ──done─▶│   │                 │
                │                           ▼   ▼                 │
                └──done── CONSOLIDATING ◀── REMOVING ◀────────────┘
                                │     done     │
                                └──────────────┴─ late, or the operator insists ──▶ STUCK

Theory of operation. A snapshot costs its VM from the moment it exists, and a manager is a witness who may fall silent
at any moment: a request whose answer is lost may have been carried out, may be on its way, or may never have been
heard. So the states say what *we know*, not what the manager believes:

* Nothing is believed to be gone because a removal was reported done; CONSOLIDATING is entered only when a look at the
  VM's snapshots finds our marker no more.
* From ASKED an answer that is lost leads to AWAITED, not to REMOVING: looking at once could come before the manager
  carries the request out. What may be on its way is waited for first.
* All that goes wrong while the snapshot is held (CREATED, READING) leads to REMOVING. There is no way round it.
* Every state that waits for the manager has a limit. ``LATE`` is that limit, never an opinion.
* A first Ctrl-C or SIGTERM never leaves a state that cleans up; the second, INSIST, ends in STUCK at once.
* STUCK is no end of the snapshot, only of our trying: the operator is told what to do, and a later ASK (the clean-up)
  begins at REMOVING again.

``vcbproxy.manager.snapshot`` drives GONE to READING, ``vcbproxy.manager.removal`` AWAITED to GONE or STUCK. A test
walks every pair, and holds the table in ``docs/design.md`` to this one.
"""

from __future__ import annotations

from enum import Enum

from vcbproxy.errors import CredentialsError, ManagerError, TaskFailed
from vcbproxy.manager.faults import Trouble, trouble_of


class State(Enum):
    """What is known of the snapshot."""

    GONE = "gone"  # there is none of ours: the first state and the last
    ASKED = "asked"  # the request was sent; whether there is one is not known
    AWAITED = "awaited"  # ... and never will be told: whatever is on its way has to arrive first
    CREATED = "created"  # the manager named it; what it froze is being looked at
    READING = "reading"  # it froze what it should; the caller reads
    REMOVING = "removing"  # it is looked for by its marker and removed, again and again
    CONSOLIDATING = "consolidating"  # no snapshot carries the marker; its links may still have to be merged
    STUCK = "stuck"  # we gave up: a person, or a later clean-up, must go on


class Event(Enum):
    """What happened."""

    ASK = "ask"  # we want one, or (of a stuck one) want it gone
    DONE = "done"  # the state's own work is done, and that was seen
    BUSY = "busy"  # another task has the VM: wait, and try again
    FAULT = "fault"  # the manager or the guest said no
    LOST = "lost"  # no answer, or one without sense: nobody knows what was done
    LATE = "late"  # the state's limit has passed, or it failed too often
    INTERRUPT = "interrupt"  # Ctrl-C, SIGTERM, or the job run was cancelled
    INSIST = "insist"  # ... a second time: nobody waits any longer


TABLE: dict[tuple[State, Event], State] = {
    **{(State.GONE, event): State.GONE for event in Event},
    (State.GONE, Event.ASK): State.ASKED,
    #
    (State.ASKED, Event.ASK): State.ASKED,
    (State.ASKED, Event.DONE): State.CREATED,
    (State.ASKED, Event.BUSY): State.ASKED,  # it waits its turn, and is asked again
    (State.ASKED, Event.FAULT): State.REMOVING,  # a failed task may have got half-way
    (State.ASKED, Event.LOST): State.AWAITED,
    (State.ASKED, Event.LATE): State.AWAITED,
    (State.ASKED, Event.INTERRUPT): State.ASKED,  # the task is told to stop; its end decides
    (State.ASKED, Event.INSIST): State.AWAITED,
    #
    (State.AWAITED, Event.ASK): State.AWAITED,
    (State.AWAITED, Event.DONE): State.REMOVING,
    (State.AWAITED, Event.BUSY): State.AWAITED,
    (State.AWAITED, Event.FAULT): State.AWAITED,
    (State.AWAITED, Event.LOST): State.AWAITED,
    (State.AWAITED, Event.LATE): State.STUCK,
    (State.AWAITED, Event.INTERRUPT): State.AWAITED,
    (State.AWAITED, Event.INSIST): State.STUCK,
    #
    **{(State.CREATED, event): State.REMOVING for event in Event},
    (State.CREATED, Event.ASK): State.CREATED,
    (State.CREATED, Event.DONE): State.READING,
    **{(State.READING, event): State.REMOVING for event in Event},
    (State.READING, Event.ASK): State.READING,
    #
    (State.REMOVING, Event.ASK): State.REMOVING,
    (State.REMOVING, Event.DONE): State.CONSOLIDATING,
    (State.REMOVING, Event.BUSY): State.REMOVING,
    (State.REMOVING, Event.FAULT): State.REMOVING,
    (State.REMOVING, Event.LOST): State.REMOVING,
    (State.REMOVING, Event.LATE): State.STUCK,
    (State.REMOVING, Event.INTERRUPT): State.REMOVING,
    (State.REMOVING, Event.INSIST): State.STUCK,
    #
    (State.CONSOLIDATING, Event.ASK): State.CONSOLIDATING,
    (State.CONSOLIDATING, Event.DONE): State.GONE,
    (State.CONSOLIDATING, Event.BUSY): State.CONSOLIDATING,
    (State.CONSOLIDATING, Event.FAULT): State.CONSOLIDATING,
    (State.CONSOLIDATING, Event.LOST): State.CONSOLIDATING,
    (State.CONSOLIDATING, Event.LATE): State.STUCK,
    (State.CONSOLIDATING, Event.INTERRUPT): State.CONSOLIDATING,
    (State.CONSOLIDATING, Event.INSIST): State.STUCK,
    #
    **{(State.STUCK, event): State.STUCK for event in Event},
    (State.STUCK, Event.ASK): State.REMOVING,
}

ENDS = frozenset({State.GONE, State.STUCK})

REMEDIES = {
    State.AWAITED: "a snapshot may still appear on it: `vcbproxy cleanup` removes it once that task has ended",
    State.REMOVING: "`vcbproxy cleanup` tries again; or delete the snapshot in the vSphere client, it grows until then",
    State.CONSOLIDATING: "`vcbproxy cleanup` tries again; or choose Snapshots > Consolidate in the vSphere client",
}
"""What the operator is to do when it is stuck, by the state in which it stuck."""


def after(state: State, event: Event) -> State:
    """The next state; every pair has one."""
    return TABLE[state, event]


def event_of(error: ManagerError | CredentialsError) -> Event:
    """What an error of a request, or of the wait for its task, says about what was asked for.

    An error that is not the task's own end (it is forgotten, the answer makes no sense) leaves open what becomes of it.
    """
    trouble = trouble_of(error)
    if trouble is Trouble.BUSY:
        return Event.BUSY
    if trouble is Trouble.UNFINISHED:
        return Event.LATE
    if trouble in (Trouble.CONNECTION, Trouble.SESSION):
        return Event.LOST
    if isinstance(error, TaskFailed) or trouble in (
        Trouble.PERMISSION,
        Trouble.TRUST,
        Trouble.QUIESCE,
        Trouble.REFUSED,
    ):
        return Event.FAULT
    return Event.LOST
