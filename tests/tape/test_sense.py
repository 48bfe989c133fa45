"""Sense data: what they say, and which error they are."""

from __future__ import annotations

import pytest

from tape import errors
from tape.scsi import sense
from tape.scsi.sense import Key, Sense


def fixed(key: int, asc: int, ascq: int, flags: int = 0, information: int | None = None, response: int = 0x70) -> bytes:
    valid = 0x80 if information is not None else 0
    field = (information or 0).to_bytes(4, "big", signed=True)
    return bytes((response | valid, 0, flags | key)) + field + bytes((10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0))


def described(key: int, asc: int, ascq: int, *descriptors: bytes, response: int = 0x72) -> bytes:
    body = b"".join(descriptors)
    return bytes((response, key, asc, ascq, 0, 0, 0, len(body))) + body


SHORT_BLOCK = Sense(Key.NO_SENSE, 0, 0, ili=True, information=4096)
LONG_BLOCK = Sense(Key.NO_SENSE, 0, 0, ili=True, information=-512)
FILEMARK = Sense(Key.NO_SENSE, 0, 1, filemark=True, information=7)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (fixed(0, 0, 0, 0x20, 4096), SHORT_BLOCK),
        (fixed(0, 0, 0, 0x20, -512), LONG_BLOCK),
        (fixed(0, 0, 1, 0x80, 7), FILEMARK),
        (described(0, 0, 0, b"\0\x0a\x80\0" + (4096).to_bytes(8, "big"), b"\x04\x02\0\x20"), SHORT_BLOCK),
        (described(0, 0, 0, b"\0\x0a\x80\0" + (-512).to_bytes(8, "big", signed=True), b"\x04\x02\0\x20"), LONG_BLOCK),
        (
            described(0, 0, 1, b"\x02\x06\0\0\0\0\0\0", b"\x04\x02\0\x80", b"\0\x0a\x80\0" + bytes(7) + b"\x07"),
            FILEMARK,
        ),
        (fixed(6, 0x28, 0), Sense(Key.UNIT_ATTENTION, 0x28, 0)),
        (fixed(3, 0x0C, 0, response=0x71), Sense(Key.MEDIUM_ERROR, 0x0C, 0, deferred=True)),
        (described(3, 0x0C, 0, response=0x73), Sense(Key.MEDIUM_ERROR, 0x0C, 0, deferred=True)),
        (fixed(2, 0x3A, 0)[:8], Sense(Key.NOT_READY, 0, 0)),  # cut short before its codes
    ],
)
def test_both_formats_say_the_same(data: bytes, expected: Sense) -> None:
    assert sense.decode(data) == expected


@pytest.mark.parametrize("data", [b"", b"\x70\0\x02", b"\x7f" + bytes(17), bytes(18)])
def test_what_is_no_sense_data_is_none(data: bytes) -> None:
    assert sense.decode(data) is None


def test_descriptors_that_claim_more_than_there_is_end_with_what_there_is() -> None:
    cut = described(0, 0, 1, b"\x04\x02\0\x80", b"\0\x0a\x80\0" + bytes(8))[:-4]
    assert sense.decode(cut) == Sense(Key.NO_SENSE, 0, 1, filemark=True)


@pytest.mark.parametrize(
    ("key", "asc", "ascq", "error"),
    [
        (2, 0x3A, 0x00, errors.NoMedium),
        (2, 0x04, 0x01, errors.NotReady),
        (3, 0x11, 0x00, errors.MediumError),
        (4, 0x15, 0x01, errors.HardwareError),
        (5, 0x20, 0x00, errors.RefusedCommand),
        (5, 0x53, 0x02, errors.RemovalPrevented),
        (6, 0x28, 0x00, errors.MediumChanged),
        (6, 0x29, 0x00, errors.UnitAttention),
        (7, 0x27, 0x00, errors.WriteProtected),
        (8, 0x00, 0x05, errors.EndOfData),
        (13, 0x00, 0x02, errors.VolumeOverflow),
        (9, 0x80, 0x01, errors.DeviceFailure),
    ],
)
def test_each_kind_is_an_error_of_its_own(key: int, asc: int, ascq: int, error: type[errors.DeviceFailure]) -> None:
    raised = sense.failure(Sense(key, asc, ascq), "/dev/sg3", "read")
    assert type(raised) is error
    assert str(raised).startswith("/dev/sg3: read: ")
    assert f"{key:X}/{asc:02X}/{ascq:02X}" in str(raised)
    assert (raised.key, raised.asc, raised.ascq) == (key, asc, ascq)


def test_an_earlier_commands_failure_is_told_as_such() -> None:
    assert "an earlier command failed" in str(sense.failure(Sense(3, 0x0C, 0, deferred=True), "st", "write"))
