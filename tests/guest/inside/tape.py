"""A proxy at a tape library: the kernel's st, sg and ch, over iSCSI; stock programs, our code, what may go wrong.

The steps tell facts; what must be true of them is told by tests/guest/test_tape.py.
"""

from __future__ import annotations

import dataclasses
import grp
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tape.changer import Changer
from tape.devices import on_this_host
from tape.drive import TapeDrive
from tape.elements import ElementKind
from tape.errors import TapeError
from tape.library import Library
from tape.locks import LockFolder
from tape.ltfs.recover import recover
from tape.ltfs.volume import LtfsVolume
from tape.scsi import discover
from tape.scsi.sg import SgTransport
from tape.scsi.unit import CHANGER, TAPE
from tape.sequential import SequentialDrive
from tape.st import drive as st
from tests.contract.drive import PROMISES
from tests.guest.inside import archive, tapes
from tests.guest.inside import tapevolumes as volumes
from tests.guest.inside.commands import call
from tests.guest.inside.suite import StepFunction, say
from tests.guest.inside.users import as_user
from vcbproxy.units import KiB

LIBRARY, GENERIC, BY_DRIVER = "VLIB0001", "TAP001L8", "TAP004L8"
LOCKS = Path("/tmp/locks")


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
            self.a_volume_by_generic_devices,
            self.a_volume_by_the_tape_driver,
            self.as_a_member_of_the_group_tape,
            self.as_nobody,
            self.a_lab_is_archived,
            self.resets,
            self.resets_under_the_tape_driver,
            self.the_door_is_opened,
            self.a_cartridge_is_pulled_out,
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
        """Load by mtx the first drive, which is not the kernel's first; ask about it; write by dd, and read back."""
        drive = self._drives[0]
        mtx = ("mtx", "-f", self._library)
        before = call(*mtx, "status")
        call(*mtx, "load", 2, 0)
        loaded = call(*mtx, "status")
        there, back = Path("/tmp/there"), Path("/tmp/back")
        there.write_bytes(volumes.content("dd")[: 512 * KiB])
        call("dd", f"if={there}", f"of={drive.nst}", "bs=64k")
        call("mt-st", "-f", drive.nst, "rewind")
        call("dd", f"if={drive.nst}", f"of={back}", "bs=64k")
        return {
            "dd": there.read_bytes() == back.read_bytes(),
            "tell": call("mt-st", "-f", drive.nst, "tell"),
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

    # ------------------------------------------------------------------ volumes

    def a_volume_by_generic_devices(self) -> dict[str, Any]:
        """The library loads it; it is formatted, written, mounted anew, appended to, and read."""
        with self._opened() as library, library.loaded(GENERIC) as drive:
            assert isinstance(drive, TapeDrive)
            volumes.format_volume(drive, GENERIC)
            volumes.append(drive, ["one", "two"])
            volumes.append(drive, ["three"])
            return {"drive": drive.name} | volumes.told(drive)

    def a_volume_by_the_tape_driver(self) -> dict[str, Any]:
        """The same where there are no generic drives; then read through one."""
        with self._opened(by_driver=True) as library, library.loaded(BY_DRIVER) as drive:
            assert isinstance(drive, st.StDrive)
            volumes.format_volume(drive, BY_DRIVER)
            volumes.append(drive, ["one", "two"])
            volumes.append(drive, ["three"])
            facts = {"drive": drive.name, "by_driver": volumes.told(drive)}
        return facts | self._seen_by_generic(BY_DRIVER)

    def as_a_member_of_the_group_tape(self) -> dict[str, Any]:
        """No root, no capabilities: by generic devices; and by the driver, which root has set up before."""

        def generic() -> dict[str, Any]:
            with self._opened() as library, library.loaded(GENERIC) as drive:
                volumes.append(drive, ["by a member"])
                return {"drive": drive.name} | volumes.told(drive)

        def driver() -> dict[str, Any]:
            with self._opened(by_driver=True) as library, library.loaded(BY_DRIVER) as drive:
                volumes.append(drive, ["by a member"])
                return {"drive": drive.name} | volumes.told(drive)

        return {
            "generic": as_user(generic, "tape"),
            "driver": as_user(driver, "tape"),
            "driver's, seen by generic": self._seen_by_generic(BY_DRIVER),
        }

    def as_nobody(self) -> dict[str, Any]:
        def tries() -> dict[str, Any]:
            return {"said": _said(lambda: self._drive(0))}

        return as_user(tries, "nogroup")

    def _seen_by_generic(self, barcode: str) -> dict[str, Any]:
        with self._opened() as library, library.loaded(barcode) as drive:
            return {"by_generic": volumes.told(drive), "searched": volumes.told(drive, search=True)}

    def a_lab_is_archived(self) -> dict[str, Any]:
        with archive.lab(LIBRARY) as lab:
            facts = archive.there_and_back(lab)
            self._mtx("load", 5, 0)
            volume, drive = ("tape", "volume"), self._drives[0]
            facts["checked"] = lab.vcbproxy(*volume, "check", drive.sg, "--read-data", "--json").json
            listed = [lab.vcbproxy(*volume, "ls", path, "--json").json for path in (drive.sg, drive.nst)]
            self._mtx("unload", 5, 0)
            return facts | {"by sg": listed[0], "by nst": listed[1]}

    # ------------------------------------------------------------------ what may go wrong

    def resets(self) -> dict[str, Any]:
        """In the middle of writing: one that moves nothing, of our own kernel's making; one by others, that rewinds."""
        facts: dict[str, Any] = {}
        with self._opened() as library, library.loaded(GENERIC) as drive:
            with volumes.mount(drive) as volume:
                facts |= self._reset_in_the_middle(volume, "own", lambda: call("sg_reset", "--device", drive.name))
            with volumes.mount(drive) as volume:
                facts |= self._reset_in_the_middle(volume, "others", lambda: self._rewinding_reset(drive))
        return facts | self._seen_by_generic(GENERIC)

    def resets_under_the_tape_driver(self) -> dict[str, Any]:
        """Closed right after: the driver must not end with a filemark what it believes to have written."""
        facts: dict[str, Any] = {}
        sg_of = {device.serial: device.sg for device in self._drives}
        for name in ("own", "others"):
            with self._opened(by_driver=True) as library, library.loaded(BY_DRIVER) as drive:
                sg = sg_of[drive.identity.serial]
                facts[f"orphans before {name}"] = recover(drive, volumes.MAKER, time.time_ns).orphan_blocks
                volume = volumes.mount(drive)
                deed = (
                    (lambda sg=sg: call("sg_reset", "--device", sg))
                    if name == "own"
                    else (lambda drive=drive: self._rewinding_reset(drive))
                )
                facts |= self._reset_in_the_middle(volume, name, deed)
        with self._opened() as library, library.loaded(BY_DRIVER) as drive:
            facts["orphans after both"] = recover(drive, volumes.MAKER, time.time_ns).orphan_blocks
        return facts | self._seen_by_generic(BY_DRIVER)

    def _rewinding_reset(self, drive: SequentialDrive) -> None:
        number = [device.serial for device in self._drives].index(drive.identity.serial)
        self._hands.do(f"reset drive {number}, which rewinds")

    def _reset_in_the_middle(self, volume: LtfsVolume, name: str, deed: Callable[[], object]) -> dict[str, Any]:
        data = volumes.content(name)
        writer = volume.create(f"/{name}")
        writer.write(data[: len(data) - 1000])
        deed()
        said = _said(lambda: (writer.write(data[len(data) - 1000 :]), writer.finish()))
        if said:
            writer.abort()
        return {name: said}

    def the_door_is_opened(self) -> dict[str, Any]:
        with self._opened() as library:
            inventory = library.inventory()
            start, mail_slot = inventory.where(GENERIC), inventory.empty_mail_slot()
            self._hands.do("open the door")
            facts = {"move": _said(lambda: library.move(start, mail_slot))}
            self._hands.do("close the door")
            return facts | {"after": [one.barcode for one in library.inventory().elements if one.full]}

    def a_cartridge_is_pulled_out(self) -> dict[str, Any]:
        """While it is written; and then put back: where the tape stands now, nothing may be written."""
        facts: dict[str, Any] = {}
        with self._opened() as library, library.loaded(GENERIC) as drive:
            number = [device.serial for device in self._drives].index(drive.identity.serial)
            volume = volumes.mount(drive)
            writer = volume.create("/pulled")
            writer.write(volumes.content("pulled")[: 600 * 1024])
            drive.flush()
            self._hands.do(f"pull the cartridge out of drive {number}")
            facts["without"] = _said(lambda: writer.write(bytes(1 << 20)))
            self._hands.do(f"put the cartridge back into drive {number}")
            facts["back"] = _said(lambda: writer.write(bytes(1 << 20)))
            facts["commit"] = _said(volume.commit)
        with self._opened() as library, library.loaded(GENERIC) as drive:
            facts["orphans"] = recover(drive, volumes.MAKER, time.time_ns).orphan_blocks
        return facts | self._seen_by_generic(GENERIC)

    # ------------------------------------------------------------------ helpers

    def _opened(self, *, by_driver: bool = False) -> Library:
        """The library of this host; on request as if there were no generic devices of drives."""
        found = [
            dataclasses.replace(device, sg=None) if by_driver and device.kind == TAPE else device
            for device in self._devices
        ]
        return Library(on_this_host(LIBRARY, LockFolder(LOCKS, command="the guest"), found=found))

    def _mtx(self, *words: object) -> None:
        call("mtx", "-f", self._library, *words)

    def _drive(self, number: int) -> TapeDrive:
        path = self._drives[number].sg
        assert path is not None
        return TapeDrive(SgTransport(path))


def _said(act: Callable[[], object]) -> str:
    """What went wrong; nothing when it went well."""
    try:
        act()
    except TapeError as error:
        return f"{type(error).__name__}: {error}"
    return ""


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
