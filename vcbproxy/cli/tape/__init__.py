"""``vcbproxy tape``: LTFS volumes, and the drives and robots that they are used with. A module for each group."""

from __future__ import annotations

import click

from vcbproxy.cli.lazy import LazyGroup

_GROUPS = {
    "media": "Cartridges: what may be done with them, and where they are.",
    "pool": "Pools of cartridges: their rules, and what each has left.",
    "inventory": "What lies in a library.",
    "catalog": "The catalog checked, and made anew from the cartridges.",
    "drive": "Tape drives: what is in them, and how they fare.",
    "changer": "A library's robot: what lies where, and cartridges carried.",
    "volume": "One LTFS volume: what is on it, and whether it is whole.",
    "library": "A tape library in a folder: made, served over iSCSI, reached into.",
}


@click.group(cls=LazyGroup, package=__name__, summaries=_GROUPS)
def tape() -> None:
    """Tape: libraries, their drives and robots; LTFS volumes, ours or anybody's."""
