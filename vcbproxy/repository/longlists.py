"""Takes long content lists out of a tree's JSON while it streams by: millions of ids become an array, never text.

    comes in     …,"content":["0123…ef","4567…01",…],"subtree"…        in pieces of any size
    goes out     …,"content":[0],"subtree"…                           and list number 0 as uint8 (n, 32)

``"content":[`` after anything but a backslash can only be a key in JSON: inside a string its quotes would be escaped. A
real content list never holds a number, so those that were taken out are told apart from those that were left in:
short ones, and whatever is not spelled canonically.
"""

from __future__ import annotations

from collections.abc import Iterable

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import idlist
from vcbproxy.repository.idblocks import Collected
from vcbproxy.repository.idlist import STRIDE, Ids
from vcbproxy.repository.ids import Buffer
from vcbproxy.units import MiB

_OPENING = b'"content":['
_SHORT_ROWS = 16  # shorter ones are not worth it
_TEXT_BYTES_MAX = 512 * MiB


def taken_out(pieces: Iterable[Buffer], what: str) -> tuple[bytes, list[Ids]]:
    """The text without its long lists, each replaced by ``[number]``; and the lists.

    Raises:
        IntegrityError: what remains is absurdly long.
    """
    reader = _Reader(what)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


class _Reader:
    def __init__(self, what: str) -> None:
        self._what = what
        self._text = bytearray()
        self._lists: list[Ids] = []
        self._list: Collected | None = None  # the one that is being read
        self._rest = b""

    def feed(self, piece: Buffer) -> None:
        data = b"".join((self._rest, piece))
        at = 0
        while True:
            if self._list is None:
                opening = data.find(_OPENING, at)
                if opening < 0:
                    keep = max(at, len(data) - len(_OPENING) + 1)
                    self._keep(data[at:keep])
                    break
                self._keep(data[at:opening])
                at = opening + len(_OPENING)
                if self._text[-1:] != b"\\":
                    self._list = Collected()
                self._keep(_OPENING)
                continue
            rows, used = idlist.leading_rows(memoryview(data)[at:])
            self._list.extend(rows)
            at += used
            keep = at
            if used and data[at - 1 : at] == b"]":
                self._end(closed=True)
            elif len(data) - at >= STRIDE:
                self._end(closed=False)
            else:
                break
        self._rest = data[keep:]

    def finish(self) -> tuple[bytes, list[Ids]]:
        if self._list is not None:
            self._end(closed=False)
        self._keep(self._rest)
        return bytes(self._text), self._lists

    def _end(self, *, closed: bool) -> None:
        """The list has ended; or it is spelled strangely from here on, and is put back."""
        assert self._list is not None
        ids = self._list.joined()
        self._list = None
        if closed and len(ids) > _SHORT_ROWS:
            self._keep(b"%d]" % len(self._lists))
            self._lists.append(ids)
        elif len(ids):
            for piece in idlist.json_pieces(ids):
                self._keep(piece)
            self._keep(b"]" if closed else b",")

    def _keep(self, text: Buffer) -> None:
        if len(self._text) + len(text) > _TEXT_BYTES_MAX:
            raise IntegrityError(f"{self._what}: its JSON is longer than {_TEXT_BYTES_MAX} bytes")
        self._text += text
