"""Mode pages of an emulated drive: how it is set, and what of it a host may change."""

from __future__ import annotations

from collections.abc import Callable

from tape.emulator import modes
from tape.emulator.bay import Bay
from tape.emulator.check import invalid_parameter
from tape.emulator.modes import PageKey
from tape.scsi.transport import Buffer

_MEDIUM_TYPE = 0x88  # an LTO-8 cartridge
_TAKEN: frozenset[PageKey] = frozenset(
    {(0x02, 0), (0x0A, 0), (0x0F, 0), (0x10, 0), (0x10, 1), (0x11, 0), (0x1C, 0), (0x24, 0)}
)


class Settings:
    """Of one drive."""

    def __init__(self, drive: Bay) -> None:
        self._drive = drive
        self._partition_page: bytes | None = None

    @property
    def two_partitions_wanted(self) -> bool:
        """What FORMAT MEDIUM is to make by the page that was sent."""
        return self._partition_page is not None and bool(self._partition_page[3])

    def sense(self, cdb: bytes) -> bytes:
        """MODE SENSE, of six bytes and of ten."""
        pages: dict[PageKey, Callable[[], bytes]] = {
            (0x02, 0): lambda: bytes((0x02, 14)) + bytes(14),
            (0x0A, 0): lambda: bytes((0x0A, 10)) + bytes(10),
            (0x0A, 0xF0): lambda: bytes((0x4A, 0xF0, 0, 4)) + bytes(4),
            (0x0F, 0): lambda: bytes((0x0F, 14, 0xC0, 0x80, 0, 0, 0, 0xFF, 0, 0, 0, 0xFF)) + bytes(4),
            (0x10, 0): lambda: bytes((0x10, 14)) + bytes(6) + bytes((0x40, 0)) + bytes(6),
            (0x10, 1): self._programmable,
            (0x11, 0): self._partitions,
            (0x1C, 0): lambda: bytes((0x1C, 10)) + bytes(10),
            (0x1D, 0): self._medium_configuration,
            (0x23, 0): lambda: bytes((0x23, 22)) + bytes(22),
            (0x24, 0): lambda: bytes((0x24, 6)) + bytes(6),
        }
        tape = self._drive.cartridge
        return modes.sense(
            cdb,
            pages,
            medium=_MEDIUM_TYPE if tape is not None else 0,
            density=tape.kind.density if tape is not None else 0,
            block=self._drive.deck.block_length,
            write_protected=tape is not None and tape.kind.write_protected,
        )

    def select(self, cdb: bytes, data: Buffer) -> None:
        """MODE SELECT, of six bytes and of ten.

        Raises:
            Check: a page that nobody may change, or a value that cannot be.
        """
        block, pages = modes.selected(cdb, data)
        if not set(pages) <= _TAKEN:
            raise invalid_parameter()
        if block is not None:
            self._drive.deck.block_length = block
        if (0x11, 0) in pages:
            if pages[0x11, 0][3] > 1:
                raise invalid_parameter()
            self._partition_page = pages[0x11, 0]
        if (0x10, 1) in pages:
            self._drive.deck.set_programmable(int.from_bytes(pages[0x10, 1][6:8], "big"))

    def _programmable(self) -> bytes:
        size = self._drive.deck.programmable_mib.to_bytes(2, "big")
        return bytes((0x50, 0x01, 0, 28)) + bytes(2) + size + bytes(24)

    def _partitions(self) -> bytes:
        two = self._drive.cartridge is not None and self._drive.cartridge.partitions == 2
        sizes = bytes((0, 1, 0xFF, 0xFF)) if two else bytes((0xFF, 0xFF, 0, 0))
        return bytes((0x11, 10, 1, int(two), 0x3C, 3, 9, 0)) + sizes

    def _medium_configuration(self) -> bytes:
        """Whether the cartridge is WORM, and what of it may be written over then: nothing, not even filemarks."""
        worm = self._drive.cartridge is not None and self._drive.cartridge.kind.worm
        return bytes((0x1D, 30, int(worm), 0, 0x01 if worm else 0, 0)) + bytes(26)
