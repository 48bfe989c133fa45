"""What mtx prints, by recordings of Debian's mtx 1.3.12 on two robots: our emulated one, and tgtd's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tape.elements import Element, ElementKind
from tape.errors import (
    DestinationFull,
    FormatError,
    MediumChanged,
    NotReady,
    RemovalPrevented,
    SourceEmpty,
    TapeError,
    TransportError,
)
from tape.mtx import Ended, MtxRobot, parse

BLANKS = " " * 24
OURS = f"""\
  Storage Changer /dev/sg0:2 Drives, 8 Slots ( 2 Import/Export )
Data Transfer Element 0:Full (Storage Element 1 Loaded):VolumeTag = TAP001L8{BLANKS}
Data Transfer Element 1:Empty
      Storage Element 1:Empty
      Storage Element 2:Full :VolumeTag=TAP002L8{BLANKS}
      Storage Element 3:Full :VolumeTag=CLN001L8{BLANKS}
      Storage Element 4:Empty
      Storage Element 5:Empty
      Storage Element 6:Empty
      Storage Element 7 IMPORT/EXPORT:Full :VolumeTag=NEW001L8{BLANKS}
      Storage Element 8 IMPORT/EXPORT:Full 
"""  # noqa: W291 -- mtx leaves a blank behind a cartridge without a label
TGTDS = f"""\
  Storage Changer /dev/sg3:2 Drives, 4 Slots ( 1 Import/Export )
Data Transfer Element 0:Full (Storage Element 1 Loaded):VolumeTag = TST001L8{BLANKS}
Data Transfer Element 1:Empty
      Storage Element 1:Empty:VolumeTag={BLANKS}        \n\
      Storage Element 2:Full :VolumeTag=TST002L8{BLANKS}
      Storage Element 3:Empty:VolumeTag={BLANKS}        \n\
      Storage Element 4 IMPORT/EXPORT:Empty:VolumeTag={BLANKS}        \n"""
UNKNOWN_SOURCE = """\
  Storage Changer /dev/sg0:1 Drives, 1 Slots ( 0 Import/Export )
Data Transfer Element 0:Full (Unknown Storage Element Loaded):VolumeTag = A00001:AlternateVolumeTag = B00001
      Storage Element 1:Full :VolumeTag=A00002\0\0\0:AlternateVolumeTag=B00002
"""

SLOT, MAIL, DRIVE = ElementKind.SLOT, ElementKind.MAIL_SLOT, ElementKind.DRIVE


def dump(key: str, asc: str, ascq: str, failed: str) -> str:
    return f"""\
