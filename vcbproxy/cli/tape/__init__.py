"""``vcbproxy tape``: LTFS volumes, and the drives and robots that they are used with. A module for each group."""

from __future__ import annotations

import click

from vcbproxy.cli.lazy import LazyGroup

_GROUPS = {
    "volume": "One LTFS volume: what is on it, and whether it is whole.",
    "library": "A tape library in a folder: made, served over iSCSI, reached into.",
}


@click.group(cls=LazyGroup, package=__name__, summaries=_GROUPS)
def tape() -> None:
    """Look into LTFS volumes: ours or anybody's, in a drive or in a folder.

    Listing and reading write nothing to the cartridge.
    """
