"""READ ATTRIBUTE and WRITE ATTRIBUTE: a cartridge's memory, as an emulated drive shows it."""

from __future__ import annotations

from collections.abc import Callable

from tape.emulator import life
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import invalid_field, invalid_parameter
from tape.errors import FormatError
from tape.memory import Attribute, Form, Id, decode
from tape.scsi.transport import Buffer

_MIB = 1 << 20
_OURS = range(0x0800, 0x0C00)  # what hosts may write: SPC's host attributes, and LTFS's lock
_WRITABLE = {*_OURS, Id.VOLUME_LOCK}


def read(tape: Cartridge, cdb: bytes, *, loads: int, reference_was_read: Callable[[], None]) -> bytes:
    """Attributes from an identifier on, which there are, or how many partitions.

    Args:
        tape: the cartridge.
        cdb: the command.
        loads: how often the drive was loaded.
        reference_was_read: told when whoever asks has got the volume change reference.

    Raises:
        Check: there is no such partition, or nothing of that identifier.
    """
    action, partition, first = cdb[1] & 0x1F, cdb[7], int.from_bytes(cdb[8:10], "big")
    length = int.from_bytes(cdb[10:14], "big")
    if partition >= tape.partitions:
        raise invalid_field()
    known = _all(tape, partition, loads)
    match action:
        case 0x00:
            if first not in known:
                raise invalid_field()
            body = b"".join(known[identifier] for identifier in sorted(known) if identifier >= first)
        case 0x01:
            body = b"".join(identifier.to_bytes(2, "big") for identifier in sorted(known))
        case 0x03:
            body = bytes((0, tape.partitions))
        case _:
            raise invalid_field()
    if action == 0x00 and first <= Id.VOLUME_CHANGE_REFERENCE:
        reference_was_read()
    return (len(body).to_bytes(4, "big") + body)[:length]


def write(tape: Cartridge, cdb: bytes, data: Buffer) -> bytes:
    """Keep attributes; all of them, or none.

    Raises:
        Check: one of them only the drive writes; or it is malformed.
    """
    sent = bytes(data)
    partition = cdb[7]
    if partition >= tape.partitions or len(sent) < 4 or int.from_bytes(sent[:4], "big") != len(sent) - 4:
        raise invalid_parameter()
    try:
        attributes = list(decode(sent[4:], "sent"))
    except FormatError:
        raise invalid_parameter() from None
    if sum(len(attribute.encode()) for attribute in attributes) != len(sent) - 4:
        raise invalid_parameter()
    if any(attribute.id not in _WRITABLE for attribute in attributes):
        raise invalid_parameter()
    for attribute in attributes:
        tape.set_attribute(partition, attribute.id, attribute.encode())
    return b""


def move_reference(tape: Cartridge) -> None:
    """The volume change reference moves: something was written."""
    before = tape.attributes(0).get(Id.VOLUME_CHANGE_REFERENCE, bytes(9))
    number = int.from_bytes(before[5:], "big") + 1
    record = Attribute(Id.VOLUME_CHANGE_REFERENCE, Form.BINARY, number.to_bytes(4, "big"), read_only=True)
    tape.set_attribute(0, record.id, record.encode())


def _medium_type(tape: Cartridge) -> int:
    return 0x01 if life.is_cleaning(tape) else 0x80 if tape.kind.worm else 0x00


def _all(tape: Cartridge, partition: int, loads: int) -> dict[int, bytes]:
    capacity = tape.capacity_bytes(partition)
    numbers = {
        Id.REMAINING_MIB: (max(capacity - tape.tracks[partition].used_bytes, 0) // _MIB, 8),
        Id.MAXIMUM_MIB: (capacity // _MIB, 8),
        Id.ALERTS: (0, 8),
        Id.LOADS: (loads, 8),
    }
    if partition == 0:
        numbers |= {Id.DENSITY: (tape.kind.density, 1), Id.MEDIUM_TYPE: (_medium_type(tape), 1)}
    made = [Attribute(key, Form.BINARY, value.to_bytes(size, "big"), True) for key, (value, size) in numbers.items()]
    if partition == 0:
        made += [
            Attribute(Id.MAKER, Form.ASCII, b"EMULATED", True),
            Attribute(Id.SERIAL, Form.ASCII, tape.barcode.encode("ascii", "replace")[:32].ljust(32), True),
        ]
    known = {int(attribute.id): attribute.encode() for attribute in made}
    kept = tape.attributes(partition)
    if partition:  # the reference is the cartridge's, whichever partition is asked
        kept = {**{key: value for key, value in tape.attributes(0).items() if key == 0x0009}, **kept}
    return known | kept
