"""Which tape drives and libraries this machine sees, each by its serial number: sysfs in, ``Device`` out.

    /sys/class/scsi_device/6:0:0:1/device/     type (1 a drive, 8 a library), vendor, model, rev, state
        vpd_pg80                               the serial number, as the kernel read it
        scsi_generic/sg3                       /dev/sg3:  takes every command; how we use both
        scsi_tape/nst0                         /dev/nst0: the tape driver's; a way out where there is no sg
        scsi_changer/sch0

No device is opened but one whose serial number the kernel did not read (one that claims to be older than SPC-2).
Numbers of device files change with every boot and every cable; the serial number does not, and it is what a library
tells of its drives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tape.errors import TapeError
from tape.scsi.sg import SgTransport
from tape.scsi.unit import CHANGER, TAPE, Unit

_SERIAL_PAGE = 0x80
_UNUSABLE_STATES = {"offline", "transport-offline", "cancel", "deleted"}


@dataclass(frozen=True, slots=True)
class Device:
    """One drive or library, as the kernel shows it.

    Attributes:
        kind: SPC's peripheral device type: ``TAPE`` or ``CHANGER``.
        serial: by which it is known; empty when nobody could tell it.
        vendor: its maker.
        product: its model.
        revision: of its firmware.
        address: host:channel:target:unit, the way that leads to it.
        sg: its generic device, ``/dev/sgN``; None where the kernel has none.
        nst: a drive's device of the tape driver, ``/dev/nstN``.
        problem: why it cannot be used, or why its serial number is unknown; empty when all is well.
    """

    kind: int
    serial: str
    vendor: str
    product: str
    revision: str = ""
    address: str = ""
    sg: Path | None = None
    nst: Path | None = None
    problem: str = ""

    @property
    def path(self) -> Path | None:
        """How to open it: the generic device where there is one, else the tape driver's."""
        return self.sg or self.nst

    def __str__(self) -> str:
        return f"{self.vendor} {self.product} {self.serial or 'without a serial number'} at {self.path or self.address}"


def ask_serial(path: Path) -> str:
    """The serial number, from the device itself.

    Raises:
        TapeError: it cannot be opened, or does not tell.
    """
    unit = Unit(SgTransport(path))
    try:
        unit.attend()
        return unit.inquiry().serial
    finally:
        unit.close()


def discover(
    sys: Path = Path("/sys"), dev: Path = Path("/dev"), ask: Callable[[Path], str] = ask_serial
) -> list[Device]:
    """All tape drives and libraries of this machine, in the order of their SCSI addresses.

    One that is attached by two ways is there twice, with one serial number.

    Args:
        sys: where sysfs is mounted.
        dev: where device nodes are.
        ask: asks an sg device for its serial number, where sysfs does not have it.
    """
    folders = [entry / "device" for entry in (sys / "class/scsi_device").glob("*")]
    found = [device for folder in folders if (device := _device(folder, dev, ask)) is not None]
    return sorted(found, key=lambda device: [int(number) for number in device.address.split(":")])


def drives(devices: Iterable[Device]) -> dict[str, Device]:
    """Drives by serial number; of two ways to one, the first that works. One without a serial number is left out."""
    return _by_serial(device for device in devices if device.kind == TAPE)


def changers(devices: Iterable[Device]) -> dict[str, Device]:
    """Libraries by serial number, as ``drives``."""
    return _by_serial(device for device in devices if device.kind == CHANGER)


def _by_serial(devices: Iterable[Device]) -> dict[str, Device]:
    best: dict[str, Device] = {}
    for device in devices:
        known = best.get(device.serial)
        if device.serial and (known is None or (known.problem and not device.problem)):
            best[device.serial] = device
    return best


def _device(folder: Path, dev: Path, ask: Callable[[Path], str]) -> Device | None:
    """One device; None for one of another kind, and for one that was unplugged while we looked."""
    kind = _text(folder / "type")
    if kind not in (str(TAPE), str(CHANGER)):
        return None
    sg, nst = _node(folder / "scsi_generic", "sg", dev), _node(folder / "scsi_tape", "nst", dev)
    state = _text(folder / "state")
    problem = f"the kernel holds it to be {state}" if state in _UNUSABLE_STATES else ""
    serial = _page_80(folder)
    if not serial and sg is not None and not problem:
        try:
            serial = ask(sg)
        except TapeError as error:
            problem = str(error)
    if not serial:
        problem = problem or "it has no serial number"
    return Device(
        kind=int(kind),
        serial=serial,
        vendor=_text(folder / "vendor"),
        product=_text(folder / "model"),
        revision=_text(folder / "rev"),
        address=folder.parent.name,
        sg=sg,
        nst=nst,
        problem=problem,
    )


def _page_80(folder: Path) -> str:
    """The unit serial number page (SPC-5, 7.7.17) that the kernel keeps."""
    try:
        page = (folder / "vpd_pg80").read_bytes()
    except OSError:
        return ""
    if len(page) < 4 or page[1] != _SERIAL_PAGE:
        return ""
    return page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace").strip("\0 ")


def _node(folder: Path, prefix: str, dev: Path) -> Path | None:
    """The device node of this name and a number: of nst0, nst0a, nst0l, nst0m the first alone."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return None
    exact = [name for name in names if name.startswith(prefix) and name.removeprefix(prefix).isdigit()]
    return dev / exact[0] if exact else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
