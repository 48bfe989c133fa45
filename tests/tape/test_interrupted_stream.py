"""An interrupt while a file's last blocks are written: the drive is nobody else's before its thread has ended."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tape.emulator.lun import Lun
from tape.ltfs.stream import FileStream
from tape.ltfs.volume import LtfsVolume
from tests.alarm import alarm
from tests.tape.volumes import BLOCK, formatted, mounted


class Interrupted(Exception):
    """What the signal's handler raises."""


def stream_and_be_interrupted(lun: Lun, volume: LtfsVolume) -> None:
    rung = threading.Event()

    def slowly(_lun: Lun, _cdb: bytes) -> None:
        """What is under way at the interrupt goes on for a while."""
        assert rung.wait(120)
        time.sleep(0.2)

    with FileStream(volume.create("/disk")) as stream:
        lun.before = slowly
        for _ in range(4):  # the ring has room for them
            stream.write(bytes(BLOCK))
        with alarm(0.2, rung=rung, error=Interrupted):
            stream.finish()


def test_an_interrupted_finish_waits_for_the_drive(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    with pytest.raises(Interrupted):
        stream_and_be_interrupted(lun, volume)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("drive:", "digest:"))]
    lun.before = None
    volume.commit()
    assert mounted(lun).index.find("/disk") is None
