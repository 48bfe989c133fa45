"""LUNs, volumes and mounts: everything that the VMs' disks lie on can be read here, and written by nobody here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from jobs.preflight import mounts
from jobs.preflight.result import Result, broken, failed, named, ok, warning
from vcbproxy.config import San
from vcbproxy.errors import Error
from vcbproxy.manager.datastore import Datastore, DatastorePath
from vcbproxy.manager.vm import Vm
from vcbproxy.mounts import TABLE
from vcbproxy.san.images import absent
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.opened import OpenLuns
from vcbproxy.san.patience import GivenUp
from vcbproxy.source.storage import Placement, Storage
from vcbproxy.source.survey import look


def luns(settings: San, found: Sequence[LunInfo], opened: OpenLuns) -> Iterator[Result]:
    """LUNs are seen, this machine will not write to them, and none is there twice."""
    for problem in absent(settings.images).values():
        detail, _, remedy = problem.partition("; ")
        yield failed("LUN images", detail, remedy, 2)
    whole = [lun for lun in found if lun.kind is not LunKind.PARTITION]
    if not whole and settings.mounts:  # a datastore on LUNs says below that they are missing
        yield ok("LUNs", "none is visible; datastores are mounted instead")
        return
    if not whole:
        remedy = "map the datastores' LUNs to this proxy, read-only, and rescan (docs/operating.md 3.1)"
        yield failed("LUNs", "no LUN is visible", remedy)
        return
    yield ok("LUNs", f"{len(whole)} visible: {named(lun.name for lun in whole)}")
    writable = [lun.name for lun in whole if not lun.read_only and lun.kind is not LunKind.IMAGE]
    if writable:
        remedy = "install the udev rule (docs/operating.md 3.3), or map them read-only on the array"
        yield warning("LUNs read-only", f"this machine could write to {named(writable)}", remedy)
    yield from _copies(whole, found, opened)


def _copies(whole: Sequence[LunInfo], found: Sequence[LunInfo], opened: OpenLuns) -> Iterator[Result]:
    """Two LUNs with the same part of the same volume: one is a clone, or a snapshot that the array made."""
    survey = look(whole, found, opened)
    refused = [problem for path, problem in survey.problems.items() if path not in survey.twins]
    if refused:  # not every disk of this machine need be ours to read; a datastore that needs it says so below
        remedy = "for a LUN of a datastore: the udev rule, and the user vcbproxy (docs/operating.md 3.3)"
        yield warning("LUNs readable", named(refused), remedy)
    told: set[str] = set()
    for lun in whole:
        twins = survey.twins.get(lun.path, [])
        if twins and lun.path not in told:
            told |= {lun.path, *(twin.path for twin in twins)}
            volume, _ = survey.spans[lun.path]
            names = " and ".join(twin.name for twin in (lun, *twins))
            detail = f"{names} carry the same part of volume {volume.label or volume.uuid or volume.lvm_uuid}"
            yield warning("copies of LUNs", detail, "unmap the clone or array snapshot from this proxy")


def datastores(storage: Storage, known: Sequence[Datastore], vms: Sequence[Vm]) -> Iterator[Result]:
    """Every datastore that the VMs lie on is readable here; its volume is opened and its root listed."""
    names = Counter(datastore.name for datastore in known)
    users: dict[tuple[str, str], dict[Vm, None]] = {}
    for vm in vms:
        for disk in vm.disks:
            homes = dict(disk.homes)
            for name in (path.datastore for path in (disk.path, *disk.parents)):
                moref = homes.get(name, "") if names[name] > 1 else ""
                users.setdefault((name, moref), {})[vm] = None
    if not vms:
        users = {(name, ""): {} for name in names}
    for (name, moref), theirs in sorted(users.items(), key=lambda item: item[0]):
        if name in names:
            view = storage.seen_by(disk for vm in theirs for disk in vm.disks)
            yield _datastore(view, name, f"{name} ({moref})" if moref else name, list(theirs))


def unknown_mounts(settings: San, known: Sequence[Datastore]) -> Iterator[Result]:
    """Mounts whose datastore the manager does not know: mostly a slip of the pen."""
    names = {datastore.name for datastore in known}
    for mount in settings.mounts:
        if mount.datastore not in names:
            there = named(sorted(names)) or "none"
            remedy = f"correct [san] mounts; there are: {there}"
            yield failed("mounts", f"the manager knows no datastore {mount.datastore!r}", remedy, 2)


def _datastore(storage: Storage, name: str, called: str, vms: Sequence[Vm]) -> Result:
    check = f"datastore {called}"
    users = [vm.name for vm in vms]
    place = storage.place(name)
    if not place.reachable:
        detail = _unreachable(place) + (f"; it holds disks of {named(users)}" if users else "")
        judge = failed if place.datastore.kind.readable else warning
        return judge(check, detail, place.remedy)
    if place.mount is not None:
        table = TABLE.read_text("utf-8", "surrogateescape")
        judge_it = partial(mounts.judged, check, place.datastore, place.mount, _expected(name, vms), table)
        try:  # a hard mount waits for its server for ever
            return storage.patience.call(("mount", str(place.mount)), judge_it)
        except GivenUp as given_up:
            remedy = f"is {place.datastore.nfs_host} up? Else: umount -f {place.mount}"
            return failed(check, f"{place.mount}: {given_up}", remedy)
    try:
        return ok(check, _volume(storage, name))
    except Error as error:
        return broken(check, error)


def _unreachable(place: Placement) -> str:
    """What is missing; the placement's own remedy says what to do."""
    if place.missing and not place.twins:
        extents = len(place.datastore.extents)
        return f"{len(place.missing)} of its {extents} LUNs not seen here: {', '.join(place.missing)}"
    return "not readable here"


def _expected(name: str, vms: Sequence[Vm]) -> list[DatastorePath]:
    """Files that must be on a datastore, were it the right one."""
    paths = [vm.vmx for vm in vms if vm.vmx is not None]
    paths += [disk.path for vm in vms for disk in vm.disks]
    return [path for path in paths if path.datastore == name]


def _volume(storage: Storage, name: str) -> str:
    volume = storage.volume(name)
    entries = sum(1 for _ in volume.entries("/"))
    where = ", ".join(lun.name for lun in storage.place(name).luns)
    return f"VMFS {volume.version} {volume.uuid} on {where}, {entries} entries in its root"


def mount_points(settings: San) -> Mapping[str, Path]:
    """Where datastores are mounted, by name."""
    return {mount.datastore: mount.path for mount in settings.mounts}
