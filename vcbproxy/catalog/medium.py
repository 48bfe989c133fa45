"""Cartridges and media sets as everybody else sees them.

take                 full or set ended
SCRATCH ───────▶ APPENDABLE ───────────────────▶ FULL
▲                  │                            │
└──────────────────┴── its set has expired ─────┘        and aside: RETIRED, DAMAGED, CLEANING, FOREIGN
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
"""An end that never comes."""
FORMATTING = "what we left half formatted"
"""As ``released``: it was being formatted by us when it was last heard of."""


class State(Enum):
    """What may be done with a cartridge."""

    SCRATCH = "scratch"
    """Nothing on it is wanted: it may be written from its beginning."""
    APPENDABLE = "appendable"
    """It has data, and room."""
    FULL = "full"
    """It has data, and no more are added."""
    RETIRED = "retired"
    """It is read, and never written again: somebody said so."""
    DAMAGED = "damaged"
    """Likewise: it failed."""
    CLEANING = "cleaning"
    """It cleans drives."""
    FOREIGN = "foreign"
    """Something lies on it that is not ours, or that cannot be read."""


WITH_DATA = (State.APPENDABLE, State.FULL, State.RETIRED, State.DAMAGED)


@dataclass(frozen=True, slots=True)
class Medium:
    """One cartridge.

    Attributes:
        barcode: its label.
        state: what may be done with it.
        serial: its own serial number, from its memory; nothing before it was first loaded.
        volume_uuid: of the LTFS volume on it.
        pool: that it belongs to; None for scratch, which any pool takes whose ranges have its barcode.
        media_set: the id of the set that it belongs to.
        first_written: when this volume was first written to.
        last_written: and last.
        retention_until: when it may be overwritten, as far as it alone says; its set may say later.
        bytes_written: of files, to this volume.
        capacity_bytes: of its data partition.
        remaining_bytes: of that.
        worm: what is written stays.
        library: in which it was last seen; None elsewhere.
        slot: there, counted from 1.
        vault: where it was taken to; None in a library.
        vaulted: when that was.
        due_back: when it should be fetched from there.
        loads: how often it was ever threaded.
        made_on: YYYYMMDD.
        life_written_mib: what drives ever wrote to it.
        life_read_mib: what they ever read.
        last_drive: vendor and serial number of the drive that loaded it last.
        errors: how often it failed us.
        reason: why it is in its state, where there is something to say.
        released: what a person allowed to be overwritten, by its fingerprint: only exactly that; or ``FORMATTING``.
        seen: when it was last in a library.
    """

    barcode: str
    state: State
    serial: str = ""
    volume_uuid: str | None = None
    pool: str | None = None
    media_set: str | None = None
    first_written: datetime | None = None
    last_written: datetime | None = None
    retention_until: datetime | None = None
    bytes_written: int = 0
    capacity_bytes: int | None = None
    remaining_bytes: int | None = None
    worm: bool = False
    library: str | None = None
    slot: int | None = None
    vault: str | None = None
    vaulted: datetime | None = None
    due_back: datetime | None = None
    loads: int | None = None
    made_on: str | None = None
    life_written_mib: int | None = None
    life_read_mib: int | None = None
    last_drive: str | None = None
    errors: int = 0
    reason: str = ""
    released: str | None = None
    seen: datetime | None = None

    def fetched(self) -> Medium:
        """In no vault any more."""
        return replace(self, vault=None, vaulted=None, due_back=None)

    @property
    def has_data(self) -> bool:
        """Whether something lies on it that may be wanted. One put aside before it was ever written to has nothing."""
        put_aside = self.state in (State.RETIRED, State.DAMAGED)
        return self.state in WITH_DATA and not (put_aside and self.volume_uuid is None)

    @property
    def doubtful(self) -> bool:
        """Whether it failed, or was not what it should be when it was wanted last: nothing more is to depend on it."""
        return self.state is State.DAMAGED or (self.state is State.APPENDABLE and bool(self.reason))

    @property
    def location(self) -> str:
        """Where it is, in a few words."""
        if self.vault is not None:
            return f"vault {self.vault}"
        if self.library is None:
            return "outside"
        return f"{self.library} slot {self.slot}" if self.slot is not None else self.library


@dataclass(frozen=True, slots=True)
class MediaSet:
    """Cartridges that are written one after the other, kept together, and expire together.

    Attributes:
        id: ``<pool>-<when it was begun>-<four hex digits>``.
        pool: that it belongs to.
        began: when.
        last_written: when it was last written to.
        retention_until: when its cartridges may be overwritten.
        closed: whether no more is added.
        taken_in: when it, or something of it that was not known, was read from a cartridge: others may know more.
    """

    id: str
    pool: str
    began: datetime
    last_written: datetime | None = None
    retention_until: datetime | None = None
    closed: bool = False
    taken_in: datetime | None = None
