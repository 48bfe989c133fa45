"""LOG SENSE of an emulated drive: what a monitoring program asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tape.emulator.check import invalid_field

if TYPE_CHECKING:
    from tape.emulator.drive import DriveLun

_MIB = 1 << 20
_PAGES = (0x00, 0x02, 0x03, 0x0C, 0x14, 0x17, 0x2E, 0x31)
_ALERTS = range(1, 65)


def sense(drive: DriveLun, cdb: bytes) -> bytes:
    """One page.

    Raises:
        Check: there is no such page.
    """
    page, length = cdb[2] & 0x3F, int.from_bytes(cdb[7:9], "big")
    match page:
        case 0x00:
            body = bytes(_PAGES)
        case 0x02 | 0x03:
            body = b"".join(_counter(code, 0) for code in range(7))
        case 0x0C:
            body = _counter(0x100, int(bool({20, 21} & drive.alerts)), 1)
        case 0x14:
            body = _counter(0x00, drive.loads) + _counter(0x01, 0)  # loads in its life, cleanings
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


def _mib(drive: DriveLun, partition: int) -> tuple[int, int, int]:
    """Capacity, used, left."""
    tape = drive.cartridge
    if tape is None or partition >= tape.partitions:
        return 0, 0, 0
    capacity, used = tape.capacity_bytes(partition), tape.used_bytes(partition)
    return capacity // _MIB, used // _MIB, max(capacity - used, 0) // _MIB


def _capacity(drive: DriveLun) -> bytes:
    sizes = [_mib(drive, partition) for partition in (0, 1)]
    return b"".join(
        _counter(code, value)
        for code, value in enumerate([*(size[2] for size in sizes), *(size[0] for size in sizes)], 1)
    )


def _volume(drive: DriveLun) -> bytes:
    partitions = range(drive.cartridge.partitions if drive.cartridge is not None else 1)
    sizes = [_mib(drive, partition) for partition in partitions]
    plain = _counter(0x00, 1, 1) + b"".join(_counter(code, 0) for code in range(1, 10))
    return plain + b"".join(
        _by_partition(code, [size[column] for size in sizes]) for column, code in enumerate((0x202, 0x203, 0x204))
    )


def _by_partition(code: int, values: list[int]) -> bytes:
    records = b"".join(
        bytes((7, 0)) + n.to_bytes(2, "big") + value.to_bytes(4, "big") for n, value in enumerate(values)
    )
    return code.to_bytes(2, "big") + bytes((0x03, len(records))) + records
