"""The iSCSI target, PDU by PDU: what initiators may do, what they may not, and that neither harms the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tape.emulator.lun import Hang, Lun
from tests.tape.libraries import Served, served, small_library
from tests.tape.rawiscsi import INITIATOR, NO_TAG, PLAIN, RawInitiator

COMMAND, TASK, TEXT, DATA_OUT, LOGOUT, NOP = 0x01, 0x02, 0x04, 0x05, 0x06, 0x00
IMMEDIATE = 0x40
RESPONSE, TASK_RESPONSE, TEXT_RESPONSE, DATA_IN, LOGOUT_RESPONSE, R2T, NOP_IN = 0x21, 0x22, 0x24, 0x25, 0x26, 0x31, 0x20
READS, WRITES, FINAL = 0x40, 0x20, 0x80
ABORT_TASK, RESET_UNIT, RESET_TARGET, REASSIGN = 1, 5, 6, 8
TUR = bytes(6)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Served]:
    made = small_library(tmp_path / "library")
    barcode = made.shelf.full.pop(min(made.shelf.full))
    made.drives[0].insert(made.cartridge(barcode))
    with served(made) as running:
        yield running


@pytest.fixture
def raw(library: Served) -> Iterator[RawInitiator]:
    initiator = RawInitiator(library.target)
    yield initiator
    initiator.close()


def in_full_feature(library: Served, isid: bytes) -> RawInitiator:
    made = RawInitiator(library.target, isid=isid)
    made.log_in()
    return made


def to_the_end(raw: RawInitiator) -> None:
    while True:
        raw.receive()


def sense_code(answer: object) -> tuple[int, int, int]:
    data = answer.data  # type: ignore[attr-defined]
    return data[4] & 15, data[14], data[15]


# ---------------------------------------------------------------------- login


def test_terms_are_agreed_upon(raw: RawInitiator) -> None:
    agreed = raw.log_in(
        InitialR2T="No", ImmediateData="Yes", MaxBurstLength="262144", FirstBurstLength="16777215",
        MaxOutstandingR2T="8", MaxConnections="4", ErrorRecoveryLevel="2",
        DefaultTime2Wait="5", DefaultTime2Retain="20",
        DataPDUInOrder="No", DataSequenceInOrder="Yes", IFMarker="Yes", **{"X-com.example": "1"},
    )  # fmt: skip
    assert agreed == {
        "HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes",
        "MaxBurstLength": "262144", "FirstBurstLength": "1048576", "MaxOutstandingR2T": "1", "MaxConnections": "1",
        "ErrorRecoveryLevel": "0", "DefaultTime2Wait": "5", "DefaultTime2Retain": "0", "DataPDUInOrder": "Yes",
        "DataSequenceInOrder": "Yes", "IFMarker": "No", "X-com.example": "NotUnderstood",
        "TargetPortalGroupTag": "1", "MaxRecvDataSegmentLength": "1048576",
    }  # fmt: skip


def test_a_login_of_several_steps_and_pieces(library: Served, raw: RawInitiator) -> None:
    first = raw.login(0, 1, {"InitiatorName": INITIATOR}, flags=0x40)  # more text is to come
    assert (first.data, first.flags & 0xC0) == (b"", 0)
    second = raw.login(0, 1, {"TargetName": library.target.name, "AuthMethod": "CHAP,None"})
    assert second.texts == {"AuthMethod": "None", "TargetPortalGroupTag": "1"}
    third = raw.login(1, 3, PLAIN)
    assert third.flags == 0x87
    assert third.number(12) & 0xFFFF, "the session has a handle"
    raw.past_attention()


@pytest.mark.parametrize(
    ("texts", "session", "status"),
    [
        ({"InitiatorName": INITIATOR, "TargetName": "iqn.2026-01.example:other"}, 0, (2, 3)),
        ({"TargetName": "ours"}, 0, (2, 7)),
        ({"InitiatorName": INITIATOR}, 0, (2, 7)),
        ({"InitiatorName": INITIATOR, "TargetName": "ours", "AuthMethod": "CHAP"}, 0, (2, 1)),
        ({"InitiatorName": INITIATOR, "TargetName": "ours", "HeaderDigest": "CRC32C"}, 0, (2, 0)),
        ({"InitiatorName": INITIATOR, "TargetName": "ours", "MaxRecvDataSegmentLength": "3"}, 0, (2, 0)),
        ({"InitiatorName": INITIATOR, "TargetName": "ours", "SessionType": "Odd"}, 0, (2, 9)),
        ({"InitiatorName": INITIATOR, "TargetName": "ours"}, 5, (2, 10)),
    ],
)
def test_who_cannot_be_let_in_is_told_why(
    library: Served, raw: RawInitiator, texts: dict[str, str], session: int, status: tuple[int, int]
) -> None:
    meant = {key: library.target.name if value == "ours" else value for key, value in texts.items()}
    answer = raw.login(1, 3, meant, session=session)
    assert (answer.head[36], answer.head[37]) == status
    with pytest.raises(ConnectionError):
        raw.receive()


def test_whoever_comes_anew_has_lost_the_old_session(library: Served) -> None:
    old = in_full_feature(library, b"\x80\1\1\1\0\0")
    other = in_full_feature(library, b"\x80\2\2\2\0\0")
    new = in_full_feature(library, b"\x80\1\1\1\0\0")
    with pytest.raises(ConnectionError):
        old.receive()
    for session in (new, other):
        assert sense_code(session.run(TUR)) == (6, 0x29, 0)
        session.close()
    old.close()


# ---------------------------------------------------------------------- beside commands


def test_discovery_tells_of_the_target_and_does_nothing_else(library: Served, raw: RawInitiator) -> None:
    raw.login(1, 3, {"InitiatorName": INITIATOR, "SessionType": "Discovery", **PLAIN})
    raw.send(TEXT, data=b"SendTargets=All\0X-odd=1\0", at16=1, at20=NO_TAG, at24=raw.command_number)
    answer = raw.receive()
    assert answer.op == TEXT_RESPONSE
    assert answer.texts == {
        "TargetName": library.target.name,
        "TargetAddress": f"{library.target.portal},1",
        "X-odd": "NotUnderstood",
    }
    raw.send(COMMAND | IMMEDIATE, FINAL, at16=2, at24=raw.command_number)
    with pytest.raises(ConnectionError):
        raw.receive()


def test_pings_come_back_with_what_they_brought(raw: RawInitiator) -> None:
    raw.log_in()
    raw.send(NOP | IMMEDIATE, data=b"are you there", at16=9, at20=NO_TAG, at24=raw.command_number)
    answer = raw.receive()
    assert (answer.op, answer.number(16), answer.data) == (NOP_IN, 9, b"are you there")
    raw.send(NOP | IMMEDIATE, at16=NO_TAG, at20=NO_TAG, at24=raw.command_number)  # wants no answer
    raw.past_attention()


def test_logging_out_is_answered_and_ends_it(raw: RawInitiator) -> None:
    raw.log_in()
    raw.send(LOGOUT | IMMEDIATE, at16=3, at24=raw.command_number)
    assert raw.receive().op == LOGOUT_RESPONSE
    with pytest.raises(ConnectionError):
        raw.receive()


def test_pings_are_answered_while_a_drive_seeks(library: Served, raw: RawInitiator) -> None:
    """Linux gives a session up whose pings are not answered within seconds; a seek may take a minute."""
    seeking, go_on = threading.Event(), threading.Event()

    def seek(_lun: Lun, _command: bytes) -> None:
        seeking.set()
        assert go_on.wait(30)

    raw.log_in()
    raw.past_attention(lun=1)
    library.library.drives[0].before = seek
    tag = raw.command(TUR, lun=1)
    assert seeking.wait(30)
    raw.send(NOP | IMMEDIATE, at16=9, at20=NO_TAG, at24=raw.command_number)
    assert raw.receive().op == NOP_IN
    go_on.set()
    assert raw.receive().number(16) == tag


# ---------------------------------------------------------------------- data


def test_data_are_asked_for_in_bursts_and_given_in_pieces(raw: RawInitiator) -> None:
    raw.log_in(InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096", MaxRecvDataSegmentLength="1024")
    raw.past_attention(lun=1)
    block = bytes(range(250)) * 40  # 10000 bytes: three bursts
    tag = raw.command(b"\x0a\0" + len(block).to_bytes(3, "big") + b"\0", lun=1, flags=FINAL | WRITES, length=len(block))
    asked = []
    for number in range(3):
        wanted = raw.receive()
        assert (wanted.op, wanted.number(16), wanted.number(36)) == (R2T, tag, number)
        start, length = wanted.number(40), wanted.number(44)
        asked.append((start, length))
        half = start + length // 2
        for place, (begin, end) in enumerate(((start, half), (half, start + length))):
            raw.send(
                DATA_OUT, FINAL if place else 0, lun=1, data=block[begin:end],
                at16=tag, at20=wanted.number(20), at36=place, at40=begin,
            )  # fmt: skip
    assert asked == [(0, 4096), (4096, 4096), (8192, 1808)]
    done = raw.receive()
    assert (done.op, done.head[3]) == (RESPONSE, 0)
    raw.run(b"\1\0\0\0\0\0", lun=1)

    raw.command(b"\x08\0" + len(block).to_bytes(3, "big") + b"\0", lun=1, flags=FINAL | READS, length=len(block))
    came = bytearray()
    pieces = []
    while len(came) < len(block):
        piece = raw.receive()
        assert (piece.op, piece.number(36), piece.number(40)) == (DATA_IN, len(pieces), len(came))
        came += piece.data
        pieces.append((len(piece.data), piece.flags))
    assert came == block
    assert [length for length, _ in pieces] == [1024] * 9 + [784]
    assert [number for number, (_, flags) in enumerate(pieces) if flags & FINAL] == [3, 7, 9], "each burst has its end"
    assert pieces[-1][1] & 0x01, "the last one says that all went well"


def test_data_come_unasked_as_far_as_the_first_burst_goes(raw: RawInitiator) -> None:
    raw.log_in(InitialR2T="No", ImmediateData="Yes", FirstBurstLength="2048", MaxBurstLength="8192")
    raw.past_attention(lun=1)
    block = bytes(3000)
    tag = raw.command(b"\x0a\0\0\x0b\xb8\0", lun=1, flags=WRITES, length=3000, data=block[:1000])
    raw.send(DATA_OUT, FINAL, lun=1, data=block[1000:2048], at16=tag, at20=NO_TAG, at40=1000)
    wanted = raw.receive()
    assert (wanted.op, wanted.number(40), wanted.number(44)) == (R2T, 2048, 952)
    raw.send(DATA_OUT, FINAL, lun=1, data=block[2048:], at16=tag, at20=wanted.number(20), at40=2048)
    assert raw.receive().head[3] == 0


def test_what_follows_a_command_that_waits_for_data_waits_too(raw: RawInitiator) -> None:
    raw.log_in(InitialR2T="Yes", ImmediateData="No")
    raw.past_attention(lun=1)
    writing = raw.command(b"\x0a\0\0\0\x04\0", lun=1, flags=FINAL | WRITES, length=4)
    wanted = raw.receive()
    asking = raw.command(TUR, lun=1)
    raw.send(NOP | IMMEDIATE, at16=99, at20=NO_TAG, at24=raw.command_number)
    assert raw.receive().op == NOP_IN, "what is immediate does not wait"
    raw.send(DATA_OUT, FINAL, lun=1, data=b"four", at16=writing, at20=wanted.number(20), at40=0)
    assert [raw.receive().number(16) for _ in range(2)] == [writing, asking]


def test_what_is_missing_and_what_is_too_much_is_counted(raw: RawInitiator) -> None:
    raw.log_in()
    raw.command(b"\x12\1\x80\0\xff\0", flags=FINAL | READS, length=255)
    answer = raw.receive()
    assert (answer.op, answer.flags & 6, answer.number(44)) == (DATA_IN, 2, 255 - len(answer.data))
    raw.command(b"\x12\0\0\0\x60\0", flags=FINAL | READS, length=10)
    answer = raw.receive()
    assert (len(answer.data), answer.flags & 6, answer.number(44)) == (10, 4, 86)


def test_a_number_that_is_not_due_is_passed_over_in_silence(raw: RawInitiator) -> None:
    raw.log_in()
    raw.past_attention()
    raw.command_number += 5
    raw.command(TUR)
    raw.command_number -= 6
    tag = raw.command(TUR)
    assert raw.receive().number(16) == tag


def test_units_that_are_not_there(raw: RawInitiator) -> None:
    raw.log_in()
    assert sense_code(raw.run(TUR, lun=7)) == (5, 0x25, 0)
    raw.command(b"\x12\0\0\0\x24\0", lun=7, flags=FINAL | READS, length=36)
    assert raw.receive().data[0] == 0x7F
    raw.command(b"\xa0" + bytes(5) + (64).to_bytes(4, "big"), flags=FINAL | READS, length=64)
    listed = raw.receive().data
    assert [listed[at : at + 2] for at in range(8, len(listed), 8)] == [b"\0\0", b"\0\1", b"\0\2"]


# ---------------------------------------------------------------------- task management


def hanging(library: Served, raw: RawInitiator) -> int:
    """A command to the first drive that is never answered."""

    def hang(_lun: Lun, _command: bytes) -> None:
        raise Hang

    library.library.drives[0].before = hang
    tag = raw.command(TUR, lun=1)
    raw.send(NOP | IMMEDIATE, at16=99, at20=NO_TAG, at24=raw.command_number)
    assert raw.receive().op == NOP_IN
    library.library.drives[0].before = None
    return tag


def manage(raw: RawInitiator, function: int, *, lun: int = 1, tag: int = NO_TAG) -> int:
    raw.send(TASK | IMMEDIATE, FINAL | function, lun=lun, at16=500, at20=tag, at24=raw.command_number)
    answer = raw.receive()
    assert (answer.op, answer.number(16)) == (TASK_RESPONSE, 500)
    return answer.head[2]


def test_a_command_that_hangs_keeps_nothing_else_and_can_be_aborted(library: Served, raw: RawInitiator) -> None:
    raw.log_in()
    raw.past_attention(lun=1)
    tag = hanging(library, raw)
    assert raw.run(TUR, lun=1).head[3] == 0
    assert manage(raw, ABORT_TASK, tag=tag) == 0
    assert manage(raw, ABORT_TASK, tag=tag) == 1, "it is gone"


def test_a_reset_is_told_to_every_session_and_ends_what_hangs(library: Served, raw: RawInitiator) -> None:
    raw.log_in()
    other = in_full_feature(library, b"\x80\7\7\7\0\0")
    for session in (raw, other):
        session.past_attention(lun=1)
    tag = hanging(library, raw)
    library.library.drives[0].removal_prevented = True
    assert manage(raw, RESET_UNIT) == 0
    assert manage(raw, ABORT_TASK, tag=tag) == 1
    for session in (raw, other):
        assert sense_code(session.run(TUR, lun=1)) == (6, 0x29, 0)
    assert not library.library.drives[0].removal_prevented
    other.close()


def test_the_whole_target_is_reset(library: Served, raw: RawInitiator) -> None:
    raw.log_in()
    for lun in range(3):
        raw.past_attention(lun=lun)
    assert manage(raw, RESET_TARGET, lun=0) == 0
    assert [sense_code(raw.run(TUR, lun=lun)) for lun in range(3)] == [(6, 0x29, 0)] * 3


def test_what_cannot_be_managed_is_said(raw: RawInitiator) -> None:
    raw.log_in()
    assert manage(raw, RESET_UNIT, lun=9) == 2
    assert manage(raw, REASSIGN) == 4
    assert manage(raw, 77) == 5


def test_a_session_that_ends_lets_go_of_what_it_held(library: Served, raw: RawInitiator) -> None:
    raw.log_in()
    raw.past_attention(lun=1)
    raw.run(b"\x1e\0\0\0\1\0", lun=1)
    assert library.library.drives[0].removal_prevented
    raw.send(LOGOUT | IMMEDIATE, at16=3, at24=raw.command_number)
    raw.receive()
    with pytest.raises(ConnectionError):
        raw.receive()
    assert not library.library.drives[0].removal_prevented


# ---------------------------------------------------------------------- what breaks the protocol


@pytest.mark.parametrize(
    "harm",
    [
        lambda raw: raw.send(0x3E),  # no such PDU
        lambda raw: raw.send(DATA_OUT, data=b"?" * 8, at16=77, at20=1, at40=9) or raw.command(TUR, length=1 << 31),
        lambda raw: raw.command(b"\x0a\0\0\0\4\0", flags=FINAL | WRITES, length=4, data=b"more than that"),
        lambda raw: raw.command(b"\x0a\0\0\0\4\0", flags=WRITES, length=65 << 20),
        lambda raw: raw.send_raw(b"\x01\x80\0\0\0\xff\xff\xff" + bytes(40)),  # a segment of 16 MiB
        lambda raw: (
            raw.command(b"\x0a\0\0\0\4\0", flags=WRITES, length=4)
            and raw.send(DATA_OUT, data=b"four", at16=raw.tag, at20=NO_TAG, at36=3)
        ),  # a piece that is not due
        lambda raw: raw.send(TEXT, data=b"no equals sign\0", at16=1, at24=raw.command_number),
    ],
)
def test_who_breaks_the_protocol_is_dropped_and_the_others_go_on(
    library: Served, raw: RawInitiator, harm: object
) -> None:
    other = in_full_feature(library, b"\x80\5\5\5\0\0")
    raw.log_in()
    assert callable(harm)
    harm(raw)
    with pytest.raises(ConnectionError):
        to_the_end(raw)
    other.past_attention()
    assert other.run(TUR).head[3] == 0
    other.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(min_size=1, max_size=400), logged_in=st.booleans())
def test_junk_harms_nobody(library: Served, junk: bytes, logged_in: bool) -> None:
    raw = RawInitiator(library.target, isid=b"\x80\6\6\6\0\0")
    if logged_in:
        raw.log_in()
    raw.send_raw(junk)
    raw.close()
    library.target.drop_sessions()
    good = in_full_feature(library, b"\x80\5\5\5\0\0")
    good.past_attention()
    assert good.run(TUR).head[3] == 0
    good.close()
