"""A small iSCSI initiator: a way to devices for which the host has no driver, and no need of one.

One session with one logical unit. A connection that breaks, or does not answer in time, is given up; the next command
makes a new one. What the target had begun is then aborted by it, and whoever uses the device is told by a unit
attention (29/07, the nexus was lost) before anything else is done: what stood where must be looked at anew, as after a
bus reset.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tape.errors import TransportError
from tape.scsi.iscsisession import SEGMENT_BYTES, TRANSFER_BYTES, Session
from tape.scsi.pdu import Wire
from tape.scsi.transport import Buffer, Reply, Status

PORT = 3260
_LOGIN_S = 30.0
_NEXUS_LOST = bytes((0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0x07, 0, 0, 0, 0))
_TOLD_LATER = {0x12, 0xA0, 0x03}  # INQUIRY, REPORT LUNS, REQUEST SENSE: answered whatever happened (SPC)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a logical unit is.

    Attributes:
        host: name or address.
        port: TCP's.
        target: its iSCSI name.
        lun: its number there.
    """

    host: str
    port: int
    target: str
    lun: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """From ``iscsi://HOST[:PORT]/TARGET/LUN``.

        Raises:
            ValueError: it is no such thing.
        """
        parts = urlsplit(url)
        names = parts.path.split("/")
        if parts.scheme != "iscsi" or not parts.hostname or len(names) != 3 or not names[1] or not names[2].isdigit():
            raise ValueError(f"{url}: not iscsi://HOST[:PORT]/TARGET/LUN")
        if int(names[2]) > 255:
            raise ValueError(f"{url}: LUNs end at 255")
        return cls(parts.hostname, parts.port or PORT, unquote(names[1]), int(names[2]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"iscsi://{host}:{self.port}/{self.target}/{self.lun}"


class IscsiTransport:
    """One session with one logical unit."""

    def __init__(
        self, url: str, *, initiator: str = "iqn.2026-11.vcbproxy:initiator", login_timeout_s: float = _LOGIN_S
    ) -> None:
        """Log in.

        Args:
            url: ``iscsi://HOST[:PORT]/TARGET/LUN``.
            initiator: our own iSCSI name.
            login_timeout_s: how long each step of a login may take, also of a later one.

        Raises:
            ValueError: ``url`` is none.
            TransportError: there is no such target, or it lets us not in.
        """
        self._address = Address.parse(url)
        self._initiator = initiator
        self._login_timeout_s = login_timeout_s
        self._isid = b"\x80" + os.urandom(3) + b"\0\0"  # of random format: another session for each transport
        self._session: Session | None = self._log_in()
        self._lost = False

    @property
    def name(self) -> str:
        """Its URL."""
        return str(self._address)

    @property
    def transfer_bytes_max(self) -> int:
        """Eight MiB."""
        return TRANSFER_BYTES

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        """Send it, and wait for its status."""
        assert data_in is None or not data_out, "data in both directions"
        if self._session is None:
            self._session = self._log_in()
            self._lost = True
        if self._lost and cdb[0] not in _TOLD_LATER:
            self._lost = False
            return Reply(Status.CHECK_CONDITION, _NEXUS_LOST)
        try:
            return self._session.run(cdb, data_out, data_in, timeout_s)
        except OSError as error:
            self._drop()
            raise TransportError(device=self.name, command=f"{cdb[0]:02X}h", reason=_reason(error)) from error
        except BaseException:
            self._drop()  # an interrupt, perhaps: what was half said would be gone on with by the next command
            raise

    def close(self) -> None:
        """Log out."""
        if self._session is not None:
            with suppress(OSError):  # then the target learns of it from the connection's end
                self._session.log_out()
            self._drop()

    def _drop(self) -> None:
        if self._session is not None:
            self._session.wire.close()
            self._session = None

    def _log_in(self) -> Session:
        try:
            connected = socket.create_connection(
                (self._address.host, self._address.port), timeout=self._login_timeout_s
            )
        except OSError as error:
            raise TransportError(device=self.name, command="connect", reason=_reason(error)) from error
        wire = Wire(connected, SEGMENT_BYTES)
        try:
            session = Session(wire, self._address.lun)
            session.log_in(self._initiator, self._isid, self._address.target)
        except (OSError, ValueError) as error:
            wire.close()
            raise TransportError(device=self.name, command="login", reason=_reason(error)) from error
        return session


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
