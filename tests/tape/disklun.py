"""A disk of memory: no tape, but what libiscsi's conformance tests of a target ask for."""

from __future__ import annotations

from typing import ClassVar

from tape.emulator.check import Check, invalid_field
from tape.emulator.lun import Lun
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer

_SECTOR = 512


class DiskLun(Lun):
    kind: ClassVar[int] = 0

    def __init__(self, sectors: int = 8192) -> None:
        super().__init__("VCBPROXY", "DISK", "0100", "DISK0001")
        self._bytes = bytearray(sectors * _SECTOR)
        self._handlers |= {
            0x1A: lambda cdb, _data: bytes((3, 0, 0, 0))[: cdb[4]],
            0x25: lambda _cdb, _data: (sectors - 1).to_bytes(4, "big") + _SECTOR.to_bytes(4, "big"),
            0x28: self._read,
            0x2A: self._write,
            0x88: self._read,
            0x8A: self._write,
            0x9E: self._capacity,
            0xA8: self._read,
            0xAA: self._write,
        }

    def _capacity(self, cdb: bytes, data: Buffer) -> bytes:
        if cdb[1] & 0x1F != 0x10:
            raise invalid_field()
        last = len(self._bytes) // _SECTOR - 1
        return (last.to_bytes(8, "big") + _SECTOR.to_bytes(4, "big") + bytes(20))[: int.from_bytes(cdb[10:14], "big")]

    def _range(self, cdb: bytes) -> tuple[int, int]:
        if cdb[0] & 0xF0 == 0x80:
            start, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
        elif cdb[0] & 0xF0 == 0xA0:
            start, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big")
        else:
            start, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")
        if (start + count) * _SECTOR > len(self._bytes):
            raise Check(Key.ILLEGAL_REQUEST, 0x21)
        return start * _SECTOR, (start + count) * _SECTOR

    def _read(self, cdb: bytes, data: Buffer) -> bytes:
        start, end = self._range(cdb)
        return bytes(self._bytes[start:end])

    def _write(self, cdb: bytes, data: Buffer) -> bytes:
        start, end = self._range(cdb)
        sent = bytes(data)[: end - start]
        self._bytes[start : start + len(sent)] = sent
        return b""
