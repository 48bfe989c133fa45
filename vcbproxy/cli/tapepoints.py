"""Restore points on tape by the catalog alone: what they are, where their cartridges lie, how long they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vcbproxy.cli import frame, pointrows, shelves
from vcbproxy.cli.placed import Placed
from vcbproxy.config import Config
from vcbproxy.errors import UsageError
from vcbproxy.units import human

if TYPE_CHECKING:
    from datetime import datetime

    from vcbproxy.archive.manifest import Document, Image
    from vcbproxy.catalog.catalog import Catalog
    from vcbproxy.catalog.records import ArchivedPoint

_REASON_MAX = 200
_ID_MIN = 4
_IMAGE = ".raw.zst"
_DELTA = ".delta"


def placed(config: Config, pool: str | None) -> list[Placed]:
    """All, or a pool's, the oldest first.

    Raises:
        ConfigError: there is no such pool.
        Error: the catalog cannot be read.
    """
    from vcbproxy.archive import pools

    if pool is not None:
        pools.chosen(config.tape, pool)
    with shelves.catalog(config) as catalog:
        return _placed(config, catalog, catalog.points.listed(pool=pool))


def _placed(config: Config, catalog: Catalog, points: Sequence[ArchivedPoint]) -> list[Placed]:
    media = {medium.barcode: medium for medium in catalog.media.listed()}
    holds = shelves.keeper(config, catalog, "").holds()
    return [Placed(point, media, holds) for point in points]


# ---------------------------------------------------------------------- pins


def pin(config: Config, pool: str | None, texts: Sequence[str], reason: str) -> list[dict[str, Any]]:
    """Keep what restore points lie on, and what they build upon, from being given up; as rows.

    Raises:
        UsageError: there is no such restore point, or the reason is none.
        IntegrityError: one builds on something that is not known: nothing would be kept by that.
    """
    from vcbproxy.archive.bases import with_bases
    from vcbproxy.archive.pins import needed
    from vcbproxy.clock import SystemClock

    if len(reason) > _REASON_MAX or not reason.isprintable():
        raise UsageError(f"a reason is a line of at most {_REASON_MAX} signs: cartridges bear it, too")
    now = SystemClock().now()

    with shelves.catalog(config) as catalog, catalog.transaction():

        def pinned(points: Sequence[ArchivedPoint]) -> None:
            known = catalog.points.listed()
            with_bases(points, known)
            for point in points:
                catalog.marks.pin(point, reason or point.pinned_because, now)
            labels = ", ".join(dict.fromkeys(one for point in points for one in needed(point.id, known)))
            frame.say(f"kept until unpinned: {labels}; cartridges are told with the next that is written to them")

        return _marked(config, catalog, pool, texts, pinned)


def unpin(config: Config, pool: str | None, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Let the rules decide about restore points again; as rows. Of one that is not known any more, by its id, too.

    Raises:
        UsageError: there is no such restore point.
    """
    from vcbproxy.clock import SystemClock

    now = SystemClock().now()
    with shelves.catalog(config) as catalog, catalog.transaction():
        known = {point.id for point in catalog.points.listed()}
        lost = [pin.point for pin in catalog.marks.pins().values() if pin.holds and pin.point not in known]
        left = []
        for text in texts:
            meant = [one for one in lost if len(text) >= _ID_MIN and one.startswith(text)]
            if len(meant) == 1:
                catalog.marks.unpin(meant[0], now)
            else:
                left.append(text)
        return _marked(config, catalog, pool, left, lambda points: _unpin(catalog, points, now)) if left else []


def _unpin(catalog: Catalog, points: Sequence[ArchivedPoint], now: datetime) -> None:
    for point in points:
        catalog.marks.unpin(point.id, now)


def _marked(
    config: Config,
    catalog: Catalog,
    pool: str | None,
    texts: Sequence[str],
    change: Callable[[Sequence[ArchivedPoint]], None],
) -> list[dict[str, Any]]:
    """All are found before the first is changed; in one transaction, so that none is recycled between."""
    from vcbproxy.cli import archiving

    chosen = archiving.chosen(config, catalog, pool, texts)
    change(chosen)
    again = [point for point in catalog.points.listed() if point.id in {one.id for one in chosen}]
    return [pointrows.on_tape(one) for one in _placed(config, catalog, again)]


