"""What every emulated device does: introduce itself, keep unit attentions for each session, dispatch commands.

A session is one initiator's; each has unit attentions of its own, and is told first of all that there was a reset.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tape.scsi.sense import Key
from tape.scsi.transport import Buffer, Status


class Session:
    """One initiator's way to the devices; two are never the same one.

    Attributes:
        initiator: the port at its other end, by a name that outlives the session.
    """

    __slots__ = ("__weakref__", "initiator")

    def __init__(self, initiator: str) -> None:
        self.initiator = initiator


class Hang(Exception):
    """A command that is never answered: raised by whoever makes faults."""


class Check(Exception):  # SCSI's word for it: check condition
    """A command that ends with sense data, and perhaps with data as well."""

    def __init__(
        self,
        key: Key,
        asc: int,
        ascq: int = 0,
        *,
        filemark: bool = False,
        eom: bool = False,
        ili: bool = False,
        information: int | None = None,
        data: Buffer = b"",
        deferred: bool = False,
    ) -> None:
        super().__init__(f"{key:X}/{asc:02X}/{ascq:02X}")
        self.data = data
        self.key = key
        flags = (0x80 if filemark else 0) | (0x40 if eom else 0) | (0x20 if ili else 0)
        response = (0x71 if deferred else 0x70) | (0x80 if information is not None else 0)
        field = ((information or 0) & 0xFFFFFFFF).to_bytes(4, "big")
        self.sense = bytes((response, 0, flags | key)) + field + bytes((10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0))


def invalid_command() -> Check:
    """Never heard of it."""
    return Check(Key.ILLEGAL_REQUEST, 0x20)


def invalid_field() -> Check:
    """Heard of it, but not like this."""
    return Check(Key.ILLEGAL_REQUEST, 0x24)


def invalid_parameter() -> Check:
    """The command is all right, what it sent along is not."""
    return Check(Key.ILLEGAL_REQUEST, 0x26)


RESET = (0x29, 0x00)
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
        self._lock = threading.RLock()
        self._attentions: dict[Session, list[tuple[int, int]]] = {}
        self._reserved_by: Session | None = None
        self._handlers: dict[int, Handler] = {
            0x00: self._test_unit_ready,
            0x03: lambda _cdb, _data: Check(Key.NO_SENSE, 0).sense,
            0x12: self._inquiry,
            0x1D: lambda _cdb, _data: b"",  # SEND DIAGNOSTIC: the reference dumps drives by it
            0x3C: self._read_buffer,
            0x5E: lambda cdb, _data: bytes(8) if cdb[1] & 0x1F != 2 else bytes((0, 8, 1, 0, 0, 0, 0, 0)),
            0x5F: lambda _cdb, _data: b"",
        }

    def execute(self, session: Session, cdb: bytes, data: Buffer = b"") -> Answer:
        """Carry out one command of one session."""
        with self._lock:
            waiting = self._attentions.setdefault(session, [RESET])
            try:
                if cdb[0] not in self._ATTENTIONS_PASSED:
                    _tell_first(waiting)
                if not self._may(session, cdb[0]):
                    return Answer(Status.RESERVATION_CONFLICT)
                if self.before is not None:
                    self.before(self, cdb)
                handler = self._handlers.get(cdb[0])
                if handler is None:
                    raise invalid_command()
                return Answer(Status.GOOD, handler(cdb, data))
            except Check as check:
                return Answer(Status.CHECK_CONDITION, check.data, check.sense)

    def attention(self, code: tuple[int, int], *, but: Session | None = None) -> None:
        """Have every session that is there be told of something, except one."""
        with self._lock:
            for session, waiting in self._attentions.items():
                if session is not but:
                    waiting.append(code)

    def leave(self, session: Session) -> None:
        """A session has ended."""
        with self._lock:
            self._attentions.pop(session, None)
            if self._reserved_by is session:
                self._reserved_by = None

    def reset(self) -> None:
        """What a bus reset does."""
        with self._lock:
            self._reserved_by = None
            self.attention(RESET)

    def _may(self, session: Session, operation: int) -> bool:
        """RESERVE(6) and RELEASE(6), and who may do what while another holds the device."""
        mine = self._reserved_by is None or self._reserved_by is session
        if operation in (0x16, 0x56) and mine:
            self._reserved_by = session
        if operation in (0x17, 0x57) and self._reserved_by is session:
            self._reserved_by = None
        if operation in (0x16, 0x17, 0x56, 0x57):
            self._handlers.setdefault(operation, lambda _cdb, _data: b"")
        return mine or operation in (0x12, 0xA0, 0x03, 0x17, 0x57)

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
