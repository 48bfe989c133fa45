"""An interrupt at the very end, while threads are waited for: none is left behind, and no lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from tests.alarm import alarm
from tests.repository.faulty import FailingBackend
from tests.repository.repositories import START, chunk, made
from vcbproxy.clock import ManualClock
from vcbproxy.errors import Cancelled
from vcbproxy.repository import lock
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.ids import BlobKind, Buffer


class SlowBackend(FailingBackend):
    """Once ``slow`` is set, files of one kind take until after ``rung``; ``begun`` says that it has begun with one."""

    def __init__(self, kind: FileKind) -> None:
        super().__init__()
        self.slow = threading.Event()
        self.begun = threading.Event()
        self.rung = threading.Event()
        self._kind = kind

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        if name.kind is self._kind and self.slow.is_set():
            self.begun.set()
            assert self.rung.wait(120)
            time.sleep(0.2)
        super().save(name, parts)


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("pack-writer", "lock-refresh"))]


def interrupted(action: Callable[[ExitStack], None]) -> None:
    """``action`` sets its alarm itself, just before the end that is to be interrupted."""
    with pytest.raises(Cancelled), ExitStack() as alarms:
        action(alarms)


def test_writers_end_before_their_session_does() -> None:
    backend = SlowBackend(FileKind.PACK)
    repository = made(backend)
    with repository.locked() as held:

        def write(alarms: ExitStack) -> None:
            with repository.writing(held) as session:
                packer = session.packer()
                packer.add(BlobKind.DATA, chunk("a"))
                packer.finish()
                assert backend.begun.wait(120)
                alarms.enter_context(alarm(rung=backend.rung))

        backend.slow.set()
        interrupted(write)
        assert [name for name in ours() if name.startswith("pack-writer")] == []
    assert list(backend.list(FileKind.LOCK)) == []


@pytest.mark.parametrize("failed", [False, True])
def test_a_lock_that_is_being_renewed_is_released(*, failed: bool) -> None:
    backend, clock = SlowBackend(FileKind.LOCK), ManualClock(START)
    repository = made(backend, clock)

    def hold(alarms: ExitStack) -> None:
        with repository.locked():
            backend.slow.set()
            clock.sleep(lock.REFRESH_S + 1)
            assert backend.begun.wait(120)
            alarms.enter_context(alarm(rung=backend.rung))
            if failed:
                raise ZeroDivisionError

    interrupted(hold)
    assert ours() == []
    assert list(backend.list(FileKind.LOCK)) == []
