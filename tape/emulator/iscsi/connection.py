"""One connection in the full feature phase: commands are carried out in the order in which they came.

While the data of one command are on their way others may arrive: they wait behind it. A command that hangs (a fault
made on purpose) is never answered; it does not keep what follows from being carried out, and is gone once aborted.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from tape.emulator.check import Check, Session
from tape.emulator.iscsi import management
from tape.emulator.iscsi.login import PORTAL_GROUP, Login
from tape.emulator.iscsi.task import Task, ready_to_transfer
from tape.emulator.lun import Answer, Hang, Lun
from tape.scsi.pdu import NO_TAG, Disconnected, Head, Op, Wire, decode_text, distance, encode_text, following
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer, Status

_WINDOW = 64
_log = logging.getLogger(__name__)
_OVERFLOW, _UNDERFLOW, _STATUS = 0x04, 0x02, 0x01
_TESTED, _ABSENT = 0x12, 0x7F
_REPORT_LUNS = 0xA0


class Target(Protocol):
    """What a connection knows of the target that it belongs to."""

    @property
    def name(self) -> str:
        """Its iSCSI name."""

    @property
    def luns(self) -> Sequence[Lun]:
        """Its logical units, from 0."""


class Connection:
    """One session's only connection."""

    def __init__(self, wire: Wire, target: Target, login: Login) -> None:
        self._wire = wire
        self._target = target
        self._login = login
        self._session = Session(f"{login.initiator},i,0x{login.isid.hex()}")
        self._tasks: OrderedDict[int, Task] = OrderedDict()
        self._expected = login.command_number
        self._status_number = login.status_number
        self._transfer_tag = 0
        self._receivers: dict[int, Callable[[Head], None]] = {
            Op.NOP_OUT: self._nop,
            Op.COMMAND: self._command,
            Op.TASK_MANAGEMENT: self._manage,
            Op.TEXT: self._text,
            Op.DATA_OUT: self._data_out,
            Op.LOGOUT: self._log_out,
        }
        self._ended = False

    def serve(self) -> None:
        """Until the initiator logs out.

        Raises:
            Disconnected: it went away, or broke the protocol.
            OSError: the connection broke.
        """
        try:
            while not self._ended:
                head = self._wire.receive_head()
                receiver = self._receivers.get(head.op)
                if receiver is None or (self._login.discovery and head.op not in (Op.TEXT, Op.LOGOUT, Op.NOP_OUT)):
                    raise Disconnected(f"PDU {head.op:#04x} is not expected here")
                if self._is_due(head):
                    receiver(head)
                else:
                    self._wire.receive_data(head)
        finally:
            for lun in self._target.luns:
                lun.leave(self._session)

    def _is_due(self, head: Head) -> bool:
        """Whether it is to be heeded: one whose number lies outside the window is passed over in silence."""
        if head.op == Op.DATA_OUT or head.immediate:
            return True
        if distance(head.get(24), self._expected) != 0:
            return False
        self._expected = following(self._expected)
        return True

    # ------------------------------------------------------------------ commands

    def _command(self, head: Head) -> None:
        task = Task.begun(self._wire, head)
        if task.tag in self._tasks:
            raise Disconnected(f"task {task.tag:#x} was begun twice")
        self._tasks[task.tag] = task
        self._go_on()

    def _data_out(self, head: Head) -> None:
        task = self._tasks.get(head.tag)
        if task is None or task.hanging:  # it was aborted meanwhile
            self._wire.receive_data(head)
            return
        task.take(self._wire, head, head.get(40))
        if head.flags & 0x80 and head.get(20) == NO_TAG:
            task.unsolicited_ended = True
        self._go_on()

    def _go_on(self) -> None:
        """Carry out what is whole; the first that is not is asked for its data, and what is behind it waits."""
        for task in list(self._tasks.values()):
            if task.hanging:
                continue
            if not task.whole:
                if wanted := task.to_solicit(self._login.parameters.burst_bytes):
                    self._transfer_tag = (self._transfer_tag + 1) % NO_TAG
                    self._send(ready_to_transfer(task, self._transfer_tag, wanted), numbered=False)
                return
            try:
                answer = self._carry_out(task)
            except Hang:
                task.hanging = True
                continue
            except OSError as error:  # the folder's disk is full, or broken: no fault of the connection
                _log.error("%s: %s: %s", self._target.name, error.filename or "its folder", error.strerror or error)
                answer = Answer(Status.CHECK_CONDITION, b"", Check(Key.HARDWARE_ERROR, 0x44).sense)
            del self._tasks[task.tag]
            self._answer(task, answer)

    def _carry_out(self, task: Task) -> Answer:
        number = lun_number(task.lun)
        luns = self._target.luns
        operation = task.cdb[0]
        if operation == _REPORT_LUNS:
            return Answer(Status.GOOD, _report_luns(len(luns), int.from_bytes(task.cdb[6:10], "big")))
        if number is not None and number < len(luns):
            return luns[number].execute(self._session, task.cdb, task.data)
        if operation == _TESTED:
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
        self._send(head, len(answer.sense).to_bytes(2, "big") + answer.sense if answer.sense else b"")

    def _send_data(self, task: Task, data: memoryview, residue: tuple[int, int] | None) -> int:
        """Data-In, in bursts; the last one says with ``residue`` that all went well. Gives how many PDUs."""
        agreed = self._login.parameters
        at = number = burst = 0
        while at < len(data):
            piece = data[at : at + min(agreed.segment_bytes, agreed.burst_bytes - burst)]
            burst += len(piece)
            last = at + len(piece) == len(data)
            ends_burst = last or burst == agreed.burst_bytes
            head = Head.of(Op.DATA_IN, flags=0x80 if ends_burst else 0, lun=task.lun, tag=task.tag)
            head.put(20, NO_TAG)
            head.put(36, number)
            head.put(40, at)
            if last and residue is not None:
                head.raw[1] |= _STATUS | residue[0]
                head.put(44, residue[1])
            self._send(head, piece, numbered=last and residue is not None)
            at, number, burst = at + len(piece), number + 1, 0 if ends_burst else burst
        return number

    # ------------------------------------------------------------------ everything else

    def _manage(self, head: Head) -> None:
        self._wire.receive_data(head)
        number = lun_number(head.lun)
        outcome = management.manage(self._target.luns, self._session, self._tasks, head, number)
        answer = Head.of(Op.TASK_MANAGED, tag=head.tag)
        answer.raw[2] = outcome
        self._send(answer)
        self._go_on()

    def _nop(self, head: Head) -> None:
        data = self._wire.receive_data(head)
        if head.tag == NO_TAG:
            return
        answer = Head.of(Op.NOP_IN, lun=head.lun, tag=head.tag)
        answer.put(20, NO_TAG)
        self._send(answer, data[: self._login.parameters.segment_bytes])

    def _text(self, head: Head) -> None:
        asked = decode_text(self._wire.receive_data(head))
        answers: list[tuple[str, str]] = []
        for key, value in asked.items():
            if key != "SendTargets":
                answers.append((key, "NotUnderstood"))
            elif value in ("All", "", self._target.name):
                host, port = self._wire.address()
                where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                answers += [("TargetName", self._target.name), ("TargetAddress", f"{where},{PORTAL_GROUP}")]
        answer = Head.of(Op.TEXT_RESPONSE, lun=head.lun, tag=head.tag)
        answer.put(20, NO_TAG)
        self._send(answer, encode_text(answers))

    def _log_out(self, head: Head) -> None:
        self._wire.receive_data(head)
        self._send(Head.of(Op.LOGOUT_RESPONSE, tag=head.tag))
        self._ended = True

    def _send(self, head: Head, data: Buffer = b"", *, numbered: bool = True) -> None:
        """Send it with the numbers of the moment; ``numbered`` when it carries a status of its own."""
        if numbered or head.op == Op.READY_TO_TRANSFER:
            head.put(24, self._status_number)
        if numbered:
            self._status_number = following(self._status_number)
        head.put(28, self._expected)
        head.put(32, self._expected + _WINDOW - 1)
        self._wire.send(head, data)


def lun_number(lun: bytes) -> int | None:
    """The number of a logical unit (SAM: peripheral or flat addressing); None for any other addressing."""
    if lun[0] >> 6 not in (0, 1) or any(lun[2:]):
        return None
    return int.from_bytes(lun[:2], "big") & 0x3FFF


def _report_luns(count: int, length: int) -> bytes:
    listed = b"".join(number.to_bytes(2, "big") + bytes(6) for number in range(count))
    return (len(listed).to_bytes(4, "big") + bytes(4) + listed)[:length]
