"""``vcbproxy lun``: the LUNs this proxy sees, the volumes on them, and what the manager calls these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import errors
from vcbproxy.cli import frame
from vcbproxy.config import Config
from vcbproxy.san import discover, naa
from vcbproxy.san.info import LunInfo
from vcbproxy.san.lun import Lun, open_lun
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.manager.datastore import Datastore
    from vcbproxy.vmfs.probe import VolumeSet

_COLUMNS = ("lun", "size", "wwn", "kind", "read_only", "volume", "version", "span", "datastore")
_TROUBLE = ("missing", "problem")


@dataclass(slots=True)
class Survey:
    """What was found out about the LUNs: in the order of ``luns``, by path."""

    luns: list[LunInfo]
    volumes: list[VolumeSet] = field(default_factory=list)
    spans: dict[str, tuple[VolumeSet, str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@click.group()
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
    found = discover.listed(config.san)
    survey = look(discover.whole(found), found)
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


def _shortened(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For people: LUNs by the last part of their path, where that tells them apart."""
    short = [row["lun"] and PurePath(row["lun"]).name for row in table]
    return [
        {**row, "lun": row["lun"] if short.count(name) > 1 else name} for row, name in zip(table, short, strict=True)
    ]


def look(luns: Sequence[LunInfo], partitions: Sequence[LunInfo] = ()) -> Survey:
    """Probe each LUN once for VMFS; what goes wrong with one is noted beside it and hides no other.

    Args:
        luns: whole LUNs.
        partitions: what udev knows of their partitions; spares a complaint about disks that hold something else.
    """
    from vcbproxy.vmfs import probe

    survey = Survey(list(luns))
    with contextlib.ExitStack() as stack:
        members: dict[Lun, str] = {}
        for info in luns:
            try:
                opened = stack.enter_context(open_lun(info.path, name=info.name))
                if probe.probe(opened) is not None:
                    members[opened] = info.path
            except errors.CannotOpen as error:
                if not _holds_something_else(info, partitions):
                    survey.problems[info.path] = str(error)
            except errors.SourceError as error:
                survey.problems[info.path] = str(error)
        survey.volumes = probe.assemble(list(members))
        for volume in survey.volumes:
            _note(survey, volume, {id(opened): path for opened, path in members.items()})
    return survey


def _note(survey: Survey, volume: VolumeSet, paths: dict[int, str]) -> None:
    """Say of each LUN of a volume which part of it it carries, and whether another carries the same."""
    for member in volume.members:
        number = 1 + sum(other.first_byte < member.first_byte for other in volume.members)
        known = not volume.missing or member.is_first
        survey.spans[paths[id(member.device)]] = (volume, f"{number if known else '?'} of {volume.devices}")
    for twin in volume.duplicates:
        path = paths[id(twin.device)]
        survey.spans[path] = (volume, "copy")
        others = [paths[id(m.device)] for m in volume.members if m.first_byte == twin.first_byte]
        survey.problems[path] = f"carries the same part of volume {volume.label or volume.lvm_uuid} as {others[0]}"


def _holds_something_else(info: LunInfo, known: Sequence[LunInfo]) -> bool:
    """Whether udev found something other than VMFS: a disk of this machine that the backup need not be let at."""
    contents = [part.content or part.partition_type for part in known if part.partition_of == info.path]
    contents += [info.content] if info.content else []
    vmfs = ("VMFS", "aa31e02a-400f-11db-9590-000c2911d1b8", "0xfb")
    return bool(contents) and all(content and not content.startswith(vmfs) for content in contents)


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
        store, doubt = _datastore_of(info, volume, datastores)
        missing = volume.missing_text if volume else ""
        if store is not None:
            shown.add(store.moref)
            unseen = _unseen(store, seen)
            if missing and unseen:
                missing += f": {', '.join(unseen)}"
        yield {
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
            "missing": missing or None,
            "problem": survey.problems.get(info.path) or doubt,
        }
    for store in datastores:
        if store.moref not in shown:
            yield _absent(store, _unseen(store, seen))


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
    info: LunInfo, volume: VolumeSet | None, datastores: Sequence[Datastore]
) -> tuple[Datastore | None, str | None]:
    """The datastore on a LUN, and what is odd about it.

    The UUID read from the volume decides; the LUN's name stands in on a span that does not hold the UUID. When the two
    disagree, the array has mapped us something else than the hosts see: an old snapshot, or another LUN.
    """
    uuid = volume.uuid if volume else ""
    by_uuid = next((store for store in datastores if uuid and uuid == store.vmfs_uuid), None)
    by_name = next((store for store in datastores if info.wwn and info.wwn in _keys(store)), None)
    if by_name is None or by_name is by_uuid:
        return by_uuid, None
    if volume is not None and not uuid:
        return by_name, None
    found = f"volume {volume.label or uuid}" if volume else "no VMFS volume"
    return by_uuid, f"the manager says that it carries datastore {by_name.name}; {found} was found on it"


def _keys(store: Datastore) -> set[str]:
    return {naa.bare(extent.disk_name) for extent in store.extents}


def _unseen(store: Datastore, seen: set[str]) -> list[str]:
    return [extent.disk_name for extent in store.extents if naa.bare(extent.disk_name) not in seen]
