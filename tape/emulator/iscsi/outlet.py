"""What a target sends: PDUs with the numbers of the moment, from several threads."""

from __future__ import annotations

import threading

from tape.scsi.pdu import Head, Op, Wire, following
from tape.scsi.transport import Buffer

_WINDOW = 64


class Outlet:
    """The sending half of one connection."""

    def __init__(self, wire: Wire, *, expected: int, status_number: int) -> None:
        """Take it over.

        Args:
            wire: the connection.
            expected: the next command's number (ExpCmdSN).
            status_number: the next of ours (StatSN).
        """
        self._wire = wire
        self._lock = threading.Lock()
        self._expected = expected
        self._status_number = status_number

    @property
    def expected(self) -> int:
        """The number of the command that is due."""
        return self._expected

    def command_came(self) -> None:
        """The one that was due has come."""
        self._expected = following(self._expected)

    def send(self, head: Head, data: Buffer = b"", *, numbered: bool = True) -> None:
        """One PDU; ``numbered`` when it carries a status of its own.

        Raises:
            OSError: the connection broke.
        """
        with self._lock:
            if numbered or head.op == Op.READY_TO_TRANSFER:
                head.put(24, self._status_number)
            if numbered:
                self._status_number = following(self._status_number)
            head.put(28, self._expected)
            head.put(32, self._expected + _WINDOW - 1)
            self._wire.send(head, data)

    def close(self) -> None:
        """End the connection, whoever waits on it."""
        self._wire.close()
