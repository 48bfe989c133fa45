"""How far changed block tracking is used, and how far believed: what the operator decided."""

from __future__ import annotations

from dataclasses import dataclass

from vcbproxy.config import Mode, OnCbtLost


@dataclass(frozen=True, slots=True)
class Tracking:
    """How far changed block tracking is used, and how far believed.

    Attributes:
        mode: AUTO reads what changed where that is known, INCREMENTAL fails where it is not, FULL reads all.
        enable: switch tracking on where it is off.
        on_lost: what to do when it had been on and cannot tell any more.
        audit_fraction: the share of the chunks outside of the list that is read and compared nevertheless.
        audit_chunks_min: ... but at least so many.
        audit_seed: draws the sample; None: another one each time.
        allocated_only: read of a disk without base only what was ever written, as the tracker tells; audited likewise.
    """

    mode: Mode = Mode.AUTO
    enable: bool = False
    on_lost: OnCbtLost = OnCbtLost.FULL
    audit_fraction: float = 0.001
    audit_chunks_min: int = 16
    audit_seed: int | None = None
    allocated_only: bool = False
