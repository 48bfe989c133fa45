"""Cartridges made to harm us, and what newer programs write: refused with the reason, or read as they are meant."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.errors import FormatError, IncrementalIndex, TapeError
from tape.ltfs import indexwriting
from tape.ltfs.index import File
from tape.ltfs.recover import for_reading, recover
from tape.ltfs.volume import LtfsVolume
from tests.tape import golden
from tests.tape.volumes import MAKER, Ticks, drive_with, files_of, formatted, mounted, put

READ_MAX = 1 << 20
DATA_INDEX, SMALL_INDEX = "1_15_R", "0_5_R"


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """The reference implementation's cartridge, its memory blank: everything is searched for."""
    folder = golden.unpacked(tmp_path)
    for path in folder.glob("attr_*_80c"):
        path.unlink()
    return folder


def drive_of(tape: Path) -> DriveLun:
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge(tape))
    return lun


def rewrite(tape: Path, old: str, new: str) -> None:
    """In both indexes."""
    for name in (DATA_INDEX, SMALL_INDEX):
        path = tape / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def chunk(tape: Path) -> str:
    """The data partition's index."""
    return (tape / DATA_INDEX).read_text()


BACK = "<previousgenerationlocation>\n<partition>b</partition>\n<startblock>5</startblock>"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<startblock>8</startblock>", "<startblock>18446744073709551615</startblock>", "reaches block"),
        ("<startblock>8</startblock>", "<startblock>14</startblock>", "reaches block"),
        ("<bytecount>3000000</bytecount>", "<bytecount>9223372036854775807</bytecount>", "extents reach"),
        ("<startblock>8</startblock>", "<startblock>99999999999999999999999</startblock>", "no number"),
        ("<partition>b</partition>\n<startblock>8<", "<partition>c</partition>\n<startblock>8<", "no partition 'c'"),
        ("<name>dir1</name>", "<name>dir1/../..</name>", "is none"),
        ("<name>dir1</name>", "<name>&#x0;</name>", "not XML"),
        ("<name>dir1</name>", "<name>" + "a" * 2_000_000 + "</name>", "a block of 2"),
        ("<creator>", "<creator>&lol;", "not XML"),
        ("<ltfsindex ", '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><ltfsindex ', "document type"),
        ("<ltfsindex ", '<!DOCTYPE x SYSTEM "file:///etc/passwd"><ltfsindex ', "document type"),
        ("<contents>", "<contents>" + "<directory>" * 1100, "deep"),
    ],
)
def test_an_index_that_would_lead_astray_is_refused(tape: Path, old: str, new: str, says: str) -> None:
    rewrite(tape, old, new)
    with pytest.raises(FormatError, match=says):
        mounted(drive_of(tape))


@pytest.mark.parametrize("block", [4, 14, 15, 16, 99])
def test_a_back_pointer_that_leads_nowhere_or_in_a_loop_is_refused(tape: Path, block: int) -> None:
    path = tape / DATA_INDEX
    text = path.read_text()
    at = text.index("<previousgenerationlocation>")
    changed = re.sub(r"<startblock>\d+<", f"<startblock>{block}<", text[at:], count=1)
    path.write_text(text[:at] + changed)
    with pytest.raises(FormatError, match="points back"):
        mounted(drive_of(tape))


def test_an_index_that_lies_about_where_it_is_is_refused(tape: Path) -> None:
    rewrite(tape, "<location>", "<location><!-- -->")  # comments are nothing
    mounted(drive_of(tape))
    for name, block in ((DATA_INDEX, 15), (SMALL_INDEX, 5)):
        path = tape / name
        path.write_text(path.read_text().replace(f"<startblock>{block}<", "<startblock>7<", 1))
    with pytest.raises(FormatError, match="it says that it begins at"):
        mounted(drive_of(tape))


def test_whatever_numbers_and_names_an_index_has_only_format_errors_come_of_it(tape: Path) -> None:
    """Values changed at random: mounting, listing and reading refuse, or work; nothing else."""
    seed = 11
    draw = random.Random(seed)
    good = {name: (tape / name).read_text() for name in (DATA_INDEX, SMALL_INDEX)}
    refused = 0
    for _ in range(150):
        value = draw.choice(
            ["0", "1", "3", "4", "5", "16", "17", "18", "2147483648", str(1 << 63), "-1", "", "é", "a:b"]
        )
        number = draw.randrange(200)
        for name, text in good.items():
            (tape / name).write_text(nth_value(text, number, value))
        try:
            read_some(mounted(drive_of(tape)))
        except TapeError:
            refused += 1
    print(f"seed {seed}: {refused} of 150 were refused")
    assert 20 < refused < 150


