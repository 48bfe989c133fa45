"""One iSCSI session (RFC 7143), from its login to its logout: one command at a time, and data both ways.

    ──login──▶ one command at a time: ──command, data──▶ ◀──data, status──

One connection, no digests, no CHAP.
"""

from __future__ import annotations

from tape.scsi.pdu import NO_TAG, Disconnected, Head, Op, Wire, decode_text, encode_text, following
from tape.scsi.transport import Buffer, Reply

SEGMENT_BYTES = 1 << 20
TRANSFER_BYTES = 8 << 20
_BURST_BYTES = 8 << 20
_LOGOUT_S = 2.0
_OFFERED = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxRecvDataSegmentLength": str(SEGMENT_BYTES),
    "MaxBurstLength": str(_BURST_BYTES),
    "FirstBurstLength": str(SEGMENT_BYTES),
    "MaxOutstandingR2T": "1",
    "MaxConnections": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "0",
}


class Session:
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
        self._segment_bytes = min(int(agreed.get("MaxRecvDataSegmentLength", "8192")), TRANSFER_BYTES)
        self._first_burst_bytes = min(int(agreed.get("FirstBurstLength", "65536")), SEGMENT_BYTES)
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
