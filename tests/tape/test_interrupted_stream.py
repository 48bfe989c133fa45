"""An interrupt while a file's last blocks are written: the drive is nobody else's before its thread has ended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tape.emulator.lun import Lun
from tape.ltfs.stream import FileStream
from tape.ltfs.volume import LtfsVolume
from tests.tape.volumes import BLOCK, formatted, mounted


class Interrupted(Exception):
    """What the signal's handler raises."""


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def slowly(_lun: Lun, _cdb: bytes) -> None:
    time.sleep(0.4)


def stream_and_be_interrupted(volume: LtfsVolume) -> None:
    with FileStream(volume.create("/disk")) as stream:
        for _ in range(40):
            stream.write(bytes(BLOCK))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        stream.finish()


@pytest.mark.usefixtures("alarm")
def test_an_interrupted_finish_waits_for_the_drive(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    lun.before = slowly
    with pytest.raises(Interrupted):
        stream_and_be_interrupted(volume)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("drive:", "digest:"))]
    lun.before = None
    volume.commit()
    assert mounted(lun).index.find("/disk") is None
