"""``vcbproxy lab trouble``: let things go wrong in a lab that is being served, to rehearse with."""

from __future__ import annotations

from pathlib import Path

import click

from vcbproxy.cli import frame
from vcbproxy.errors import UsageError


@click.command(
    cls=frame.Command,
    examples=(
        "vcbproxy lab trouble /tmp/lab                          what there is",
        "vcbproxy lab trouble /tmp/lab consolidation-sticks",
        "vcbproxy lab trouble /tmp/lab connections-drop --chance 0.2",
        "vcbproxy lab trouble /tmp/lab RemoveSnapshot_Task --fault FileLocked --in-task",
        "vcbproxy lab trouble /tmp/lab --clear",
    ),
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--times", type=click.IntRange(min=0), help="How many calls or tasks it hits; 0: all.")
@click.option("--after", type=click.IntRange(min=0), help="How many to let pass before.")
@click.option("--chance", type=click.FloatRange(0, 1, min_open=True), help="Of each to be hit.")
@click.option("--vm", help="Only tasks on this VM.")
@click.option("--fault", help="With a method's name: the fault it ends in, such as FileLocked.")
@click.option("--in-task", is_flag=True, help="With a method's name: the task ends in it, not the call.")
@click.option("--clear", is_flag=True, help="Let all be well again; what hung goes on.")
@frame.json_option
def trouble(
    directory: Path,
    name: str | None,
    times: int | None,
    after: int | None,
    chance: float | None,
    vm: str | None,
    fault: str | None,
    in_task: bool,
    clear: bool,
    as_json: bool,
) -> None:
    """Let things go wrong in the datacenter in DIRECTORY while it is served, to rehearse with.

    NAME is one of those listed without it, or a method of the API that is to end in a --fault. LEFT says how often it
    will still strike.
    """
    from vcbproxy.lab import door
    from vcbproxy.lab.vcenter.control import document
    from vcbproxy.lab.vcenter.recipes import Order

    if name is None and any(option is not None for option in (times, after, chance, vm, fault)):
        raise UsageError("say which trouble; without a name what there is is listed")
    asked: dict[str, object] | None = None
    if name is not None:
        moref = "" if vm is None else _moref(directory, vm)
        asked = document(Order(name, fault or "", in_task, times, after, chance, moref))
    if clear:
        door.ask(directory, {"clear": True})
    rows = door.ask(directory, asked)
    if not as_json:
        rows = [{**row, "left": ("always" if row["left"] is None else row["left"]) or "-"} for row in rows]
    frame.emit(rows, as_json=as_json, columns=("trouble", "does", "left"))


def _moref(directory: Path, vm: str) -> str:
    from vcbproxy.lab import datacenter

    found = [known.moref for known in datacenter.peek(directory).vms if vm in (known.name, known.moref)]
    if len(found) != 1:
        raise UsageError(f"the lab has {len(found)} VMs {vm!r}")
    return found[0]
