"""One logical unit, spoken to in commands that either succeed or raise.

Unit attentions are of three kinds, told apart here: those that mean nothing to us (parameters changed) are passed over
and the command is sent again, for a command that meets one is not carried out; a changed cartridge, and a reset, are
for whoever knows what stood in the drive and where.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tape.errors import MediumChanged, Reserved, TapeError, TransportError, UnitAttention
from tape.scsi import cdb, reservationkey, sense
from tape.scsi.sense import Key, Sense
from tape.scsi.transport import Buffer, Reply, ScsiTransport, Status

_BUSY_TRIES_MAX = 60
_ATTENTIONS_MAX = 8  # several may be queued: reset, then parameters changed, then ...
_HARMLESS = {0x2A, 0x3F, 0x5E}
_ENCRYPTION_CHANGED = {(0x2A, 0x11), (0x2A, 0x12), (0x2A, 0x13)}  # what is written next may be in the clear
_RESERVATION_BROKEN = {(0x2A, 0x03), (0x2A, 0x05)}  # another host may have moved the tape, or written to it


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is.

    Attributes:
        kind: SPC's peripheral device type: ``TAPE``, ``CHANGER``, or something else.
        vendor: its maker.
        product: its model.
        revision: of its firmware.
        serial: by which it is known, whatever number the kernel gives it today.
    """

    kind: int
    vendor: str
    product: str
    revision: str
    serial: str

    def __str__(self) -> str:
        return f"{self.vendor} {self.product} {self.serial}"


TAPE = 1
CHANGER = 8


class Unit:
    """A device behind a transport. For one thread."""

    def __init__(self, transport: ScsiTransport, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.transport = transport
        self.changes = 0
        """How often there may have come another cartridge: what was known of the one before holds no more."""
        self._sleep = sleep
        self.noticed: Callable[[UnitAttention], None] = lambda _: None
        """Told of every unit attention that is not harmless, whatever command met it, before that command fails."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.transport.name

    def run(
        self,
        command: bytes,
        what: str,
        *,
        data_out: Buffer = b"",
        data_in: memoryview | None = None,
        timeout_s: float = 60.0,
        quiet: Sequence[Key] = (),
    ) -> tuple[Reply, Sense | None]:
        """Have a command carried out.

        Args:
            command: its CDB.
            what: what messages call it.
            data_out: see ``ScsiTransport.execute``.
            data_in: likewise.
            timeout_s: likewise.
            quiet: sense keys that are an answer here, and not an error.

        Raises:
            TransportError: it did not get through.
            Reserved: another host holds the device.
            DeviceFailure: it failed; the class says of what.
        """
        attentions = busy = 0
        while True:
            reply = self.transport.execute(command, data_out=data_out, data_in=data_in, timeout_s=timeout_s)
            match reply.status:
                case Status.GOOD | Status.CONDITION_MET:
                    return reply, None
                case Status.RESERVATION_CONFLICT:
                    raise Reserved(device=self.name, holder=self._holder())
                case Status.BUSY | Status.TASK_SET_FULL if busy < _BUSY_TRIES_MAX:
                    busy += 1
                    self._sleep(1.0)
                    continue
                case Status.CHECK_CONDITION:
                    pass
                case _:
                    reason = f"it ended with status {reply.status:#04x}"
                    raise TransportError(device=self.name, command=what, reason=reason)
            found = sense.decode(reply.sense)
            if found is None:
                raise TransportError(device=self.name, command=what, reason="it failed, and did not say of what")
            if _is_harmless(found) and attentions < _ATTENTIONS_MAX:
                attentions += 1
                continue
            if not found.deferred and found.key in (Key.NO_SENSE, Key.RECOVERED, *quiet):
                return reply, found
            failure = sense.failure(found, self.name, what)
            self.changes += isinstance(failure, MediumChanged)
            if isinstance(failure, UnitAttention):
                self.noticed(failure)
            raise failure

    def _holder(self) -> str:
        """Who has reserved it, in words."""
        key = reservationkey.holder(self.transport)
        return f"another host, {reservationkey.told(key)}" if key is not None else "another host"

    def ask(self, command: bytes, what: str, length: int, *, timeout_s: float = 60.0) -> bytes:
        """Have a command carried out that answers with up to ``length`` bytes; after a reset it is sent again.

        Raises:
            TapeError: as ``run``.
        """
        answer = memoryview(bytearray(length))
        reply = self._past_resets(lambda: self.run(command, what, data_in=answer, timeout_s=timeout_s))
        return bytes(answer[: reply.transferred])

    def tell(self, command: bytes, what: str, data: Buffer = b"", *, timeout_s: float = 60.0) -> None:
        """Have a command carried out that gives no data, and means the same before and after a reset; as ``ask``.

        Raises:
            TapeError: as ``run``.
        """
        self._past_resets(lambda: self.run(command, what, data_out=data, timeout_s=timeout_s))

    def _past_resets(self, act: Callable[[], tuple[Reply, Sense | None]]) -> Reply:
        """What meets a reset was not carried out, and whom it concerns has noticed; another cartridge is no reset."""
        for _ in range(_ATTENTIONS_MAX):
            try:
                return act()[0]
            except UnitAttention as error:
                if isinstance(error, MediumChanged):
                    raise
        return act()[0]

    def attend(self) -> list[UnitAttention]:
        """Take notice of everything that happened before this session: a reset, a new cartridge. Gives it."""
        seen: list[UnitAttention] = []
        while len(seen) < _ATTENTIONS_MAX:
            try:
                self.run(cdb.test_unit_ready(), "test unit ready", quiet=(Key.NOT_READY,))
            except UnitAttention as error:
                seen.append(error)
                continue
            break
        return seen

    def inquiry(self) -> Identity:
        """Who it is.

        Raises:
            TapeError: it does not say.
        """
        data = self.ask(cdb.inquiry(96), "inquiry", 96)
        if len(data) < 36:
            raise TapeError(f"{self.name}: an inquiry was answered with {len(data)} bytes")
        text = data.decode("ascii", "replace")
        return Identity(data[0] & 0x1F, text[8:16].strip(), text[16:32].strip(), text[32:36].strip(), self._serial())

    def _serial(self) -> str:
        data = self.ask(cdb.inquiry(255, 0x80), "inquiry, serial number", 255)
        length = int.from_bytes(data[2:4], "big")
        return data[4 : 4 + length].decode("ascii", "replace").strip("\0 ")

    def close(self) -> None:
        """Let it go."""
        self.transport.close()


def _is_harmless(found: Sense) -> bool:
    is_about_parameters = found.key == Key.UNIT_ATTENTION and found.asc in _HARMLESS
    return is_about_parameters and found.code not in _ENCRYPTION_CHANGED | _RESERVATION_BROKEN
