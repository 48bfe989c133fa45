"""Devices taken by one program at a time: a file for each serial number, locked for as long as the device is used.

    <folder>/1013000ABC.lock     {"pid": 4242, "command": "vcbproxy backup --to tape:daily"}    and flock(2) on it

The lock ends with its process, however that ends; what the file says is for whoever finds it locked. Files stay: one
removed while another program waits for it would be locked by both. Programs of several hosts do not see each other's
files; for those there is ``tape.scsi.reservation``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tape.errors import InUse, TapeError

_LOOK_AGAIN_S = 0.1
_GRACE_S = 0.3  # whoever only looks who has a device has it himself, for a moment
_NOTE_BYTES_MAX = 4096
_COMMAND_CHARACTERS_MAX = 200


class LockFolder:
    """Where the locks of one host lie. All programs that share devices must share it, and may write to it."""

    def __init__(
        self,
        folder: Path,
        *,
        command: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a folder; it is made when the first device is taken.

        Args:
            folder: for instance ``/run/lock/tape``.
            command: what others are told that this program is; its command line, if not given.
            sleep: waits so many seconds.
            monotonic: a clock, in seconds.
        """
        self.folder = folder
        self._command = command or " ".join(sys.argv)
        self._sleep = sleep
        self._monotonic = monotonic

    @contextmanager
    def held(self, serial: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Have a device for the length of a ``with``.

        Args:
            serial: its number.
            wait_s: how long to wait for whoever has it.

        Raises:
            InUse: somebody has it, and is named.
            TapeError: the folder cannot be written to.
        """
        descriptor = self._open(serial)
        try:
            self._lock(descriptor, serial, wait_s)
            os.ftruncate(descriptor, 0)
            note = {"pid": os.getpid(), "command": self._command[:_COMMAND_CHARACTERS_MAX]}
            os.pwrite(descriptor, json.dumps(note).encode(), 0)
            yield
        finally:
            os.close(descriptor)  # and with it the lock

    def holder(self, serial: str) -> str | None:
        """Who has a device now, as people are told; None when nobody has.

        Raises:
            TapeError: the folder cannot be written to.
        """
        try:
            with self.held(serial):
                return None
        except InUse as error:
            return str(error.holder)

    def _open(self, serial: str) -> int:
        path = self.folder / f"{_file_name(serial)}.lock"
        try:
            folder_for_all(self.folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            with suppress(PermissionError):  # it is another user's, who has done the same
                os.fchmod(descriptor, 0o666)
        except OSError as error:
            raise TapeError(f"{path}: the lock of this device cannot be opened: {error.strerror}") from error
        return descriptor

    def _lock(self, descriptor: int, serial: str, wait_s: float) -> None:
        until_s = self._monotonic() + max(wait_s, _GRACE_S)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._monotonic() >= until_s:
                    raise InUse(device=serial, holder=_told(descriptor)) from None
                self._sleep(_LOOK_AGAIN_S)
            else:
                return


def folder_for_all(folder: Path) -> None:
    """Create a folder; by root, for the user whose directory it is in: that user's programs must get in later.

    Who may use what is in it is decided by the directories above it.

    Raises:
        OSError: it cannot be created.
    """
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    above = folder.parent.stat()
    if os.geteuid() == 0 and above.st_uid:
        os.chown(folder, above.st_uid, above.st_gid)


def _file_name(serial: str) -> str:
    """Serial numbers come from devices: none of them may name a file elsewhere."""
    return re.sub("[^0-9A-Za-z_-]", "_", serial) or "_"


def _told(descriptor: int) -> str:
    """What the file says of whoever holds it."""
    with suppress(ValueError, KeyError, TypeError):
        note = json.loads(os.pread(descriptor, _NOTE_BYTES_MAX, 0))
        return f"process {int(note['pid'])} ({note['command']})"
    return "another program"
