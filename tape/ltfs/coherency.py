"""What the cartridge's memory says of its indexes, so that a mount need not look for them: volume coherency (080Ch).

    0     1          9             17       25       27          32       68   69
    ├ 8 ──┼ VCR ─────┼ generation ─┼ block ─┼ 43 ────┼ LTFS NUL ─┼ UUID ──┼ 0 ─┼ 1 ┤

One for each partition. The volume change reference (VCR) moves with the first write after it was read: while the one
kept here is still the cartridge's, nobody has written since.
"""

from __future__ import annotations

from dataclasses import dataclass

from tape import memory
from tape.memory import Attribute, Form, Id
from tape.sequential import SequentialDrive

_BYTES = 70
_MARK = b"LTFS\0"
_VERSION = 1  # readers do not trust version 0


@dataclass(frozen=True, slots=True)
class Coherency:
    """What was true when it was written.

    Attributes:
        reference: the volume change reference.
        generation: of the partition's last index.
        block: where that begins.
        volume_uuid: of which volume.
    """

    reference: int
    generation: int
    block: int
    volume_uuid: str

    def encode(self) -> bytes:
        """The attribute's value."""
        return (
            b"\x08"
            + b"".join(number.to_bytes(8, "big") for number in (self.reference, self.generation, self.block))
            + (43).to_bytes(2, "big")
            + _MARK
            + self.volume_uuid.encode("ascii")
            + bytes((0, _VERSION))
        )


def decode(value: bytes) -> Coherency | None:
    """Read an attribute's value; None when it is none to be trusted."""
    if len(value) != _BYTES or value[0] != 8 or value[27:32] != _MARK or value[69] != _VERSION:
        return None
    reference, generation, block = (int.from_bytes(value[at : at + 8], "big") for at in (1, 9, 17))
    return Coherency(reference, generation, block, value[32:68].decode("ascii", "replace"))


def read(drive: SequentialDrive, partition: int) -> Coherency | None:
    """What the memory says of a partition; None when it says nothing that can be trusted.

    Raises:
        TapeError: the memory cannot be read.
    """
    found = memory.read(drive, partition, Id.VOLUME_COHERENCY)
    return None if found is None else decode(found.value)


def reference(drive: SequentialDrive) -> int | None:
    """The volume change reference; None when the cartridge has none that means anything.

    Raises:
        TapeError: the memory cannot be read.
    """
    found = memory.read(drive, 0, Id.VOLUME_CHANGE_REFERENCE)
    if found is None or not found.value or found.number in (0, (1 << 8 * len(found.value)) - 1):
        return None
    return found.number


def write(drive: SequentialDrive, partition: int, coherency: Coherency) -> None:
    """Keep it.

    Raises:
        TapeError: the memory takes no writing.
    """
    memory.write(drive, partition, [Attribute(Id.VOLUME_COHERENCY, Form.BINARY, coherency.encode())])
