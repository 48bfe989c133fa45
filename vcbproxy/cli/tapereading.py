"""What commands do that read restore points off tape: say which cartridges they need, restore, verify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcbproxy.cli import archiving, frame, shelves
from vcbproxy.config import Config
from vcbproxy.errors import CartridgeWanted, NothingProtected
from vcbproxy.units import human

if TYPE_CHECKING:
    from jobs.fromtape import TapeRestore
    from jobs.taperestored import Restored
    from vcbproxy.archive.pools import OpenPool
    from vcbproxy.catalog.records import ArchivedPoint


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be restored, and how.

    Attributes:
        texts: the restore points, as the operator calls them.
        pool: in which; None: in any.
    """

    texts: tuple[str, ...]
    pool: str | None
    disks: tuple[str, ...] = ()
    directory: Path | None = None
    output: Path | None = None
    overwrite: bool = False
    workers: int = 2
    wait: bool = False
    identity: Path | None = None
    salvage: bool = False


def needed(config: Config, wanted: Wanted) -> list[dict[str, Any]]:
    """A row for each cartridge, in the order in which they are read: where it is, and for what it is needed.

    Raises:
        UsageError: there is no such restore point.
    """
    from vcbproxy.archive.bases import with_bases

    rows: list[dict[str, Any]] = []
    for pool, points in _by_pool(archiving.found(config, wanted.pool, wanted.texts)):
        with archiving.opened(config, pool) as (opened, _):
            rows += _rows(opened, with_bases(points, opened.catalog.points.listed()))
    return rows


def _tell_cartridges(opened: OpenPool, points: Sequence[ArchivedPoint], *, wait: bool) -> None:
    """Before the first cartridge is loaded, say which are needed, and which of them are not in the library.

    Raises:
        CartridgeWanted: some are not, and are not waited for.
    """
    rows = list(_rows(opened, points))
    missing = [row for row in rows if not row["in_library"]]
    told = ", ".join(f"{row['barcode']} ({row['where']})" for row in missing)
    if missing and not wait:
        barcodes = tuple(row["barcode"] for row in missing)
        raise CartridgeWanted(f"put into the library: {told}; or --wait for them", barcodes=barcodes)
    frame.say(f"needed, in this order: {', '.join(row['barcode'] for row in rows)}")
    if missing:
        frame.say(f"to be put into the library: {told}")


def _rows(opened: OpenPool, needed: Sequence[ArchivedPoint]) -> Iterator[dict[str, Any]]:
    from vcbproxy.archive import reader
    from vcbproxy.archive.boundary import tape_errors

    with tape_errors():
        present = set(opened.library.inventory().barcodes)
    for barcode in reader.in_order(needed):
        known = opened.catalog.media.get(barcode)
        vault = None if known is None else known.vault
        where = "library" if barcode in present else f"vault {vault}" if vault else "not in the library"
        yield {
            "barcode": barcode,
            "where": where,
            "in_library": barcode in present,
            "vault": vault,
            "points": [point.name for point in needed if barcode in point.barcodes],
        }


def restore(config: Config, wanted: Wanted) -> Restored:
    """Restore them, one pool after the other, each cartridge loaded once.

    Raises:
        UsageError: there is no such restore point, or a file is in the way.
        CartridgeWanted: a cartridge is not in the library, and is not waited for.
        Error: something can be neither read nor written any more.
    """
    from jobs.taperestored import Restored
    from jobs.tapewanted import Where
    from vcbproxy.archive.bases import with_bases

    points = archiving.found(config, wanted.pool, wanted.texts)
    restored = Restored([], {}, {})
    for pool, ours in _by_pool(points):
        with _reading(config, pool, wanted) as (opened, job):
            _tell_cartridges(opened, with_bases(ours, opened.catalog.points.listed()), wait=wanted.wait)
            wheres = [
                Where(point, _directory(wanted, point, several=len(points) > 1), wanted.output, wanted.disks)
                for point in ours
            ]
            restored += job.run(wheres, opened.catalog.points.listed())
    return restored


