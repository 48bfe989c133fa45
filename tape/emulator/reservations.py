"""Who may use an emulated device: RESERVE(6) of old, and persistent reservations (SPC-5, 5.14), exclusive access alone.

A persistent reservation is an initiator's, and outlives its sessions, as it outlives a host that has died.
"""

from __future__ import annotations

from tape.emulator.check import Check, Session, invalid_field, invalid_parameter
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer

_KEY_BYTES = 8
_TYPE = 0x03  # exclusive access
_RESERVE_6, _RELEASE_6 = (0x16, 0x56), (0x17, 0x57)
_IN, _OUT = 0x5E, 0x5F
RESERVING = {*_RESERVE_6, *_RELEASE_6, _OUT}
"""Commands whose outcome depends on whose they are."""
_ALWAYS = {0x12, 0xA0, 0x03, *_RELEASE_6, _IN, _OUT}  # what no reservation keeps anybody from asking


class Conflict(Exception):  # SCSI's word for it: reservation conflict
    """Another nexus has it."""


class Reservations:
    """Of one logical unit."""

    def __init__(self) -> None:
        self._simple: Session | None = None
        self._keys: dict[str, bytes] = {}
        self._holder: str | None = None
        self._holder_key = b""
        self._generation = 0

    def hold(self, session: Session, operation: int) -> None:
        """Let a command through, or raise.

        Raises:
            Conflict: another one has the device.
        """
        simple = self._simple not in (None, session)
        persistent = self._holder not in (None, session.initiator)
        if (simple or persistent) and operation not in _ALWAYS:
            raise Conflict

    def left(self, session: Session) -> None:
        """A session has ended: what it had reserved persistently stays."""
        if self._simple is session:
            self._simple = None

    def reset(self) -> None:
        """What a bus reset releases."""
        self._simple = None

    def power_lost(self) -> None:
        """What a power cut releases: none of them is made to outlive it (APTPL)."""
        self.reset()
        self._keys.clear()
        self._holder = None

    def inquire(self, cdb: bytes) -> bytes:
        """PERSISTENT RESERVE IN."""
        match cdb[1] & 0x1F:
            case 0x00:
                body = b"".join(self._keys.values())
            case 0x01:
                body = self._holder_key + bytes(5) + bytes((_TYPE, 0, 0)) if self._holder is not None else b""
            case 0x02:
                return bytes((0, 8, 1, 0x80, 0x08, 0, 0, 0))[: int.from_bytes(cdb[7:9], "big")]
            case _:
                raise invalid_field()
        answer = self._generation.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
        return answer[: int.from_bytes(cdb[7:9], "big")]

    def change(self, session: Session, cdb: bytes, data: Buffer) -> set[str]:
        """RESERVE(6), RELEASE(6), PERSISTENT RESERVE OUT. Gives the initiators whose registrations that has ended.

        Raises:
            Conflict: the key is not the one that was registered; or another one has the device.
            Check: what is asked cannot be.
        """
        if cdb[0] in _RESERVE_6:
            self._simple = session
        elif cdb[0] in _RELEASE_6:
            self.left(session)
        else:
            before = set(self._keys)
            self._change(session.initiator, cdb, bytes(data))
            return before - set(self._keys) - {session.initiator}
        return set()

    def _change(self, nexus: str, cdb: bytes, parameters: bytes) -> None:
        if len(parameters) < 24:
            raise Check(Key.ILLEGAL_REQUEST, 0x1A)
        key, new_key = parameters[:_KEY_BYTES], parameters[_KEY_BYTES : 2 * _KEY_BYTES]
        action, kind = cdb[1] & 0x1F, cdb[2] & 0x0F
        if action not in (0x00, 0x06) and self._keys.get(nexus) != key:
            raise Conflict
        match action:
            case 0x00 | 0x06:
                self._register(nexus, key if action == 0x00 else None, new_key)
            case 0x01:
                self._reserve(nexus, kind, key)
            case 0x02:
                self._release(nexus)
            case 0x03:
                self._generation += 1
                self._keys.clear()
                self._holder = None
            case 0x04:
                self._preempt(nexus, key, new_key)
            case _:
                raise invalid_field()

    def _register(self, nexus: str, key: bytes | None, new_key: bytes) -> None:
        if key is not None and key != self._keys.get(nexus, bytes(_KEY_BYTES)):
            raise Conflict
        self._generation += 1
        if any(new_key):
            self._keys[nexus] = new_key
        else:
            self._keys.pop(nexus, None)
            self._release(nexus)

    def _reserve(self, nexus: str, kind: int, key: bytes) -> None:
        if kind != _TYPE:
            raise invalid_parameter()
        if self._holder not in (None, nexus):
            raise Conflict
        self._holder, self._holder_key = nexus, key

    def _release(self, nexus: str) -> None:
        if self._holder == nexus:
            self._holder = None

    def _preempt(self, nexus: str, key: bytes, preempted: bytes) -> None:
        self._generation += 1
        had_it = self._holder is not None and self._holder_key == preempted
        self._keys = {one: known for one, known in self._keys.items() if known != preempted or one == nexus}
        if had_it:
            self._holder, self._holder_key = nexus, key