mtx: Request Sense: Long Report=yes
mtx: Request Sense: Valid Residual=no
mtx: Request Sense: Error Code=70 (Current)
mtx: Request Sense: Sense Key={key}
mtx: Request Sense: FileMark=no
mtx: Request Sense: EOM=no
mtx: Request Sense: ILI=no
mtx: Request Sense: Additional Sense Code = {asc}
mtx: Request Sense: Additional Sense Qualifier = {ascq}
mtx: Request Sense: BPV=no
mtx: Request Sense: Error in CDB=no
mtx: Request Sense: SKSV=no
{failed}
"""


class Recorded:
    """Plays what mtx did, and notes what it was asked."""

    def __init__(self, *ended: Ended) -> None:
        self.asked: list[str] = []
        self._ended = list(ended)

    def __call__(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        self.asked.append(" ".join(arguments))
        return self._ended.pop(0)


def robot(*ended: Ended) -> tuple[MtxRobot, Recorded]:
    played = Recorded(*ended)
    return MtxRobot("/dev/sg0", "VLIB0001", played), played


def test_our_own_robot_through_mtx() -> None:
    found = list(parse(OURS, "here"))
    assert found == [
        Element(0, DRIVE, True, "TAP001L8", source=1),
        Element(1, DRIVE, False),
        Element(1, SLOT, False),
        Element(2, SLOT, True, "TAP002L8"),
        Element(3, SLOT, True, "CLN001L8"),
        Element(4, SLOT, False),
        Element(5, SLOT, False),
        Element(6, SLOT, False),
        Element(7, MAIL, True, "NEW001L8"),
        Element(8, MAIL, True),
    ]


def test_tgtds_robot_prints_labels_of_empty_slots() -> None:
    assert [(one.kind, one.full, one.barcode) for one in parse(TGTDS, "here")] == [
        (DRIVE, True, "TST001L8"),
        (DRIVE, False, ""),
        (SLOT, False, ""),
        (SLOT, True, "TST002L8"),
        (SLOT, False, ""),
        (MAIL, False, ""),
    ]


def test_a_source_that_is_not_known_and_a_second_label() -> None:
    drive, slot = parse(UNKNOWN_SOURCE, "here")
    assert (drive.barcode, drive.source) == ("A00001", None)
    assert slot.barcode == "A00002"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("", "no status by mtx"),
        (OURS.replace("      Storage Element 5:Empty\n", ""), "announced 2 drives and 8 slots, and listed 2 and 7"),
        (OURS.replace("Element 5:Empty", "Element 5:Broken"), "not known: 'Storage Element 5:Broken'"),
    ],
)
def test_half_an_answer_is_none(output: str, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        list(parse(output, "here"))


@pytest.mark.parametrize(
    ("source", "destination", "command"),
    [
        ((SLOT, 2), (DRIVE, 1), "load 2 1"),
        ((MAIL, 7), (DRIVE, 0), "load 7 0"),
        ((DRIVE, 0), (SLOT, 1), "unload 1 0"),
        ((SLOT, 2), (MAIL, 8), "transfer 2 8"),
    ],
)
def test_what_it_is_asked(source: tuple[ElementKind, int], destination: tuple[ElementKind, int], command: str) -> None:
    used, played = robot(Ended(0, "", ""))
    used.move(Element(source[1], source[0], True), Element(destination[1], destination[0], False))
    assert played.asked == [f"-f /dev/sg0 {command}"]


@pytest.mark.parametrize(
    ("errors", "kind", "says"),
    [
        ("Drive 0 Full (Storage Element 1 loaded)\n", DestinationFull, "the destination is full"),
        ("Destination Element Address 1026 is Already Full\n", DestinationFull, "Address 1026"),
        ("Source Element Address 1024 is Empty\n", SourceEmpty, "the source is empty"),
        ("Data Transfer Element 1 is Empty\n", SourceEmpty, "the source is empty"),
        (
            dump("Illegal Request", "53", "02", "MOVE MEDIUM from Element Address 256 to 1024 Failed"),
            RemovalPrevented,
            "removal of the cartridge is prevented",
        ),
        (
            dump("Not Ready", "04", "18", "MOVE MEDIUM from Element Address 1025 to 257 Failed"),
            NotReady,
            "its door is open",
        ),
        (dump("Illegal Request", "3B", "0D", "MOVE MEDIUM from 1 to 2 Failed"), DestinationFull, "destination"),
        ("cannot open SCSI device '/dev/sg0' - No such file or directory\n", TransportError, "mtx says: cannot open"),
        ("/dev/null is not an sg device, or old sg driver\n", TransportError, "not an sg device"),
        ("Invalid <storage-element-number> argument '99' to 'load' command\n", TransportError, "argument '99'"),
        ("", TransportError, "mtx ended with 1"),
    ],
)
def test_its_failures_are_those_of_the_robot(errors: str, kind: type[TapeError], says: str) -> None:
    used, _ = robot(Ended(1, "Loading media from Storage Element 1 into drive 1...", errors))
    with pytest.raises(kind, match=says):
        used.move(Element(1, SLOT, True), Element(1, DRIVE, False))


def test_a_look_is_asked_for_again_after_an_attention_a_move_is_not() -> None:
    hands = Ended(1, "", dump("Unit Attention", "28", "01", "READ ELEMENT STATUS Command Failed"))
    used, played = robot(hands, Ended(0, OURS, ""))
    assert len(used.elements()) == 10
    assert len(played.asked) == 2
    used, played = robot(hands)
    with pytest.raises(MediumChanged):
        used.move(Element(1, SLOT, True), Element(1, DRIVE, False))
    assert len(played.asked) == 1
    used, played = robot(Ended(1, "", dump("Unit Attention", "29", "00", "...")), Ended(0, "", ""))
    used.move(Element(1, SLOT, True), Element(1, DRIVE, False))
    assert len(played.asked) == 2


def test_from_drive_to_drive_it_carries_nothing() -> None:
    used, _ = robot()
    with pytest.raises(TapeError, match="by way of a slot"):
        used.move(Element(0, DRIVE, True), Element(1, DRIVE, False))
