"""Task management (RFC 7143, 11.5): commands given up, and devices reset."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from tape.emulator.check import Session
from tape.emulator.iscsi.taskset import TaskSet
from tape.emulator.lun import Lun
from tape.scsi.pdu import Head


class Function(IntEnum):
    """What is asked for."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    RESET_UNIT = 5
    RESET_TARGET_WARM = 6
    RESET_TARGET_COLD = 7
    REASSIGN = 8


class Outcome(IntEnum):
    """What became of it."""

    COMPLETE = 0
    NO_TASK = 1
    NO_UNIT = 2
    NO_REASSIGNMENT = 4
    NOT_SUPPORTED = 5


def manage(luns: Sequence[Lun], session: Session, tasks: TaskSet, head: Head, number: int | None) -> Outcome:
    """Do it; ``tasks`` are those of this session that are not answered yet."""
    function = head.flags & 0x7F
    unit = luns[number] if number is not None and number < len(luns) else None
    if function == Function.REASSIGN:
        return Outcome.NO_REASSIGNMENT
    if function in (Function.RESET_TARGET_WARM, Function.RESET_TARGET_COLD):
        tasks.abort_all()
        for lun in luns:
            lun.reset()
        return Outcome.COMPLETE
    if function not in (Function.ABORT_TASK, Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.RESET_UNIT):
        return Outcome.NOT_SUPPORTED
    if unit is None:
        return Outcome.NO_UNIT
    if function == Function.ABORT_TASK:
        return Outcome.COMPLETE if tasks.abort(head.get(20)) else Outcome.NO_TASK
    tasks.abort_all(head.lun)
    if function == Function.RESET_UNIT:
        unit.reset()
    if function == Function.CLEAR_TASK_SET:
        unit.attention((0x2F, 0x00), but=session)  # commands cleared by another initiator
    return Outcome.COMPLETE
