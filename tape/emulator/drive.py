"""An emulated tape drive (SSC): cartridges come and go, commands are dispatched, its state is told.

DriveLun ─┬─ deck       the tape: where it stands, what is written and read
          ├─ settings   mode pages
          ├─ sealer     encryption
          ├─ pace       how long things take
          └─ attributes, logpages, life: what it tells of the cartridge and of itself
"""

from __future__ import annotations

from typing import ClassVar

from tape.emulator import attributes, life, logpages
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check, Session, invalid_field
from tape.emulator.deck import BLOCK_BYTES_MAX, Deck
from tape.emulator.lun import MEDIUM_CHANGED, Handler, Lun
from tape.emulator.pace import Pace
from tape.emulator.seal import CHANGED_BY_ANOTHER, Sealer
from tape.emulator.settings import Settings
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer


class DriveLun(Lun):
    """One drive, empty or not."""

    kind: ClassVar[int] = 1

    def __init__(
        self,
        serial: str,
        *,
        product: str = "ULT3580-TD8",
        density: int = 0x5E,
        pace: Pace | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        """Make it, empty.

        Args:
            serial: its number.
            product: its model.
            density: what it writes natively.
            pace: how long things take; at once, if not given.
            sealer: its cipher.
        """
        super().__init__("IBM", product, "HB83", serial)
        self.density = density
        self.pace = pace if pace is not None else Pace()
        self.sealer = sealer if sealer is not None else Sealer()
        self.deck = Deck(self.pace, self.sealer)
        self.settings = Settings(self)
        self.cartridge: Cartridge | None = None
        self.threaded = False
        self.alerts: set[int] = set()
        self.loads = 0
        self.cleanings = 0
        self.rewinds_on_reset = False
        """Whether a reset, of the bus or of this unit alone, rewinds the tape; some drives do that."""
        self._held_by_hand = False
        self._held_by: set[Session] = set()
        self._handlers |= self._commands()

    def _commands(self) -> dict[int, Handler]:
        """Those of a tape drive, by operation code."""
        return {
            0x01: self._rewind,
            0x04: self._format,
            0x05: lambda _cdb, _data: b"\0" + BLOCK_BYTES_MAX.to_bytes(3, "big") + b"\0\x01",
            0x08: lambda cdb, _data: self.deck.read(self.loaded, self.session, cdb),
            0x0A: self._write,
            0x10: self._write_filemarks,
            0x11: self._space,
            0x15: self._mode_select,
            0x19: self._erase,
            0x1A: lambda cdb, _data: self.settings.sense(cdb),
            0x1B: self._load_unload,
            0x1E: self._prevent,
            0x2B: self._locate,
            0x34: lambda cdb, _data: self.deck.position(self.loaded, cdb),
            0x44: self._report_density,
            0x4D: lambda cdb, _data: logpages.sense(self, cdb),
            0x55: self._mode_select,
            0x5A: lambda cdb, _data: self.settings.sense(cdb),
            0x82: lambda _cdb, _data: b"",
            0x8C: self._read_attribute,
            0x8D: lambda cdb, data: attributes.write(self.loaded, cdb, data),
            0x91: self._space,
            0x92: self._locate,
            0xA2: self._security_in,
            0xB5: self._security_out,
        }

    # ------------------------------------------------------------------ cartridges come and go

    @property
    def loaded(self) -> Cartridge:
        """The cartridge, ready for work."""
        if self.cartridge is None:
            raise Check(Key.NOT_READY, 0x3A)
        if life.is_cleaning(self.cartridge):
            raise Check(Key.NOT_READY, 0x30, 0x03)
        if not self.threaded:
            raise Check(Key.NOT_READY, 0x04, 0x02)
        if not self.pace.ready:
            raise Check(Key.NOT_READY, 0x04, 0x01)
        return self.cartridge

    @property
    def removal_prevented(self) -> bool:
        """Whether some session, or a test's hand, holds the cartridge in it."""
        return self._held_by_hand or bool(self._held_by)

    @removal_prevented.setter
    def removal_prevented(self, held: bool) -> None:
        self._held_by_hand = held
        self._held_by.clear()

    @property
    def occupied(self) -> bool:
        """Whether the robot cannot get at what is in it: a tape that is threaded, a cleaning cartridge at work."""
        return self.threaded or (life.is_cleaning(self.cartridge) and not self.pace.ready)

    @property
    def partition(self) -> int:
        """Where its tape stands: in which partition."""
        return self.deck.partition

    @property
    def block(self) -> int:
        """Before which block of it."""
        return self.deck.block

    @property
    def warns(self) -> bool:
        """Whether it announces the end; some do so too late."""
        return self.deck.warns

    @warns.setter
    def warns(self, warns: bool) -> None:
        self.deck.warns = warns

    def insert(self, cartridge: Cartridge) -> None:
        """The robot, or a hand, puts one in; it is threaded, or it cleans and can be taken out again."""
        with self._lock:
            assert self.cartridge is None, "there is one in it"
            self.cartridge = cartridge
            self.loads += 1
            self.deck.new_cartridge()
            self.pace.load(first=life.is_new(cartridge))
            self._thread()
            if life.is_cleaning(cartridge):
                self.cleanings += 1
                self.pace.clean()
                life.clean(cartridge, self.alerts)
            self.attention(MEDIUM_CHANGED)

    def take_out(self) -> Cartridge:
        """The robot takes it away.

        Raises:
            Check: it is held, or at work.
        """
        with self._lock:
            if self.cartridge is None:
                raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0E)
            if self.removal_prevented:
                raise Check(Key.ILLEGAL_REQUEST, 0x53, 0x02)
            if life.is_cleaning(self.cartridge) and not self.pace.ready:
                raise Check(Key.NOT_READY, 0x30, 0x03)
            if self.threaded:
                self.pace.unload()
            self.cartridge.flush()
            self.sealer.demounted()
            taken, self.cartridge, self.threaded = self.cartridge, None, False
            return taken

    def _thread(self) -> None:
        self.threaded = not life.is_cleaning(self.cartridge)
        self.deck.thread()

    def _test_unit_ready(self, cdb: bytes, data: Buffer) -> bytes:
        _ = self.loaded
        return b""

    def _load_unload(self, cdb: bytes, data: Buffer) -> bytes:
        if self.cartridge is None:
            raise Check(Key.NOT_READY, 0x3A)
        if cdb[4] & 1:
            if life.is_cleaning(self.cartridge):
                raise Check(Key.NOT_READY, 0x30, 0x03)
            if not self.threaded:
                self.pace.load()
            self._thread()
        else:
            if self.removal_prevented:
                raise Check(Key.ILLEGAL_REQUEST, 0x53, 0x02)
            if self.threaded:
                self.pace.unload()
            self.cartridge.flush()
            self.threaded = False
        return b""

    def _prevent(self, cdb: bytes, data: Buffer) -> bytes:
        if cdb[4] & 1:
            self._held_by.add(self.session)
        else:
            self._held_by.discard(self.session)
            self._held_by_hand = False
        return b""

    # ------------------------------------------------------------------ what befalls it

    def leave(self, session: Session) -> None:
        """A session has ended: whatever it held is free again, its own key forgotten."""
        with self._lock:
            super().leave(session)
            self._held_by.discard(session)
            self.sealer.forget_session(session)

    def reset(self) -> None:
        """What a reset does; what was buffered is still written."""
        with self._lock:
            if self.rewinds_on_reset:
                self._rewind_by_force()
            self.removal_prevented = False
            super().reset()

    def rewound_by_reset(self) -> None:
        """A bus reset that rewinds the tape, as some do; what was buffered is still written."""
        with self._lock:
            self._rewind_by_force()
            super().reset()

    def _rewind_by_force(self) -> None:
        if self.cartridge is not None:
            self.cartridge.flush()
        self.deck.partition = self.deck.block = 0

    def power_cut(self, keep: int = 0, *, end_marked: bool = True) -> None:
        """The power fails and comes back: what was not flushed is lost, the tape is rewound, keys are forgotten."""
        with self._lock:
            if self.cartridge is not None:
                self.cartridge.power_cut(keep, end_marked=end_marked)
                self._thread()
            self.sealer.forget_all()
            self.removal_prevented = False
            self._reservations.power_lost()
            super().reset()

    # ------------------------------------------------------------------ commands for the tape

    def _write(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.write(self.loaded, self.session, cdb, data)
        return b""

    def _write_filemarks(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.write_filemarks(self.loaded, cdb)
        return b""

    def _erase(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.erase(self.loaded)
        return b""

    def _format(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.format(self.loaded, two=bool(cdb[2] & 0x0F) and self.settings.two_partitions_wanted)
        return b""

    def _rewind(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.rewind(self.loaded)
        return b""

    def _locate(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.locate(self.loaded, cdb)
        return b""

    def _space(self, cdb: bytes, data: Buffer) -> bytes:
        self.deck.space(self.loaded, cdb)
        return b""

    # ------------------------------------------------------------------ what it is, and how it is set

    def _mode_select(self, cdb: bytes, data: Buffer) -> bytes:
        self.settings.select(cdb, data)
        return b""

    def _read_attribute(self, cdb: bytes, data: Buffer) -> bytes:
        return attributes.read(self.loaded, cdb, loads=self.loads, reference_was_read=self.deck.reference_was_read)

    def _security_in(self, cdb: bytes, data: Buffer) -> bytes:
        record = None
        if cdb[1] == 0x20 and cdb[2:4] == b"\x00\x21":
            record = self.deck.next_record(self.loaded)
        return self.sealer.answer(self.session, cdb, record, self.deck.block)

    def _security_out(self, cdb: bytes, data: Buffer) -> bytes:
        if self.sealer.set(self.session, cdb, data):
            self.attention(CHANGED_BY_ANOTHER, but=self.session)
        return b""

    def _report_density(self, cdb: bytes, data: Buffer) -> bytes:
        if cdb[1] & 1 and self.cartridge is None:
            raise Check(Key.NOT_READY, 0x3A)
        if cdb[1] & 2:  # of medium types, there are none
            raise invalid_field()
        density = self.cartridge.kind.density if cdb[1] & 1 and self.cartridge else self.density
        capacity = (self.cartridge.kind.capacity_mib if self.cartridge else 12_000_000).to_bytes(4, "big")
        texts = b"LTO-CVE " + b"U-832   " + b"Ultrium 8/32T       "
        one = bytes((density, density, 0xA0)) + bytes(9) + capacity + texts
        return ((len(one) + 2).to_bytes(2, "big") + bytes(2) + one)[: int.from_bytes(cdb[7:9], "big")]
