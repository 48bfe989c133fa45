"""Write-verify: what is read again is what was written, or the file is named, and its block, and listed nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.errors import VerifyFailed
from tape.ltfs.stream import FileStream
from tape.ltfs.volume import LtfsVolume
from tape.scsi.sense import Key
from tests.tape.volumes import BLOCK, MAKER, Ticks, cartridge, content, drive_with, files_of, formatted, mounted, put


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    return formatted(tmp_path / "TAP001L8")


@pytest.fixture
def volume(lun: DriveLun) -> LtfsVolume:
    return LtfsVolume.mount(drive_with(lun), MAKER, Ticks(), verify=True)


def flip(lun: DriveLun, block: int) -> None:
    """A bit of a record on the tape."""
    path = cartridge(lun).folder / f"1_{block}_R"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_what_is_whole_is_committed(lun: DriveLun, volume: LtfsVolume) -> None:
    put(volume, "/a", content(1, 3 * BLOCK + 7))
    with FileStream(volume.create("/b")) as stream:
        stream.write(content(2, 2 * BLOCK + 1))
        stream.finish()
    volume.create("/empty").finish()
    volume.commit()
    assert set(files_of(mounted(lun, search=True))) == {"/a", "/b", "/empty"}


@pytest.mark.parametrize("bad", range(4))
def test_a_block_that_is_another_one_is_named(lun: DriveLun, volume: LtfsVolume, bad: int) -> None:
    """First, middle, last and short: whichever."""
    put(volume, "/good", content(1, 2 * BLOCK))
    start = volume.data_end
    put(volume, "/bad", content(2, 3 * BLOCK + 7))
    volume.drive.flush()
    flip(lun, start + bad)
    with pytest.raises(VerifyFailed, match=f"/bad on volume .*, block {start + bad} of partition 1") as caught:
        volume.commit()
    assert caught.value.path.startswith("/bad")  # type: ignore[attr-defined]
    volume.commit()
    assert files_of(mounted(lun, search=True)) == {"/good": content(1, 2 * BLOCK)}
    put(volume, "/bad", content(2, 3 * BLOCK + 7))
    volume.commit()
    assert set(files_of(mounted(lun, search=True))) == {"/good", "/bad"}


def test_a_block_that_cannot_be_read_is_named(lun: DriveLun, volume: LtfsVolume) -> None:
    start = volume.data_end
    put(volume, "/bad", content(2, 3 * BLOCK))

    def fail(lun_: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x08 and lun.block == start + 1:
            raise Check(Key.MEDIUM_ERROR, 0x11)

    lun.before = fail
    with pytest.raises(VerifyFailed, match=f"block {start} of partition 1: .*a read failed"):
        volume.verify()
    lun.before = None
    volume.commit()
    assert files_of(mounted(lun, search=True)) == {}


def test_a_volume_that_does_not_verify_reads_nothing_again(lun: DriveLun) -> None:
    volume = mounted(lun)
    put(volume, "/a", content(1, 3 * BLOCK))
    seen: list[int] = []
    lun.before = lambda _lun, cdb: seen.append(cdb[0])
    volume.commit()
    assert 0x08 not in seen
