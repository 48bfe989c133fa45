"""What metadata were when they were first read, so that a second look can tell whether they still are.

A map is read in pieces, over hours, and pieces that the cache dropped are read again. If a host rewrote one meanwhile
(a delta that was still being flushed when it was frozen, a consolidation that nobody announced), the file's own place
and size on the volume say nothing of it: only the content does. 8 bytes a piece are kept for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vcbproxy.errors import Changed

_DIGEST_BYTES = 8
_PAGE = 4096


class Witness:
    """Remembers numbered pieces of one file's metadata. Several threads may use it."""

    def __init__(self, file: str, what: str) -> None:
        """Begin with nothing seen; ``what`` is what messages call a piece."""
        self._file = file
        self._what = what
        self._pages: dict[int, npt.NDArray[np.uint64]] = {}  # a digest a piece, 0: not seen

    def saw(self, index: int, *content: memoryview) -> None:
        """Take note of a piece, or hold it to what it was.

        Raises:
            Changed: it is another than it was the first time.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for part in content:
            digest.update(part)
        now = int.from_bytes(digest.digest(), "little") | 1
        page, row = divmod(index, _PAGE)
        if page not in self._pages:
            self._pages.setdefault(page, np.zeros(_PAGE, np.uint64))
        digests = self._pages[page]
        before = int(digests[row])
        if before == 0:
            digests[row] = now
        elif before != now:
            raise Changed(file=self._file, reason=f"{self._what} {index} was rewritten")

    def seen(self) -> Iterator[int]:
        """The numbers of the pieces that were noted so far, in order."""
        for page in sorted(self._pages):
            for row in np.flatnonzero(self._pages[page]).tolist():
                yield page * _PAGE + row
