"""An initiator that does what a test tells it to, right or wrong, one PDU at a time."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from tape.emulator.iscsi.target import IscsiTarget

NO_TAG = 0xFFFF_FFFF
INITIATOR = "iqn.2026-01.example:raw"
PLAIN = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxRecvDataSegmentLength": "8192",
}


@dataclass(frozen=True, slots=True)
class Pdu:
    head: bytes
    data: bytes

    @property
    def op(self) -> int:
        return self.head[0] & 0x3F

    @property
    def flags(self) -> int:
        return self.head[1]

    def number(self, offset: int) -> int:
        found: int = struct.unpack_from(">I", self.head, offset)[0]
        return found

    @property
    def texts(self) -> dict[str, str]:
        return dict(part.decode().split("=", 1) for part in self.data.split(b"\0") if part)


class RawInitiator:
    def __init__(self, target: IscsiTarget, *, isid: bytes = b"\x80\1\2\3\0\0") -> None:
        self._socket = socket.create_connection((target.host, target.port), timeout=10)
        self._target = target
        self.isid = isid
        self.command_number = 7
        self.tag = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, op: int, flags: int = 0x80, *, lun: int = 0, data: bytes = b"", **fields: int) -> None:
        """``fields``: numbers by offset, as ``at20=...``."""
        head = bytearray(48)
        head[0], head[1] = op, flags
        head[5:8] = len(data).to_bytes(3, "big")
        head[8:10] = lun.to_bytes(2, "big")
        for name, value in fields.items():
            struct.pack_into(">I", head, int(name.removeprefix("at")), value)
        self.send_raw(bytes(head) + data + bytes(-len(data) % 4))

    def send_raw(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def receive(self) -> Pdu:
        head = self._exactly(48)
        length = int.from_bytes(head[5:8], "big")
        data = self._exactly(length + -length % 4)[:length]
        return Pdu(head, data)

    def _exactly(self, count: int) -> bytes:
        read = bytearray()
        while len(read) < count:
            piece = self._socket.recv(count - len(read))
            if not piece:
                raise ConnectionError("closed")
            read += piece
        return bytes(read)

    # ------------------------------------------------------------------ what is mostly wanted

    def login(self, stage: int, following: int, texts: dict[str, str], *, session: int = 0, flags: int = 0x80) -> Pdu:
        head = bytearray(48)
        head[0], head[1] = 0x43, flags | stage << 2 | (following if flags & 0x80 else 0)
        data = b"".join(f"{key}={value}\0".encode() for key, value in texts.items())
        head[5:8] = len(data).to_bytes(3, "big")
        head[8:14] = self.isid
        head[14:16] = session.to_bytes(2, "big")
        struct.pack_into(">I", head, 24, self.command_number)
        self.send_raw(bytes(head) + data + bytes(-len(data) % 4))
        return self.receive()

    def log_in(self, **terms: str) -> dict[str, str]:
        """In one step, without the security stage; gives what was agreed."""
        who = {"InitiatorName": INITIATOR, "TargetName": self._target.name, "SessionType": "Normal"}
        answer = self.login(1, 3, {**who, **PLAIN, **terms})
        assert (answer.op, answer.head[36], answer.head[37]) == (0x23, 0, 0)
        return answer.texts

    def command(self, cdb: bytes, *, lun: int = 0, flags: int = 0x81, length: int = 0, data: bytes = b"") -> int:
        """Begin a command; gives its tag."""
        self.tag += 1
        head = bytearray(48)
        head[0], head[1] = 0x01, flags
        head[5:8] = len(data).to_bytes(3, "big")
        head[8:10] = lun.to_bytes(2, "big")
        struct.pack_into(">III", head, 16, self.tag, length, self.command_number)
        head[32:48] = cdb.ljust(16, b"\0")
        self.command_number += 1
        self.send_raw(bytes(head) + data + bytes(-len(data) % 4))
        return self.tag

    def run(self, cdb: bytes, *, lun: int = 0) -> Pdu:
        """One without data, to its end."""
        self.command(cdb, lun=lun)
        answer = self.receive()
        assert answer.op == 0x21
        return answer

    def past_attention(self, lun: int = 0) -> None:
        """Take the unit attention that each new session meets."""
        self.run(bytes(6), lun=lun)
