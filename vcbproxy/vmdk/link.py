"""One link of a chain: a VMDK, opened. In: a descriptor and its extent files. Out: a layer as large as the disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from vcbproxy.errors import Changed, VmdkError
from vcbproxy.vmdk import c_vmdk
from vcbproxy.vmdk.descriptor import Descriptor
from vcbproxy.vmdk.layer import Gap, Layer, Tile, joined


class Link:
    """A VMDK: its extents, end to end."""

    def __init__(
        self, path: str, descriptor: Descriptor, layers: Sequence[Layer], again: Callable[[], Descriptor]
    ) -> None:
        """Take what the opener made; ``again`` reads the descriptor once more."""
        self.path = path
        self.descriptor = descriptor
        self._again = again
        self._layers = tuple(layers)
        self._starts = []
        position = 0
        for layer in self._layers:
            self._starts.append(position)
            position += layer.size_bytes
        self._size_bytes = position

    @property
    def kind(self) -> str:
        """Its createType."""
        return self.descriptor.create_type

    @property
    def is_raw_map(self) -> bool:
        """Whether its bytes are those of a whole LUN."""
        return self.descriptor.create_type in c_vmdk.RAW_MAPS

    @property
    def cid(self) -> int:
        """Its content id."""
        return self.descriptor.cid

    @property
    def parent_cid(self) -> int | None:
        """The content id that its parent must have; None in a base."""
        return self.descriptor.parent_cid

    @property
    def size_bytes(self) -> int:
        """The capacity."""
        return self._size_bytes

    def tiles(self) -> Iterator[Tile]:
        """The tiles of its extents, one after the other."""
        for start, layer in zip(self._starts, self._layers, strict=True):
            for tile in layer.tiles():
                yield Tile(start + tile.start, tile.length, tile.state)

    def fill(self, offset: int, buf: memoryview) -> list[Gap]:
        """Fill from each extent that the range touches."""
        gaps: list[Gap] = []
        position, end = offset, offset + len(buf)
        while position < end:
            index = bisect_right(self._starts, position) - 1
            start, layer = self._starts[index], self._layers[index]
            stop = min(end, start + layer.size_bytes)
            part = buf[position - offset : stop - offset]
            gaps += [Gap(start + gap.start, gap.length) for gap in layer.fill(position - start, part)]
            position = stop
        return joined(gaps)

    def recheck(self) -> None:
        """Read the descriptor and what was read of the extents' maps again.

        Raises:
            Changed: somebody rewrote them; nothing that was read by them may be kept.
        """
        try:
            if self._again() != self.descriptor:
                raise Changed(file=self.path, reason="its descriptor was rewritten")
            for layer in self._layers:
                layer.recheck()
        except VmdkError as error:
            raise Changed(file=self.path, reason=f"it can no longer be read: {error}") from error