def verified(config: Config, wanted: Wanted) -> list[dict[str, Any]]:
    """Read restore points whole and prove each, with those that they build upon; all, if none is named. A row for each.

    Raises:
        UsageError: there is no such restore point.
        NothingProtected: there is none at all.
        CartridgeWanted: a cartridge is not in the library, and is not waited for.
    """
    from jobs.tapewanted import Where, names_of

    points = archiving.found(config, wanted.pool, wanted.texts)
    if not points:
        raise NothingProtected("there is no restore point on tape: nothing could be verified")
    rows: dict[str, dict[str, Any]] = {}
    for pool, ours in _by_pool(points):
        with _reading(config, pool, wanted) as (opened, job):
            listed = opened.catalog.points.listed()
            there = _with_known_bases(ours, listed)
            _tell_cartridges(opened, there, wait=wanted.wait)
            done = job.run([Where(point, prove=True) for point in there], listed)
        names = names_of(there)
        for point in there:
            rows[point.id] = _verified(point, names[point.id], done, rows)
    return list(rows.values())


def _with_known_bases(points: Sequence[ArchivedPoint], known: Sequence[ArchivedPoint]) -> list[ArchivedPoint]:
    """These and all that they build on, bases first; of what the catalog does not know any more, nothing."""
    by_id = {point.id: point for point in known}
    found: dict[str, ArchivedPoint] = {}
    for point in points:
        chain: dict[str, ArchivedPoint] = {}
        one: ArchivedPoint | None = point
        while one is not None and one.id not in chain:
            chain[one.id] = one
            one = by_id.get(one.base or "")
        for below in reversed(chain.values()):
            found.setdefault(below.id, below)
    return list(found.values())


def _verified(point: ArchivedPoint, name: str, done: Restored, below: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A row: good is only what can be restored, so that what it builds on has to be good too."""
    errors = [
        f"{what.removeprefix(name).strip()}: {why}" for what, why in done.failed.items() if what.startswith(f"{name} ")
    ]
    if point.base is not None and point.base not in below:
        errors.append(f"it builds on restore point {point.base}, which is not in the catalog")
    elif point.base is not None and below[point.base]["errors"]:
        errors.append(f"it builds on {below[point.base]['name']}, which is damaged")
    proved = [disk for disk in done.proved if disk.point == point.id]
    size = sum(disk.size_bytes for disk in proved)
    return {
        "point": point.id[:8],
        "point_id": point.id,
        "name": point.name,
        "result": "DAMAGED" if errors else "ok",
        "disks": [disk.key for disk in proved],
        "size": human(size),
        "size_bytes": size,
        "read": human(size),
        "bytes_read": size,
        "errors": errors,
    }


def read_range(config: Config, wanted: Wanted, offset: int, length: int) -> Restored:
    """Write a part of one disk to a file, by the seek tables of its images.

    Raises:
        UsageError: there is no such disk, or the range is not in it.
        IntegrityError: it is damaged.
    """
    from jobs.taperestored import Restored

    [point] = archiving.found(config, wanted.pool, wanted.texts)
    assert wanted.output is not None, "the command has seen to it"
    with _reading(config, point.pool, wanted) as (opened, job):
        disk = job.part(point, wanted.disks[0], wanted.output, (offset, length), opened.catalog.points.listed())
    return Restored([disk], {}, {}, suspects=[point.name] if point.suspect else [])


@contextmanager
def _reading(config: Config, pool: str, wanted: Wanted) -> Iterator[tuple[OpenPool, TapeRestore]]:
    from jobs.fromtape import TapeRestore
    from vcbproxy.archive.remembered import Remembered
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.cli.protection import identities_of
    from vcbproxy.clock import SystemClock

    with archiving.opened(config, pool) as (opened, protection):
        yield (
            opened,
            TapeRestore(
                opened.shelf,
                Terminal(),
                SystemClock(),
                wait=wanted.wait,
                overwrite=wanted.overwrite,
                workers=wanted.workers,
                identities=identities_of(protection, wanted.identity),
                remembered=Remembered(shelves.state_directory(config) / "tape" / "points"),
                salvage=wanted.salvage,
            ),
        )


def _directory(wanted: Wanted, point: ArchivedPoint, *, several: bool) -> Path | None:
    from vcbproxy.archive import layout

    if wanted.directory is None or not several:
        return wanted.directory
    return wanted.directory / layout.folder(point.vm, point.time).strip("/")


def _by_pool(points: Sequence[ArchivedPoint]) -> Iterator[tuple[str, list[ArchivedPoint]]]:
    for pool in dict.fromkeys(point.pool for point in points):
        yield pool, [point for point in points if point.pool == pool]
