"""iSCSI on the wire (RFC 7143, 11): protocol data units, read from a socket and written to one.

    0                        48
    ├ head ──────────────────┼ additional heads ┼ data ┼ padding to four bytes

Digests are never negotiated: TCP has its checksum, and the data their own. Both sides use this, the emulated library
and the small initiator; what each puts into a head is its own business.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum

HEAD_BYTES = 48
NO_TAG = 0xFFFF_FFFF
_MASK = 0xFFFF_FFFF


class Op(IntEnum):
    """What a PDU is; those of the target from 20h on."""

    NOP_OUT = 0x00
    COMMAND = 0x01
    TASK_MANAGEMENT = 0x02
    LOGIN = 0x03
    TEXT = 0x04
    DATA_OUT = 0x05
    LOGOUT = 0x06
    NOP_IN = 0x20
    RESPONSE = 0x21
    TASK_MANAGED = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    READY_TO_TRANSFER = 0x31
    ASYNCHRONOUS = 0x32
    REJECT = 0x3F


class Disconnected(ConnectionError):
    """The other side has gone, or speaks no iSCSI."""


class Head:
    """The 48 bytes that every PDU begins with; offsets are those of the RFC's drawings."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytearray | None = None) -> None:
        self.raw = bytearray(HEAD_BYTES) if raw is None else raw

    @classmethod
    def of(cls, op: Op, *, flags: int = 0x80, lun: bytes = b"", tag: int = NO_TAG, immediate: bool = False) -> Head:
        """A new one; everything else in it is zero."""
        made = cls()
        made.raw[0] = op | (0x40 if immediate else 0)
        made.raw[1] = flags
        made.raw[8 : 8 + len(lun)] = lun
        made.put(16, tag)
        return made

    @property
    def op(self) -> int:
        """What it is."""
        return self.raw[0] & 0x3F

    @property
    def immediate(self) -> bool:
        """To be delivered at once, beside the numbered ones."""
        return bool(self.raw[0] & 0x40)

    @property
    def flags(self) -> int:
        """The second byte."""
        return self.raw[1]

    @property
    def tag(self) -> int:
        """Which task of the initiator it belongs to."""
        return self.get(16)

    @property
    def lun(self) -> bytes:
        """The logical unit, as it is written on the wire."""
        return bytes(self.raw[8:16])

    @property
    def data_bytes(self) -> int:
        """How much data follows, without padding."""
        return int.from_bytes(self.raw[5:8], "big")

    def get(self, offset: int) -> int:
        """A number of four bytes."""
        return int.from_bytes(self.raw[offset : offset + 4], "big")

    def put(self, offset: int, value: int) -> None:
        """A number of four bytes; it wraps, as serial numbers do."""
        self.raw[offset : offset + 4] = (value & _MASK).to_bytes(4, "big")


def following(number: int) -> int:
    """The serial number behind a number."""
    return (number + 1) & _MASK


def distance(later: int, earlier: int) -> int:
    """How far one serial number lies behind another; negative when it lies before (RFC 1982)."""
    apart = (later - earlier) & _MASK
    return apart - (1 << 32) if apart >= 1 << 31 else apart


class Wire:
    """One connection. Reads and writes whole PDUs, or raises; not for two threads at once in one direction."""

    def __init__(self, connected: socket.socket, data_bytes_max: int) -> None:
        """Take it over.

        Args:
            connected: a stream.
            data_bytes_max: what one PDU may bring; the other side was told so.
        """
        self._socket = connected
        self._data_bytes_max = data_bytes_max
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that died holds nothing for ever
        for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6)):
            connected.setsockopt(socket.IPPROTO_TCP, option, value)

    def receive_head(self) -> Head:
        """The next PDU's head; its data must be received before the next.

        Raises:
            Disconnected: there is none any more, or it cannot be.
            OSError: the connection broke, or nothing came in time.
        """
        raw = bytearray(HEAD_BYTES)
        self._fill(memoryview(raw))
        head = Head(raw)
        if head.data_bytes > self._data_bytes_max:
            raise Disconnected(f"a PDU of {head.data_bytes} bytes, of at most {self._data_bytes_max}")
        if raw[4]:
            self._fill(memoryview(bytearray(raw[4] * 4)))  # additional heads: long CDBs and the like, which no tape has
        return head

    def receive_data(self, head: Head) -> bytearray:
        """The data of the PDU whose head was received."""
        data = bytearray(head.data_bytes)
        self.receive_into(memoryview(data))
        return data

    def receive_into(self, view: memoryview) -> None:
        """The same, into a place; all of it, and the padding behind it."""
        self._fill(view)
        if padding := -len(view) % 4:
            self._fill(memoryview(bytearray(padding)))

    def send(self, head: Head, data: bytes | bytearray | memoryview = b"") -> None:
        """One PDU.

        Raises:
            OSError: the connection broke.
        """
        length = len(data)
        head.raw[5:8] = length.to_bytes(3, "big")
        if not length:
            self._socket.sendall(head.raw)
            return
        self._send_parts([head.raw, data, bytes(-length % 4)])

    def _send_parts(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            sent = self._socket.sendmsg(left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if left and sent:
                left[0] = left[0][sent:]

    def _fill(self, view: memoryview) -> None:
        while len(view):
            got = self._socket.recv_into(view)
            if not got:
                raise Disconnected("the other side has closed the connection")
            view = view[got:]

    def set_timeout(self, timeout_s: float | None) -> None:
        """How long one receive or send may take."""
        self._socket.settimeout(timeout_s)

    def address(self) -> tuple[str, int]:
        """Our own end of it."""
        host, port, *_ = self._socket.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        """End it, also when another thread waits on it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def encode_text(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Keys and values, as login and text PDUs carry them."""
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def decode_text(data: bytes | bytearray) -> dict[str, str]:
    """The same, read.

    Raises:
        Disconnected: it is no such text.
    """
    pairs: dict[str, str] = {}
    for part in bytes(data).split(b"\0"):
        if not part:
            continue
        key, equals, value = part.partition(b"=")
        if not equals:
            raise Disconnected(f"a text without a value: {part[:40]!r}")
        pairs[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return pairs
