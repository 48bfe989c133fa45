"""A proxy at a tape library: the kernel's st, sg and ch, over iSCSI; stock programs, our code, what may go wrong.

The steps tell facts; what must be true of them is told by tests/guest/test_tape.py.
"""

from __future__ import annotations

import dataclasses
import grp
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

from tape.changer import Changer, ElementKind
from tape.drive import TapeDrive
from tape.scsi import discover
from tape.scsi.sg import SgTransport
from tape.scsi.unit import CHANGER, TAPE
from tape.sequential import SequentialDrive
from tape.st import drive as st
from tests.contract.drive import PROMISES
from tests.guest.inside import tapes
from tests.guest.inside.commands import call
from tests.guest.inside.suite import StepFunction, say


class Tape:
    """The steps, and what each leaves to the next."""

    def __init__(self, out: Path) -> None:
        self._settings = tapes.settings(out)

    def steps(self) -> list[StepFunction]:
        return [
            self.library_comes_up,
            self.drives_are_matched,
            self.stock_programs_work,
            self.generic_devices_keep_promises,
            self.tape_devices_keep_promises,
        ]

    def library_comes_up(self) -> dict[str, Any]:
        tapes.start_network()
        tapes.start_udev()
        tapes.log_in(self._settings["target"], self._settings["port"])
        self._hands = tapes.Hands(self._settings["hands"])
        self._devices = discover.discover()
        links = {str(link): str(link.resolve()) for link in Path("/dev/tape/by-id").iterdir()}
        nodes = [node for device in self._devices for node in (device.sg, device.nst) if node is not None]
        groups = {str(node): grp.getgrgid(node.stat().st_gid).gr_name for node in nodes}
        say(call("lsscsi", "--generic"))
        return {"devices": [_told(device) for device in self._devices], "links": links, "groups": groups}

    def drives_are_matched(self) -> dict[str, Any]:
        """Which drive is in which element: the library tells serial numbers, the kernel does, too."""
        [library] = discover.changers(self._devices).values()
        assert library.sg is not None
        self._library = library.sg
        changer = Changer(SgTransport(library.sg))
        elements = [one for one in changer.elements() if one.kind is ElementKind.DRIVE]
        changer.close()
        found = discover.drives(self._devices)
        self._drives = [found[one.drive_serial] for one in elements]
        return {"elements": [(one.address, one.drive_serial, str(found[one.drive_serial].sg)) for one in elements]}

    def stock_programs_work(self) -> dict[str, Any]:
        """Load by mtx the first drive, which is not the kernel's first; ask about it; write and read a block by dd."""
        drive = self._drives[0]
        mtx = ("mtx", "-f", self._library)
        before = call(*mtx, "status")
        call(*mtx, "load", 2, 0)
        loaded = call(*mtx, "status")
        return {
            "inquiry": call(*mtx, "inquiry"),
            "before": before,
            "loaded": loaded,
            "tapeinfo": call("tapeinfo", "-f", drive.sg),
            "sg_logs": call("sg_logs", "--page=0x31", drive.sg),
            "mt": call("mt-st", "-f", drive.nst, "status"),
        }

    def generic_devices_keep_promises(self) -> dict[str, Any]:
        with closing(self._drive(0)) as drive:
            drive.load()
            return _kept(drive)

    def tape_devices_keep_promises(self) -> dict[str, Any]:
        self._mtx("unload", 2, 0)
        self._mtx("load", 3, 1)
        with closing(st.open_drive(self._drives[1])) as drive:
            drive.load()
            return _kept(drive)

    def _mtx(self, *words: object) -> None:
        call("mtx", "-f", self._library, *words)

    def _drive(self, number: int) -> TapeDrive:
        path = self._drives[number].sg
        assert path is not None
        return TapeDrive(SgTransport(path))


def _kept(drive: SequentialDrive) -> dict[str, Any]:
    """Try every promise, also when one is broken."""
    broken = {}
    for promise in PROMISES:
        say(promise.__name__)
        try:
            promise(drive)
        except Exception:  # noqa: BLE001  # whatever it is, the host must hear of it
            broken[promise.__name__] = traceback.format_exc()
    return {"drive": str(drive.identity), "tried": len(PROMISES), "broken": broken}


def _told(device: discover.Device) -> dict[str, Any]:
    kind = {TAPE: "drive", CHANGER: "library"}[device.kind]
    return dataclasses.asdict(device) | {"kind": kind, "sg": str(device.sg), "nst": str(device.nst)}


def steps(out: Path) -> list[StepFunction]:
    return Tape(out).steps()
