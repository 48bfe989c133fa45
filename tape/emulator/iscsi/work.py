"""The work of one session: commands carried out one after the other, and answered.

A thread of its own does it, so that a seek of a minute keeps nobody from answering the initiator's pings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tape.emulator.check import Check, Session
from tape.emulator.iscsi.outlet import Outlet
from tape.emulator.iscsi.parameters import Parameters
from tape.emulator.iscsi.task import Task
from tape.emulator.iscsi.taskset import TaskSet
from tape.emulator.lun import Answer, Hang, Lun
from tape.scsi.pdu import NO_TAG, Head, Op
from tape.scsi.sense import Key
from tape.scsi.transport import Status

_log = logging.getLogger(__name__)
_OVERFLOW, _UNDERFLOW, _STATUS = 0x04, 0x02, 0x01
_INQUIRY, _REPORT_LUNS = 0x12, 0xA0
_ABSENT = 0x7F


class Work:
    """What is done for one session."""

    def __init__(
        self,
        luns: Sequence[Lun],
        session: Session,
        tasks: TaskSet,
        outlet: Outlet,
        agreed: Parameters,
        solicit: Callable[[], None],
    ) -> None:
        """Prepare it.

        Args:
            luns: the logical units, from 0.
            session: whose commands these are.
            tasks: where they come from.
            outlet: where answers go.
            agreed: how large pieces may be.
            solicit: asks for the data of the next command, once one is done.
        """
        self._luns = luns
        self._session = session
        self._tasks = tasks
        self._outlet = outlet
        self._agreed = agreed
        self._solicit = solicit

    def run(self) -> None:
        """Until there will be no more commands, or nobody is there to hear answers."""
        try:
            while (task := self._tasks.next()) is not None:
                self._do(task)
        except OSError:
            self._outlet.close()  # the thread that reads notices, and tells
        except BaseException:  # a fault of ours: nobody shall wait for the answer
            self._outlet.close()
            raise

    def _do(self, task: Task) -> None:
        try:
            answer = self._carried_out(task)
        except Hang:
            task.hanging = True
            return
        except OSError as error:  # the folder's disk is full, or broken: no fault of the connection
            _log.error("%s: %s", error.filename or "a cartridge's folder", error.strerror or error)
            answer = Answer(Status.CHECK_CONDITION, b"", Check(Key.HARDWARE_ERROR, 0x44).sense)
        if self._tasks.finish(task):
            self._answer(task, answer)
        self._solicit()

    def _carried_out(self, task: Task) -> Answer:
        number = lun_number(task.lun)
        operation = task.cdb[0]
        if operation == _REPORT_LUNS:
            return Answer(Status.GOOD, _report_luns(len(self._luns), int.from_bytes(task.cdb[6:10], "big")))
        if number is not None and number < len(self._luns):
            return self._luns[number].execute(self._session, task.cdb, task.data)
        if operation == _INQUIRY:
            absent = bytes((_ABSENT, 0, 6, 2, 91)) + bytes(91)
            return Answer(Status.GOOD, absent[: int.from_bytes(task.cdb[3:5], "big")])
        return Answer(Status.CHECK_CONDITION, b"", Check(Key.ILLEGAL_REQUEST, 0x25).sense)

    def _answer(self, task: Task, answer: Answer) -> None:
        data = memoryview(answer.data) if task.reads else memoryview(b"")
        short = task.expected - len(data) if task.reads else 0
        residue = (_UNDERFLOW if short > 0 else _OVERFLOW if short < 0 else 0), abs(short)
        data = data[: task.expected]
        collapsed = bool(len(data)) and answer.status == Status.GOOD
        sent = self._send_data(task, data, residue if collapsed else None)
        if collapsed:
            return
        head = Head.of(Op.RESPONSE, flags=0x80 | residue[0], tag=task.tag)
        head.raw[3] = answer.status
        head.put(36, sent)
        head.put(44, residue[1])
        self._outlet.send(head, len(answer.sense).to_bytes(2, "big") + answer.sense if answer.sense else b"")

    def _send_data(self, task: Task, data: memoryview, residue: tuple[int, int] | None) -> int:
        """Data-In, in bursts; the last one says with ``residue`` that all went well. Gives how many PDUs."""
        at = number = burst = 0
        while at < len(data):
            piece = data[at : at + min(self._agreed.segment_bytes, self._agreed.burst_bytes - burst)]
            burst += len(piece)
            last = at + len(piece) == len(data)
            ends_burst = last or burst == self._agreed.burst_bytes
            head = Head.of(Op.DATA_IN, flags=0x80 if ends_burst else 0, lun=task.lun, tag=task.tag)
            head.put(20, NO_TAG)
            head.put(36, number)
            head.put(40, at)
            if last and residue is not None:
                head.raw[1] |= _STATUS | residue[0]
                head.put(44, residue[1])
            self._outlet.send(head, piece, numbered=last and residue is not None)
            at, number, burst = at + len(piece), number + 1, 0 if ends_burst else burst
        return number


def lun_number(lun: bytes) -> int | None:
    """The number of a logical unit (SAM: peripheral or flat addressing); None for any other addressing."""
    if lun[0] >> 6 not in (0, 1) or any(lun[2:]):
        return None
    return int.from_bytes(lun[:2], "big") & 0x3FFF


def _report_luns(count: int, length: int) -> bytes:
    listed = b"".join(number.to_bytes(2, "big") + bytes(6) for number in range(count))
    return (len(listed).to_bytes(4, "big") + bytes(4) + listed)[:length]
