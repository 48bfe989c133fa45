"""Content of files: allocating, writing, reading and freeing their blocks, and the order in which disk learns of it.

    write:     zeroes and data  →  bitmaps  →  pointer blocks  →  descriptor (pointers, metadata, token)
    free:      descriptor  →  bitmaps

so that whoever reads in between sees an old or a new file, or a descriptor whose token, count and pointers disagree.
Lock order: a node's guard, then the volume's (``Store.guard``), which covers bitmaps and free lists and is held
shortly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs import fill, reclaim
from vcbproxy.lab.vmfs.address import Kind
from vcbproxy.lab.vmfs.blocks import Blocks
from vcbproxy.lab.vmfs.directory import Patch
from vcbproxy.lab.vmfs.node import INDIRECT, Node, Zla
from vcbproxy.lab.vmfs.resource import runs
from vcbproxy.lab.vmfs.store import Store


class Files:
    """Reads and writes of nodes by offset."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._geometry = store.geometry
        self._codec = store.codec
        self._blocks = Blocks(store)

    def limit(self, node: Node) -> int:
        """The largest length that the node's layout can have."""
        geometry = self._geometry
        direct = geometry.pointers_direct * node.block_bytes
        if node.zla is Zla.RESIDENT:
            return geometry.resident_bytes
        if node.zla is Zla.SUB_BLOCKS:
            return min(node.sub_blocks_max, geometry.pointers_direct) * node.block_bytes
        if node.zla is Zla.DOUBLE:
            return direct * geometry.pointers_block**2
        return direct * (geometry.pointers_block if node.zla in INDIRECT else 1)

    def write(self, node: Node, offset: int, data: bytes | memoryview) -> None:
        """Write into a node, growing it and its layout as needed."""
        view = memoryview(data).cast("B")
        if not len(view):
            return
        with node.guard:
            self._store.check_alive(node)
            end = offset + len(view)
            self._promote(node, end)
            if node.zla is Zla.RESIDENT:
                content = bytearray(node.small.ljust(max(end, node.length), b"\0"))
                content[offset:end] = view
                node.small = bytes(content)
                node.length = len(content)
                self._store.write_descriptor(node, data=True)
            elif node.zla is Zla.SUB_BLOCKS:
                self._write_sub_blocks(node, offset, view)
            else:
                self._write_blocks(node, offset, view)

    def read(self, node: Node, offset: int, length: int) -> bytes:
        """The truth: what a right reader would return, cut at the file's end."""
        with node.guard:
            self._store.check_alive(node)
            length = max(0, min(length, node.length - offset))
            if node.zla in (Zla.RESIDENT, Zla.RDM):
                return node.small[offset : offset + length]
            if length == 0:
                return b""
            step = node.block_bytes
            first, last = offset // step, (offset + length - 1) // step
            pointers = node.gather(first, last + 1 - first, self._geometry)
            places = self._blocks.places(node, first, pointers)
            parts = []
            for start, place, count in runs(places // step) if node.zla is not Zla.SUB_BLOCKS else _singly(places):
                low = max(offset, (first + start) * step)
                high = min(offset + length, (first + start + count) * step)
                if place < 0:
                    parts.append((low, bytes(high - low)))
                else:
                    base = place * step if node.zla is not Zla.SUB_BLOCKS else place
                    parts.append((low, self._store.images.read(base + low - (first + start) * step, high - low)))
            return b"".join(part for _, part in sorted(parts, key=lambda part: part[0]))

    def written(self, node: Node) -> list[tuple[int, int]]:
        """(offset, length) of what is allocated and not to be zeroed, merged and clipped to the length."""
        with node.guard:
            if node.zla in (Zla.RESIDENT, Zla.RDM):
                return [(0, node.length)] if node.length else []
            step = node.block_bytes
            found: list[tuple[int, int]] = []
            for leaf in sorted(node.leaves):
                pointers = node.leaves[leaf]
                real = np.flatnonzero((pointers != 0) & ~self._blocks.is_tbz(node, pointers))
                base = leaf * node.leaf_length(self._geometry)
                for _, first, count in runs(real):
                    start = (base + first) * step
                    end = min(start + count * step, node.length)
                    if found and sum(found[-1]) == start:
                        start = found.pop()[0]
                    if end > start:
                        found.append((start, end - start))
            return found

    def patch(self, node: Node, patches: Sequence[Patch]) -> None:
        """Write what changed in a directory, and raise its token, as a host does that held its lock meanwhile."""
        with node.guard:
            for patch in patches:
                self.write(node, patch.offset, patch.data)
            self._store.write_descriptor(node, data=False)

    def has_data(self, node: Node, index: int) -> bool:
        """Whether a block is allocated and not to be zeroed."""
        with node.guard:
            pointers = node.gather(index, 1, self._geometry)
            return bool(pointers[0]) and not bool(self._blocks.is_tbz(node, pointers)[0])

    def preallocate(self, node: Node, how: fill.Preallocation) -> None:
        """Give every block of the node's length a place."""
        with node.guard:
            self._store.check_alive(node)
            fill.preallocate(self._store, node, how)

    def truncate(self, node: Node, length: int) -> None:
        """Set the length: a hole behind the old end, or blocks freed and the last one's tail zeroed."""
        with node.guard:
            self._store.check_alive(node)
            self._promote(node, length)
            old, node.length = node.length, length
            if node.zla is Zla.RESIDENT:
                node.small = node.small[:length].ljust(length, b"\0")
            elif length < old:
                reclaim.zero_tail(self._store, node, length)
                reclaim.free_from(self._store, node, -(-length // node.block_bytes))
                return
            self._store.write_descriptor(node, data=node.zla is Zla.RESIDENT)

    def release(self, node: Node) -> None:
        """Free a deleted node: descriptor first, then its blocks, whose bytes stay on disk."""
        with node.guard:
            node.deleted = True
            node.links = 0
            reclaim.free_from(self._store, node, 0)
            with self._store.guard:
                self._store.release_descriptor(node)

    # layouts

    def _promote(self, node: Node, length: int) -> None:
        while length > self.limit(node):
            if node.zla in (Zla.RESIDENT, Zla.SUB_BLOCKS):
                self._move_out(node, length)
            elif node.zla is Zla.BLOCKS:
                self._make_indirect(node)
            elif node.zla is Zla.POINTERS and (self._geometry.wide or self._geometry.pb2 is not None):
                node.zla = Zla.DOUBLE
                self._store.write_outer(node, sorted(node.leaf_addresses))
                self._store.write_descriptor(node, data=True)
            else:
                raise UsageError(f"a file of VMFS-{self._geometry.version} cannot have {length} bytes")

    def _move_out(self, node: Node, length: int) -> None:
        """From the descriptor or sub-blocks into something larger."""
        content = self.read(node, 0, node.length)
        old = [int(pointer) for pointer in node.leaves.pop(0, ()) if pointer]
        sub_limit = node.sub_blocks_max * self._geometry.sub_block_bytes
        fits = node.zla is Zla.RESIDENT and length <= sub_limit
        node.zla = Zla.SUB_BLOCKS if fits else Zla.BLOCKS
        node.block_bytes = self._geometry.sub_block_bytes if fits else self._geometry.block_bytes
        node.small, node.blocks = b"", 0
        if content:
            self.write(node, 0, content)
        else:
            self._store.write_descriptor(node, data=True)
        with self._store.guard:
            for address in old:
                self._store.give_back(address)
            self._store.flush_bitmaps()

    def _make_indirect(self, node: Node) -> None:
        node.zla = Zla.POINTERS
        direct = node.leaves.pop(0, None)
        if direct is None or not direct.any():
            return
        touched = node.scatter(0, direct, self._geometry)
        self._store.write_pointers(node, touched)
        self._store.write_descriptor(node, data=True)

    # writing

    def _write_sub_blocks(self, node: Node, offset: int, view: memoryview) -> None:
        step = node.block_bytes
        end = offset + len(view)
        fresh = False
        for index in range(offset // step, (end - 1) // step + 1):
            low, high = max(offset, index * step), min(end, (index + 1) * step)
            leaf = node.leaves.setdefault(0, np.zeros(self._geometry.pointers_direct, dtype=np.uint64))
            part = view[low - offset : high - offset]
            if leaf[index]:
                self._store.images.write(self._store.locate(int(leaf[index])) + low - index * step, part)
                continue
            with self._store.guard:
                address = self._store.take(Kind.SUB_BLOCK)
            whole = bytearray(step)
            whole[low - index * step : high - index * step] = part
            self._store.images.write(self._store.locate(address), whole)
            leaf[index] = address
            node.blocks += 1
            fresh = True
        if fresh or end > node.length:
            node.length = max(node.length, end)
            with self._store.guard:
                self._store.flush_bitmaps()
            self._store.write_descriptor(node, data=fresh)
        else:
            self._store.touch(node)

    def _write_blocks(self, node: Node, offset: int, view: memoryview) -> None:
        step = node.block_bytes
        end = offset + len(view)
        first, count = offset // step, (end - 1) // step + 1 - offset // step
        pointers = node.gather(first, count, self._geometry)
        holes = pointers == 0
        to_zero = self._blocks.is_tbz(node, pointers)
        new = int(np.count_nonzero(holes))
        if new:
            with self._store.guard:
                self._store.require_leaves(node, first, count)
                pointers[holes] = self._codec.blocks(self._store.space.take(new))
        pointers[to_zero] &= ~np.uint64(self._codec.tbz)
        numbers = self._blocks.numbers(first, pointers)
        for index in {0, count - 1}:
            if holes[index] or to_zero[index]:
                self._zero_around(node, int(numbers[index]), first + index, offset, end, bool(to_zero[index]))
        self._store.space.stale[numbers] = True
        for start, number, length in runs(numbers):
            low = max(offset, (first + start) * step)
            high = min(end, (first + start + length) * step)
            place = number * step + low - (first + start) * step
            self._store.images.write(place, view[low - offset : high - offset])
        node.blocks += new
        node.tbz -= int(np.count_nonzero(to_zero))
        grown = end > node.length
        node.length = max(node.length, end)
        touched = node.scatter(first, pointers, self._geometry) if new or to_zero.any() else []
        if touched:
            self._store.write_pointers(node, touched)
        if touched or grown:
            self._store.write_descriptor(node, data=bool(touched))
        else:
            self._store.touch(node)

    def _zero_around(self, node: Node, number: int, index: int, offset: int, end: int, must: bool) -> None:
        """Zero what the coming write leaves of a block that was a hole or to be zeroed."""
        step = node.block_bytes
        if not must and not self._store.space.stale[number]:
            return
        before = max(0, offset - index * step)
        after = max(0, (index + 1) * step - end)
        if before:
            self._store.images.zero(number * step, before)
        if after:
            self._store.images.zero((number + 1) * step - after, after)


def _singly(places: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    return [(index, place, 1) for index, place in enumerate(places.tolist())]
