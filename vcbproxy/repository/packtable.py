"""Packs by number: what a row of the index names in four bytes.

    number    id 32 │ digest 16 │ blobs u32 │ size u64 │ alive bool           61 bytes a pack, and 12 to find it by id

``digest`` is of all that is listed of the pack (``indexrows``), so that two index files that list one pack are compared
without looking at its blobs again. A pack that is not ``alive`` is there no more, for whoever asks: it was forgotten,
or no index file that lists it is left, or another number stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository.ids import ID_BYTES

DIGEST_BYTES = 16
_RECENT_MAX = 1 << 14
_GROWTH_MIN = 1 << 10
_STEP = 1 << 16


@dataclass(frozen=True, slots=True)
class Packs:
    """Packs as columns."""

    ids: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    blobs: NDArray[np.uint32]
    sizes: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.blobs)

    def take(self, wanted: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Packs:
        """Some of them."""
        return Packs(self.ids[wanted], self.digests[wanted], self.blobs[wanted], self.sizes[wanted])


def no_packs(room: int = 0) -> Packs:
    """Room for so many."""
    return Packs(
        np.zeros((room, ID_BYTES), np.uint8),
        np.zeros((room, DIGEST_BYTES), np.uint8),
        np.zeros(room, np.uint32),
        np.zeros(room, np.uint64),
    )


def keys_of(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first eight bytes of each id as a number."""
    return np.ascontiguousarray(ids[:, :8]).view(">u8").ravel().astype(np.uint64)


class PackTable:
    """Packs that come, and never go. One thread writes; any may ask for what they were told the number of."""

    def __init__(self) -> None:
        self._columns = no_packs()
        self._count = 0
        self.alive = np.zeros(0, np.bool_)
        self._keys = np.zeros(0, np.uint64)  # sorted, of those that are found by id ...
        self._numbers = np.zeros(0, np.uint32)  # ... and their numbers
        self._recent: dict[bytes, int] = {}  # found by id as well

    def __len__(self) -> int:
        return self._count

    @property
    def packs(self) -> Packs:
        """All of them, in the order of their numbers."""
        return self._columns.take(slice(0, self._count))

    def id_of(self, number: int) -> bytes:
        """The pack's id."""
        return bytes(self._columns.ids[number])

    def find(self, pack_id: bytes) -> int:
        """The number that stands for a pack; -1 when it is not known."""
        found = self._recent.get(pack_id)
        if found is not None:
            return found
        wanted = np.uint64(int.from_bytes(pack_id[:8], "big"))
        at = int(np.searchsorted(self._keys, wanted))
        while at < len(self._keys) and self._keys[at] == wanted:
            number = int(self._numbers[at])
            if self.id_of(number) == pack_id:
                return number
            at += 1
        return -1

    def find_many(self, ids: NDArray[np.uint8]) -> NDArray[np.int64]:
        """As ``find``, for many at once."""
        if len(ids) > len(self._recent):
            self._settle()
        found = np.full(len(ids), -1, np.int64)
        keys = keys_of(ids)
        at = np.searchsorted(self._keys, keys)
        asked = np.flatnonzero(at < len(self._keys))
        while len(asked):  # one round for almost all; more only where ids share their first eight bytes
            asked = asked[self._keys[at[asked]] == keys[asked]]
            numbers = self._numbers[at[asked]]
            match = (self._columns.ids[numbers] == ids[asked]).all(axis=1)
            found[asked[match]] = numbers[match]
            asked = asked[~match]
            at[asked] += 1
            asked = asked[at[asked] < len(self._keys)]
        if self._recent:
            for row in np.flatnonzero(found < 0).tolist():
                found[row] = self._recent.get(ids[row].tobytes(), -1)
        return found

    def hold_alike(self, packs: Packs, numbers: NDArray[np.int64]) -> None:
        """See that what is listed of packs is what is known of them already; of those with number -1 nothing is.

        Raises:
            IntegrityError: it is not.
        """
        known = np.flatnonzero(numbers >= 0)
        unlike = (self._columns.digests[numbers[known]] != packs.digests[known]).any(axis=1)
        if unlike.any():
            refuse(packs.ids[known[int(np.argmax(unlike))]].tobytes())

    def extend(self, packs: Packs, alive: NDArray[np.bool_], named: NDArray[np.bool_]) -> int:
        """Add some; those ``named`` are found by their id from now on. Returns the first one's number."""
        base, end = self._count, self._count + len(packs)
        self._make_room(end)
        self._columns.ids[base:end] = packs.ids
        self._columns.digests[base:end] = packs.digests
        self._columns.blobs[base:end] = packs.blobs
        self._columns.sizes[base:end] = packs.sizes
        self.alive[base:end] = alive
        self._count = end
        fresh = np.flatnonzero(named) + base
        if len(fresh) + len(self._recent) <= _RECENT_MAX:
            self._recent.update((self.id_of(number), number) for number in fresh.tolist())
        else:
            self._settle(fresh)
        return base

    def unlike(self, listed: Iterator[tuple[bytes, int]]) -> list[bytes]:
        """Which living packs that hold anything are not listed with the size that they must have.

        Args:
            listed: packs and their sizes; not held in memory.
        """
        whole = np.zeros(self._count, np.bool_)
        batch: list[tuple[bytes, int]] = []
        for one in listed:
            batch.append(one)
            if len(batch) == _STEP:
                self._mark(batch, whole)
                batch.clear()
        self._mark(batch, whole)
        lost = ~whole & self.alive[: self._count] & (self._columns.blobs[: self._count] > 0)
        return [self.id_of(number) for number in np.flatnonzero(lost).tolist()]

    def _mark(self, listed: list[tuple[bytes, int]], whole: NDArray[np.bool_]) -> None:
        ids = np.frombuffer(b"".join(pack_id for pack_id, _ in listed), np.uint8).reshape(-1, ID_BYTES)
        sizes = np.array([size for _, size in listed], np.uint64)
        numbers = self.find_many(ids)
        known = np.flatnonzero(numbers >= 0)
        right = self._columns.sizes[numbers[known]] == sizes[known]
        whole[numbers[known[right]]] = True

    def _settle(self, fresh: NDArray[np.int64] | None = None) -> None:
        """Make what is found by id one sorted table again."""
        parts = [self._numbers, np.fromiter(self._recent.values(), np.uint32, len(self._recent))]
        if fresh is not None:
            parts.append(fresh.astype(np.uint32))
        elif not self._recent:
            return
        numbers = np.concatenate(parts)
        keys = keys_of(self._columns.ids)[numbers]
        order = np.argsort(keys, kind="stable")
        self._keys, self._numbers, self._recent = keys[order], numbers[order], {}

    def _make_room(self, count: int) -> None:
        if count <= len(self.alive):
            return
        room = max(count, len(self.alive) * 9 // 8 + _GROWTH_MIN)
        grown, used = no_packs(room), slice(0, self._count)
        grown.ids[used] = self._columns.ids[used]
        grown.digests[used] = self._columns.digests[used]
        grown.blobs[used] = self._columns.blobs[used]
        grown.sizes[used] = self._columns.sizes[used]
        alive = np.zeros(room, np.bool_)
        alive[used] = self.alive[used]
        self._columns, self.alive = grown, alive


def refuse(pack_id: bytes) -> None:
    """Two index files say different things of a pack.

    Raises:
        IntegrityError: always.
    """
    raise IntegrityError(f"two index files list different blobs for pack {pack_id.hex()}; run `restic rebuild-index`")
