"""``vcbproxy lun``: the LUNs this proxy sees, the volumes on them, and what the manager calls these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import errors
from vcbproxy.cli import frame
from vcbproxy.config import Config, Image, San
from vcbproxy.san import discover, naa
from vcbproxy.san import watch as watching
from vcbproxy.san.info import LunInfo
from vcbproxy.san.watch import Change, Event
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.manager.datastore import Datastore
    from vcbproxy.source.survey import Survey
    from vcbproxy.vmfs.probe import Member, VolumeSet

_COLUMNS = ("lun", "size", "wwn", "kind", "read_only", "volume", "version", "span", "datastore")
_WATCHED = ("time", "event", "lun", "size", "wwn", "volume", "changed", "problem")
_LOOKS_MAX = 5
_TROUBLE = ("missing", "problem")


@click.group(cls=frame.Group)
def lun() -> None:
    """LUNs this proxy sees, and the volumes on them."""


@lun.command("list", cls=frame.Command, exit_codes=(3,))
@frame.config_option
@frame.json_option
def list_(config: Config, as_json: bool) -> None:
    """List LUNs, the VMFS volumes on them, and their datastores.

    Reads the headers of each LUN and writes nothing. Names of datastores come from the manager, where one is
    configured. Ends with 3 when a LUN or the manager could not be read, or a volume lacks a span; what is known is
    listed all the same. --json has more: whole paths, UUIDs, serial numbers, multipath.
    """
    from vcbproxy.san.opened import OpenLuns
    from vcbproxy.source import survey as source

    found = discover.listed(config.san)
    with OpenLuns(config.san.read_timeout_s) as opened:
        survey = source.look(discover.whole(found), found, opened)
    datastores, manager_problem = _datastores(config)
    table = list(rows(survey, datastores))
    frame.emit(table if as_json else _shortened(table), as_json=as_json, columns=_COLUMNS)
    if not found:
        frame.say("no LUN is seen: none is mapped to this machine, or none is scanned yet (docs/operating.md, 3.1)")
    wrong = [f"{row['lun'] or row['datastore']}: {row[name]}" for row in table for name in _TROUBLE if row[name]]
    if manager_problem:
        wrong.append(f"datastores unknown: {manager_problem}")
    if len(wrong) == 1:
        raise errors.Partial(wrong[0])
    if wrong:
        several = errors.Partial(f"{len(wrong)} things are missing or wrong:")
        for line in wrong:
            several.add_note(f"- {line}")
        raise several


@lun.command(
    cls=frame.Command,
    examples=("vcbproxy lun watch --json | jq -r 'select(.event != \"present\") | .lun'",),
)
@click.option("--for", "for_s", type=click.FloatRange(min=0), metavar="SECONDS", help="End then; else by Ctrl-C.")
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(min=0, min_open=True),
    default=watching.SETTLE_S,
    show_default=True,
    metavar="SECONDS",
    help="Look when nothing has happened for so long.",
)
@frame.config_option
@frame.json_option
def watch(config: Config, for_s: float | None, settle_s: float, as_json: bool) -> None:
    """Tell of LUNs that come, go or change, while it happens.

    Begins with those that are there. Of a LUN that is new, headers are read, once, and nothing is written. With --json
    each line is a document.
    """
    from vcbproxy.clock import SystemClock

    clock = SystemClock()
    with watching.UdevNotices() as notices:
        try:
            discover.listed(config.san)
        except errors.ConfigError as error:
            frame.say(f"vcbproxy: {error}")  # a device that is named, and not there yet, may be what is waited for
        look = partial(_there, config.san)
        for found in watching.changes(notices, look, clock, settle_s=settle_s, for_s=for_s):
            for row in _changed(found, config.san.read_timeout_s, clock.now()):
                frame.emit_line(row, as_json=as_json, columns=_WATCHED)


def _there(settings: San) -> list[LunInfo]:
    """Whole LUNs; images that the configuration names may go, as LUNs do."""
    for _ in range(_LOOKS_MAX):
        images = tuple(image for image in settings.images if _is_there(image))
        try:
            return discover.whole(discover.listed(settings.model_copy(update={"images": images})))
        except errors.ConfigError:  # one went between the two
            continue
    return discover.whole(discover.listed(settings))


def _is_there(image: Image) -> bool:
    try:
        discover.configured([image])
    except errors.ConfigError:
        return False
    return True


def _changed(found: Sequence[Change], read_timeout_s: float, when: datetime) -> Iterator[dict[str, Any]]:
    """A row for each change; what is new here is looked into."""
    from vcbproxy.san.opened import OpenLuns
    from vcbproxy.source import survey as source

    new = [change.lun for change in found if change.event in (Event.PRESENT, Event.ADDED)]
    with OpenLuns(read_timeout_s) as opened:
        survey = source.look(new, opened=opened)
    for change in found:
        info = change.lun
        volume, span = survey.spans.get(info.path, (None, None))
        yield {
            "time": when.isoformat(timespec="milliseconds"),
            "event": change.event.value,
            "lun": info.path,
            "name": info.name,
            "size": human(info.size_bytes),
            "size_bytes": info.size_bytes,
            "wwn": info.canonical_name or None,
            "kind": info.kind.value,
            "read_only": info.read_only,
            "paths": list(info.paths),
            "content": info.content or None,
            "volume": (volume.label or None) if volume else None,
            "uuid": (volume.uuid or None) if volume else None,
            "span": span,
            "changed": list(change.changed),
            "problem": survey.problems.get(info.path),
        }


def _shortened(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For people: LUNs by the last part of their path, where that tells them apart."""
    short = [row["lun"] and PurePath(row["lun"]).name for row in table]
    return [
        {**row, "lun": row["lun"] if short.count(name) > 1 else name} for row, name in zip(table, short, strict=True)
    ]


