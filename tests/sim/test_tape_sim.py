"""A writer of tape meets everything that the issue names: no file that an index lists is ever less than whole.

Each case is a cartridge with a history, a writer, and one fault at some command: killed, power cut, media and hardware
errors once and for ever, a full disk below an emulated cartridge, lost position, resets, filemarks that are none, the
end of the tape anywhere, a cartridge swapped under the writer. Then somebody else takes the cartridge: what was said to
be safe is there, byte for byte; nothing is listed that was not finished; and it is appended to, or says why not.

VCBPROXY_TAPE_SEEDS asks for more; a failing case names its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.sim.tapes import CHANGING, FAULTS, Fault, Told, played, scratch, template

SEEDS = int(os.environ.get("VCBPROXY_TAPE_SEEDS", "570"))
BLOCK = 95
BOUNDARIES = 60
KILLED = Fault("killed at a record", CHANGING, FAULTS[0].happens, later=True)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_whatever_goes_wrong(first: int, record_property: Callable[[str, object], None]) -> None:
    told = Told()
    with scratch() as folder:
        blank = template(folder)
        for seed in range(first, min(first + BLOCK, SEEDS)):
            draw = random.Random(seed)
            fault = FAULTS[seed % len(FAULTS)]
            told.add(played(seed, folder, blank, fault, at(fault, draw), cut=draw.random() < 0.5))
    record_property("tape faults", (told.cases, told.struck, *map(told.outcomes.get, OUTCOMES, [0] * 9)))
    assert told.struck > told.cases // 2, "hardly anything went wrong: what was tested?"


OUTCOMES = ("appended", "recovered", "full", "refused")


def at(fault: Fault, draw: random.Random) -> int:
    """After how many commands; few enough that most sessions come so far."""
    return draw.randrange(12 if fault.codes else 60)


@pytest.mark.parametrize("keep", [False, True])
def test_the_power_fails_at_every_record(keep: bool, record_property: Callable[[str, object], None]) -> None:
    """One session, cut after each of its records, filemarks and attributes; with what was buffered, or without."""
    told = Told()
    with scratch() as folder:
        blank = template(folder)
        for boundary in range(BOUNDARIES):
            told.add(played(7 + 1000 * keep, folder, blank, KILLED, boundary, cut=not keep))
    record_property("tape faults", (told.cases, told.struck, *map(told.outcomes.get, OUTCOMES, [0] * 9)))
