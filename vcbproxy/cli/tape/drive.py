"""``vcbproxy tape drive``: tape drives, what is in them, and how both of them fare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.archive import places
from vcbproxy.cli import frame
from vcbproxy.cli.shelves import state_directory
from vcbproxy.cli.tape import libraries
from vcbproxy.cli.tape.loaded import alone
from vcbproxy.config import Config
from vcbproxy.errors import Error, Partial, UsageError
from vcbproxy.units import MiB, human

if TYPE_CHECKING:
    from tape.alerts import Alert
    from tape.health import Health
    from tape.library import Library
    from tape.scsi.discover import Device
    from tape.sequential import SequentialDrive

_COLUMNS = ("library", "number", "drive", "model", "device", "cartridge", "in_use_by")
_DRIVE = click.argument("drive")


@click.group(cls=frame.Group)
def drive() -> None:
    """Tape drives: what is in them, and how they fare.

    A drive is called by its serial number, by the beginning of it, or by its number in the library, from 0.
    """


@drive.command(
    "list",
    cls=frame.Command,
    exit_codes=(3, 11),
    examples=("vcbproxy tape drive list", "vcbproxy tape drive list --library main --json"),
)
@libraries.library_option
@frame.json_option
def list_(library: str | None, config: Config, as_json: bool) -> None:
    """List the drives of all configured libraries, and those that this machine sees besides.

    No drive is spoken to: one that is in use is not disturbed. Ends with 3 when a library cannot be asked.
    """
    seen = {device.serial or str(device.path): device for device in _seen()}
    rows: list[dict[str, Any]] = []
    failed: list[Error] = []
    for name in [library] if library is not None else list(config.tape.library):
        try:
            with libraries.opened(config, name) as used:
                rows += _rows(name, used, seen)
        except Error as error:
            if library is not None:
                raise
            failed.append(error)
    if library is None:
        known = {row["drive"] for row in rows}
        rows += [_row(None, None, serial, seen) for serial in seen if serial not in known]
    frame.emit(rows, as_json=as_json, columns=_COLUMNS, columns_if_any=("problem",))
    if not rows and not failed:
        frame.say("no tape drive is seen, and no library is configured")
    if failed:
        raise Partial("; ".join(str(error) for error in failed)) from failed[0]


@drive.command(
    cls=frame.Command,
    exit_codes=(11,),
    examples=("vcbproxy tape drive status 0", "vcbproxy tape drive status 1013 --library main --json"),
)
@_DRIVE
@libraries.wait_option
@libraries.library_option
@frame.json_option
def status(drive: str, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Say how a drive fares, and the cartridge in it: its life, its errors, the room left on it.

    Nothing is moved. What the drive complains of (TapeAlert) is told once: reading takes it down.
    """
    from tape import alerts
    from vcbproxy.archive.libraries import cleaning_log

    with _chosen(drive, wait_s, library, config) as (device, cartridge):
        found = alerts.read(device)
        row = _status(device, cartridge, found)
        if alerts.wants_cleaning(found):  # it asks once
            cleaning_log(state_directory(config)).ask(device.identity.serial)
    frame.emit(row, as_json=as_json)