def _datastores(config: Config) -> tuple[list[Datastore], str]:
    """The manager's VMFS datastores, or why they are unknown; neither when no manager is configured."""
    if config.manager is None:
        return [], ""
    from vcbproxy.cli import connect
    from vcbproxy.manager import inventory
    from vcbproxy.manager.datastore import DatastoreKind

    try:
        with connect.to_manager(config) as session:
            return [found for found in inventory.datastores(session) if found.kind is DatastoreKind.VMFS], ""
    except (errors.ManagerError, errors.CredentialsError) as error:
        return [], str(error)


def rows(survey: Survey, datastores: Sequence[Datastore]) -> Iterator[dict[str, Any]]:
    """One row for each LUN, then one for each datastore that none of them carries."""
    seen = {info.wwn for info in survey.luns if info.wwn}
    shown: set[str] = set()
    for info in survey.luns:
        volume, span = survey.spans.get(info.path, (None, None))
        store, doubt = _datastore_of(info, volume, datastores, seen)
        if store is not None:
            shown.add(store.moref)
        live = store is not None and info.wwn in _keys(store)
        row = {
            "lun": info.path,
            "name": info.name,
            "size": human(info.size_bytes),
            "size_bytes": info.size_bytes,
            "sector_bytes": info.sector_bytes,
            "wwn": info.canonical_name or None,
            "serial": info.serial or None,
            "model": info.model or None,
            "kind": info.kind.value,
            "read_only": info.read_only,
            "paths": list(info.paths),
            "content": info.content or None,
            "volume": (volume.label or None) if volume else None,
            "version": (volume.version or None) if volume else None,
            "uuid": (volume.uuid or None) if volume else None,
            "lvm_uuid": volume.lvm_uuid if volume else None,
            "span": span,
            "datastore": store.name if store else None,
            "missing": _missing(volume, store, seen) if volume else None,
            "problem": doubt or (None if live and _told_apart(info, survey) else survey.problems.get(info.path)),
        }
        yield row
        for member in survey.further.get(info.path, ()):
            other = next((found for found in datastores if member.uuid and found.vmfs_uuid == member.uuid), None)
            shown |= {other.moref} if other is not None else set()
            yield {**row, **_further(member), "datastore": other and other.name}
    for store in datastores:
        if store.moref not in shown:
            yield _absent(store, _unseen(store, seen))


