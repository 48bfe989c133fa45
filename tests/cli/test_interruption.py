"""Ctrl-C becomes an exception of the main thread, but never where it would do harm, or be lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from vcbproxy.cli import interruption
from vcbproxy.errors import Cancelled, Terminated

PRESS = "import os; os.kill(os.getpid(), number); here.append('went on')"


def pressed(number: int, where: str) -> list[str]:
    """Be struck by a signal in code of that file; say whether that code went on."""
    here: list[str] = []
    exec(compile(PRESS, where, "exec"), {"number": number, "here": here})
    return here


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, Cancelled), (signal.SIGTERM, Terminated)])
def test_a_signal_is_raised_where_it_strikes(number: int, error: type[Cancelled]) -> None:
    with interruption.raised(), pytest.raises(error):
        pressed(number, "ours.py")
    assert interruption.wanted()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, Cancelled), (signal.SIGTERM, Terminated)])
def test_a_signal_in_the_importer_waits_until_its_locks_are_released(number: int, error: type[Cancelled]) -> None:
    with interruption.raised():
        assert pressed(number, "<frozen importlib._bootstrap>") == ["went on"]
        with pytest.raises(error):
            time.sleep(10)


class Finalised:
    """Goes at the wrong moment."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_a_destructor_drops_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    with interruption.raised():
        Finalised()
        with pytest.raises(Cancelled):
            time.sleep(10)
    assert capfd.readouterr().err == ""


def test_an_import_that_hangs_is_not_waited_for_for_ever() -> None:
    hang = "import os, time; os.kill(os.getpid(), 2)\nwhile True: time.sleep(0.001)"
    began_s = time.monotonic()
    with interruption.raised(), pytest.raises(Cancelled):
        exec(compile(hang, "<frozen importlib._bootstrap>", "exec"))
    assert time.monotonic() - began_s < 30


def test_nothing_is_left_behind() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with interruption.raised():
        pass
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


def test_the_second_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    with interruption.raised():
        with pytest.raises(Cancelled):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert "please wait" in capfd.readouterr().err
        with pytest.raises(Cancelled):
            os.kill(os.getpid(), signal.SIGINT)
