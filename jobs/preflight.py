"""Preflight: is everything there that a backup needs? Each check names the real cause and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from vcbproxy.clock import Clock
from vcbproxy.errors import Error
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.session import Session
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.source.storage import Storage

CLOCK_SKEW_MAX_S = 300.0


class Level(Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Result:
    """One check. ``exit_code`` is that of the error behind a failure."""

    check: str
    level: Level
    detail: str
    exit_code: int = 0


def attempt(check: str, action: Callable[[], str]) -> Result:
    """Run one check; an error of ours is its result."""
    try:
        return Result(check, Level.OK, action())
    except Error as error:
        return Result(check, Level.FAILED, str(error), error.exit_code)


def luns(found: Sequence[LunInfo]) -> Iterator[Result]:
    """LUNs are seen, and this machine will not write to them."""
    whole = [lun for lun in found if lun.kind is not LunKind.PARTITION]
    if not whole:
        yield Result("LUNs", Level.FAILED, "no LUN is visible: map the datastores' LUNs to this proxy, read-only", 1)
        return
    yield Result("LUNs", Level.OK, f"{len(whole)} visible: {', '.join(lun.name for lun in whole)}")
    writable = [lun.name for lun in whole if not lun.read_only and lun.kind is not LunKind.IMAGE]
    if writable:
        remedy = "the udev rule in systemd/ or a read-only mapping on the array protects them from other programs"
        yield Result("LUNs read-only", Level.WARNING, f"writable on this machine: {', '.join(writable)}; {remedy}")


def datastores(storage: Storage, names: Sequence[str]) -> Iterator[Result]:
    """Every datastore is readable here; its volume is opened and its root listed."""
    for name in names:
        place = storage.place(name)
        check = f"datastore {name}"
        if not place.reachable:
            level = Level.FAILED if place.datastore.kind.readable else Level.WARNING
            yield Result(check, level, place.remedy, 1 if level is Level.FAILED else 0)
        elif place.mount is not None:
            mounted = place.mount.is_dir()
            detail = f"mounted at {place.mount}" if mounted else f"{place.mount} is not a directory: mount it"
            yield Result(check, Level.OK if mounted else Level.FAILED, detail, 0 if mounted else 1)
        else:
            yield attempt(check, partial(_volume, storage, name))


def _volume(storage: Storage, name: str) -> str:
    volume = storage.volume(name)
    entries = sum(1 for _ in volume.entries("/"))
    where = ", ".join(lun.name for lun in storage.place(name).luns)
    return f"VMFS {volume.version} {volume.uuid} on {where}, {entries} entries in its root"


def clock_skew(session: Session, clock: Clock) -> Result:
    """Restore points bear the manager's time; a clock that is wrong makes retention wrong."""
    skew_s = abs((overview.current_time(session) - clock.now()).total_seconds())
    if skew_s > CLOCK_SKEW_MAX_S:
        return Result("clocks", Level.WARNING, f"the manager's clock is {skew_s:.0f} s off ours: let both use NTP")
    return Result("clocks", Level.OK, f"{skew_s:.0f} s apart")


def machines(session: Session) -> Iterator[Result]:
    """There is something to protect, and no snapshot of ours was left behind."""
    everything = inventory.vms(session)
    running = [vm for vm in everything if not vm.template]
    if not running:
        yield Result("virtual machines", Level.FAILED, "the manager shows none: does this user see them?", 1)
        return
    yield Result("virtual machines", Level.OK, f"{len(running)} visible")
    stale = [vm for vm in overview.leftovers(session) if vm.snapshots]
    if stale:
        listed = ", ".join(f"{vm.name}: {snapshot.name}" for vm in stale for snapshot in vm.snapshots)
        remedy = "`vcbproxy cleanup` removes those that no running backup holds"
        yield Result("our VM snapshots", Level.WARNING, f"still there: {listed}; {remedy}")


def repository(open_target: Callable[[], RepositoryTarget]) -> Result:
    """The repository opens with its password, and can be listed."""

    def look() -> str:
        target = open_target()
        return f"{target.repository.location}: {len(target.points())} restore points"

    return attempt("repository", look)
