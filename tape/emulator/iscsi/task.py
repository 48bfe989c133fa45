"""One SCSI command on its way: its data come in pieces, and it is carried out when they are there.

immediate ── with the command          unsolicited ── behind it, unasked         solicited ── asked for by R2T
├──────────┼───────────────────────────┼──────────────────────┼──────────────────────────────┤ expected length
                                       at most the first burst        one burst at a time
"""

from __future__ import annotations

from dataclasses import dataclass

from tape.scsi.pdu import Disconnected, Head, Op, Wire

_READ, _WRITE, _FINAL = 0x40, 0x20, 0x80
TRANSFER_BYTES_MAX = 64 << 20


@dataclass(slots=True)
class Task:
    """One command, and what of its data has come.

    Attributes:
        tag: the initiator's.
        lun: as it is on the wire.
        cdb: the command.
        reads: whether the initiator waits for data.
        expected: how many bytes it means to send or get.
        data: what it sends.
        received: how much of that is there.
        solicited: up to where data were asked for; 0 as long as the first burst is on its way.
        solicitations: how often (R2TSN).
        pieces: how many came of the burst that is on its way (DataSN).
        hanging: it was given to the device, which never answers.
    """

    tag: int
    lun: bytes
    cdb: bytes
    reads: bool
    expected: int
    data: bytearray
    received: int = 0
    solicited: int = 0
    solicitations: int = 0
    pieces: int = 0
    unsolicited_ended: bool = True
    hanging: bool = False

    @classmethod
    def begun(cls, wire: Wire, head: Head) -> Task:
        """A command, and the data that came with it.

        Raises:
            Disconnected: it cannot be.
        """
        expected = head.get(20)
        writes = bool(head.flags & _WRITE)
        if expected > TRANSFER_BYTES_MAX:
            raise Disconnected(f"a command that moves {expected} bytes")
        task = cls(
            tag=head.tag,
            lun=head.lun,
            cdb=bytes(head.raw[32:48]),
            reads=bool(head.flags & _READ),
            expected=expected,
            data=bytearray(expected if writes else 0),
            unsolicited_ended=bool(head.flags & _FINAL),
        )
        task._receive(wire, head, 0)
        return task

    def take(self, wire: Wire, head: Head) -> None:
        """Take a piece of its data; pieces come in order (DataPDUInOrder), and are numbered so.

        Raises:
            Disconnected: it does not belong there.
        """
        if head.get(36) != self.pieces:
            raise Disconnected(f"piece {head.get(36)} of task {self.tag:#x} came where piece {self.pieces} was due")
        self.pieces += 1
        self._receive(wire, head, head.get(40))

    def _receive(self, wire: Wire, head: Head, offset: int) -> None:
        end = offset + head.data_bytes
        if offset != self.received or end > len(self.data):
            raise Disconnected(f"data from {offset} to {end} where {self.received} to {len(self.data)} were missing")
        wire.receive_into(memoryview(self.data)[offset:end])
        self.received = end

    @property
    def whole(self) -> bool:
        """Whether all its data are there."""
        return self.received == len(self.data)

    def to_solicit(self, burst_bytes: int) -> tuple[int, int] | None:
        """What to ask for next: offset and length; None while enough is on its way."""
        if self.whole or not self.unsolicited_ended or self.received < self.solicited:
            return None
        length = min(burst_bytes, len(self.data) - self.received)
        self.solicited = self.received + length
        self.pieces = 0
        return self.received, length


def ready_to_transfer(task: Task, transfer_tag: int, wanted: tuple[int, int]) -> Head:
    """Ask for more of its data: offset and length."""
    head = Head.of(Op.READY_TO_TRANSFER, lun=task.lun, tag=task.tag)
    head.put(20, transfer_tag)
    head.put(36, task.solicitations)
    task.solicitations += 1
    head.put(40, wanted[0])
    head.put(44, wanted[1])
    return head
