"""Layers laid over each other. In: the tiles of each link, newest first. Out: the extents of the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vcbproxy.extent import Extent, Kind
from vcbproxy.vmdk.layer import State, Tile


def overlay(layers: Sequence[Iterator[Tile]], size_bytes: int) -> Iterator[Extent]:
    """Sweep once from start to end; at each position the newest layer that is not BELOW decides.

        newest  ├─ HERE ─┼─ BELOW ──────────────────┤
        base    ├─ ZERO ──────────┼─ HERE ──────────┤
        out     ├─ DATA ─┼─ ZERO ─┼─ DATA ──────────┤

    A layer is asked for tiles only as far as those above it leave something open, and none is held in memory.
    """
    cursors = [_Cursor(tiles) for tiles in layers]
    position = 0
    while position < size_bytes:
        end, kind = size_bytes, Kind.ZERO
        for cursor in cursors:
            tile = cursor.at(position)
            end = min(end, tile.end)
            if tile.state is not State.BELOW:
                kind = Kind.DATA if tile.state is State.HERE else Kind.ZERO
                break
        yield Extent(position, end - position, kind)
        position = end


class _Cursor:
    """The tile of one layer at a position that only grows."""

    def __init__(self, tiles: Iterator[Tile]) -> None:
        self._tiles = tiles
        self._tile = Tile(0, 0, State.BELOW)

    def at(self, position: int) -> Tile:
        while self._tile.end <= position:
            tile = next(self._tiles, None)
            assert tile is not None, f"a layer's tiles end at {self._tile.end}"
            assert tile.start == self._tile.end, f"a layer's tiles do not tile: {tile} after {self._tile}"
            self._tile = tile
        return self._tile
