"""One connection in the full feature phase: what the initiator sends is taken in; what needs no device is answered.

wire ──▶ connection ── commands and their data ──▶ task set ──▶ work ──▶ Lun.execute
│                                                  │
└────────── pings, texts, task management ─────────┴─────▶ outlet ──▶ wire
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tape.emulator.check import Session
from tape.emulator.iscsi import management
from tape.emulator.iscsi.login import PORTAL_GROUP, Login
from tape.emulator.iscsi.outlet import Outlet
from tape.emulator.iscsi.task import Task, ready_to_transfer
from tape.emulator.iscsi.taskset import TaskSet
from tape.emulator.iscsi.work import Work, lun_number
from tape.emulator.lun import Lun
from tape.scsi.pdu import NO_TAG, Disconnected, Head, Op, Wire, decode_text, distance, encode_text


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
        self._tasks = TaskSet()
        self._outlet = Outlet(wire, expected=login.command_number, status_number=login.status_number)
        self._soliciting = threading.Lock()
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
        work = Work(
            self._target.luns, self._session, self._tasks, self._outlet, self._login.parameters, self._ask_for_data
        )
        working = threading.Thread(target=work.run, name=f"work for {self._session.initiator}")
        working.start()
        try:
            while not self._ended:
                self._take(self._wire.receive_head())
        finally:
            self._tasks.close()
            working.join()
            for lun in self._target.luns:
                lun.leave(self._session)

    def _take(self, head: Head) -> None:
        receiver = self._receivers.get(head.op)
        if receiver is None or (self._login.discovery and head.op not in (Op.TEXT, Op.LOGOUT, Op.NOP_OUT)):
            raise Disconnected(f"PDU {head.op:#04x} is not expected here")
        if self._is_due(head):
            receiver(head)
        else:
            self._wire.receive_data(head)

    def _is_due(self, head: Head) -> bool:
        """Whether it is to be heeded: one whose number lies outside the window is passed over in silence."""
        if head.op == Op.DATA_OUT or head.immediate:
            return True
        if distance(head.get(24), self._outlet.expected) != 0:
            return False
        self._outlet.command_came()
        return True

    # ------------------------------------------------------------------ commands

    def _command(self, head: Head) -> None:
        self._tasks.add(Task.begun(self._wire, head))
        self._ask_for_data()

    def _data_out(self, head: Head) -> None:
        task = self._tasks.find(head.tag)
        if task is None:  # it was aborted meanwhile
            self._wire.receive_data(head)
            return
        task.take(self._wire, head)
        if head.flags & 0x80 and head.get(20) == NO_TAG:
            task.unsolicited_ended = True
        self._ask_for_data()
        self._tasks.more_came()

    def _ask_for_data(self) -> None:
        """Have the data of the first command that lacks some sent; one burst at a time."""
        with self._soliciting:
            task = self._tasks.wants_data()
            wanted = task.to_solicit(self._login.parameters.burst_bytes) if task is not None else None
            if task is not None and wanted is not None:
                self._transfer_tag = (self._transfer_tag + 1) % NO_TAG
                self._outlet.send(ready_to_transfer(task, self._transfer_tag, wanted), numbered=False)

    # ------------------------------------------------------------------ everything else

    def _manage(self, head: Head) -> None:
        self._wire.receive_data(head)
        answer = Head.of(Op.TASK_MANAGED, tag=head.tag)
        answer.raw[2] = management.manage(self._target.luns, self._session, self._tasks, head, lun_number(head.lun))
        self._outlet.send(answer)
        self._ask_for_data()

    def _nop(self, head: Head) -> None:
        data = self._wire.receive_data(head)
        if head.tag == NO_TAG:
            return
        answer = Head.of(Op.NOP_IN, lun=head.lun, tag=head.tag)
        answer.put(20, NO_TAG)
        self._outlet.send(answer, data[: self._login.parameters.segment_bytes])

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
        self._outlet.send(answer, encode_text(answers))

    def _log_out(self, head: Head) -> None:
        self._wire.receive_data(head)
        self._outlet.send(Head.of(Op.LOGOUT_RESPONSE, tag=head.tag))
        self._ended = True
