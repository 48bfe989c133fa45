"""Where a tape stands that the kernel's tape driver moves: by our own count, held against what the driver says.

- Whatever goes wrong is EIO to the driver. After a reset of its own making it refuses everything but going to a known
  place; after one by others it would write on wherever the tape stands now. So after every EIO we do not know where we
  are, and write nothing until the place has been found again.
- Where it stands in which partition, one must have told the driver to keep (CAN_PARTITIONS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tape.errors import PositionLost, TapeError
from tape.sequential import Position
from tape.st.mtio import TapeDevice


class Standing:
    """Where one drive's tape stands. For one thread."""

    def __init__(self, device: TapeDevice) -> None:
        self._device = device
        self.expected: Position | None = None
        """By our own count; None when that is not known."""
        self._guards: list[Callable[[], None]] = []

    @contextmanager
    def guarded(self, guard: Callable[[], None]) -> Iterator[None]:
        """For the length of a ``with``, call ``guard`` whenever the place is found anew: what happened is not told."""
        self._guards.append(guard)
        try:
            yield
        finally:
            self._guards.remove(guard)

    def forget(self) -> None:
        """It may stand anywhere from here on."""
        self.expected = None

    def asked(self) -> Position:
        """The block by the drive's word, the partition by the driver's.

        Raises:
            TapeError: it is not known.
        """
        try:
            block = self._device.block()
            return Position(self._device.status().partition, block)
        except OSError as error:
            self.forget()
            name = self._device.name
            raise TapeError(f"{name}: the driver does not know where the tape stands: {error.strerror}") from error

    def found(self) -> Position:
        """As ``asked``; and it is known from here on.

        Raises:
            TapeError: it is not known.
        """
        for guard in self._guards:
            guard()
        self.expected = found = self.asked()
        return found

    def arrive(self, place: Position) -> None:
        """It was sent there.

        Raises:
            PositionLost: and stands elsewhere.
        """
        found = self.found()
        if found != place:
            self.forget()
            raise PositionLost(device=self._device.name, expected=place, found=found)

    def hold_known(self) -> Position:
        """Nothing is written where nobody knows what lies there.

        Raises:
            PositionLost: it is not known.
        """
        if self.expected is None:
            raise PositionLost(
                device=self._device.name, expected="one that is known", found="a place that nobody knows"
            )
        return self.expected

    def hold_unmoved(self, error: OSError, here: Position) -> None:
        """Something failed here; whether or not that moved the tape, it has to be found again.

        Raises:
            PositionLost: it stands elsewhere, or nobody knows where.
        """
        self.forget()
        try:
            found: Position | str = self.asked()
        except TapeError:
            found = "an unknown place"
        if found != here:
            raise PositionLost(device=self._device.name, expected=here, found=found) from error