def nth_value(text: str, number: int, value: str) -> str:
    """The text of one element replaced."""
    found = list(re.finditer(r">([^<>\n]+)</", text))
    one = found[number % len(found)]
    return text[: one.start(1)] + value + text[one.end(1) :]


def read_some(volume: LtfsVolume) -> None:
    """The beginning and the end of each file: one of them may claim to have any length."""
    for path, entry in volume.index.root.walk():
        if isinstance(entry, File) and entry.symlink is None:
            reader = volume.open(path)
            size = min(entry.length, READ_MAX)
            reader.read_into(0, memoryview(bytearray(size)))
            reader.read_into(entry.length - size, memoryview(bytearray(size)))


# ---------------------------------------------------------------------- what newer programs write

UNKNOWN = '<vendorthing at="1"><deep>kept &amp; more</deep></vendorthing>'


def test_what_is_not_understood_is_kept_through_a_session(tape: Path) -> None:
    rewrite(tape, "<allowpolicyupdate>", f"{UNKNOWN}<allowpolicyupdate>")
    rewrite(tape, "<name>big.bin</name>", f"<name>big.bin</name>{UNKNOWN}")
    rewrite(tape, "<name>dir1</name>", f"<name>dir1</name>{UNKNOWN}")
    lun = drive_of(tape)
    with mounted(lun) as volume:
        put(volume, "/ours", b"ours")
    text = b"".join(indexwriting.encode(mounted(lun).index)).decode()
    assert text.count(UNKNOWN) == 3


def test_a_volume_of_format_2_5_is_read_and_appended_to(tape: Path) -> None:
    """Unmounted cleanly it ends in full indexes; incremental ones among its older states are nothing to us."""
    rewrite(tape, 'version="2.4.0"', 'version="2.5.1"')
    pointer = (
        "<previousincrementallocation><partition>b</partition><startblock>9</startblock></previousincrementallocation>"
    )
    rewrite(tape, "<allowpolicyupdate>", f"{pointer}<allowpolicyupdate>")
    lun = drive_of(tape)
    with mounted(lun) as volume:
        put(volume, "/ours", b"ours")
    assert "previousincremental" not in b"".join(indexwriting.encode(mounted(lun).index)).decode()
    assert files_of(mounted(lun, search=True))["/ours"] == b"ours"


def test_a_volume_that_ends_in_an_incremental_index_is_read_as_before_and_not_written_to(tmp_path: Path) -> None:
    """Its writer died: what it put into the incremental index, only it can bring back; nothing of it is destroyed."""
    lun = formatted(tmp_path / "TAP001L8")
    with mounted(lun) as volume:
        put(volume, "/full", b"in the full index")
    tape = lun.take_out()
    end = tape.tracks[1].end
    xml = b'<?xml version="1.0" encoding="UTF-8"?>\n<ltfsincrementalindex version="2.5.1"></ltfsincrementalindex>'
    tape.tracks[1].write(end, b"data of a newer program")
    tape.tracks[1].write_filemark(end + 1)
    tape.tracks[1].write(end + 2, xml)
    tape.tracks[1].write_filemark(end + 3)
    tape.flush()
    for path in tape.folder.glob("attr_*_80c"):
        path.unlink()
    before = {path.name for path in tape.folder.iterdir()}
    lun.insert(Cartridge(tape.folder))
    with pytest.raises(IncrementalIndex, match="let the program that wrote it"):
        mounted(lun)
    with pytest.raises(IncrementalIndex):
        recover(drive_with(lun), MAKER, Ticks())
    told: list[Exception] = []
    with for_reading(drive_with(lun), MAKER, Ticks(), older=told.append) as volume:
        assert files_of(volume) == {"/full": b"in the full index"}
        assert "incremental" in volume.read_only
    assert len(told) == 1
    assert {path.name for path in tape.folder.iterdir()} == before
