"""The seam below which it does not matter how a command travels: SG_IO, iSCSI, or a call into the emulator.

One command at a time; a transport belongs to one thread. It carries and reports, and decides nothing: sense data are
made sense of above, in ``sense.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Status(IntEnum):
    """How a command ended, by SAM."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        status: SAM's status byte.
        sense: sense data, empty when there are none.
        transferred: how many bytes came, or went. Some bridges (QEMU's iSCSI driver) always say "all": where a short
            read matters, the sense data's INFORMATION field is to be believed.
    """

    status: int
    sense: bytes = b""
    transferred: int = 0


class ScsiTransport(Protocol):
    """A way to one logical unit."""

    @property
    def name(self) -> str:
        """What messages call the device: its path or address."""

    @property
    def transfer_bytes_max(self) -> int:
        """The most that one command can carry; a larger block is to be refused before it is sent."""

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        """Have one command carried out.

        Args:
            cdb: 6, 10, 12 or 16 bytes.
            data_out: sent along.
            data_in: filled from its start; how far, says ``Reply.transferred``. Not both of them.
            timeout_s: after which it is given up, and the device reset if that can be.

        Raises:
            TransportError: it did not get through; whether it was carried out is unknown.
        """

    def close(self) -> None:
        """Let the device go; a second time does nothing."""
