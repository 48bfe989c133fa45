"""Commands: their length says their group, and the fields lie where the standards put them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tape.scsi import cdb

GROUPS = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # SAM: bits 7-5 of the operation code
ALL: list[Callable[[], bytes]] = [
    cdb.test_unit_ready,
    lambda: cdb.inquiry(96),
    lambda: cdb.inquiry(255, 0x83),
    lambda: cdb.mode_sense(0x11, 252),
    lambda: cdb.mode_select(24),
    lambda: cdb.log_sense(0x31, 1024),
    lambda: cdb.prevent_removal(True),
    lambda: cdb.report_luns(16),
    cdb.read_block_limits,
    lambda: cdb.write(524288),
    lambda: cdb.read(524288),
    lambda: cdb.write_filemarks(1),
    cdb.rewind,
    lambda: cdb.locate(5, 1),
    lambda: cdb.locate_end(1),
    lambda: cdb.space_filemarks(-2),
    cdb.space_end_of_data,
    cdb.read_position,
    lambda: cdb.load_unload(load=True),
    lambda: cdb.format_medium(True),
    lambda: cdb.allow_overwrite(0, 5),
    lambda: cdb.erase(long=False),
    lambda: cdb.read_attribute(1, 0x80C, 4096),
    lambda: cdb.write_attribute(1, 79),
    lambda: cdb.security_protocol_in(0x20, 64),
    lambda: cdb.security_protocol_out(0x10, 52),
    cdb.initialize_element_status,
    lambda: cdb.read_element_status(2, 1, 40, 65535, identifiers=True),
    lambda: cdb.move_medium(0, 1024, 256),
]


@pytest.mark.parametrize("command", ALL)
def test_its_length_is_that_of_its_group(command: Callable[[], bytes]) -> None:
    made = command()
    assert len(made) == GROUPS[made[0] >> 5]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (cdb.write(0x080000), "0a00 080000 00"),
        (cdb.locate(0x0102030405, 1), "92 02 00 01 0000000102030405 00000000"),
        (cdb.locate(7), "92 00 00 00 0000000000000007 00000000"),
        (cdb.locate_end(1), "92 1a 00 01 0000000000000000 00000000"),
        (cdb.space_filemarks(-2), "91 01 0000 fffffffffffffffe 0000 0000"),
        (cdb.read_position(), "34 06 00 00 00 00 00 0000 00"),
        (cdb.read_attribute(1, 0x80C, 0x1000), "8c 00 000000 00 00 01 080c 00001000 00 00"),
        (cdb.write_attribute(1, 0x4F), "8d 01 000000 00 00 01 0000 0000004f 00 00"),
        (cdb.log_sense(0x31, 0x400), "4d 00 71 00 00 0000 0400 00"),
        (cdb.read_element_status(2, 0x400, 8, 0x1234, identifiers=True), "b8 12 0400 0008 03 001234 00 00"),
        (cdb.move_medium(1, 0x400, 0x100), "a5 00 0001 0400 0100 0000 00 00"),
    ],
)
def test_fields_lie_where_they_belong(made: bytes, expected: str) -> None:
    assert made == bytes.fromhex(expected.replace(" ", ""))
