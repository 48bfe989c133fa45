"""What every emulated device does: introduce itself, keep unit attentions for each session, dispatch commands.

A session is one initiator's; each has unit attentions of its own, and is told first of all that there was a reset.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tape.emulator.check import Check, Session, invalid_command, invalid_field
from tape.emulator.reservations import RESERVING, Conflict, Reservations
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer, Status


class Hang(Exception):
    """A command that is never answered: raised by whoever makes faults."""


class Busy(Exception):
    """Not now; ask again: likewise."""


RESET = (0x29, 0x00)
PREEMPTED = (0x2A, 0x05)
MEDIUM_CHANGED = (0x28, 0x00)


def _tell_first(waiting: list[tuple[int, int]]) -> None:
    if waiting:
        raise Check(Key.UNIT_ATTENTION, *waiting.pop(0))


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended, and the data that it gave."""

    status: Status
    data: Buffer = b""
    sense: bytes = b""


Handler = Callable[[bytes, Buffer], Buffer]
Interceptor = Callable[["Lun", bytes], None]


class Lun:
    """One logical unit. Commands of several sessions are carried out one after the other."""

    kind: ClassVar[int] = 0x1F
    _ATTENTIONS_PASSED: ClassVar[frozenset[int]] = frozenset({0x12, 0xA0, 0x03})  # SPC: answered whatever happened

    def __init__(self, vendor: str, product: str, revision: str, serial: str) -> None:
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.serial = serial
        self.before: Interceptor | None = None
        """Called before each command; may raise ``Check``: that is how faults are made."""
        self.after: Interceptor | None = None
        """Called after each that went well; what it raises is told in place of the answer."""
        self.session = Session("nobody")
        """Whose command is being carried out."""
        self._lock = threading.RLock()
        self._attentions: dict[Session, list[tuple[int, int]]] = {}
        self._reservations = Reservations()
        self._handlers: dict[int, Handler] = {
            0x00: self._test_unit_ready,
            0x03: lambda _cdb, _data: Check(Key.NO_SENSE, 0).sense,
            0x12: self._inquiry,
            0x1D: lambda _cdb, _data: b"",  # SEND DIAGNOSTIC: the reference dumps drives by it
            0x3C: self._read_buffer,
            0x5E: lambda cdb, _data: self._reservations.inquire(cdb),
        }

    def execute(self, session: Session, cdb: bytes, data: Buffer = b"") -> Answer:
        """Carry out one command of one session."""
        with self._lock:
            waiting = self._attentions.setdefault(session, [RESET])
            try:
                if cdb[0] not in self._ATTENTIONS_PASSED:
                    _tell_first(waiting)
                self._reservations.hold(session, cdb[0])
                self.session = session
                if self.before is not None:
                    self.before(self, cdb)
                if cdb[0] in RESERVING:
                    for initiator in self._reservations.change(session, cdb, data):
                        self.attention(PREEMPTED, of=initiator)
                    return Answer(Status.GOOD)
                handler = self._handlers.get(cdb[0])
                if handler is None:
                    raise invalid_command()
                given = handler(cdb, data)
                if self.after is not None:
                    self.after(self, cdb)
                return Answer(Status.GOOD, given)
            except Conflict:
                return Answer(Status.RESERVATION_CONFLICT)
            except Busy:
                return Answer(Status.BUSY)
            except Check as check:
                return Answer(Status.CHECK_CONDITION, check.data, check.sense)

    def attention(self, code: tuple[int, int], *, but: Session | None = None, of: str | None = None) -> None:
        """Have every session that is there be told of something, except one; or only those of one initiator."""
        with self._lock:
            for session, waiting in self._attentions.items():
                if session is not but and of in (None, session.initiator):
                    waiting.append(code)

    def tell_waiting(self) -> None:
        """Tell the session whose command this is what waits for it, in place of an answer.

        Raises:
            Check: something waits.
        """
        _tell_first(self._attentions[self.session])

    def leave(self, session: Session) -> None:
        """A session has ended."""
        with self._lock:
            self._attentions.pop(session, None)
            self._reservations.left(session)

    def reset(self) -> None:
        """What a bus reset does."""
        with self._lock:
            self._reservations.reset()
            self.attention(RESET)

    def _test_unit_ready(self, cdb: bytes, data: Buffer) -> bytes:
        return b""

    def _read_buffer(self, cdb: bytes, data: Buffer) -> bytes:
        length = int.from_bytes(cdb[6:9], "big")
        return bytes((0, 0, 0x10, 0))[:length] if cdb[1] & 0x1F == 3 else bytes(length)

    def _inquiry(self, cdb: bytes, data: Buffer) -> bytes:
        length = int.from_bytes(cdb[3:5], "big")
        if cdb[1] & 1:
            page = self._vital_page(cdb[2])
            return (bytes((self.kind, cdb[2])) + len(page).to_bytes(2, "big") + page)[:length]
        if cdb[2]:
            raise invalid_field()
        texts = self.vendor.ljust(8)[:8] + self.product.ljust(16)[:16] + self.revision.ljust(4)[:4]
        standard = bytes((self.kind, 0x80, 0x06, 0x02, 91, 0, 0, 0x02)) + texts.encode("ascii")
        return standard.ljust(96, b"\0")[:length]

    def _vital_page(self, page: int) -> bytes:
        match page:
            case 0x00:
                return bytes((0x00, 0x80, 0x83))
            case 0x80:
                return self.serial.encode("ascii")
            case 0x83:
                text = (self.vendor.ljust(8) + self.product.ljust(16) + self.serial).encode("ascii")
                return bytes((0x02, 0x01, 0, len(text))) + text + bytes((0x01, 0x03, 0, 8)) + self.world_wide_name
        raise invalid_field()

    @property
    def world_wide_name(self) -> bytes:
        """An NAA identifier of eight bytes, locally assigned (3h), made of the serial number."""
        import hashlib

        made = bytearray(hashlib.sha256(f"{self.vendor} {self.product} {self.serial}".encode()).digest()[:8])
        made[0] = 0x30 | (made[0] & 0x0F)
        return bytes(made)
