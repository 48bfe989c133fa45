"""Which cartridges are due to leave for a vault, and which to come back: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from vcbproxy.catalog.expiry import Hold
from vcbproxy.catalog.medium import MediaSet, Medium, State


class Way(Enum):
    """Where to."""

    OUT = "out"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Due:
    """That a cartridge should be carried.

    Attributes:
        way: where to.
        vault: which one.
        because: why.
    """

    way: Way
    vault: str
    because: str

    def __str__(self) -> str:
        return f"{'to' if self.way is Way.OUT else 'back from'} {self.vault}: {self.because}"


def due(
    medium: Medium, media_set: MediaSet | None, hold: Hold | None, vaults: Mapping[str, str], now: datetime
) -> Due | None:
    """Whether a cartridge should be carried, and where to.

    Args:
        medium: which.
        media_set: that it belongs to, if the catalog has it.
        hold: why it must be kept, if it must.
        vaults: where each pool's cartridges go.
        now: the time.
    """
    if medium.vault is not None:
        if medium.due_back is not None and medium.due_back <= now:
            return Due(Way.BACK, medium.vault, f"it was to be back on {medium.due_back:%Y-%m-%d}")
        if hold is None and medium.state in (State.APPENDABLE, State.FULL):
            return Due(Way.BACK, medium.vault, "nothing on it is kept any longer")
        return None
    vault = vaults.get(medium.pool or "")
    if vault is None or hold is None or medium.library is None:
        return None
    if medium.state is State.FULL:
        return Due(Way.OUT, vault, "it is full")
    if medium.state is State.APPENDABLE and media_set is not None and media_set.closed:
        return Due(Way.OUT, vault, "its media set is closed")
    return None
