"""Blocks written through the kernel's tape driver, which ends them with filemarks by itself, and tells the end late.

- It writes a filemark when one seeks, rewinds or closes behind written blocks. So they are flushed (MTWEOF 0) first,
  after which it believes that there is nothing to end.
- It ends written blocks with a filemark even where a write has just failed, wherever the tape stands by then: at the
  beginning of the volume, after another host's reset. A flush makes it forget that there is anything to end.
- Near the end of the tape every other write fails with ENOSPC, and was not sent:

      write    n accepted, early warning │ n+1 ENOSPC, not sent │ n+1 accepted │ n+2 ENOSPC, not sent │ …
      at the end                         │ n+9 ENOSPC, not sent │ n+9 ENOSPC, sent and refused

  The first ENOSPC is only the warning, told late; MTIOCGET tells it in time. Two of them in a row are the end.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from tape.errors import MediumError, TapeError, VolumeOverflow, WriteProtected
from tape.scsi.transport import Buffer
from tape.sequential import EndWarning, Position
from tape.st.loader import IO
from tape.st.mtio import Op, State, TapeDevice
from tape.st.standing import Standing

_OVERFLOW_REFUSALS = 2


class Writer:
    """Writes blocks and filemarks, where the tape is known to stand. For one thread."""

    def __init__(self, device: TapeDevice, standing: Standing) -> None:
        self._device = device
        self._standing = standing
        self._written = False
        """Whether blocks were written since the last filemark or flush."""
        self._near_end = False

    def write(self, block: Buffer) -> EndWarning:
        """Write one block; see ``SequentialDrive``."""
        here = self._standing.hold_known()
        self._written = True
        warning = EndWarning.NONE
        for _ in range(_OVERFLOW_REFUSALS):
            try:
                length = self._device.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise self._not_written(error, here) from error
                warning = EndWarning.EARLY
                continue
            if length != len(block):
                self._standing.forget()
                raise TapeError(f"{self._device.name}: of a block of {len(block)} bytes {length} were written")
            self._standing.expected = Position(here.partition, here.block + 1)
            self._near_end = self._is_near_end() or warning is EndWarning.EARLY
            return EndWarning.EARLY if self._near_end else EndWarning.NONE
        raise self._overflow("write")

    def write_filemarks(self, count: int) -> EndWarning:
        """Write filemarks; see ``SequentialDrive``. The driver keeps to itself whether the end is near."""
        if not count and not self._written:
            return EndWarning.NONE
        here = self._standing.hold_known()
        try:
            self._device.operate(Op.WRITE_FILEMARKS, count)
        except OSError as error:
            near_end, failure = self._near_end, self._not_written(error, here)
            if count and near_end and isinstance(failure, MediumError):
                raise self._overflow("write filemarks") from error
            raise failure from error
        self._written = False
        self._standing.expected = Position(here.partition, here.block + count)
        return EndWarning.NONE

    def settle(self) -> None:
        """Have what was written on tape, so that the driver ends it with no filemark of its own.

        Raises:
            TapeError: some of it could not be written.
        """
        if not self._written:
            return
        if self._standing.expected is not None:
            self.write_filemarks(0)
        else:
            self._calm()

    def _calm(self) -> None:
        """Have the driver believe that there is nothing to end; where the tape stands nothing is written."""
        self._written = False
        with suppress(OSError):  # it refuses after a reset of its own making, and then writes no filemark either
            self._device.operate(Op.WRITE_FILEMARKS, 0)

    def _is_near_end(self) -> bool:
        with suppress(OSError):  # the block is written; whatever this is, the next one will meet it
            return State.END_OF_TAPE in self._device.status().state
        return False

    def _not_written(self, error: OSError, here: Position) -> TapeError:
        """What a write that failed comes to."""
        name = self._device.name
        self._calm()
        self._standing.forget()
        if error.errno in (errno.EBUSY, errno.EINVAL, errno.EOVERFLOW):
            return TapeError(f"{name}: the way to the drive carries no block of this length: {error.strerror}")
        if error.errno in (errno.EACCES, errno.EROFS):
            return WriteProtected(
                device=name, command="write", reason="the cartridge is write-protected", key=7, asc=0x27, ascq=0
            )
        try:
            self._standing.hold_unmoved(error, here)
        except TapeError as lost:
            return lost
        return MediumError(device=name, command=f"write {here}", reason=IO, key=3, asc=0x0C, ascq=0)

    def _overflow(self, command: str) -> VolumeOverflow:
        reason = "the end of the partition"
        return VolumeOverflow(device=self._device.name, command=command, reason=reason, key=0xD, asc=0, ascq=2)
