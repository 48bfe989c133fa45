"""``vcbproxy points``: what there is, in the repository and on tape, and what is to stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import address, archiving, frame, pointrows
from vcbproxy.config import Config
from vcbproxy.errors import Error, IntegrityError
from vcbproxy.units import human

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vcbproxy.repository.points import PointSummary

_COLUMNS = ("point", "vm", "time", "size", "stored")
_FURTHER = ("method", "policy", "partial", "suspect", "pinned", "pinned_because", "barcodes", "away", "kept_until")

place_option = click.option(
    "--on", metavar="tape[:POOL]", help="On cartridges, not in the repository.  [where only tape is configured]"
)


@click.group(cls=frame.Group)
def points() -> None:
    """Restore points: those in the repository, and those on tape."""


@points.command(
    "list",
    cls=frame.Command,
    exit_codes=(4, 10, 12),
    examples=(
        "vcbproxy points list",
        "vcbproxy points list --vm web01 --json | jq -r '.[-1].point_id'",
        "vcbproxy points list --on tape:daily",
    ),
)
@click.option("--vm", help="Only those of this VM: its name or instance UUID.")
@click.option("--on", metavar="tape[:POOL]", help="Only those on cartridges.")
@address.optional_repository_options
@frame.json_option
def list_(
    vm: str | None, on: str | None, repository: address.RepositoryAddress | None, config: Config, as_json: bool
) -> None:
    """List restore points, newest last: those in the repository, and those on tape."""
    rows: list[dict[str, Any]] = []
    if on is not None or config.tape.pool:
        from vcbproxy.cli import tapepoints

        pool = None if on is None else archiving.source_of(on, "--on")
        rows += [pointrows.on_tape(one) for one in tapepoints.placed(config, pool)]
    unreachable: Error | None = None
    if on is None and (repository is not None or not config.tape.pool):
        from vcbproxy.repository.target import RepositoryTarget

        try:
            stored = RepositoryTarget(address.required(repository).open(), lock=False).points()
            rows += [pointrows.in_repository(point) for point in stored]
        except Error as error:
            if not rows:
                raise
            unreachable = error  # what lies on tape is wanted most when the repository is lost
    _doubt_copies(rows)
    rows.sort(key=lambda row: (row["time"], row["on"] != "repository"))
    shown = [row for row in rows if vm in (None, row["vm"], row["instance_uuid"])]
    on_tape = ("on",) if any(row["barcodes"] for row in shown) else ()
    frame.emit(shown, as_json=as_json, columns=(*_COLUMNS, *on_tape), columns_if_any=_FURTHER)
    if not shown:
        from vcbproxy.pointname import some_of

        others = some_of({row["vm"] for row in rows}, vm) if rows and vm is not None else ""
        place = "on tape" if repository is None or on is not None else f"in {repository.location}"
        what = f"of {vm!r}; there are some of: {others}" if others else f"{place} yet"
        frame.say(f"no restore points {what}")
    if unreachable is not None:
        raise unreachable


def _doubt_copies(rows: list[dict[str, Any]]) -> None:
    """A copy of one that was found suspect since is no better; the next `vcbproxy copy` has the catalog know it."""
    found = {(row["instance_uuid"], row["time"]) for row in rows if row["suspect"]}
    for row in rows:
        row["suspect"] = row["suspect"] or (row["instance_uuid"], row["time"]) in found


@points.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=("vcbproxy points show web01@latest", "vcbproxy points show web01@2026-11-22 --on tape"),
)
@click.argument("point")
@place_option
@address.optional_repository_options
@frame.json_option
def show(
    point: str, on: str | None, repository: address.RepositoryAddress | None, config: Config, as_json: bool
) -> None:
    """Show one restore point: what it holds, how it was made and, on tape, which cartridges it needs.

    POINT is web01@latest, web01@2026-11-22 (or down to the second), or the beginning of an id from `points list`.
    """
    trouble = ""
    if _is_tape(on, repository, config):
        from vcbproxy.cli import tapepoints

        document, trouble = tapepoints.shown(config, archiving.source_of(on or "tape", "--on"), point)
    else:
        with archiving.or_on_tape(config, "add --on tape", point):
            document = _in_repository(point, address.required(repository))
    if as_json:
        frame.emit(document, as_json=True)
    else:
        _print(document)
    if trouble:
        raise IntegrityError(trouble)


def _print(document: dict[str, Any]) -> None:
    tables = ("disks", "cartridges", "manifest")
    told = {key: value for key, value in document.items() if key not in tables}
    frame.emit({key: value for key, value in told.items() if value not in (None, [])}, as_json=False)
    click.echo()
    shown = [{**disk, "base": disk["base"] and disk["base"][:8]} for disk in document["disks"]]
    columns = ("key", "size", "method")
    further = ("chunks", "stored", "base", "full_because", "barcodes")
    frame.emit(shown, as_json=False, columns=columns, columns_if_any=further)
    if document["cartridges"]:
        click.echo()
        frame.emit(document["cartridges"], as_json=False, columns=("barcode", "where", "state", "points"))


def _in_repository(text: str, repository: address.RepositoryAddress) -> dict[str, Any]:
    from vcbproxy.repository.target import RepositoryTarget

    with RepositoryTarget(repository.open()).open(text) as opened:
        summary, contents, manifest = opened.summary, opened.contents, opened.manifest
    told = {str(disk.get("key")): disk for disk in manifest.get("disks") or ()}
    row = pointrows.in_repository(summary)
    return {
        **{key: row[key] for key in ("point", "point_id", "vm", "instance_uuid", "time")},
        "method": manifest.get("method"),
        "quiesced": manifest.get("quiesced"),
        "partial": manifest.get("partial"),
        "suspect": row["suspect"],
        "suspect_because": None,
        **{key: row[key] for key in ("pinned", "pinned_because")},
        "proxy": manifest.get("proxy"),
        "tags": row["tags"],
        "files": [file.key for file in contents.files],
        **{key: row[key] for key in ("on", "base", "media_set", "kept_until")},
        "kept_because": None,
        "builds_upon": [],
        "cartridges": [],
        "disks": [
            {
                "key": disk.key,
                "size": human(disk.size_bytes),
                "size_bytes": disk.size_bytes,
                "chunks": disk.chunks,
                "stored": None,
                "bytes_stored": None,
                **{fact: told.get(disk.key, {}).get(fact) for fact in ("method", "base", "full_because")},
                "barcodes": [],
            }
            for disk in contents.disks
        ],
        "manifest": manifest,
    }


@points.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=(
        'vcbproxy points pin web01@latest --reason "before the move"',
        'vcbproxy points pin web01@2026-11 --on tape:monthly --reason "year end"',
    ),
)
@click.argument("named", metavar="POINT...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever meets it later; without commas.")
@place_option
@address.optional_repository_options
@frame.json_option
def pin(
    named: tuple[str, ...],
    reason: str,
    on: str | None,
    repository: address.RepositoryAddress | None,
    config: Config,
    as_json: bool,
) -> None:
    """Keep restore points from being forgotten, until they are unpinned.

    A pin is a tag, `pinned`: stock restic sees it too (`restic forget --keep-tag pinned`). The record's id changes; the
    old one goes on to mean the same restore point.

    On tape, the cartridges that it lies on, and those of what it builds upon, are not overwritten, recycled or
    released. The catalog has that at once, cartridges with the next restore point that is written to them.
    """
    if _is_tape(on, repository, config):
        from vcbproxy.cli import tapepoints

        _show_marks(tapepoints.pin(config, archiving.source_of(on or "tape", "--on"), named, reason), as_json)
        return
    from vcbproxy.repository.points import pin_tags, pins_among

    wanted = pin_tags(reason)
    with archiving.or_on_tape(config, "add --on tape", *named):
        found = _retagged(
            address.required(repository),
            named,
            lambda point: (wanted, pins_among(point.tags) - wanted if reason else frozenset()),
        )
    _show_marks(found, as_json)


@points.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=("vcbproxy points unpin web01@latest", "vcbproxy points unpin 1f0c9a3e --on tape"),
)
@click.argument("named", metavar="POINT...", nargs=-1, required=True)
@place_option
@address.optional_repository_options
@frame.json_option
def unpin(
    named: tuple[str, ...], on: str | None, repository: address.RepositoryAddress | None, config: Config, as_json: bool
) -> None:
    """Let the rules decide about restore points again."""
    if _is_tape(on, repository, config):
        from vcbproxy.cli import tapepoints

        _show_marks(tapepoints.unpin(config, archiving.source_of(on or "tape", "--on"), named), as_json)
        return
    from vcbproxy.repository.points import pins_among

    with archiving.or_on_tape(config, "add --on tape", *named):
        found = _retagged(address.required(repository), named, lambda point: (frozenset(), pins_among(point.tags)))
    _show_marks(found, as_json)


def _is_tape(on: str | None, repository: address.RepositoryAddress | None, config: Config) -> bool:
    """Whether a restore point is looked for on tape: where that was said, or where there is no repository."""
    return on is not None or (repository is None and bool(config.tape.pool))


def _show_marks(rows: list[dict[str, Any]], as_json: bool) -> None:
    further = ("pinned_because", "barcodes", "kept_until")
    frame.emit(rows, as_json=as_json, columns=("point", "vm", "time", "pinned"), columns_if_any=further)


def _retagged(
    repository: address.RepositoryAddress,
    named: Sequence[str],
    change: Callable[[PointSummary], tuple[frozenset[str], frozenset[str]]],
) -> list[dict[str, Any]]:
    """Change the tags of restore points: all are found before the first is changed; as rows."""
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
        return [pointrows.in_repository(point) for point in target.points() if point.original in chosen]
