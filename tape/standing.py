"""Where a drive's tape stands, by our own count, and whether that can still be believed.

It is held against what the drive says after everything that may have moved the tape behind our back. A bus reset may
rewind it; the next write would then destroy the volume (the reference implementation of LTFS has the same guard).

    known ──reset, told to any command──▶ in doubt ──the drive says the same place──▶ known
      ▲                                      └─────── it says another one ──────────▶ unknown: nothing is written
      └──────────────────── the place has been found again ──────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tape.errors import MediumChanged, PositionLost, TapeError, UnitAttention
from tape.scsi import cdb
from tape.scsi.sense import Key, Sense
from tape.scsi.transport import Buffer, Reply
from tape.scsi.unit import Unit
from tape.sequential import Position

_RETRIES_MAX = 3


class Standing:
    """Where one drive's tape stands. For one thread."""

    def __init__(self, unit: Unit) -> None:
        """Take notice of everything that the unit meets; the place is not known yet."""
        self._unit = unit
        self._expected: Position | None = None
        self._guards: list[Callable[[], None]] = []
        self._doubt: UnitAttention | None = None
        """What another command has met since the tape was last known to stand where we think: it told us, not you."""
        unit.noticed = self._notice

    @property
    def expected(self) -> Position | None:
        """Where it stands by our own count; None when that is not known."""
        return self._expected

    @contextmanager
    def guarded(self, guard: Callable[[], None]) -> Iterator[None]:
        """For the length of a ``with``, call ``guard`` after everything that may have happened to the drive.

        It raises when what it guards does not hold any more: the command that met a reset is then not sent again.
        """
        self._guards.append(guard)
        try:
            yield
        finally:
            self._guards.remove(guard)

    # ------------------------------------------------------------------ what is known

    def asked(self) -> Position:
        """Where it stands by the drive's word; our own count is left as it is.

        Raises:
            TapeError: the drive does not know.
        """
        with self.attentive():
            data = self._unit.ask(cdb.read_position(), "read position", 32)
        if len(data) < 32 or data[0] & 0x0C:  # MPU, LONU: position unknown
            raise TapeError(f"{self._unit.name}: the drive does not know where the tape stands")
        return Position(int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:16], "big"))

    def found(self) -> Position:
        """Where it stands by the drive's word, which is known from here on.

        Raises:
            TapeError: the drive does not know.
        """
        self._expected = found = self.asked()
        return found

    def arrive(self, place: Position) -> None:
        """It was sent there.

        Raises:
            PositionLost: and stands elsewhere.
        """
        found = self.asked()
        if found != place:
            raise PositionLost(device=self._unit.name, expected=place, found=found)
        self._expected = place

    def moved_by(self, blocks: int) -> None:
        """So many blocks and filemarks have passed."""
        if self._expected is not None:
            self._expected = Position(self._expected.partition, self._expected.block + blocks)

    def forget(self) -> None:
        """It may stand anywhere from here on."""
        self._expected = None

    def hold_known(self) -> None:
        """Nothing is written where nobody knows what lies there.

        Raises:
            PositionLost: it is not known.
        """
        if self._expected is None:
            raise PositionLost(device=self._unit.name, expected="one that is known", found="a place that nobody knows")

    # ------------------------------------------------------------------ commands

    def run(
        self,
        command: bytes,
        what: str,
        *,
        data_out: Buffer = b"",
        data_in: memoryview | None = None,
        timeout_s: float,
        quiet: tuple[Key, ...] = (),
    ) -> tuple[Reply, Sense | None]:
        """Run what depends on where the tape stands; after a reset only if it still stands there. See ``Unit.run``.

        Raises:
            PositionLost: a reset has moved it; the command was not carried out.
            TapeError: as ``Unit.run``.
        """
        if self._doubt is not None and self._expected is not None:
            self._recheck(self._doubt)
        for _ in range(_RETRIES_MAX):
            try:
                with self.attentive():
                    return self._unit.run(
                        command, what, data_out=data_out, data_in=data_in, timeout_s=timeout_s, quiet=quiet
                    )
            except MediumChanged:
                raise
            except UnitAttention as error:
                if self._expected is None:
                    raise
                self._recheck(error)
        with self.attentive():
            return self._unit.run(command, what, data_out=data_out, data_in=data_in, timeout_s=timeout_s, quiet=quiet)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A command interrupted by Ctrl-C may have been carried out, and the block not counted."""
        try:
            yield
        except TapeError:
            raise
        except BaseException:
            self._expected = None
            raise

    @contextmanager
    def attentive(self) -> Iterator[None]:
        """What fails leaves the tape somewhere; a changed cartridge voids all that was known."""
        try:
            yield
        except UnitAttention as error:
            if isinstance(error, MediumChanged):
                self._expected = None
            raise
        except TapeError:
            self._expected = None
            raise

    def _notice(self, attention: UnitAttention) -> None:
        """A command of whatever kind has met it, and the drive will not tell it a second time."""
        self._doubt = attention
        if isinstance(attention, MediumChanged):
            self._expected = None

    def _recheck(self, because: UnitAttention) -> None:
        """After a reset: the command was not carried out, and may be sent again if nothing has moved."""
        expected = self._expected
        assert expected is not None, "nothing to hold the position against"
        for further in self._unit.attend():  # a lost session and a reset are told one after the other
            if isinstance(further, MediumChanged):
                self._expected = None
                raise further
        found = self.asked()
        if found != expected:
            self._expected = None
            raise PositionLost(device=self._unit.name, expected=expected, found=found) from because
        self._doubt = None
        for guard in self._guards:
            guard()
