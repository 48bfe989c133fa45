"""Who asks an emulated device, and how it says no: check condition, and the sense data that go with it."""

from __future__ import annotations

from tape.scsi.sense import Key
from tape.scsi.transport import Buffer


class Session:
    """One initiator's way to the devices; two are never the same one.

    Attributes:
        initiator: the port at its other end, by a name that outlives the session.
    """

    __slots__ = ("__weakref__", "initiator")

    def __init__(self, initiator: str) -> None:
        self.initiator = initiator


class Check(Exception):  # SCSI's word for it: check condition
    """A command that ends with sense data, and perhaps with data as well."""

    def __init__(
        self,
        key: Key,
        asc: int,
        ascq: int = 0,
        *,
        filemark: bool = False,
        eom: bool = False,
        ili: bool = False,
        information: int | None = None,
        data: Buffer = b"",
        deferred: bool = False,
    ) -> None:
        super().__init__(f"{key:X}/{asc:02X}/{ascq:02X}")
        self.data = data
        self.key = key
        flags = (0x80 if filemark else 0) | (0x40 if eom else 0) | (0x20 if ili else 0)
        response = (0x71 if deferred else 0x70) | (0x80 if information is not None else 0)
        field = ((information or 0) & 0xFFFFFFFF).to_bytes(4, "big")
        self.sense = bytes((response, 0, flags | key)) + field + bytes((10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0))


def invalid_command() -> Check:
    """Never heard of it."""
    return Check(Key.ILLEGAL_REQUEST, 0x20)


def invalid_field() -> Check:
    """Heard of it, but not like this."""
    return Check(Key.ILLEGAL_REQUEST, 0x24)


def invalid_parameter() -> Check:
    """The command is all right, what it sent along is not."""
    return Check(Key.ILLEGAL_REQUEST, 0x26)
