"""How long the packs are that a place lists: hundreds of thousands of them in 40 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.backend.base import Stored
from vcbproxy.repository.ids import ID_BYTES

_ID = np.dtype(f"S{ID_BYTES}")


class PackSizes:
    """Sizes by id; and which of them have been asked for."""

    def __init__(self, listed: Iterable[Stored]) -> None:
        ids, sizes = bytearray(), array("q")
        for stored in listed:
            ids += bytes.fromhex(stored.name.stem)
            sizes.append(stored.size_bytes)
        names = np.frombuffer(bytes(ids), _ID)
        order = np.argsort(names)
        self._ids = names[order]
        self.sizes: NDArray[np.int64] = np.frombuffer(sizes, np.int64)[order] if len(sizes) else np.zeros(0, np.int64)
        self._asked = np.zeros(len(self._ids), np.bool_)

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, pack_id: bytes) -> int | None:
        """Where a pack stands among them, sorted by id; None when it is not there."""
        wanted = np.frombuffer(pack_id, _ID)
        at = int(np.searchsorted(self._ids, wanted)[0])
        return at if at < len(self._ids) and (self._ids[at : at + 1] == wanted).all() else None

    def ask(self, pack_id: bytes) -> int | None:
        """The size of a pack, None when it is not there; it is no stray from now on."""
        row = self.row(pack_id)
        if row is None:
            return None
        self._asked[row] = True
        return int(self.sizes[row])

    def asked(self) -> NDArray[np.intp]:
        """Rows of the packs that were asked for."""
        return np.flatnonzero(self._asked)

    def strays(self) -> Iterator[bytes]:
        """The packs that nobody asked for."""
        for row in np.flatnonzero(~self._asked).tolist():
            yield self._ids[row : row + 1].tobytes()

    def first_bytes(self) -> NDArray[np.uint8]:
        """The first byte of each id."""
        return self._ids.view(np.uint8).reshape(-1, ID_BYTES)[:, 0]
