"""How much still finds room on the data partition, and what is kept back for when it is full.

    ├──────────────── data ─────────────────┬── closing files ──┬── indexes, what the drive is wrong by ──┤
                              volume is full ▲                   │                     the physical end ▲
                                             └──── the slack ────┴──────────────────────────────────────┘

A volume whose last index finds no room is still whole (the index partition has it), but slower to mount and nearer to
trouble; and one drive was seen to have 30 MiB left behind its early warning (LTFS issue 331). So data stop early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tape import logs
from tape.ltfs.index import Index
from tape.ltfs.layout import Layout
from tape.sequential import SequentialDrive

_INDEXES_KEPT = 3  # so many indexes must still find room on the data partition, and on the index partition at all
_SLACK_BYTES_MAX = 1 << 30
_SLACK_SHARE = 20  # of a partition; for cartridges that are small because they are emulated
_CLOSING_SHARE = 4  # of the slack
_WARNING_SHARE = 100  # likewise
_BYTES_PER_ENTRY = 600  # of an index; measured 566 with the reference implementation
_UNTOLD = 1 << 62  # the drive will say when it is enough


@dataclass(slots=True)
class Room:
    """What is left.

    Attributes:
        data_bytes: for data; negative when the volume is fuller than it should be.
        closing_bytes: for closing files, once there is none for data.
        warning_mib: how long before its early warning the drive is to announce the end, should it be nearer than that.
    """

    data_bytes: int
    closing_bytes: int
    warning_mib: int = 0

    @classmethod
    def measure(cls, drive: SequentialDrive, layout: Layout, index: Index) -> Self:
        """As the drive tells it.

        Raises:
            TapeError: the drive does not answer.
        """
        capacity = logs.capacity(drive)
        if capacity is None:
            return cls(_UNTOLD, _SLACK_BYTES_MAX // _CLOSING_SHARE)
        left = capacity.remaining_mib[layout.data_partition] << 20
        whole = capacity.maximum_mib[layout.data_partition] << 20
        entries = sum(1 for _ in index.root.walk()) + 1
        indexes = _INDEXES_KEPT * entries * _BYTES_PER_ENTRY
        slack = min(_SLACK_BYTES_MAX, whole // _SLACK_SHARE)
        closing = min(slack // _CLOSING_SHARE, max(left - indexes - slack // 2, 0))
        warning = min(indexes + slack, whole // _WARNING_SHARE)
        too_many = indexes > (capacity.maximum_mib[layout.index_partition] + 1) << 20  # it is told in whole MiB
        return cls(0 if too_many else left - indexes - slack, closing, warning >> 20)

    def take(self, size_bytes: int, *, full: bool) -> None:
        """So much was written, to a volume that was full before or not."""
        self.data_bytes -= size_bytes
        if full:
            self.closing_bytes = max(self.closing_bytes - size_bytes, 0)

    def end_met(self) -> None:
        """The drive had no room for one more block."""
        self.data_bytes = self.closing_bytes = 0
