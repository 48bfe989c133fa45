"""``vcbproxy tape pool``: pools, their rules, and how many cartridges each has."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import config as configuration
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.moments import when
from vcbproxy.config import Config
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.catalog.catalog import Catalog


@click.group(cls=frame.Group)
def pool() -> None:
    """Pools of cartridges: their rules, and what each has left."""


@pool.command("list", cls=frame.Command, exit_codes=(11, 12), examples=("vcbproxy tape pool list",))
@frame.config_option
@frame.json_option
def list_(config: Config, as_json: bool) -> None:
    """List the configured pools."""
    with shelves.catalog(config) as catalog:
        held = shelves.keeper(config, catalog, "").holds()
        listed = [_row(config, name, pool, catalog, held) for name, pool in config.tape.pool.items()]
    columns = ("pool", "library", "allocation", "retention", "cartridges", "appendable", "expired", "scratch", "size")
    frame.emit(listed, as_json=as_json, columns=columns)


@pool.command("show", cls=frame.Command, exit_codes=(11, 12), examples=("vcbproxy tape pool show daily",))
@click.argument("name")
@frame.config_option
@frame.json_option
def show(name: str, config: Config, as_json: bool) -> None:
    """A pool's rules, and its media sets with their cartridges."""
    from vcbproxy.archive.pools import chosen

    configured = chosen(config.tape, name)
    with shelves.catalog(config) as catalog:
        held = shelves.keeper(config, catalog, "").holds()
        row = _row(config, name, configured, catalog, held)
        media = catalog.media.listed(pool=name)
        sets = [
            {
                "media_set": one.id,
                "began": when(one.began),
                "last_written": when(one.last_written),
                "closed": one.closed,
                "kept_until": when(max((held[label].until for label in labels if label in held), default=None)),
                "cartridges": labels,
            }
            for one in catalog.sets.listed(pool=name)
            if (labels := [medium.barcode for medium in media if medium.media_set == one.id])
        ]
    if as_json:
        frame.emit({**row, "sets": sets}, as_json=True)
        return
    frame.emit(row, as_json=False)
    if sets:
        frame.emit(sets, as_json=False)


def _row(
    config: Config, name: str, pool: configuration.Pool, catalog: Catalog, held: Collection[str]
) -> dict[str, Any]:
    from vcbproxy.catalog.medium import State
    from vcbproxy.catalog.recycling import expired

    everything = catalog.media.listed()
    media = [medium for medium in everything if medium.pool == name]
    scratch = [
        medium
        for medium in everything
        if medium.state is State.SCRATCH and any(medium.barcode in barcodes for barcodes in pool.barcodes)
    ]
    used = sum(medium.bytes_written for medium in media)
    return {
        "pool": name,
        "library": config.tape.library_of(name),
        "barcodes": [str(barcodes) for barcodes in pool.barcodes],
        "allocation": f"{pool.allocation.value} {pool.weekday.value}" if pool.weekday else pool.allocation.value,
        "retention": pool.retention,
        "encryption": pool.encryption.value,
        "verify": pool.verify.value,
        "vault": pool.vault,
        "cartridges": len(media),
        "appendable": sum(medium.state is State.APPENDABLE for medium in media),
        "expired": len(expired(media, held)),
        "scratch": len(scratch),
        "size": human(used),
        "bytes_written": used,
    }
