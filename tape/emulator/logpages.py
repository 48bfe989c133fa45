"""LOG SENSE of an emulated drive: what a monitoring program asks it. Counters begin anew with each cartridge."""

from __future__ import annotations

from tape.emulator.bay import Bay
from tape.emulator.check import invalid_field

_MIB = 1 << 20
_PAGES = (0x00, 0x02, 0x03, 0x0C, 0x14, 0x17, 0x2E, 0x31)
_ALERTS = range(1, 65)
_CLEANING_WANTED = {20, 21}


def sense(drive: Bay, cdb: bytes) -> bytes:
    """One page.

    Raises:
        Check: there is no such page.
    """
    page, subpage, length = cdb[2] & 0x3F, cdb[3], int.from_bytes(cdb[7:9], "big")
    if subpage:
        raise invalid_field()
    match page:
        case 0x00:
            body = bytes(_PAGES)
        case 0x02:
            body = _errors(drive.deck.written_bytes)
        case 0x03:
            body = _errors(drive.deck.read_bytes)
        case 0x0C:
            body = _traffic(drive)
        case 0x14:
            body = _counter(0x00, drive.loads) + _counter(0x01, drive.cleanings)
        case 0x17:
            body = _volume(drive)
        case 0x2E:
            body = b"".join(_counter(code, int(code in drive.alerts), 1) for code in _ALERTS)
            drive.alerts.clear()  # reading takes the flags down
        case 0x31:
            body = _capacity(drive)
        case _:
            raise invalid_field()
    return (bytes((page, 0)) + len(body).to_bytes(2, "big") + body)[:length]


def _counter(code: int, value: int, length: int = 4) -> bytes:
    return code.to_bytes(2, "big") + bytes((0x40 if length < 4 else 0x00, length)) + value.to_bytes(length, "big")


def _text(code: int, text: str, length: int) -> bytes:
    return code.to_bytes(2, "big") + bytes((0x01, length)) + text.encode("ascii", "replace")[:length].ljust(length)


def _errors(processed_bytes: int) -> bytes:
    """Seven counters, of which only the bytes processed move: there are no errors but those made on purpose."""
    return b"".join(_counter(code, processed_bytes if code == 5 else 0, 8) for code in range(7))


def _traffic(drive: Bay) -> bytes:
    """Of data, from the host and onto tape, off the tape and to the host; and whether it wants to be cleaned."""
    deck = drive.deck
    sizes = (deck.written_bytes, deck.written_bytes, deck.read_bytes, deck.read_bytes)
    return b"".join(_counter(code, size, 8) for code, size in enumerate(sizes)) + _counter(
        0x100, int(bool(_CLEANING_WANTED & drive.alerts)), 1
    )


def _mib(drive: Bay, partition: int) -> tuple[int, int, int]:
    """Capacity, used, left."""
    tape = drive.cartridge
    if tape is None or partition >= tape.partitions:
        return 0, 0, 0
    capacity, used = tape.capacity_bytes(partition), tape.tracks[partition].used_bytes
    return capacity // _MIB, used // _MIB, max(capacity - used, 0) // _MIB


def _capacity(drive: Bay) -> bytes:
    sizes = [_mib(drive, partition) for partition in (0, 1)]
    return b"".join(
        _counter(code, value)
        for code, value in enumerate([*(size[2] for size in sizes), *(size[0] for size in sizes)], 1)
    )


def _volume(drive: Bay) -> bytes:
    """Of the cartridge in it; the first parameter says whether there is one."""
    tape, deck = drive.cartridge, drive.deck
    if tape is None:
        return _counter(0x00, 0, 1)
    sizes = [_mib(drive, partition) for partition in range(tape.partitions)]
    numbers = dict.fromkeys(range(0x01, 0x0B), 0) | {0x05: drive.pace.stops}
    numbers |= {0x0E: deck.written_bytes // _MIB, 0x0F: deck.read_bytes // _MIB}
    return (
        _counter(0x00, 1, 1)
        + b"".join(_counter(code, value) for code, value in sorted(numbers.items()))
        + _text(0x40, tape.barcode, 32)
        + _text(0x42, tape.barcode, 32)
        + _counter(0x80, int(tape.kind.write_protected), 1)
        + _counter(0x81, int(tape.kind.worm), 1)
        + b"".join(
            _by_partition(code, [size[column] for size in sizes]) for column, code in enumerate((0x202, 0x203, 0x204))
        )
    )


def _by_partition(code: int, values: list[int]) -> bytes:
    records = b"".join(
        bytes((7, 0)) + n.to_bytes(2, "big") + value.to_bytes(4, "big") for n, value in enumerate(values)
    )
    return code.to_bytes(2, "big") + bytes((0x03, len(records))) + records
