"""A transport that is a call: from the code that drives a device straight into the emulated one."""

from __future__ import annotations

from tape.emulator.check import Session
from tape.emulator.lun import Hang, Lun
from tape.errors import TransportError
from tape.scsi.transport import Buffer, Reply

_TRANSFER_BYTES_MAX = 8 << 20


class LoopTransport:
    """One session with one emulated device."""

    def __init__(self, lun: Lun, name: str = "") -> None:
        self._lun = lun
        self._name = name or f"emulated:{lun.serial}"
        self._session = Session(f"loop {id(self):#x}")

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def transfer_bytes_max(self) -> int:
        """Eight MiB, the longest block of the emulated drives."""
        return _TRANSFER_BYTES_MAX

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        """Have it carried out, here and now."""
        try:
            answer = self._lun.execute(self._session, cdb, data_out)
        except Hang as error:  # nobody need wait for what is known never to come
            raise TransportError(device=self._name, command=f"{cdb[0]:02X}h", reason="timed out") from error
        except OSError as error:  # the folder's disk is full, or broken
            reason = f"{error.filename or 'its folder'}: {error.strerror or error}"
            raise TransportError(device=self._name, command=f"{cdb[0]:02X}h", reason=reason) from error
        if data_in is None:
            return Reply(answer.status, answer.sense, len(data_out))
        given = min(len(answer.data), len(data_in))
        data_in[:given] = answer.data[:given]
        return Reply(answer.status, answer.sense, given)

    def close(self) -> None:
        """End the session."""
        self._lun.leave(self._session)
