"""One read of a LUN: a descriptor and a range in, a buffer that is full or a DeviceError out.

Direct I/O wants address, offset and length in multiples of the sector; a request that lies otherwise is split:

    request            ├──────────────────────────────────────┤
    sectors       │────────│────────│────────│────────│────────│
                  ╰ bounce ╯╰──── into the caller's ──╯╰ bounce ╯      address in step with the offset
                  ╰──────────────── bounce ───────────────────╯      address not in step
"""

from __future__ import annotations

import errno
import os

from vcbproxy import device
from vcbproxy.errors import DeviceError
from vcbproxy.san.bounce import BouncePool
from vcbproxy.units import KiB, align_down, align_up

_POOL = BouncePool()
_PAGE_BYTES = 64 * KiB  # the largest page of any processor that Debian runs on


class Request:
    """What was asked for: the descriptor, the range, the buffer; and the facts for its errors."""

    __slots__ = ("_buf", "_fd", "_name", "_offset")

    def __init__(self, fd: int, name: str, offset: int, buf: memoryview) -> None:
        self._fd = fd
        self._name = name
        self._offset = offset
        self._buf = buf

    def read_cached(self) -> None:
        """Read through the page cache, emptied of this range before.

        Raises:
            DeviceError: some byte could not be had.
        """
        # posix_fadvise(2) leaves pages alone that are asked for in part only: they would keep what was true before.
        start = align_down(self._offset, _PAGE_BYTES)
        end = align_up(self._offset + len(self._buf), _PAGE_BYTES)
        os.posix_fadvise(self._fd, start, end - start, os.POSIX_FADV_DONTNEED)
        self._fill(self._offset, self._buf, len(self._buf), step=1)

    def read_direct(self, step: int) -> None:
        """Read past the page cache, in multiples of ``step`` bytes: head, body and tail as drawn above.

        Raises:
            DeviceError: some byte could not be had.
        """
        offset, buf = self._offset, self._buf
        end = offset + len(buf)
        body_start, body_end = align_up(offset, step), align_down(end, step)
        in_step = device.address_of(buf) % step == offset % step
        if not in_step or body_start >= body_end:
            self._bounce(offset, buf, step)
            return
        if offset < body_start:
            self._bounce(offset, buf[: body_start - offset], step)
        self._fill(body_start, buf[body_start - offset : body_end - offset], body_end - body_start, step)
        if body_end < end:
            self._bounce(body_end, buf[body_end - offset :], step)

    def _bounce(self, offset: int, buf: memoryview, step: int) -> None:
        """Read whole sectors around each piece into a lent buffer, then copy the piece out."""
        with _POOL.lend() as lent:
            done = 0
            while done < len(buf):
                position = offset + done
                start = align_down(position, step)
                skip = position - start
                piece = min(len(buf) - done, len(lent) - skip)
                self._fill(start, lent[: align_up(skip + piece, step)], skip + piece, step)
                buf[done : done + piece] = lent[skip : skip + piece]
                done += piece

    def _fill(self, position: int, buf: memoryview, wanted: int, step: int) -> None:
        """Read at ``position`` until ``wanted`` bytes of ``buf`` are there; more may come, and does no harm.

        A read may come back short without an error (a signal, a bad sector further on, the end): go on from the last
        whole sector, and the next read either brings the rest or says what is wrong.
        """
        done = 0
        while done < wanted:
            try:
                count = os.preadv(self._fd, [buf[done:]], position + done)  # EINTR is retried by Python
            except OSError as error:
                raise self._failed(_explain(error)) from error
            if done + count >= wanted:
                return
            progress = align_down(count, step)
            if progress == 0:
                raise self._failed(f"it ended at {position + done + count}; was it shrunk or unmapped?")
            done += progress

    def _failed(self, reason: str) -> DeviceError:
        return DeviceError(device=self._name, offset=self._offset, length=len(self._buf), reason=reason)


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return f"{error.strerror}; the LUN is gone from this machine"
    return error.strerror or str(error)
