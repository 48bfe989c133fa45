"""``vcbproxy tape library``: a tape library in a folder, made, served over iSCSI, and reached into."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import errors, units
from vcbproxy.cli import frame
from vcbproxy.errors import Busy, Cancelled, Error, Terminated, UsageError

if TYPE_CHECKING:
    from tape.emulator.cartridge import Kind
    from tape.emulator.faults import Mischief
    from tape.emulator.iscsi.target import IscsiTarget
    from tape.emulator.library import VirtualLibrary

_FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
_PORT = 3260
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # what is listened on, the operator says


class _Size(click.ParamType[int]):
    """A size on the command line: ``4096``, ``64K``, ``1.5GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what a size looks like."""
        try:
            return value if isinstance(value, int) else units.parse_size(value)
        except errors.UsageError as error:
            self.fail(str(error), param, ctx)


@click.group()
def library() -> None:
    """A tape library in a folder: drives, a robot, and cartridges that are folders too.

    To try everything out without hardware, to rehearse disasters, and as a library on disk. See docs/tape.md.
    """


@library.command(
    cls=frame.Command,
    examples=(
        "vcbproxy tape library create /srv/vtl --barcodes TAP001L8-TAP010L8",
        "vcbproxy tape library create /srv/vtl --slots 24 --drives 4 --capacity 2T",
    ),
)
@_FOLDER
@click.option("--slots", type=click.IntRange(1, 4096), help="Places for cartridges; 8, or as many as there are.")
@click.option("--drives", type=click.IntRange(1, 64), default=2, show_default=True, help="How many drives.")
@click.option("--mail-slots", type=click.IntRange(0, 64), default=2, show_default=True, help="Import/export places.")
@click.option(
    "--barcodes",
    multiple=True,
    metavar="FIRST-LAST",
    help="Cartridges to begin with, such as TAP001L8-TAP010L8, or one barcode; repeatable. Those that begin with CLN "
    "clean, those that end in LV to LZ can be written once.",
)
@click.option("--capacity", type=_Size(), default="3G", show_default=True, help="Of each cartridge, both partitions.")
@click.option("--serial", default="VLIB0001", show_default=True, help="The robot's; those of drives begin with it.")
@frame.json_option
def create(
    folder: Path,
    slots: int | None,
    drives: int,
    mail_slots: int,
    barcodes: Sequence[str],
    capacity: int,
    serial: str,
    as_json: bool,
) -> None:
    """Make a library in FOLDER, its cartridges blank and in the first slots."""
    from tape.emulator.library import VirtualLibrary

    with _wrong_is_usage():
        listed = [barcode for text in barcodes for barcode in _expanded(text)]
        made = VirtualLibrary.create(
            folder,
            barcodes=listed,
            slots=slots if slots is not None else max(8, len(listed)),
            drives=drives,
            mail=mail_slots,
            kind=_kind(capacity),
            serial=serial,
            durable=True,
        )
    frame.emit(_rows(made), as_json=as_json, columns=_COLUMNS)
    if not as_json:
        frame.say(f"Use it as it is: [tape.library.NAME] folder = {str(folder.resolve())!r}, in the configuration")
        frame.say(f"Or serve it:     vcbproxy tape library serve {folder}")


@library.command(
    cls=frame.Command,
    exit_codes=(11,),
    examples=("vcbproxy tape library serve /srv/vtl", "vcbproxy tape library serve /srv/vtl --listen 192.0.2.7:3260"),
)
@_FOLDER
@click.option(
    "--listen",
    default=f"127.0.0.1:{_PORT}",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where; port 0 takes a free one. Nobody is asked for a password: whoever reaches it may write.",
)
@click.option("--read-only", is_flag=True, help="As if the tab of every cartridge were set.")
@click.option(
    "--real-time", is_flag=True, help="Take the time that LTO-8 drives take, for loading, seeking and writing."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    help="Make a fault, such as drive1:write:100=medium-error; repeatable. docs/tape.md lists them.",
)
@click.option("--fault-seed", type=int, metavar="N", help="Make faults by chance: the same number, the same faults.")
@click.option("--fault-rate", type=click.FloatRange(0, 1), default=0.001, show_default=True, help="How many of them.")
def serve(
    folder: Path,
    listen: str,
    read_only: bool,
    real_time: bool,
    faults: Sequence[str],
    fault_seed: int | None,
    fault_rate: float,
) -> None:
    """Serve the library in FOLDER over iSCSI until Ctrl-C or SIGTERM: LUN 0 is the robot, the next ones its drives.

    When it is ready its address is printed. One program at a time has the folder; `import` and `export` may be used.
    """
    from tape.emulator.door import Door
    from tape.emulator.iscsi.target import IscsiTarget
    from tape.emulator.pace import AT_ONCE, LTO8, StoppableClock

    host, port = _address(listen)
    clock = StoppableClock()
    with ExitStack() as stack:
        library = stack.enter_context(
            _opened(folder, read_only=read_only, timing=LTO8 if real_time else AT_ONCE, clock=clock)
        )
        _mischief(faults, fault_seed, fault_rate).befall(library)
        try:
            target = IscsiTarget(library.luns, library.iscsi_name, host=host, port=port)
        except OSError as error:
            raise Error(f"cannot listen on {listen}: {error.strerror or error}") from error
        stack.enter_context(target)
        stack.enter_context(Door(library))
        stack.callback(clock.stop)  # first of all: nobody waits for a seek of a minute
        click.echo(target.url(0).rpartition("/")[0])
        _explain(target, host)
        with suppress(Cancelled, Terminated):
            threading.Event().wait()


def _mischief(faults: Sequence[str], seed: int | None, rate: float) -> Mischief:
    from tape.emulator.faults import Chance, Fault, Mischief

    with _wrong_is_usage():
        ordered = [Fault.parse(text) for text in faults]
    chance = Chance(seed, rate) if seed is not None else None
    if chance is not None:
        frame.say(f"Faults by chance: --fault-seed {seed} --fault-rate {rate:g}")
    return Mischief(ordered, chance, told=frame.say)


@library.command(
    "import", cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape library import /srv/vtl TAP011L8",)
)
@_FOLDER
@click.argument("barcode")
@click.option("--capacity", type=_Size(), default="3G", show_default=True, help="Of a cartridge that is not there yet.")
@frame.json_option
def import_(folder: Path, barcode: str, capacity: int, as_json: bool) -> None:
    """Put a cartridge into a mail slot: a new one, or one whose folder lies in FOLDER. Also while it is served."""
    kind = _kind(capacity)
    with _wrong_is_usage():
        request = {"do": "import", "barcode": barcode, "capacity_mib": kind.capacity_mib}
        answer = _asked(folder, request) or _by_hand(
            folder, lambda library: {"address": library.import_cartridge(barcode, kind)}
        )
    frame.emit({"barcode": barcode, "element": answer["address"]}, as_json=as_json)


@library.command(
    "export", cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape library export /srv/vtl TAP001L8",)
)
@_FOLDER
@click.argument("barcode")
@frame.json_option
def export(folder: Path, barcode: str, as_json: bool) -> None:
    """Take a cartridge out, by a mail slot; its folder stays in FOLDER, to be copied away. Also while it is served."""

    def take_out(library: VirtualLibrary) -> dict[str, Any]:
        library.take_out(barcode)
        return {"done": True}

    with _wrong_is_usage():
        _asked(folder, {"do": "export", "barcode": barcode}) or _by_hand(folder, take_out)
    frame.emit({"barcode": barcode, "folder": str(folder / barcode)}, as_json=as_json)


@library.command(cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape library door /srv/vtl open",))
@_FOLDER
@click.argument("state", type=click.Choice(["open", "closed"]))
@frame.json_option
def door(folder: Path, state: str, as_json: bool) -> None:
    """Open or close the door of a library that is being served: nothing moves while it is open. For rehearsals."""
    if not _asked(folder, {"do": "door", "open": state == "open"}):
        raise UsageError(f"{folder} is not being served: its door matters to nobody")
    frame.emit({"folder": str(folder), "door": state}, as_json=as_json)


@library.command(cls=frame.Command, examples=("vcbproxy tape library show /srv/vtl",))
@_FOLDER
@frame.json_option
def show(folder: Path, as_json: bool) -> None:
    """What lies where, as it was after the last move; also while the library is used."""
    from tape.emulator.library import VirtualLibrary

    with _wrong_is_usage():
        frame.emit(_rows(VirtualLibrary.open(folder, look_only=True)), as_json=as_json, columns=_COLUMNS)


# ---------------------------------------------------------------------- reaching in


@contextmanager
def _opened(folder: Path, **how: Any) -> Iterator[VirtualLibrary]:
    """The library, for this program alone."""
    from tape.emulator.library import VirtualLibrary
    from tape.errors import InUse, TapeError
    from tape.locks import LockFolder

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no library; make one with `vcbproxy tape library create`")
    try:
        with LockFolder(folder).held("library"):
            with _wrong_is_usage():
                opened = VirtualLibrary.open(folder, **how)
            yield opened
    except InUse as error:
        raise Busy(str(error)) from error
    except TapeError as error:
        raise Error(str(error)) from error


def _asked(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """What a process that serves the folder answers; None when none does."""
    from tape.emulator import door as doors

    try:
        return {"done": True, **doors.ask(folder, request)}
    except doors.Shut:
        return None
    except doors.Refused as error:
        raise UsageError(str(error)) from error


def _by_hand(folder: Path, act: Any) -> dict[str, Any]:
    with _opened(folder) as library:
        done: dict[str, Any] = act(library)
        return done


@contextmanager
def _wrong_is_usage() -> Iterator[None]:
    try:
        yield
    except (ValueError, FileExistsError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise Error(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


def _expanded(text: str) -> Iterator[str]:
    from vcbproxy.config.barcodes import CLEANING_PREFIX, BarcodeRange

    if text.startswith(CLEANING_PREFIX):  # of which a pool may have none
        yield text
    else:
        yield from BarcodeRange.parse(text)


def _kind(capacity_bytes: int) -> Any:
    from tape.emulator.cartridge import Kind

    if capacity_bytes < _CAPACITY_BYTES_MIN:
        raise UsageError(f"a cartridge holds at least {units.human(_CAPACITY_BYTES_MIN)}")
    return Kind(capacity_mib=capacity_bytes // units.MiB)


_CAPACITY_BYTES_MIN = 16 * units.MiB
_COLUMNS = ("element", "type", "drive", "barcode", "source", "capacity", "kind", "write_protected")


def _rows(library: VirtualLibrary) -> list[dict[str, Any]]:
    from tape.emulator.robot import DRIVES, ElementKind

    shelf = library.shelf
    rows = []
    for kind in (ElementKind.DRIVE, ElementKind.SLOT, ElementKind.MAIL):
        for address in shelf.elements(kind):
            barcode = shelf.full.get(address)
            what = library.kind_of(barcode) if barcode is not None else None
            rows.append(
                {
                    "element": address,
                    "type": {"DRIVE": "drive", "SLOT": "slot", "MAIL": "mail slot"}[kind.name],
                    "drive": library.drives[address - DRIVES].serial if kind is ElementKind.DRIVE else None,
                    "barcode": barcode,
                    "source": shelf.sources.get(address),
                    "capacity": units.human(what.capacity_mib * units.MiB) if what is not None else None,
                    "capacity_bytes": what.capacity_mib * units.MiB if what is not None else None,
                    "kind": _sort(barcode, what) if barcode is not None and what is not None else None,
                    "write_protected": what.write_protected if what is not None else None,
                }
            )
    return rows


def _sort(barcode: str, what: Kind) -> str:
    from tape.elements import CLEANING_PREFIX

    if barcode.startswith(CLEANING_PREFIX):
        return "cleaning"
    return "worm" if what.worm else "data"


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 0xFFFF:
        raise UsageError(f"--listen {listen}: write an address and a port, such as 127.0.0.1:{_PORT} or [::1]:{_PORT}")
    return host, int(port)


def _explain(target: IscsiTarget, host: str) -> None:
    """How to get at it, for whoever started this by hand."""
    import socket

    portal = f"{socket.gethostname()}:{target.port}" if host in _EVERYWHERE else target.portal
    frame.say(f"Robot: LUN 0, drives: LUN 1 to {len(target.luns) - 1}. In a Linux with open-iscsi:")
    frame.say(f"  iscsiadm -m discovery -t sendtargets -p {portal}")
    frame.say(f"  iscsiadm -m node -T {target.name} -p {portal} --login")
    frame.say("In vcbproxy's configuration, with no kernel in between:")
    frame.say(f'  [tape.library.NAME]\n  portal = "iscsi://{portal}/{target.name}"')
    if host not in _LOOPBACK:
        frame.say(f"Whoever reaches {portal} may read and write every cartridge: keep it to a network of its own.")
