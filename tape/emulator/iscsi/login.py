"""The login phase: who comes, to what, and on which terms (RFC 7143, 6.3 and 11.12).

    security negotiation (0) ──▶ operational negotiation (1) ──▶ full feature (3)

An initiator may leave any of the first two out. Nobody is asked for a password: whoever reaches the port is let in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tape.emulator.iscsi.parameters import SEGMENT_BYTES, NoAgreement, Parameters
from tape.scsi.pdu import Disconnected, Head, Op, Wire, decode_text, encode_text, following

_OPERATIONAL, _FULL_FEATURE = 1, 3
_TEXT_BYTES_MAX = 64 << 10
PORTAL_GROUP = 1

_SUCCESS = (0x00, 0x00)
_INITIATOR_ERROR = (0x02, 0x00)
_AUTHENTICATION = (0x02, 0x01)
_NOT_FOUND = (0x02, 0x03)
_MISSING_PARAMETER = (0x02, 0x07)
_BAD_SESSION_TYPE = (0x02, 0x09)
_NO_SESSION = (0x02, 0x0A)


class LoginRefused(Exception):
    """It was told so; the connection ends."""


@dataclass(slots=True)
class Login:
    """One initiator's session, as agreed upon.

    Attributes:
        initiator: its name.
        isid: six bytes by which it tells its own sessions apart.
        discovery: it only wants to hear what there is.
        parameters: what was agreed.
        command_number: the next one that it will use (CmdSN).
        status_number: the next one of ours (StatSN).
    """

    initiator: str = ""
    isid: bytes = b""
    discovery: bool = False
    parameters: Parameters = field(default_factory=Parameters)
    command_number: int = 0
    status_number: int = 1


def log_in(wire: Wire, target: str, session: int) -> Login:
    """Lead a connection through the login phase.

    Args:
        wire: the connection, nothing read from it yet.
        target: our name.
        session: the handle that the session will have (TSIH).

    Raises:
        LoginRefused: it did not get in.
        Disconnected: it went away, or speaks something else.
        OSError: the connection broke.
    """
    made = Login()
    offers: dict[str, str] = {}
    sent = bytearray()
    while True:
        head = wire.receive_head()
        if head.op != Op.LOGIN:
            raise Disconnected(f"PDU {head.op:#04x} before the login")
        sent += wire.receive_data(head)
        made.isid = bytes(head.raw[8:14])
        made.command_number = head.get(24)
        if head.get(14) >> 16:  # the handle of a session that it wants to join
            raise _refuse(wire, head, made, _NO_SESSION, "no session can be joined")
        if len(sent) > _TEXT_BYTES_MAX:
            raise _refuse(wire, head, made, _INITIATOR_ERROR, "too much text")
        if head.flags & 0x40:  # the text goes on
            _respond(wire, head, made, b"", 0, flags=head.flags & 0x0C)
            continue
        asked = decode_text(sent)
        sent.clear()
        offers |= asked
        answers = _terms(wire, head, made, asked, offers, target)
        stage, following_stage = head.flags >> 2 & 3, head.flags & 3
        if stage == _OPERATIONAL:
            answers["MaxRecvDataSegmentLength"] = str(SEGMENT_BYTES)
        goes_on = bool(head.flags & 0x80)
        done = goes_on and following_stage == _FULL_FEATURE
        flags = (head.flags & 0x0C) | ((0x80 | following_stage) if goes_on else 0)
        _respond(wire, head, made, encode_text(answers.items()), session if done else 0, flags=flags)
        if done:
            return made


def _terms(
    wire: Wire, head: Head, made: Login, asked: dict[str, str], offers: dict[str, str], target: str
) -> dict[str, str]:
    """Who it is and what it wants, and our answers to what it offers."""
    made.initiator = offers.get("InitiatorName", "")
    if not made.initiator:
        raise _refuse(wire, head, made, _MISSING_PARAMETER, "no InitiatorName")
    match offers.get("SessionType", "Normal"):
        case "Discovery":
            made.discovery = True
        case "Normal":
            if "TargetName" not in offers:
                raise _refuse(wire, head, made, _MISSING_PARAMETER, "no TargetName")
        case other:
            raise _refuse(wire, head, made, _BAD_SESSION_TYPE, f"session type {other}")
    if offers.get("TargetName", target) != target:
        raise _refuse(wire, head, made, _NOT_FOUND, f"there is no {offers['TargetName']}")
    try:
        answers = made.parameters.negotiate(asked)
    except NoAgreement as error:
        status = _AUTHENTICATION if str(error) == "AuthMethod" else _INITIATOR_ERROR
        raise _refuse(wire, head, made, status, f"no agreement on {error}") from error
    if not made.discovery and "TargetName" in asked:
        answers["TargetPortalGroupTag"] = str(PORTAL_GROUP)
    return answers


def _refuse(wire: Wire, head: Head, made: Login, status: tuple[int, int], reason: str) -> LoginRefused:
    _respond(wire, head, made, b"", 0, flags=head.flags & 0x0C, status=status)
    return LoginRefused(f"{made.initiator or 'somebody'}: {reason}")


def _respond(
    wire: Wire, head: Head, made: Login, text: bytes, session: int, *, flags: int, status: tuple[int, int] = _SUCCESS
) -> None:
    answer = Head.of(Op.LOGIN_RESPONSE, flags=flags, lun=made.isid + session.to_bytes(2, "big"), tag=head.tag)
    answer.put(24, made.status_number)
    answer.put(28, made.command_number)
    answer.put(32, made.command_number + 1)
    answer.raw[36], answer.raw[37] = status
    made.status_number = following(made.status_number)
    wire.send(answer, text)
