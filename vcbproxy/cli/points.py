"""``vcbproxy points``: what is in the repository."""

from __future__ import annotations

from typing import Any

import click

from vcbproxy.cli import frame
from vcbproxy.units import human


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
@frame.repository_options
@frame.json_option
def list_(vm: str | None, repository: frame.RepositoryAddress, as_json: bool) -> None:
    """List restore points, newest last."""
    from vcbproxy.repository.target import RepositoryTarget

    found = RepositoryTarget(repository.open(), lock=False).points()
    rows = [
        {
            "point": point.short_id,
            "point_id": point.id,
            "vm": point.vm,
            "instance_uuid": point.instance_uuid,
            "time": point.name.rpartition("@")[2],
            "size": None if point.size_bytes is None else human(point.size_bytes),
            "size_bytes": point.size_bytes,
            "stored": None if point.added_bytes is None else human(point.added_bytes),
            "bytes_stored": point.added_bytes,
            "partial": point.partial,
            "tags": list(point.tags),
        }
        for point in found
        if vm in (None, point.vm, point.instance_uuid)
    ]
    columns = ("point", "vm", "time", "size", "stored")
    frame.emit(rows, as_json=as_json, columns=columns, columns_if_any=("partial",))
    if not rows:
        others = ", ".join(sorted({point.vm for point in found}))
        what = f"of {vm!r}; there are some of: {others}" if others else f"in {repository.location} yet"
        frame.say(f"no restore points {what}")


@points.command(cls=frame.Command, exit_codes=(4, 10, 11, 12), examples=("vcbproxy points show web01@latest",))
@click.argument("point")
@frame.repository_options
@frame.json_option
def show(point: str, repository: frame.RepositoryAddress, as_json: bool) -> None:
    """Show one restore point: what it holds and how it was made.

    POINT is web01@latest, web01@2026-11-22T01:00:00Z, or the beginning of an id from `vcbproxy points list`.
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
