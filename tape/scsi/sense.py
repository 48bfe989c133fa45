"""Sense data: what a device has to say when a command did not simply succeed.

Two formats carry the same (SPC-5, 4.4): fixed (70h, 71h) and descriptors (72h, 73h). 71h and 73h are *deferred*: they
speak of an earlier command, for tape mostly a buffered write that failed behind our back. Those are errors of the
cartridge all the same, and never those of the command that happened to be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tape import errors


class Key(IntEnum):
    """The sense key."""

    NO_SENSE = 0x0
    RECOVERED = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR = 0x9
    COPY_ABORTED = 0xA
    ABORTED = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense data, decoded.

    Attributes:
        key: what kind of thing happened; a number that SPC does not define is kept as it is.
        asc: additional sense code.
        ascq: its qualifier.
        filemark: a filemark was met.
        eom: end of medium, or the early warning before it.
        ili: the block had another length than was asked for.
        information: signed; for tape what is left of the requested length or count. None when not valid.
        deferred: it speaks of an earlier command.
    """

    key: int
    asc: int
    ascq: int
    filemark: bool = False
    eom: bool = False
    ili: bool = False
    information: int | None = None
    deferred: bool = False

    @property
    def code(self) -> tuple[int, int]:
        """Additional sense code and qualifier."""
        return self.asc, self.ascq


def decode(data: bytes) -> Sense | None:
    """Decode sense data; None when there is nothing to decode."""
    if len(data) < 4:
        return None
    response = data[0] & 0x7F
    if response in (0x72, 0x73):
        return _descriptors(data, deferred=response == 0x73)
    if response in (0x70, 0x71):
        return _fixed(data, deferred=response == 0x71)
    return None


def _fixed(data: bytes, *, deferred: bool) -> Sense:
    flags = data[2]
    information = int.from_bytes(data[3:7], "big", signed=True) if data[0] & 0x80 and len(data) >= 7 else None
    asc, ascq = (data[12], data[13]) if len(data) >= 14 else (0, 0)
    return Sense(
        flags & 0x0F, asc, ascq, bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20), information, deferred
    )


def _descriptors(data: bytes, *, deferred: bool) -> Sense:
    information: int | None = None
    filemark = eom = ili = False
    at, end = 8, min(8 + (data[7] if len(data) > 7 else 0), len(data))
    while at + 2 <= end:
        kind, length = data[at], data[at + 1]
        body = data[at + 2 : at + 2 + length]
        if kind == 0x00 and len(body) >= 10 and body[0] & 0x80:
            information = int.from_bytes(body[2:10], "big", signed=True)
        elif kind == 0x04 and len(body) >= 2:  # stream commands
            filemark, eom, ili = bool(body[1] & 0x80), bool(body[1] & 0x40), bool(body[1] & 0x20)
        at += 2 + length
    return Sense(data[1] & 0x0F, data[2], data[3], filemark, eom, ili, information, deferred)


def failure(sense: Sense, device: str, command: str) -> errors.DeviceFailure:
    """The error that sense data stand for."""
    told = f"{command} (an earlier command failed)" if sense.deferred else command
    error = _class_of(sense)
    return error(device=device, command=told, reason=meaning(sense), key=sense.key, asc=sense.asc, ascq=sense.ascq)


def _class_of(sense: Sense) -> type[errors.DeviceFailure]:
    match sense.key:
        case Key.NOT_READY:
            return errors.NoMedium if sense.asc == 0x3A else errors.NotReady
        case Key.UNIT_ATTENTION:
            return errors.MediumChanged if sense.code in _MEDIUM_CHANGED else errors.UnitAttention
        case Key.MEDIUM_ERROR:
            return errors.MediumError
        case Key.HARDWARE_ERROR:
            return errors.HardwareError
        case Key.ILLEGAL_REQUEST:
            return _REFUSALS.get(sense.code, errors.RemovalPrevented if sense.asc == 0x53 else errors.RefusedCommand)
        case Key.DATA_PROTECT:
            return errors.KeyWanted if sense.asc == 0x74 else errors.WriteProtected
        case Key.BLANK_CHECK:
            return errors.EndOfData
        case Key.VOLUME_OVERFLOW:
            return errors.VolumeOverflow
    return errors.DeviceFailure


