"""``vcbproxy repo``: create, check and unlock repositories."""

from __future__ import annotations

import click

from vcbproxy.cli import frame


@click.group()
def repo() -> None:
    """Create, check and unlock repositories."""


@repo.command(cls=frame.Command, exit_codes=(12,))
@click.option("--window", type=click.IntRange(8, 512), default=64, show_default=True, help="Mean chunk: 8 KiB times this.")
@frame.repository_options
@frame.json_option
def init(window: int, repository: frame.RepositoryAddress, as_json: bool) -> None:
    """Create a repository. The chunker's window is fixed for its whole life."""
    from vcbproxy.repository.config import ChunkerSettings
    from vcbproxy.repository.repository import Repository

    made = Repository.init(repository.backend(create=True), repository.password(), chunker=ChunkerSettings(window))
    frame.emit(
        {"location": made.location, "id": made.config.repository_id, "window": made.chunker.window}, as_json=as_json
    )
