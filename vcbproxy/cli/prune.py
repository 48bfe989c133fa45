"""``vcbproxy repo prune``: remove what no restore point needs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import config as configuration
from vcbproxy.cli import address, frame
from vcbproxy.cli.progress import stages
from vcbproxy.units import human, parse_size

if TYPE_CHECKING:
    from vcbproxy.repository.prune.options import PruneOptions
    from vcbproxy.repository.prune.prune import Outcome


@click.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=(
        "vcbproxy repo prune --dry-run",
        "vcbproxy repo prune --max-unused 10% --max-repack-size 50G",
        "vcbproxy repo prune --grace 24h",
    ),
)
@click.option(
    "--max-unused",
    metavar="X%|SIZE|unlimited",
    help="What may stay in packs that are partly needed, as a share of the repository or in bytes; "
    "else what [repository.prune] says, or 5 %.",
)
@click.option(
    "--max-repack-size", metavar="SIZE", help="Write at most this much anew; the rest waits for the next prune."
)
@click.option(
    "--grace",
    metavar="DURATION",
    help="Take packs out of the index now, remove them at the first prune after so long (24h, 7d); "
    "0 also removes those that wait from earlier ones.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go and what would stay.")
@address.repository_options
@frame.json_option
def prune(
    max_unused: str | None,
    max_repack_size: str | None,
    grace: str | None,
    dry_run: bool,
    repository: address.RepositoryAddress,
    as_json: bool,
) -> None:
    """Remove what no restore point needs. With damage or anything missing it ends with 4 and removes nothing."""
    from vcbproxy.repository.prune import prune as pruning

    given = {"max_unused": max_unused, "max_repack_size": max_repack_size, "grace": grace}
    options = options_of(repository.prune, given, dry_run=dry_run)
    opened = repository.open()
    with opened.locked(exclusive=True) as held, stages(in_bytes={"repack"}) as progress:
        outcome = pruning.prune(opened, held, options, progress=progress)
    for pack in outcome.rescued:
        frame.say(f"taken back: pack {pack} waited for its removal, and a restore point needs it")
    found = row(opened.location, outcome, dry_run=dry_run)
    if as_json:
        frame.emit(found, as_json=True)
    else:
        tell(found)


def options_of(
    configured: configuration.Prune, given: Mapping[str, str | None] = MappingProxyType({}), *, dry_run: bool = False
) -> PruneOptions:
    """How to prune: as the command line says, or else the configuration.

    Raises:
        UsageError: a size or a duration cannot be read.
    """
    from vcbproxy.repository.prune.options import PruneOptions, Unused, parse_duration

    wanted = configured.model_dump() | {name: text for name, text in given.items() if text is not None}
    repack, grace = wanted["max_repack_size"], wanted["grace"]
    return PruneOptions(
        max_unused=Unused.parse(wanted["max_unused"]),
        max_repack_bytes=parse_size(repack) if repack is not None else None,
        grace=parse_duration(grace) if grace is not None else None,
        dry_run=dry_run,
    )


def row(location: str, outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    """What came of a prune, as JSON has it."""
    return {"location": location, "result": _result(outcome, dry_run), **_numbers(outcome)}


def tell(found: dict[str, Any]) -> None:
    """The same for people."""
    frame.emit({name: _told(name, value) for name, value in found.items()}, as_json=False)


def _result(outcome: Outcome, dry_run: bool) -> str:
    if outcome.idle:
        return "nothing to do"
    return "would prune" if dry_run else "pruned"


def _numbers(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(outcome), "rescued": list(outcome.rescued)}


def _told(name: str, value: Any) -> Any:
    return human(value) if name.endswith("_bytes") else value