def _further(member: Member) -> dict[str, Any]:
    """What differs in the row of a second VMFS partition of a LUN."""
    return {
        "volume": member.label or None,
        "version": member.version or None,
        "uuid": member.uuid or None,
        "lvm_uuid": member.lvm_uuid,
        "span": f"{1 if member.is_first else '?'} of {member.devices}",
        "missing": None,
        "problem": None,
    }


def _told_apart(info: LunInfo, survey: Survey) -> bool:
    """Whether a LUN that has copies here, and that the manager means, has a name of its own."""
    twins = survey.twins.get(info.path, [])
    return bool(twins) and all(twin.wwn != info.wwn for twin in twins)


def _missing(volume: VolumeSet, store: Datastore | None, seen: set[str]) -> str | None:
    """Which device of a volume is not here; by what the hosts call it, where the manager or the volume itself says."""
    text = volume.missing_text
    names = _unseen(store, seen) if store else list(volume.missing_names)
    return (f"{text}: {', '.join(names)}" if text and names else text) or None


def _absent(store: Datastore, unseen: list[str]) -> dict[str, Any]:
    """The row of a datastore that is on none of the LUNs."""
    nothing = (
        "lun",
        "name",
        "sector_bytes",
        "wwn",
        "serial",
        "model",
        "kind",
        "read_only",
        "content",
        "lvm_uuid",
        "span",
    )
    return {
        **dict.fromkeys(nothing),
        "size": human(store.capacity_bytes),
        "size_bytes": store.capacity_bytes,
        "paths": [],
        "volume": None,
        "version": store.vmfs_version,
        "uuid": store.vmfs_uuid,
        "datastore": store.name,
        "missing": f"not mapped here: {', '.join(unseen)}" if unseen else "on none of its LUNs",
        "problem": None,
    }


def _datastore_of(
    info: LunInfo, volume: VolumeSet | None, datastores: Sequence[Datastore], seen: set[str]
) -> tuple[Datastore | None, str | None]:
    """The datastore on a LUN, and what is odd about it.

    The UUID read from the volume decides; the LUN's name stands in on a span that does not hold the UUID. When the two
    disagree, the array has mapped us something else than the hosts see: a copy, an old snapshot, or another LUN.
    """
    uuid = volume.uuid if volume else ""
    by_uuid = next((store for store in datastores if uuid and uuid == store.vmfs_uuid), None)
    named = [store for store in datastores if info.wwn and info.wwn in _keys(store)]
    by_name = by_uuid if by_uuid in named else next(iter(named), None)  # two partitions of a LUN: two datastores
    if by_name is not None and by_name is not by_uuid:
        if volume is not None and not uuid:
            return by_name, None
        found = f"volume {volume.label or uuid}" if volume else "no VMFS volume"
        return by_uuid, f"the manager says that it carries datastore {by_name.name}; {found} was found on it"
    if by_uuid is None or by_name is by_uuid or not info.wwn or not by_uuid.extents:
        return by_uuid, None
    names = ", ".join(extent.disk_name for extent in by_uuid.extents)
    if _keys(by_uuid) & seen:
        return None, f"a copy: the manager has datastore {by_uuid.name} on {names}; unmap it"
    return by_uuid, f"the manager has datastore {by_uuid.name} on {names}: a copy of that, or named otherwise; not read"


def _keys(store: Datastore) -> set[str]:
    return {naa.bare(extent.disk_name) for extent in store.extents}


def _unseen(store: Datastore, seen: set[str]) -> list[str]:
    return [extent.disk_name for extent in store.extents if naa.bare(extent.disk_name) not in seen]
