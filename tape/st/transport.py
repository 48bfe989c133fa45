"""SCSI commands through ``/dev/nstN``, for what the tape driver has no operation: the cartridge's memory, counters.

The kernel lets only root (CAP_SYS_RAWIO) send any. To all others the drive looks like one that does not know the
command: a mount then searches the tape instead of believing the cartridge's memory, and nobody tells what is left.
"""

from __future__ import annotations

from tape.errors import TransportError
from tape.scsi import sg
from tape.scsi.transport import Buffer, Reply, Status
from tape.st.mtio import NstDevice

_TRANSFER_BYTES_MAX = 1 << 20
UNKNOWN_COMMAND = Reply(Status.CHECK_CONDITION, bytes((0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0)))
"""What a drive says to a command that it does not know: illegal request, invalid command operation code."""


class StTransport:
    """The drive behind a tape device; closed with that."""

    def __init__(self, device: NstDevice) -> None:
        self._device = device

    @property
    def name(self) -> str:
        """The tape device's path."""
        return self._device.name

    @property
    def transfer_bytes_max(self) -> int:
        """One MiB, which every host adapter can."""
        return _TRANSFER_BYTES_MAX

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        """Hand it to the kernel, and wait; what we may not send is answered as an unknown command."""
        try:
            return sg.submit(self._device.fd, self.name, cdb, data_out=data_out, data_in=data_in, timeout_s=timeout_s)
        except PermissionError:
            return UNKNOWN_COMMAND
        except OSError as error:
            raise TransportError(device=self.name, command=f"{cdb[0]:02X}h", reason=error.strerror) from error

    def close(self) -> None:
        """Nothing: the tape device is closed by whoever opened it."""