_REFUSALS: dict[tuple[int, int], type[errors.DeviceFailure]] = {
    (0x3B, 0x0D): errors.DestinationFull,
    (0x3B, 0x0E): errors.SourceEmpty,
}
_MEDIUM_CHANGED = {(0x28, 0x00), (0x28, 0x01), (0x3B, 0x12), (0x3B, 0x13)}


def meaning(sense: Sense) -> str:
    """In words, for messages: the codes that tapes and robots give."""
    for code in (sense.code, (sense.asc, None)):
        if code in _WORDS:
            return _WORDS[code]
    try:
        return Key(sense.key).name.lower().replace("_", " ")
    except ValueError:
        return "unknown sense"


# Additional sense codes of SPC, in our words; None stands for any qualifier.
_WORDS: dict[tuple[int, int | None], str] = {
    (0x00, 0x01): "a filemark was met",
    (0x00, 0x02): "the end of the partition, or its early warning",
    (0x00, 0x05): "the end of what is recorded",
    (0x00, 0x07): "the programmable early warning",
    (0x00, 0x17): "the drive wants to be cleaned",
    (0x04, 0x01): "it is becoming ready",
    (0x04, 0x02): "it wants to be started",
    (0x04, 0x03): "it wants a person's help",
    (0x04, 0x12): "it is off line",
    (0x04, 0x18): "its door is open",
    (0x04, None): "it is not ready",
    (0x0C, None): "a write failed",
    (0x11, None): "a read failed beyond repair",
    (0x14, None): "what was looked for was not found on the tape",
    (0x15, None): "positioning failed",
    (0x1A, None): "a parameter list of the wrong length",
    (0x20, None): "it does not know this command",
    (0x21, 0x01): "there is no element of this address",
    (0x24, None): "a field of the command that it does not take",
    (0x25, None): "there is no such logical unit",
    (0x26, None): "a parameter that it does not take",
    (0x27, None): "write protected",
    (0x28, 0x00): "the cartridge may have been changed",
    (0x28, 0x01): "an import or export element was accessed",
    (0x29, None): "it was reset, or switched on",
    (0x2A, 0x03): "another host has broken the reservation",
    (0x2A, 0x05): "another host has broken the reservation",
    (0x2A, 0x01): "its mode parameters were changed",
    (0x2A, 0x11): "another host has changed what it encrypts with",
    (0x2A, 0x12): "it encrypts otherwise than before",
    (0x2A, 0x13): "another encryption key was set",
    (0x2A, None): "its parameters were changed",
    (0x2C, None): "not in this order",
    (0x30, 0x03): "a cleaning cartridge is in it",
    (0x30, 0x05): "the cartridge cannot be written: of a format that this drive only reads",
    (0x30, None): "a cartridge that it cannot use",
    (0x31, None): "the cartridge's format is damaged",
    (0x33, None): "the tape's length is wrong",
    (0x3A, None): "no cartridge is in it",
    (0x3B, 0x00): "positioning failed",
    (0x3B, 0x0D): "the destination is full",
    (0x3B, 0x0E): "the source is empty",
    (0x3B, 0x12): "a magazine was removed",
    (0x3B, 0x13): "a magazine was inserted",
    (0x3F, None): "its operating conditions have changed",
    (0x44, None): "an internal failure",
    (0x50, None): "writing on behind this place failed",
    (0x51, None): "erasing failed",
    (0x52, None): "the cartridge failed",
    (0x53, 0x02): "removal of the cartridge is prevented",
    (0x53, None): "the cartridge could not be loaded or ejected",
    (0x5D, None): "it expects to fail soon",
    (0x74, None): "encryption: the key does not fit, or none is set",
}
