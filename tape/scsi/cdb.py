"""Command descriptor blocks: what is sent to drives (SSC) and robots (SMC), and to both (SPC). All numbers big-endian.

Each function gives the bytes of one command; names are those of the standards.
"""

from __future__ import annotations

import struct

# ------------------------------------------------------------------ any device


def test_unit_ready() -> bytes:
    """Say whether you can work."""
    return bytes(6)


def inquiry(length: int, page: int | None = None) -> bytes:
    """Say who you are; or give one page of vital product data: 80h the serial number, 83h the identifiers."""
    return struct.pack(">BBBHB", 0x12, page is not None, page or 0, length, 0)


def mode_sense(page: int, length: int, subpage: int = 0, *, block_descriptor: bool = True) -> bytes:
    """Give a page of parameters, MODE SENSE(10)."""
    return struct.pack(">BBBB3xHB", 0x5A, 0 if block_descriptor else 0x08, page, subpage, length, 0)


def mode_select(length: int) -> bytes:
    """Take pages of parameters, MODE SELECT(10); they are pages by the standard (PF)."""
    return struct.pack(">BB5xHB", 0x55, 0x10, length, 0)


def log_sense(page: int, length: int, subpage: int = 0) -> bytes:
    """Give a page of counters, their cumulative values."""
    return struct.pack(">BBBBxHHB", 0x4D, 0, 0x40 | page, subpage, 0, length, 0)


def prevent_removal(prevented: bool) -> bytes:
    """Hold the cartridge in the drive, or no longer."""
    return bytes((0x1E, 0, 0, 0, int(prevented), 0))


def report_luns(length: int) -> bytes:
    """List the logical units behind this one."""
    return struct.pack(">BxB3xIxB", 0xA0, 0, length, 0)


def persistent_reserve_in(action: int, length: int) -> bytes:
    """Say who has reserved you (action 1), or which keys are registered (0)."""
    return struct.pack(">BB5xHB", 0x5E, action, length, 0)


def persistent_reserve_out(action: int, kind: int, length: int) -> bytes:
    """Register a key (6), reserve (1), release (2): the whole logical unit, by a type of reservation."""
    return struct.pack(">BBBxxIB", 0x5F, action, kind, length, 0)


# ------------------------------------------------------------------ drives


def read_block_limits() -> bytes:
    """Say how short and long blocks may be."""
    return bytes((0x05, 0, 0, 0, 0, 0))


def write(length: int) -> bytes:
    """One block of variable length."""
    return b"\x0a\x00" + length.to_bytes(3, "big") + b"\x00"


def read(length: int) -> bytes:
    """One block of variable length; one that is shorter is reported as such (no SILI)."""
    return b"\x08\x00" + length.to_bytes(3, "big") + b"\x00"


def write_filemarks(count: int, *, immediate: bool = False) -> bytes:
    """Write filemarks; with a count of 0, put on tape whatever is buffered."""
    return bytes((0x10, int(immediate))) + count.to_bytes(3, "big") + b"\x00"


def rewind() -> bytes:
    """To the beginning of this partition."""
    return bytes((0x01, 0, 0, 0, 0, 0))


def locate(block: int, partition: int | None = None) -> bytes:
    """LOCATE(16) to a logical object of this or another partition."""
    changes = partition is not None
    return struct.pack(">BBBBQBBBB", 0x92, 0x02 if changes else 0, 0, partition or 0, block, 0, 0, 0, 0)


def locate_end(partition: int) -> bytes:
    """LOCATE(16) to the end of a partition's data."""
    return struct.pack(">BBBBQBBBB", 0x92, (3 << 3) | 0x02, 0, partition, 0, 0, 0, 0, 0)


def space_filemarks(count: int) -> bytes:
    """Over so many filemarks, forward or (negative) back, SPACE(16)."""
    return struct.pack(">BBxxqHBB", 0x91, 0x01, count, 0, 0, 0)


def space_end_of_data() -> bytes:
    """To the end of this partition's data."""
    return bytes((0x11, 0x03, 0, 0, 0, 0))


def read_position() -> bytes:
    """Say where the tape stands, in the long form."""
    return struct.pack(">BB5xHB", 0x34, 0x06, 0, 0)


def load_unload(*, load: bool) -> bytes:
    """Thread the tape, or give the cartridge out."""
    return bytes((0x1B, 0, 0, 0, int(load), 0))


def format_medium(two_partitions: bool) -> bytes:
    """Partition by the medium partition page, or into one; at the beginning of partition 0 only."""
    return bytes((0x04, 0, int(two_partitions), 0, 0, 0))


def allow_overwrite(partition: int, block: int) -> bytes:
    """Permit writing over what lies from here on, for drives in append-only mode: the current position."""
    return struct.pack(">BxBBQ3xB", 0x82, 0x01, partition, block, 0)


def erase(*, long: bool) -> bytes:
    """Erase from here to the end of the partition; short: only the end-of-data mark moves here."""
    return bytes((0x19, int(long), 0, 0, 0, 0))


def read_attribute(partition: int, first: int, length: int, *, list_only: bool = False) -> bytes:
    """Attributes of the cartridge's memory from this identifier on; or only which there are."""
    return struct.pack(">BB5xBHIxB", 0x8C, int(list_only), partition, first, length, 0)


def write_attribute(partition: int, length: int) -> bytes:
    """Write attributes into the cartridge's memory, and through to it (WTC)."""
    return struct.pack(">BB5xBxxIxB", 0x8D, 0x01, partition, length, 0)


def security_protocol_in(page: int, length: int) -> bytes:
    """Tape data encryption (protocol 20h): capabilities and status."""
    return struct.pack(">BBHxxIxB", 0xA2, 0x20, page, length, 0)


def security_protocol_out(page: int, length: int) -> bytes:
    """Tape data encryption (protocol 20h): set the key."""
    return struct.pack(">BBHxxIxB", 0xB5, 0x20, page, length, 0)


# ------------------------------------------------------------------ robots


def initialize_element_status() -> bytes:
    """Look into every slot anew; takes minutes."""
    return bytes((0x07, 0, 0, 0, 0, 0))


def read_element_status(
    kind: int, start: int, count: int, length: int, *, identifiers: bool = False, tags: bool = True
) -> bytes:
    """What lies in elements of one kind; without moving anything (CURDATA), as far as the robot knows that."""
    flags = (int(identifiers)) | 0x02
    return struct.pack(
        ">BBHHB3sBB", 0xB8, (0x10 if tags else 0) | kind, start, count, flags, length.to_bytes(3, "big"), 0, 0
    )


def move_medium(robot: int, source: int, destination: int) -> bytes:
    """Carry a cartridge from one element to another."""
    return struct.pack(">BxHHHxxBB", 0xA5, robot, source, destination, 0, 0)
