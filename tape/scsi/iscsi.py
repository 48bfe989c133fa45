"""A small iSCSI initiator: a way to devices for which the host has no driver, and no need of one.

    session    ──login──▶ one command at a time: ──command, data──▶ ◀──data, status──

One session with one logical unit. A connection that breaks, or does not answer in time, is given up; the next command
makes a new one. What the target had begun is then aborted by it, and whoever uses the device is told by a unit
attention (29/07, the nexus was lost) before anything else is done: what stood where must be looked at anew, as after a
bus reset.
No digests, no CHAP.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tape.errors import TransportError
from tape.scsi.pdu import NO_TAG, Disconnected, Head, Op, Wire, decode_text, encode_text, following
from tape.scsi.transport import Buffer, Reply, Status

PORT = 3260
_SEGMENT_BYTES = 1 << 20
_TRANSFER_BYTES = 8 << 20
_BURST_BYTES = 8 << 20
_LOGIN_S = 30.0
_LOGOUT_S = 2.0
_NEXUS_LOST = bytes((0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0x07, 0, 0, 0, 0))
_TOLD_LATER = {0x12, 0xA0, 0x03}  # INQUIRY, REPORT LUNS, REQUEST SENSE: answered whatever happened (SPC)
_OFFERED = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxRecvDataSegmentLength": str(_SEGMENT_BYTES),
    "MaxBurstLength": str(_BURST_BYTES),
    "FirstBurstLength": str(_SEGMENT_BYTES),
    "MaxOutstandingR2T": "1",
    "MaxConnections": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "0",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a logical unit is.

    Attributes:
        host: name or address.
        port: TCP's.
        target: its iSCSI name.
        lun: its number there.
    """

    host: str
    port: int
    target: str
    lun: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """From ``iscsi://HOST[:PORT]/TARGET/LUN``.

        Raises:
            ValueError: it is no such thing.
        """
        parts = urlsplit(url)
        names = parts.path.split("/")
        if parts.scheme != "iscsi" or not parts.hostname or len(names) != 3 or not names[1] or not names[2].isdigit():
            raise ValueError(f"{url}: not iscsi://HOST[:PORT]/TARGET/LUN")
        if int(names[2]) > 255:
            raise ValueError(f"{url}: LUNs end at 255")
        return cls(parts.hostname, parts.port or PORT, unquote(names[1]), int(names[2]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"iscsi://{host}:{self.port}/{self.target}/{self.lun}"


class IscsiTransport:
    """One session with one logical unit."""

    def __init__(
        self, url: str, *, initiator: str = "iqn.2026-11.vcbproxy:initiator", login_timeout_s: float = _LOGIN_S
    ) -> None:
        """Log in.

        Args:
            url: ``iscsi://HOST[:PORT]/TARGET/LUN``.
            initiator: our own iSCSI name.
            login_timeout_s: how long each step of a login may take, also of a later one.

        Raises:
            ValueError: ``url`` is none.
            TransportError: there is no such target, or it lets us not in.
        """
        self._address = Address.parse(url)
        self._initiator = initiator
        self._login_timeout_s = login_timeout_s
        self._isid = b"\x80" + os.urandom(3) + b"\0\0"  # of random format: another session for each transport
        self._session: _Session | None = self._log_in()
        self._lost = False

    @property
    def name(self) -> str:
        """Its URL."""
        return str(self._address)

    @property
    def transfer_bytes_max(self) -> int:
        """Eight MiB."""
        return _TRANSFER_BYTES

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        """Send it, and wait for its status."""
        assert data_in is None or not data_out, "data in both directions"
        if self._session is None:
            self._session = self._log_in()
            self._lost = True
        if self._lost and cdb[0] not in _TOLD_LATER:
            self._lost = False
            return Reply(Status.CHECK_CONDITION, _NEXUS_LOST)
        try:
            return self._session.run(cdb, data_out, data_in, timeout_s)
        except OSError as error:
            self._drop()
            raise TransportError(device=self.name, command=f"{cdb[0]:02X}h", reason=_reason(error)) from error
        except BaseException:
            self._drop()  # an interrupt, perhaps: what was half said would be gone on with by the next command
            raise

    def close(self) -> None:
        """Log out."""
        if self._session is not None:
            with suppress(OSError):  # then the target learns of it from the connection's end
                self._session.log_out()
            self._drop()

    def _drop(self) -> None:
        if self._session is not None:
            self._session.wire.close()
            self._session = None

    def _log_in(self) -> _Session:
        try:
            connected = socket.create_connection(
                (self._address.host, self._address.port), timeout=self._login_timeout_s
            )
        except OSError as error:
            raise TransportError(device=self.name, command="connect", reason=_reason(error)) from error
        wire = Wire(connected, _SEGMENT_BYTES)
        try:
            session = _Session(wire, self._address.lun)
            session.log_in(self._initiator, self._isid, self._address.target)
        except (OSError, ValueError) as error:
            wire.close()
            raise TransportError(device=self.name, command="login", reason=_reason(error)) from error
        return session


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Session:
    """One connection that is logged in, with the numbers that both sides count."""

    def __init__(self, wire: Wire, lun: int) -> None:
        self.wire = wire
        self._lun = lun.to_bytes(2, "big") + bytes(6)
        self._tag = 0
        self._command_number = 1
        self._expected_status = 0
        self._segment_bytes = 8192
        self._first_burst_bytes = 65_536
        self._immediate = True
        self._unasked = False

    # ------------------------------------------------------------------ login

    def log_in(self, initiator: str, isid: bytes, target: str) -> None:
        """Two steps: who we are, and on which terms.

        Raises:
            Disconnected: refused.
            OSError: the connection broke, or nothing came in time.
        """
        who = {"InitiatorName": initiator, "TargetName": target, "SessionType": "Normal", "AuthMethod": "None"}
        self._login_step(isid, 0, 1, who)
        agreed = self._login_step(isid, 1, 3, _OFFERED)
        self._segment_bytes = min(int(agreed.get("MaxRecvDataSegmentLength", "8192")), _TRANSFER_BYTES)
        self._first_burst_bytes = min(int(agreed.get("FirstBurstLength", "65536")), _SEGMENT_BYTES)
        self._immediate = agreed.get("ImmediateData", "Yes") == "Yes"
        self._unasked = agreed.get("InitialR2T", "Yes") == "No"

    def _login_step(self, isid: bytes, stage: int, following_stage: int, offers: dict[str, str]) -> dict[str, str]:
        head = Head.of(Op.LOGIN, flags=0x80 | stage << 2 | following_stage, lun=isid, tag=0, immediate=True)
        head.put(24, self._command_number)
        head.put(28, self._expected_status)
        self.wire.send(head, encode_text(offers.items()))
        answer = self.wire.receive_head()
        agreed = decode_text(self.wire.receive_data(answer))
        if answer.op != Op.LOGIN_RESPONSE:
            raise Disconnected(f"a login was answered with PDU {answer.op:#04x}")
        status = answer.raw[36], answer.raw[37]
        if status[0]:
            raise Disconnected(_REFUSALS.get(status, f"the login was refused with {status[0]:02x}/{status[1]:02x}"))
        if not answer.flags & 0x80 or answer.flags & 3 != following_stage:
            raise Disconnected("the target wants to negotiate what we do not offer")
        self._expected_status = following(answer.get(24))
        return agreed

    def log_out(self) -> None:
        """Say that we leave; the answer is not waited for longer than moments."""
        self.wire.set_timeout(_LOGOUT_S)
        head = self._numbered(Head.of(Op.LOGOUT, flags=0x80, tag=self._next_tag()))
        self.wire.send(head)
        while self.wire.receive_head().op != Op.LOGOUT_RESPONSE:
            pass

    # ------------------------------------------------------------------ commands

    def run(self, cdb: bytes, data_out: Buffer, data_in: memoryview | None, timeout_s: float) -> Reply:
        """One command.

        Raises:
            OSError: it did not get through, or was not answered in time.
        """
        self.wire.set_timeout(timeout_s)
        out = memoryview(data_out)
        expected = len(out) or (len(data_in) if data_in is not None else 0)
        tag = self._next_tag()
        unasked = min(len(out), self._first_burst_bytes)
        at = min(unasked, self._segment_bytes) if self._immediate else 0
        unasked = unasked if self._unasked else at
        flags = 0x01 | (0x80 if at == unasked else 0) | (0x40 if data_in is not None else 0) | (0x20 if out else 0)
        head = self._numbered(Head.of(Op.COMMAND, flags=flags, lun=self._lun, tag=tag))
        head.put(20, expected)
        head.raw[32:48] = cdb.ljust(16, b"\0")
        self.wire.send(head, out[:at])
        if at < unasked:
            self._send_data(tag, NO_TAG, out, at, unasked)
        return self._await(tag, out, data_in, expected)

    def _await(self, tag: int, out: memoryview, data_in: memoryview | None, expected: int) -> Reply:
        while True:
            head = self.wire.receive_head()
            match head.op:
                case Op.NOP_IN:
                    self._answer_ping(head, self.wire.receive_data(head))
                case Op.READY_TO_TRANSFER if head.tag == tag:
                    at, end = head.get(40), head.get(40) + head.get(44)
                    if end > len(out):
                        raise Disconnected(f"data were asked for up to byte {end}, of {len(out)}")
                    self._send_data(tag, head.get(20), out, at, end)
                case Op.DATA_IN if head.tag == tag:
                    self._take(head, data_in)
                    if head.flags & 0x01:
                        self._expected_status = following(head.get(24))
                        return Reply(head.raw[3], b"", expected - _residue(head))
                case Op.RESPONSE if head.tag == tag:
                    return self._concluded(head, expected)
                case Op.REJECT:
                    raise Disconnected(f"the target rejected a PDU, reason {head.raw[2]:#04x}")
                case Op.ASYNCHRONOUS:
                    self.wire.receive_data(head)
                    if head.raw[36]:  # other than news of a logical unit: it asks us to leave, or drops us
                        raise Disconnected(f"the target ends the session, event {head.raw[36]}")
                case _:
                    raise Disconnected(f"PDU {head.op:#04x} of task {head.tag:#x} came unexpectedly")

    def _concluded(self, head: Head, expected: int) -> Reply:
        told = self.wire.receive_data(head)
        self._expected_status = following(head.get(24))
        if head.raw[2]:
            raise Disconnected(f"the target failed, response {head.raw[2]:#04x}")
        sense = bytes(told[2 : 2 + int.from_bytes(told[:2], "big")]) if len(told) > 2 else b""
        return Reply(head.raw[3], sense, expected - _residue(head))

    def _take(self, head: Head, data_in: memoryview | None) -> None:
        at, length = head.get(40), head.data_bytes
        if data_in is None or at + length > len(data_in):
            raise Disconnected(f"{length} bytes came for byte {at} of {len(data_in) if data_in is not None else 0}")
        self.wire.receive_into(data_in[at : at + length])

    def _send_data(self, tag: int, transfer_tag: int, out: memoryview, start: int, end: int) -> None:
        for number, at in enumerate(range(start, end, self._segment_bytes)):
            piece = out[at : min(at + self._segment_bytes, end)]
            head = Head.of(Op.DATA_OUT, flags=0x80 if at + len(piece) == end else 0, lun=self._lun, tag=tag)
            head.put(20, transfer_tag)
            head.put(28, self._expected_status)
            head.put(36, number)
            head.put(40, at)
            self.wire.send(head, piece)

    def _answer_ping(self, head: Head, data: bytearray) -> None:
        if head.get(20) == NO_TAG:
            return
        answer = Head.of(Op.NOP_OUT, lun=head.lun, immediate=True)
        answer.put(20, head.get(20))
        answer.put(24, self._command_number)
        answer.put(28, self._expected_status)
        self.wire.send(answer, data)

    def _next_tag(self) -> int:
        self._tag = (self._tag + 1) % NO_TAG
        return self._tag

    def _numbered(self, head: Head) -> Head:
        head.put(24, self._command_number)
        head.put(28, self._expected_status)
        self._command_number = following(self._command_number)
        return head


def _residue(head: Head) -> int:
    """What of the expected length did not come or go; more than was expected is none of ours."""
    return head.get(44) if head.flags & 0x02 else 0


_REFUSALS = {
    (0x01, 0x01): "the target has moved for a while; log in where it says",
    (0x01, 0x02): "the target has moved for good; log in where it says",
    (0x02, 0x01): "the target wants a password, which this initiator cannot give",
    (0x02, 0x02): "this initiator may not use that target",
    (0x02, 0x03): "there is no such target",
    (0x03, 0x01): "the target is not in service",
}
