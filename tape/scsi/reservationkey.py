"""The key of a persistent reservation (SPC-5, 5.14): whose it is, and who holds a device with one."""

from __future__ import annotations

import hashlib

from tape.scsi import cdb
from tape.scsi.transport import ScsiTransport, Status

KEY_BYTES = 8
_NAME_BYTES = 5
_READ_RESERVATION = 0x01
_ANSWER_BYTES = 24
_ATTENTIONS_MAX = 8


def key_of(host: str) -> bytes:
    """A host's key: the beginning of its name, so that people recognize it, and three bytes made of all of it."""
    name = host.encode("ascii", "replace")[:_NAME_BYTES].ljust(_NAME_BYTES, b"-")
    return name + hashlib.sha256(host.encode()).digest()[: KEY_BYTES - _NAME_BYTES]


def told(key: bytes) -> str:
    """A key for people: in hexadecimal, and the beginning of a host's name, if it is one of ours."""
    readable = bytes(byte for byte in key[:_NAME_BYTES] if 0x20 < byte < 0x7F).decode("ascii")
    return f"key {key.hex()}" + (f" ({readable})" if readable else "")


def holder(transport: ScsiTransport) -> bytes | None:
    """The key of whoever has reserved a device; None when nobody has, or it does not tell.

    Raises:
        TransportError: it did not get through.
    """
    answer = memoryview(bytearray(_ANSWER_BYTES))
    command = cdb.persistent_reserve_in(_READ_RESERVATION, _ANSWER_BYTES)
    reply = transport.execute(command, data_in=answer)
    for _ in range(_ATTENTIONS_MAX):
        if reply.status != Status.CHECK_CONDITION:
            break
        reply = transport.execute(command, data_in=answer)
    if reply.status != Status.GOOD or int.from_bytes(answer[4:8], "big") < KEY_BYTES * 2:
        return None
    return bytes(answer[8 : 8 + KEY_BYTES])
