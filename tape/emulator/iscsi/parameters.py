"""What is negotiated at login (RFC 7143, 13): how large pieces are, and who may send what unasked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SEGMENT_BYTES = 1 << 20
"""What one PDU may bring us."""
_BURST_BYTES = 8 << 20
_FIRST_BURST_BYTES = 1 << 20

_SMALLEST = {
    "MaxBurstLength": _BURST_BYTES,
    "FirstBurstLength": _FIRST_BURST_BYTES,
    "MaxConnections": 1,
    "MaxOutstandingR2T": 1,
    "ErrorRecoveryLevel": 0,
    "DefaultTime2Retain": 0,
}
_GREATEST = {"DefaultTime2Wait": 2}
_BOTH_WANT = {"ImmediateData": True}
_EITHER_WANTS = {"InitialR2T": False, "DataPDUInOrder": True, "DataSequenceInOrder": True}
_ONE_OF = {"AuthMethod": "None", "HeaderDigest": "None", "DataDigest": "None"}
_MARKERS = {"IFMarker": "No", "OFMarker": "No"}
_DECLARED = {"InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "MaxRecvDataSegmentLength"}


class NoAgreement(Exception):
    """What the initiator insists on cannot be had; the key says what."""


@dataclass(slots=True)
class Parameters:
    """What both sides hold to; begins with the defaults of the RFC.

    Attributes:
        segment_bytes: what one PDU may bring the initiator.
        burst_bytes: one sequence of data.
        first_burst_bytes: what comes without being asked for.
        initial_r2t: whether nothing but immediate data comes so.
        immediate_data: whether data come with the command.
    """

    segment_bytes: int = 8192
    burst_bytes: int = 262_144
    first_burst_bytes: int = 65_536
    initial_r2t: bool = True
    immediate_data: bool = True

    def negotiate(self, offers: Mapping[str, str]) -> dict[str, str]:
        """Take what is offered into account; gives the answers.

        Raises:
            NoAgreement: an offer leaves us nothing.
        """
        answers = {key: answer for key, value in offers.items() if (answer := _answer(key, value)) is not None}
        try:
            self.segment_bytes = _within(int(offers.get("MaxRecvDataSegmentLength", str(self.segment_bytes)), 0))
            self.burst_bytes = _within(int(answers.get("MaxBurstLength", self.burst_bytes)))
            self.first_burst_bytes = _within(int(answers.get("FirstBurstLength", self.first_burst_bytes)))
        except ValueError as error:
            raise NoAgreement(str(error)) from error
        self.initial_r2t = answers.get("InitialR2T", _yes(self.initial_r2t)) == "Yes"
        self.immediate_data = answers.get("ImmediateData", _yes(self.immediate_data)) == "Yes"
        self.first_burst_bytes = min(self.first_burst_bytes, self.burst_bytes)
        return answers


def _within(size: int) -> int:
    if not 512 <= size < 1 << 24:
        raise ValueError(f"a length of {size} bytes")
    return size


def _answer(key: str, value: str) -> str | None:
    """Ours to one offer; None where it is only a declaration."""
    try:
        if key in _DECLARED:
            return None
        if key in _ONE_OF:
            if _ONE_OF[key] not in value.split(","):
                raise NoAgreement(key)
            return _ONE_OF[key]
        if key in _SMALLEST:
            return str(min(int(value, 0), _SMALLEST[key]))
        if key in _GREATEST:
            return str(max(int(value, 0), _GREATEST[key]))
    except ValueError:
        return "Reject"
    if key in _BOTH_WANT:
        return _yes(value == "Yes" and _BOTH_WANT[key])
    if key in _EITHER_WANTS:
        return _yes(value == "Yes" or _EITHER_WANTS[key])
    return _MARKERS.get(key, "NotUnderstood")


def _yes(wanted: bool) -> str:
    return "Yes" if wanted else "No"
