"""Getting the tape driver, and a cartridge, ready for work.

What the driver remembers is older than our session: options, the cartridge that it saw when it was last opened, and
resets. After one of its own making it does nothing before a rewind, whoever has it open by then; and of one that came
to nothing it complains when the drive next says more than "good", which may be at a filemark.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tape.errors import NoMedium, NotReady, TapeError, TransportError
from tape.st.mtio import CLEAR, SET, Op, Option, State, TapeDevice

_MUST = Option.CAN_PARTITIONS | Option.LOGICAL
_MUST_NOT = Option.ASYNC_WRITES | Option.NO_WAIT | Option.NO_WAIT_FILEMARKS
_BETTER = Option.FAST_END
IO = "the driver says no more than that it failed; the kernel's log may"


def operate(device: TapeDevice, op: Op, count: int = 1) -> None:
    """Have one operation carried out.

    Raises:
        TapeError: it failed.
    """
    try:
        device.operate(op, count)
    except OSError as error:
        what = op.name.lower().replace("_", " ")
        raise TapeError(f"{device.name}: {what}: {error.strerror}; {IO}") from error


class Loader:
    """What is done with a drive before, between and after cartridges. Afterwards the tape stands somewhere."""

    def __init__(self, device: TapeDevice, *, sleep: Callable[[float], None], monotonic: Callable[[], float]) -> None:
        self._device = device
        self._sleep = sleep
        self._monotonic = monotonic

    def set_up(self) -> None:
        """Have the driver keep partitions apart, and wait for what it does.

        Raises:
            TapeError: it does not, and we may not change that.
        """
        for options in (SET | _MUST | _BETTER, CLEAR | _MUST_NOT):
            try:
                self._device.operate(Op.SET_OPTIONS, options)
            except PermissionError:
                break
            except OSError:
                self.wake()
                operate(self._device, Op.SET_OPTIONS, options)
        found = self._device.options
        if found & _MUST != _MUST or found & _MUST_NOT:
            name = self._device.name
            raise TapeError(
                f"{name}: the tape driver keeps no partitions apart; as root: "
                f"mt-st -f {name} stsetoptions can-partitions scsi2logical fast-eom; "
                f"mt-st -f {name} stclearoptions async-writes no-wait"
            )

    def load(self, timeout_s: float) -> None:
        """Thread the cartridge that lies in the drive, and let blocks have any length.

        Raises:
            NoMedium: there is none.
            TapeError: it cannot be loaded.
        """
        self._look()
        with suppress(OSError):  # most drives begin to thread as soon as the robot has let go
            self._device.operate(Op.LOAD)
        self.wait_ready(timeout_s, None)
        self._have_out_old_resets()
        operate(self._device, Op.SET_BLOCK_LENGTH, 0)
        operate(self._device, Op.REWIND)

    def wait_ready(self, timeout_s: float, waiting: Callable[[NotReady], None] | None) -> None:
        """Wait until the cartridge is ready.

        Raises:
            NoMedium: there is none.
            NotReady: it did not become ready in time.
        """
        name = self._device.name
        until_s = self._monotonic() + timeout_s
        while True:
            state = self._look()
            if State.ONLINE in state:
                return
            if State.NO_CARTRIDGE in state:
                raise NoMedium(device=name, command="load", reason="no cartridge is in it", key=2, asc=0x3A, ascq=0)
            error = NotReady(device=name, command="load", reason="it is not ready", key=2, asc=0x04, ascq=0)
            if self._monotonic() >= until_s:
                raise error
            if waiting is not None:
                waiting(error)
            self._sleep(1.0)

    def release(self) -> bool:
        """Hold the cartridge no longer; whether the tape was rewound for it.

        Raises:
            TapeError: the drive cannot be told to.
        """
        try:
            self._device.operate(Op.UNLOCK)
        except OSError:
            self.wake()
            operate(self._device, Op.UNLOCK)
            return True
        return False

    def wake(self) -> None:
        """Have the driver work again after a reset of its own making.

        Twice, because it asks the drive where the tape stands while it forgets the reset: the drive's answer is that
        there was one.
        """
        for _ in range(2):
            with suppress(OSError):
                self._device.operate(Op.REWIND)

    def _look(self) -> State:
        """The driver looks at a drive when it is opened, and keeps what it saw."""
        try:
            self._device.reopen()
        except OSError as error:
            raise TransportError(device=self._device.name, command="open", reason=error.strerror) from error
        with suppress(OSError):
            return self._device.status().state
        self.wake()  # before Linux 6.13 it does not say even this after a reset
        try:
            return self._device.status().state
        except OSError as error:
            raise TransportError(device=self._device.name, command="status", reason=error.strerror) from error

    def _have_out_old_resets(self) -> None:
        """Provoke the complaint: going back from the beginning, the drive says more than "good"."""
        with suppress(OSError):
            self._device.operate(Op.REWIND)
            self._device.operate(Op.SPACE_FILEMARKS_BACK)
        try:
            self._device.block()
        except OSError:
            self.wake()
