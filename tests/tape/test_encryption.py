"""Encryption by the drive: pages byte by byte, and keys that are told nowhere."""

from __future__ import annotations

import pytest

from tape.encryption import Key
from tape.errors import KeyWanted, UnitAttention
from tape.scsi import security, sense
from tape.scsi.security import Algorithm, NextBlock, Status

SECRET = bytes(range(32))


def test_a_key_is_taken_as_bytes_or_as_digits() -> None:
    key = Key.parse(SECRET)
    assert Key.parse(SECRET.hex().encode() + b"\n").identity == key.identity
    assert len(key.identity) == 16
    assert Key(bytes(32)).identity != key.identity


@pytest.mark.parametrize("data", [b"", bytes(31), b"z" * 64, b"00" * 31])
def test_what_is_no_key_is_refused_and_not_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes, or 64 hex digits") as caught:
        Key.parse(data)
    assert data == b"" or data.decode("latin-1") not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    key = Key(SECRET)
    assert repr(key) == f"Key({key.identity})"
    assert not hasattr(key, "__dict__")


def test_the_page_that_sets_a_key() -> None:
    assert security.set_encryption(1, SECRET, "web") == (
        bytes.fromhex("0010 0037 40 44 02 03 01 00 00") + bytes(7) + b"\x00\x20" + SECRET + b"\x00\x00\x00\x03web"
    )


def test_the_page_that_clears_it() -> None:
    assert security.clear_encryption(1) == bytes.fromhex("0010 0010 40 00 00 00 01 00 00") + bytes(9)


def test_a_drives_algorithms_are_read() -> None:
    one = bytes.fromhex("01 00 0014 3A 00 0020 000C 0020 00 00 0000 0000 0000 00010014")
    other = bytes.fromhex("02 00 0014 05 00 0000 0000 0010 00 00 0000 0000 0000 00010010")
    page = bytes.fromhex("0010 0040") + bytes(16) + one + other
    assert security.algorithms(page) == [
        Algorithm(1, security.AES_256_GCM, True, True, 32, 32),
        Algorithm(2, 0x00010010, False, False, 16, 0),
    ]
    assert security.algorithms(page[:30]) == []
    assert security.algorithms(b"") == []


def test_a_drives_status_is_read() -> None:
    page = bytes.fromhex("0020 001B 42 02 03 01 00000007 00 00 0000") + bytes(8) + b"\x00\x00\x00\x03web"
    assert security.status(page) == Status(2, 3, 1, 7, "web")
    assert security.status(page[:20]) is None
    assert security.status(b"\x00\x21" + page[2:]) is None


def test_the_next_blocks_status_is_read() -> None:
    page = bytes.fromhex("0021 0013 0000000000000009 06 01 00 00") + b"\x00\x01\x00\x03web"
    assert security.next_block(page) == NextBlock(9, security.BlockStatus.LOCKED, "web")


def test_a_missing_key_is_told_from_write_protection() -> None:
    found = sense.decode(bytes.fromhex("70 00 07 00000000 0A 00000000 74 00 00000000"))
    assert found is not None
    assert type(sense.failure(found, "drive", "read")) is KeyWanted


def test_a_change_of_the_key_is_an_error_of_its_own() -> None:
    found = sense.decode(bytes.fromhex("70 00 06 00000000 0A 00000000 2A 11 00000000"))
    assert found is not None
    assert type(sense.failure(found, "drive", "write")) is UnitAttention
