"""What a sparse extent's header says of its size, against what the descriptor says."""

from __future__ import annotations

from vcbproxy.device import Device
from vcbproxy.errors import VmdkError
from vcbproxy.units import align_up


def check_capacity(file: Device, header_sectors: int, line_sectors: int, grain_sectors: int) -> None:
    """Header and descriptor must agree; the header may round up to whole grains.

    Raises:
        VmdkError: they do not.
    """
    if header_sectors not in {line_sectors, align_up(line_sectors, grain_sectors)}:
        reason = f"its header says {header_sectors} sectors, the descriptor {line_sectors}"
        raise VmdkError(file=file.name, reason=reason)