@drive.command(
    cls=frame.Command,
    exit_codes=(11, 14),
    examples=("vcbproxy tape drive clean 0", "vcbproxy tape drive clean 1013000ABC --with CLN002L8"),
)
@_DRIVE
@click.option("--with", "barcode", metavar="BARCODE", help="Which cleaning cartridge; else the most used one.")
@libraries.wait_option
@libraries.library_option
@frame.json_option
def clean(drive: str, barcode: str | None, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Clean a drive, with a cartridge of its library whose label begins with CLN.

    Uses are counted in the state directory. A cartridge that a drive calls used up is never taken again.
    """
    from tape import cleaning
    from vcbproxy.archive.libraries import cleaning_log

    with libraries.opened(config, library) as used:
        serial = libraries.drive_named(drive, used.inventory())
        log = cleaning_log(state_directory(config))
        done = cleaning.clean(used.seating, serial, log, barcode=barcode, wait_s=wait_s)
    frame.emit({"drive": serial, "cartridge": done.barcode, "uses": done.uses, "uses_left": done.left}, as_json=as_json)


@drive.command(
    cls=frame.Command,
    exit_codes=(11, 14),
    examples=("vcbproxy tape drive load 0 TAP001L8", "vcbproxy tape drive load 1013000ABC"),
)
@_DRIVE
@click.argument("barcode", metavar="[BARCODE]", required=False)
@libraries.wait_option
@libraries.library_option
@frame.json_option
def load(drive: str, barcode: str | None, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Bring a cartridge into a drive and thread it; without BARCODE, thread the one that lies in it."""
    with libraries.opened(config, library) as used:
        serial = libraries.drive_named(drive, used.inventory())
        wanted = barcode or used.inventory().drive(serial).barcode
        if not wanted:
            raise UsageError(f"nothing lies in drive {serial}: say which cartridge")
        used.load(wanted, serial, wait_s=wait_s)
        row = _rows(used.name, used, {}, only=serial)[0]
    frame.emit({"drive": serial, "cartridge": row["cartridge"]}, as_json=as_json)


@drive.command(cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape drive unload 0",))
@_DRIVE
@libraries.wait_option
@libraries.library_option
@frame.json_option
def unload(drive: str, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Have a drive give its cartridge out, and bring that home to its slot."""
    with libraries.opened(config, library) as used:
        serial = libraries.drive_named(drive, used.inventory())
        carried = used.unload(serial, wait_s=wait_s)
        place = places.place(carried, used.inventory())
    frame.emit({"drive": serial, "cartridge": carried.barcode or None, "place": place}, as_json=as_json)


@drive.command(
    cls=frame.Command,
    exit_codes=(11,),
    examples=("vcbproxy tape drive label 0 TAP001L8 --library attic",),
)
@_DRIVE
@click.argument("barcode")
@libraries.wait_option
@libraries.library_option
@frame.json_option
def label(drive: str, barcode: str, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Say which label the blank cartridge bears that was put by hand into a drive without a robot.

    Nothing is written to it: it is known by its own serial number from then on. One that was once labelled by
    vcbproxy tells its label itself.
    """
    from tape.standalone import labels_beside, say_label
    from vcbproxy.archive.libraries import locks_of

    with libraries.opened(config, library) as used:
        serial = libraries.drive_named(drive, used.inventory())
        with used.drive(serial, wait_s=wait_s) as device:
            cartridge = say_label(device, labels_beside(locks_of(state_directory(config))), barcode)
    frame.emit({"drive": serial, "cartridge": barcode, "cartridge_serial": cartridge}, as_json=as_json)


# ---------------------------------------------------------------------- rows


def _seen() -> list[Device]:
    from tape.scsi.discover import discover
    from tape.scsi.unit import TAPE

    return [device for device in discover() if device.kind == TAPE]


def _rows(name: str, used: Library, seen: dict[str, Device], only: str | None = None) -> list[dict[str, Any]]:
    from tape.elements import ElementKind

    rows = []
    for number, element in enumerate(used.inventory().of_kind(ElementKind.DRIVE)):
        if only in (None, element.drive_serial):
            row = _row(name, number, element.drive_serial, seen)
            row["cartridge"] = element.barcode or ("without a label" if element.full else None)
            if element.drive_serial in used.reachable:
                row["in_use_by"] = used.holder(element.drive_serial)
            else:
                row["problem"] = (
                    "this machine does not see it" if element.drive_serial else "which drive it is, is not known"
                )
            rows.append(row)
    return rows


def _row(library: str | None, number: int | None, serial: str, seen: dict[str, Device]) -> dict[str, Any]:
    device = seen.get(serial)
    return {
        "library": library,
        "number": number,
        "drive": serial or None,
        "model": f"{device.vendor} {device.product}" if device is not None else None,
        "device": str(device.path) if device is not None and device.path is not None else None,
        "cartridge": None,
        "in_use_by": None,
        "problem": (device.problem or None) if device is not None else None,
    }


def _status(device: SequentialDrive, cartridge: str | None, complaints: list[Alert]) -> dict[str, Any]:
    from tape import health
    from tape.errors import NotReady
    from tape.scsi import cdb

    identity = device.identity
    found: Health | None = None
    try:
        device.unit.run(cdb.test_unit_ready(), "test unit ready")
        state, found = "ready", health.of(device)
    except NotReady as error:
        state = str(error.reason)
    return {
        "drive": identity.serial,
        "model": f"{identity.vendor} {identity.product}",
        "firmware": identity.revision,
        "state": state,
        "cartridge": cartridge,
        **_life(found),
        "alerts": [_alert(one) for one in complaints],
    }


def _life(found: Health | None) -> dict[str, Any]:
    """What is known of the cartridge; the same keys when nothing is."""
    if found is None:
        return dict.fromkeys(_LIFE)
    left = sum(found.remaining_mib) if found.remaining_mib is not None else None
    whole = sum(found.maximum_mib) if found.maximum_mib is not None else None
    values = (
        found.barcode or None,
        found.kind.value if found.kind is not None else None,
        found.write_protected,
        found.maker or None,
        found.serial or None,
        found.made_on or None,
        found.loads,
        found.written_mib,
        found.read_mib,
        list(found.last_drives),
        None if left is None else human(left * MiB),
        None if left is None else left * MiB,
        None if whole is None else whole * MiB,
        found.writing.corrected,
        found.writing.uncorrected,
        found.reading.corrected,
        found.reading.uncorrected,
    )
    return dict(zip(_LIFE, values, strict=True))


_LIFE = (
    "memory_barcode", "medium", "write_protected", "maker", "cartridge_serial", "made_on", "loads", "written_mib",
    "read_mib", "last_drives", "left", "left_bytes", "capacity_bytes", "write_errors_corrected",
    "write_errors_uncorrected", "read_errors_corrected", "read_errors_uncorrected",
)  # fmt: skip


def _alert(one: Alert) -> str:
    return f"{one.number} {one.name} ({one.severity}): {one.text}"


# ---------------------------------------------------------------------- from a name to a drive


@contextmanager
def _chosen(
    name: str, wait_s: float, library: str | None, config: Config
) -> Iterator[tuple[SequentialDrive, str | None]]:
    """The drive of that name, and the label of what lies in it; or one that stands alone, by its device file."""
    if name.startswith("/dev/"):
        with alone(name, config, wait_s) as device:
            yield device, None
        return
    with libraries.opened(config, library) as used:
        inventory = used.inventory()
        serial = libraries.drive_named(name, inventory)
        with used.drive(serial, wait_s=wait_s) as device:
            yield device, inventory.drive(serial).barcode or None
