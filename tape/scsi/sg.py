"""SG_IO on ``/dev/sgN``: the way to real devices on Linux.

Only sg devices take all commands from a user who may open them; the kernel filters READ POSITION, LOCATE, LOG SENSE and
more on ``/dev/nst`` and ``/dev/sch`` for whoever lacks CAP_SYS_RAWIO. A drive is used through sg or through st, never
both in one session: st keeps its own idea of where the tape stands.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from contextlib import suppress

from tape.errors import InUse, TransportError
from tape.scsi.transport import Buffer, Reply

_SG_IO = 0x2285  # scsi/sg.h
_SG_SET_RESERVED_SIZE = 0x2275
_SG_GET_RESERVED_SIZE = 0x2272
_DIRECTION_NONE, _DIRECTION_OUT, _DIRECTION_IN = -1, -2, -3
_SENSE_BYTES = 96
_TRANSFER_BYTES = 1 << 20
_DRIVER_SENSE = 0x08  # sense data are there; no failure by itself
_HOST = {
    0x01: "no connection",
    0x02: "the bus was busy",
    0x03: "timed out",
    0x04: "no such target",
    0x05: "aborted",
    0x07: "an internal error of the host adapter",
    0x08: "the bus was reset",
    0x0B: "a soft error of the host adapter",
    0x0E: "the transport was disrupted",
    0x0F: "the transport failed, and gave up",
}


class _SgIoHeader(ctypes.Structure):
    """``struct sg_io_hdr`` of scsi/sg.h."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class SgTransport:
    """One sg device, opened for as long as it is used."""

    def __init__(self, path: str | os.PathLike[str], *, alone: bool = False) -> None:
        """Open it.

        Args:
            path: of the device.
            alone: whether no other session that asks for the same may have it at the same time: of drives, where a
                look by one program moves the tape under the hands of another.

        Raises:
            InUse: another session has it for itself.
            TransportError: it cannot be opened, or is no sg device.
        """
        self._name = os.fspath(path)
        try:
            # Without O_NONBLOCK an open waits while others hold the device exclusively.
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            remedy = "; its group is `tape`: is this user in it?" if isinstance(error, PermissionError) else ""
            raise TransportError(device=self._name, command="open", reason=f"{error.strerror}{remedy}") from error
        if alone:
            self._lock()
        self._transfer_bytes_max = self._reserve()

    @property
    def name(self) -> str:
        """Its path."""
        return self._name

    @property
    def transfer_bytes_max(self) -> int:
        """What the kernel has set aside for this device."""
        return self._transfer_bytes_max

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        """Hand it to the kernel, and wait."""
        try:
            return submit(self._fd, self._name, cdb, data_out=data_out, data_in=data_in, timeout_s=timeout_s)
        except OSError as error:
            raise TransportError(device=self._name, command=f"{cdb[0]:02X}h", reason=error.strerror) from error

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock(self) -> None:
        """By flock on the device itself, which programs share that agree on nothing else."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            if isinstance(error, BlockingIOError):
                raise InUse(device=self._name, holder="another program, of another user or state directory") from error
            raise TransportError(device=self._name, command="lock", reason=error.strerror) from error

    def _reserve(self) -> int:
        """Have the kernel set a buffer aside, so that no block fails for want of memory; tells how large it is."""
        size = ctypes.c_int(_TRANSFER_BYTES)
        try:
            with suppress(OSError):  # a smaller one than wanted is told by the next call
                fcntl.ioctl(self._fd, _SG_SET_RESERVED_SIZE, size)
            fcntl.ioctl(self._fd, _SG_GET_RESERVED_SIZE, size)
        except OSError as error:
            os.close(self._fd)
            raise TransportError(device=self._name, command="open", reason="this is no sg device") from error
        return size.value


def submit(
    fd: int, name: str, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float
) -> Reply:
    """Have a command carried out by whatever device is open there: ``/dev/sgN``, or, for root, ``/dev/nstN``.

    Raises:
        TransportError: it did not get through.
        OSError: the kernel does not let it through.
    """
    command = ctypes.create_string_buffer(cdb, len(cdb))
    sense = ctypes.create_string_buffer(_SENSE_BYTES)
    header = _SgIoHeader(
        interface_id=ord("S"),
        cmd_len=len(cdb),
        cmdp=ctypes.addressof(command),
        mx_sb_len=_SENSE_BYTES,
        sbp=ctypes.addressof(sense),
        timeout=min(int(timeout_s * 1000), 0xFFFFFFFF),
        dxfer_direction=_DIRECTION_NONE,
    )
    keep = _attach(header, data_out, data_in)
    fcntl.ioctl(fd, _SG_IO, header)
    del keep  # alive up to here: the kernel wrote into it
    if header.host_status or header.driver_status & 0x0F & ~_DRIVER_SENSE:
        reason = _HOST.get(header.host_status, f"host {header.host_status:#x}, driver {header.driver_status:#x}")
        raise TransportError(device=name, command=f"{cdb[0]:02X}h", reason=reason)
    wanted = len(data_in) if data_in is not None else len(data_out)
    return Reply(header.status, sense.raw[: header.sb_len_wr], wanted - max(header.resid, 0))


def _attach(header: _SgIoHeader, data_out: Buffer, data_in: memoryview | None) -> object:
    """Point the header at the data; what it gives must live until the command is done."""
    if data_in is not None:
        assert not data_out, "data in both directions"
        into = (ctypes.c_char * len(data_in)).from_buffer(data_in)
        header.dxfer_direction, header.dxfer_len, header.dxferp = _DIRECTION_IN, len(data_in), ctypes.addressof(into)
        return into
    if len(data_out):
        view = memoryview(data_out)
        out = (
            (ctypes.c_char * len(view)).from_buffer_copy(view)
            if view.readonly
            else (ctypes.c_char * len(view)).from_buffer(view)
        )
        header.dxfer_direction, header.dxfer_len, header.dxferp = _DIRECTION_OUT, len(view), ctypes.addressof(out)
        return out
    return None