# ---------------------------------------------------------------------- one by itself


def shown(config: Config, pool: str | None, text: str) -> tuple[dict[str, Any], str]:
    """All that is known of one without a cartridge; and what keeps it from being restored, if something does.

    Raises:
        UsageError: there is no such restore point.
    """
    from vcbproxy.archive import reader
    from vcbproxy.archive.bases import chain
    from vcbproxy.archive.remembered import Remembered
    from vcbproxy.cli import archiving
    from vcbproxy.errors import IntegrityError

    with shelves.catalog(config) as catalog:
        [point] = archiving.chosen(config, catalog, pool, [text])
        [one] = _placed(config, catalog, [point])
        trouble = ""
        try:
            needed = chain(point, catalog.points.listed())
        except IntegrityError as error:
            needed, trouble = [point], str(error)
    remembered = Remembered(shelves.state_directory(config) / "tape" / "points")
    known = remembered.document_like(point.id, reader.last_word(point).sha256)
    row = pointrows.on_tape(one)
    manifest = known.manifest if known is not None else {}
    document = {
        **{key: row[key] for key in ("point", "point_id", "vm", "instance_uuid", "time", "method")},
        "quiesced": manifest.get("quiesced"),
        **{key: row[key] for key in ("partial", "suspect")},
        "suspect_because": point.suspect_because or None,
        **{key: row[key] for key in ("pinned", "pinned_because")},
        "proxy": manifest.get("proxy"),
        "tags": [],
        "files": [part.file for part in point.parts if _IMAGE not in part.file],
        **{key: row[key] for key in ("on", "base", "media_set", "kept_until")},
        "kept_because": one.hold.because if one.hold is not None else None,
        "builds_upon": [below.name for below in needed[:-1]],
        "cartridges": [_cartridge(one, barcode, needed) for barcode in reader.in_order(needed)],
        "disks": _disks(point, known),
        "manifest": dict(manifest) if known is not None else None,
    }
    return document, trouble


def _cartridge(one: Placed, barcode: str, needed: Sequence[ArchivedPoint]) -> dict[str, Any]:
    return {
        "barcode": barcode,
        "where": one.where(barcode),
        "in_library": one.is_here(barcode),
        "state": one.media[barcode].state.value if barcode in one.media else None,
        "points": [point.name for point in needed if barcode in point.barcodes],
    }


def _disks(point: ArchivedPoint, document: Document | None) -> list[dict[str, Any]]:
    """By its ``vm.json``, where this proxy remembers it; else by the names of its images."""
    images = {image.file: image for image in document.images} if document is not None else {}
    files = dict.fromkeys(part.file for part in point.parts if _IMAGE in part.file)
    return [_disk(point, file, images.get(file), document) for file in files]


def _disk(point: ArchivedPoint, file: str, image: Image | None, document: Document | None) -> dict[str, Any]:
    key = file.rpartition(_IMAGE)[0]
    recorded = document.manifest.get("disks") if document is not None else None
    told = next(
        (disk for disk in recorded or () if isinstance(disk, dict) and image and disk.get("key") == image.key), {}
    )
    stored = sum(part.size_bytes for part in point.parts if part.file == file)
    size_bytes = image.size_bytes if image is not None else None
    return {
        "key": image.key if image is not None else key.removesuffix(_DELTA),
        "size": None if size_bytes is None else human(size_bytes),
        "size_bytes": size_bytes,
        "chunks": None,
        "stored": human(stored),
        "bytes_stored": stored,
        "method": "incremental" if key.endswith(_DELTA) else "full",
        "base": point.base if key.endswith(_DELTA) else None,
        "full_because": told.get("full_because"),
        "barcodes": list(dict.fromkeys(part.barcode for part in point.parts if part.file == file)),
    }
