"""Our robot by mtx on mtx itself: the stock program, driving the emulated library, and tgtd's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import Element, ElementKind
from tape.emulator.library import VirtualLibrary
from tape.errors import DestinationFull, NotReady, RemovalPrevented, SourceEmpty
from tape.mtx import Ended, MtxRobot
from tape.scsi.iscsi import IscsiTransport
from tests.tape import tgt
from tests.tape.libraries import served, small_library
from tests.tape.shim import Shim

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("tgt")]

SLOT, MAIL, DRIVE = ElementKind.SLOT, ElementKind.MAIL_SLOT, ElementKind.DRIVE


@dataclass(frozen=True, slots=True)
class Bench:
    """One robot, by mtx and by us; ``library`` where it is the emulated one."""

    by_mtx: MtxRobot
    by_us: Callable[[], Changer]
    library: VirtualLibrary | None = None


def run_by(shim: Shim) -> Callable[[Sequence[str], float], Ended]:
    def run(arguments: Sequence[str], timeout_s: float) -> Ended:
        command = ["mtx", *arguments]
        done = subprocess.run(
            command, env=shim.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(params=["emulated", "tgtd"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, sgshim: Path) -> Iterator[Bench]:
    if shutil.which("mtx") is None:
        pytest.skip("no mtx here: `.ci/prepare test` installs it")
    if request.param == "emulated":
        with served(small_library(tmp_path / "library")) as made:
            target, lun = made.target.url(0).rpartition("/")[0], 0
            yield _bench(sgshim, target, lun, made.library)
    else:
        with tgt.running(tmp_path) as library:
            yield _bench(sgshim, library.target, tgt.CHANGER, None)


def _bench(sgshim: Path, target: str, lun: int, library: VirtualLibrary | None) -> Bench:
    def by_us() -> Changer:
        return Changer(IscsiTransport(f"{target}/{lun}"), sleep=lambda _: None)

    return Bench(MtxRobot(f"/dev/vsg/{lun}", "ROBOT1", run_by(Shim(sgshim, target))), by_us, library)


def seen(elements: Sequence[Element]) -> dict[ElementKind, list[str]]:
    """What lies where, kind by kind: mtx numbers places from 0 or 1, robots as they like."""
    return {
        kind: [element.barcode if element.full else "-" for element in elements if element.kind is kind]
        for kind in (SLOT, MAIL, DRIVE)
    }


def at(robot: MtxRobot, kind: ElementKind, place: int) -> Element:
    return [element for element in robot.elements() if element.kind is kind][place]


def agreed(bench: Bench) -> dict[ElementKind, list[str]]:
    """What both say."""
    with closing(bench.by_us()) as ours:
        found = seen(ours.elements())
    assert seen(bench.by_mtx.elements()) == found
    return found


def test_both_see_the_same_before_and_after_every_move(bench: Bench) -> None:
    robot = bench.by_mtx
    first, second = agreed(bench)[SLOT][:2]
    robot.move(at(robot, SLOT, 0), at(robot, DRIVE, 1))
    assert agreed(bench)[DRIVE] == ["-", first]
    assert at(robot, DRIVE, 1).source == at(robot, SLOT, 0).address
    robot.move(at(robot, SLOT, 1), at(robot, MAIL, 0))
    assert agreed(bench)[MAIL] == [second, "-"]
    robot.move(at(robot, DRIVE, 1), at(robot, SLOT, 5))
    robot.move(at(robot, MAIL, 0), at(robot, SLOT, 0))
    found = agreed(bench)
    assert (found[SLOT][0], found[SLOT][5], found[DRIVE], found[MAIL]) == (second, first, ["-", "-"], ["-", "-"])


def test_what_cannot_be_is_the_same_error_as_without_mtx(bench: Bench) -> None:
    robot = bench.by_mtx
    before = agreed(bench)
    with pytest.raises(SourceEmpty):
        robot.move(at(robot, SLOT, 7), at(robot, DRIVE, 0))
    with pytest.raises(DestinationFull):
        robot.move(at(robot, SLOT, 0), at(robot, SLOT, 1))
    assert agreed(bench) == before


def test_it_takes_stock(bench: Bench) -> None:
    before = agreed(bench)
    bench.by_mtx.take_stock()
    assert agreed(bench) == before


def test_a_drive_that_holds_its_cartridge_and_an_open_door_are_told(bench: Bench) -> None:
    if bench.library is None:
        pytest.skip("tgtd's library has neither")
    robot = bench.by_mtx
    robot.move(at(robot, SLOT, 0), at(robot, DRIVE, 0))
    drive = TapeDrive(bench.library.drive_transport(0), sleep=lambda _: None)
    with drive.held(), pytest.raises(RemovalPrevented):
        robot.move(at(robot, DRIVE, 0), at(robot, SLOT, 0))
    bench.library.open_door()
    with pytest.raises(NotReady):
        robot.elements()
    places = Element(1, SLOT, True), Element(2, SLOT, False)
    with pytest.raises(NotReady):
        robot.move(*places)
