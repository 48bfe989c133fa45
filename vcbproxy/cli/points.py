"""``vcbproxy points``: what is in the repository, and what is to stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import frame
from vcbproxy.errors import Error
from vcbproxy.units import human

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vcbproxy.catalog.records import ArchivedPoint
    from vcbproxy.config import Config
    from vcbproxy.repository.points import PointSummary


@click.group()
def points() -> None:
    """Restore points in the repository."""


@points.command(
    "list",
    cls=frame.Command,
    exit_codes=(4, 10, 12),
    examples=("vcbproxy points list", "vcbproxy points list --vm web01 --json | jq -r '.[-1].point_id'"),
)
@click.option("--vm", help="Only those of this VM: its name or instance UUID.")
@frame.optional_repository_options
@frame.json_option
def list_(vm: str | None, repository: frame.RepositoryAddress | None, config: Config, as_json: bool) -> None:
    """List restore points, newest last: those in the repository, and those on tape."""
    from vcbproxy.repository.points import PointSummary

    found: list[PointSummary | ArchivedPoint] = []
    if config.tape.pool:
        from vcbproxy.cli import tapereading

        found += tapereading.rows_of(config)
    unreachable: Error | None = None
    if repository is not None or not config.tape.pool:
        from vcbproxy.repository.target import RepositoryTarget

        try:
            found += RepositoryTarget(frame.required(repository).open(), lock=False).points()
        except Error as error:
            if not found:
                raise
            unreachable = error  # what lies on tape is wanted most when the repository is lost
    found.sort(key=lambda point: (point.time, not isinstance(point, PointSummary)))
    rows = [_row(point) for point in found if vm in (None, point.vm, _uuid(point))]
    columns = ("point", "vm", "time", "size", "stored")
    further = ("method", "policy", "partial", "suspect", "pinned", "pinned_because")
    on_tape = ("on", "barcodes") if any(row["barcodes"] for row in rows) else ()
    frame.emit(rows, as_json=as_json, columns=(*columns, *on_tape), columns_if_any=further)
    if not rows:
        others = ", ".join(sorted({point.vm for point in found}))
        place = "on tape" if repository is None else f"in {repository.location}"
        what = f"of {vm!r}; there are some of: {others}" if others else f"{place} yet"
        frame.say(f"no restore points {what}")
    if unreachable is not None:
        raise unreachable


def _uuid(point: PointSummary | ArchivedPoint) -> str:
    from vcbproxy.repository.points import PointSummary

    return point.instance_uuid if isinstance(point, PointSummary) else point.vm_uuid


def _row(point: PointSummary | ArchivedPoint) -> dict[str, Any]:
    from vcbproxy.repository.points import PointSummary

    if isinstance(point, PointSummary):
        return {**_row_in_repository(point), "on": "repository", "barcodes": [], "media_set": None}
    return _row_on_tape(point)


def _row_on_tape(point: ArchivedPoint) -> dict[str, Any]:
    stored = sum(part.size_bytes for part in point.parts)
    unknown: dict[str, Any] = dict.fromkeys(("size", "size_bytes", "policy", "pinned_because"))
    return {
        "point": point.id[:8],
        "point_id": point.id,
        "first_id": point.id,
        "vm": point.vm,
        "instance_uuid": point.vm_uuid,
        "time": point.name.rpartition("@")[2],
        **unknown,
        "stored": human(stored),
        "bytes_stored": stored,
        "method": "full" if point.base is None else "incremental",
        "partial": None,
        "suspect": False,
        "pinned": False,
        "tags": [],
        "on": f"tape:{point.pool}",
        "barcodes": list(point.barcodes),
        "media_set": point.media_set,
    }


def _row_in_repository(point: PointSummary) -> dict[str, Any]:
    return {
        "point": point.short_id,
        "point_id": point.id,
        "first_id": point.original,
        "vm": point.vm,
        "instance_uuid": point.instance_uuid,
        "time": point.name.rpartition("@")[2],
        "size": None if point.size_bytes is None else human(point.size_bytes),
        "size_bytes": point.size_bytes,
        "stored": None if point.added_bytes is None else human(point.added_bytes),
        "bytes_stored": point.added_bytes,
        "method": point.method or None,
        "policy": point.policy or None,
        "partial": point.partial,
        "suspect": point.suspect,
        "pinned": point.pinned,
        "pinned_because": point.pinned_because or None,
        "tags": list(point.tags),
    }


@points.command(cls=frame.Command, exit_codes=(4, 10, 11, 12), examples=("vcbproxy points show web01@latest",))
@click.argument("point")
@frame.repository_options
@frame.json_option
def show(point: str, repository: frame.RepositoryAddress, as_json: bool) -> None:
    """Show one restore point: what it holds and how it was made.

    POINT is web01@latest, web01@2026-11-22 (or down to the second), or the beginning of an id from `points list`.
    """
    from vcbproxy.repository.target import RepositoryTarget

    with RepositoryTarget(repository.open()).open(point) as opened:
        summary, contents, manifest = opened.summary, opened.contents, opened.manifest
    told = {str(disk.get("key")): disk for disk in manifest.get("disks") or ()}
    disks: list[dict[str, Any]] = [
        {
            "key": disk.key,
            "size": human(disk.size_bytes),
            "size_bytes": disk.size_bytes,
            "chunks": disk.chunks,
            **{fact: told.get(disk.key, {}).get(fact) for fact in ("method", "base", "full_because")},
        }
        for disk in contents.disks
    ]
    document: dict[str, Any] = {
        "point": summary.short_id,
        "point_id": summary.id,
        "vm": summary.vm,
        "instance_uuid": summary.instance_uuid,
        "time": summary.name.rpartition("@")[2],
        "method": manifest.get("method"),
        "quiesced": manifest.get("quiesced"),
        "partial": manifest.get("partial"),
        "suspect": summary.suspect,
        "pinned": summary.pinned,
        "pinned_because": summary.pinned_because or None,
        "proxy": manifest.get("proxy"),
        "tags": list(summary.tags),
        "files": [file.key for file in contents.files],
    }
    if as_json:
        frame.emit({**document, "disks": disks, "manifest": manifest}, as_json=True)
        return
    frame.emit(document, as_json=False)
    click.echo()
    shown = [{**disk, "base": disk["base"] and disk["base"][:8]} for disk in disks]
    columns = ("key", "size", "chunks", "method")
    frame.emit(shown, as_json=False, columns=columns, columns_if_any=("base", "full_because"))


@points.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=('vcbproxy points pin web01@latest --reason "before the move"',),
)
@click.argument("named", metavar="POINT...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever meets it later; without commas.")
@frame.repository_options
@frame.json_option
def pin(named: tuple[str, ...], reason: str, repository: frame.RepositoryAddress, as_json: bool) -> None:
    """Keep restore points from being forgotten, until they are unpinned.

    A pin is a tag, `pinned`: stock restic sees it too (`restic forget --keep-tag pinned`). The record's id changes; the
    old one goes on to mean the same restore point.
    """
    from vcbproxy.repository.points import pin_tags, pins_among

    wanted = pin_tags(reason)
    _retagged(
        repository, named, as_json, lambda point: (wanted, pins_among(point.tags) - wanted if reason else frozenset())
    )


@points.command(cls=frame.Command, exit_codes=(4, 10, 11, 12), examples=("vcbproxy points unpin web01@latest",))
@click.argument("named", metavar="POINT...", nargs=-1, required=True)
@frame.repository_options
@frame.json_option
def unpin(named: tuple[str, ...], repository: frame.RepositoryAddress, as_json: bool) -> None:
    """Let the rules decide about restore points again."""
    from vcbproxy.repository.points import pins_among

    _retagged(repository, named, as_json, lambda point: (frozenset(), pins_among(point.tags)))


def _retagged(
    repository: frame.RepositoryAddress,
    named: Sequence[str],
    as_json: bool,
    change: Callable[[PointSummary], tuple[frozenset[str], frozenset[str]]],
) -> None:
    """Change the tags of restore points: all are found before the first is changed."""
    from vcbproxy.repository import records
    from vcbproxy.repository.points import choose
    from vcbproxy.repository.target import RepositoryTarget

    opened = repository.open()
    target = RepositoryTarget(opened, lock=False)
    with opened.locked(exclusive=True) as held:
        listed = target.points()
        chosen = {point.original: point for point in (choose(listed, text) for text in named)}
        for point in chosen.values():
            add, remove = change(point)
            records.retag(opened, held, point, add=add, remove=remove)
        found = [_row_in_repository(point) for point in target.points() if point.original in chosen]
    frame.emit(found, as_json=as_json, columns=("point", "vm", "time", "pinned"), columns_if_any=("pinned_because",))
