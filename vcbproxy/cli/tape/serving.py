"""``vcbproxy tape library serve``: the robot and drives of a folder, over iSCSI."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcbproxy.cli import frame
from vcbproxy.cli.tape.folder import FOLDER, opened, wrong_is_usage
from vcbproxy.errors import Cancelled, Error, Terminated, UsageError

if TYPE_CHECKING:
    from tape.emulator.faults import Mischief
    from tape.emulator.iscsi.target import IscsiTarget

_PORT = 3260
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # what is listened on, the operator says


@click.command(
    cls=frame.Command,
    exit_codes=(11,),
    examples=("vcbproxy tape library serve /srv/vtl", "vcbproxy tape library serve /srv/vtl --listen 192.0.2.7:3260"),
)
@FOLDER
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
            opened(folder, read_only=read_only, timing=LTO8 if real_time else AT_ONCE, clock=clock)
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

    with wrong_is_usage():
        ordered = [Fault.parse(text) for text in faults]
    chance = Chance(seed, rate) if seed is not None else None
    if chance is not None:
        frame.say(f"Faults by chance: --fault-seed {seed} --fault-rate {rate:g}")
    return Mischief(ordered, chance, told=frame.say)


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
