"""The record of a volume, and the small writes that bring the disk in line with it.

Nothing is ever read back to learn what the volume looks like: the record is the truth, the image its shadow.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence

import numpy as np

from vcbproxy.clock import Clock
from vcbproxy.errors import PathNotFound
from vcbproxy.lab.vmfs import address as addresses
from vcbproxy.lab.vmfs.address import Codec, Kind, Narrow, Wide
from vcbproxy.lab.vmfs.geometry import Geometry, Shape
from vcbproxy.lab.vmfs.identity import Identity
from vcbproxy.lab.vmfs.image import Images
from vcbproxy.lab.vmfs.node import (
    INDIRECT,
    FileKind,
    Node,
    Zla,
    encode_data,
    encode_lock,
    encode_metadata,
)
from vcbproxy.lab.vmfs.resource import BlockBitmap, Mapped, Resource
from vcbproxy.lab.vmfs.space import Space
from vcbproxy.lab.vmfs.spec import VolumeSpec

_WORDS = {
    Kind.DESCRIPTOR: "file descriptor",
    Kind.SUB_BLOCK: "sub-block",
    Kind.POINTERS: "pointer block",
    Kind.POINTERS_2: "second-level pointer block",
    Kind.JOURNAL: "journal block",
}


class Store:
    """Devices, free lists, resource files and nodes of one volume."""

    def __init__(self, spec: VolumeSpec, geometry: Geometry, who: Identity, images: Images, clock: Clock) -> None:
        self.spec = spec
        self.geometry = geometry
        self.who = who
        self.images = images
        self.clock = clock
        self.codec: Codec = Wide() if geometry.wide else Narrow()
        self.guard = threading.RLock()
        self.bitmap = BlockBitmap(geometry)
        self.space = Space(
            geometry.blocks,
            self.bitmap.cluster_blocks,
            seed=spec.seed,
            scatter=spec.scatter,
            run_blocks=spec.scatter_run_blocks,
        )
        shapes: dict[Kind, Shape | None] = {
            Kind.DESCRIPTOR: geometry.fdc,
            Kind.SUB_BLOCK: geometry.sbc,
            Kind.POINTERS: geometry.pbc,
            Kind.POINTERS_2: geometry.pb2,
            Kind.JOURNAL: geometry.jbc,
        }
        chance = random.Random(spec.seed) if spec.scatter else None
        self.resources = {
            kind: Resource(geometry, shape, _WORDS[kind], chance) for kind, shape in shapes.items() if shape
        }
        self.mapped: dict[Kind, Mapped] = {}
        """Where the system files' blocks are; ``Kind.BLOCK`` is the block bitmap."""
        self.nodes: dict[int, Node] = {}
        self.generation = 1

    @property
    def name(self) -> str:
        """What messages call the volume."""
        return f"lab volume {self.spec.label!r}"

    def now_s(self) -> int:
        """The time of day, as descriptors store it."""
        return int(self.clock.now().timestamp())

    def check_alive(self, node: Node) -> None:
        """Refuse a node that was deleted.

        Raises:
            PathNotFound: it was.
        """
        if node.deleted:
            raise PathNotFound(volume=self.name, file=f"descriptor {node.address:#x}", reason="deleted", offset=0)

    # items of resource files

    def take(self, kind: Kind) -> int:
        """Allocate a descriptor, sub-block or pointer block; its address."""
        cluster, item = self.resources[kind].take()
        if kind is Kind.DESCRIPTOR:
            return addresses.descriptor(cluster, item)
        return self.codec.item(kind, cluster, item)

    def give_back(self, address: int) -> None:
        """Free one."""
        kind = Kind(address & 7)
        self.resources[kind].give_back(*self.place(address))

    def place(self, address: int) -> tuple[int, int]:
        """(cluster, item) of an address."""
        if address & 7 == Kind.DESCRIPTOR:
            return (address >> 6) & 0xFFFF, address >> 22
        return self.codec.place(address)

    def locate(self, address: int) -> int:
        """The volume offset of an item."""
        kind = Kind(address & 7)
        return self.mapped[kind].volume_offset(self.resources[kind].shape.item_offset(*self.place(address)))

    def flush_bitmaps(self) -> None:
        """Write the bitmaps of everything that changed hands."""
        if self.space.touched:
            self.bitmap.flush(self.mapped[Kind.BLOCK], self.space)
        for kind, resource in self.resources.items():
            if resource.touched:
                resource.flush(self.mapped[kind])

    # nodes

    def new_node(self, kind: FileKind, zla: Zla, parent: int, mode: int) -> Node:
        """A node with a descriptor of its own, not yet on disk."""
        with self.guard:
            address = self.take(Kind.DESCRIPTOR)
            self.generation += 1
            geometry = self.geometry
            small = zla in (Zla.RESIDENT, Zla.SUB_BLOCKS)
            block_bytes = 512 if zla is Zla.RDM else geometry.sub_block_bytes if small else geometry.block_bytes
            node = Node(address, kind, zla, block_bytes, self.generation, mode, parent, modified_s=self.now_s())
            self.nodes[address] = node
            self.flush_bitmaps()
            return node

    def release_descriptor(self, node: Node) -> None:
        """Forget a node; its descriptor may be used again."""
        del self.nodes[node.address]
        self.give_back(node.address)

    def write_descriptor(self, node: Node, *, data: bool) -> None:
        """Write a descriptor: its data part if that changed, its metadata, and last its lock with a new token."""
        place = self.locate(node.address)
        node.modified_s = self.now_s()
        if data:
            packed = encode_data(node, self.geometry, self.codec)
            self.images.write(place + self.geometry.resident_offset, packed)
        self.images.write(place + self.geometry.metadata_offset, encode_metadata(node, self.geometry))
        self.write_lock(node)

    def write_lock(self, node: Node) -> None:
        """Write a descriptor's lock, with a new token."""
        place = self.locate(node.address)
        node.token += 1
        self.images.write(place, encode_lock(node, place, self.who))

    def touch(self, node: Node) -> None:
        """Data was written in place: only the modification time moves, and that at most once a second."""
        if node.modified_s != self.now_s():
            node.modified_s = self.now_s()
            place = self.locate(node.address)
            self.images.write(place + self.geometry.metadata_offset, encode_metadata(node, self.geometry))

    # pointer blocks

    def require_leaves(self, node: Node, first: int, count: int) -> None:
        """Refuse to write to blocks for whose pointers no pointer blocks are left.

        Raises:
            TargetError: there are not enough.
        """
        if node.zla not in INDIRECT or count == 0:
            return
        length = self.geometry.pointers_block
        wanted = set(range(first // length, (first + count - 1) // length + 1)) - node.leaf_addresses.keys()
        outer = {leaf // length for leaf in wanted} - node.outer_addresses.keys() if node.zla is Zla.DOUBLE else set()
        if self.geometry.wide and node.zla is Zla.DOUBLE:
            self.resources[Kind.SUB_BLOCK].require(len(wanted) + len(outer))
            return
        self.resources[self._leaf_kind(node)].require(len(wanted))
        if outer:
            self.resources[Kind.POINTERS_2].require(len(outer))

    def write_pointers(self, node: Node, touched: Sequence[tuple[int, int, int]]) -> None:
        """Write changed slices of leaves, giving new leaves a pointer block. Direct ones lie in the descriptor."""
        fresh = []
        with self.guard:
            if node.zla in INDIRECT:
                for leaf, _, _ in touched:
                    if leaf not in node.leaf_addresses:
                        node.leaf_addresses[leaf] = self.take(self._leaf_kind(node))
                        fresh.append(leaf)
            self.flush_bitmaps()
        if node.zla not in INDIRECT:
            return
        width = self.codec.dtype.itemsize
        for leaf, low, high in touched:
            start, end = (0, None) if leaf in fresh else (low, high)
            packed = node.leaves[leaf][start:end].astype(self.codec.dtype).tobytes()
            self.images.write(self.locate(node.leaf_addresses[leaf]) + start * width, packed)
        if node.zla is Zla.DOUBLE and fresh:
            self.write_outer(node, fresh)

    def write_outer(self, node: Node, leaves: Iterable[int]) -> None:
        """Bring the outer pointer blocks' entries for these leaves to disk."""
        length = self.geometry.pointers_block
        width = self.codec.dtype.itemsize
        fresh = []
        with self.guard:
            for outer in sorted({leaf // length for leaf in leaves}):
                if outer not in node.outer_addresses:
                    node.outer_addresses[outer] = self.take(Kind.SUB_BLOCK if self.geometry.wide else Kind.POINTERS_2)
                    fresh.append(outer)
            self.flush_bitmaps()
        for outer in fresh:
            array = np.zeros(length, dtype=np.uint64)
            for leaf, address in node.leaf_addresses.items():
                if leaf // length == outer:
                    array[leaf % length] = address
            self.images.write(self.locate(node.outer_addresses[outer]), array.astype(self.codec.dtype).tobytes())
        for leaf in leaves:
            outer, slot = divmod(leaf, length)
            if outer not in fresh:
                packed = node.leaf_addresses.get(leaf, 0).to_bytes(width, "little")
                self.images.write(self.locate(node.outer_addresses[outer]) + slot * width, packed)

    def drop_leaves(self, node: Node, dead: Sequence[int]) -> list[int]:
        """Forget empty leaves; returns the pointer blocks to free once the descriptor is written."""
        gone = []
        for leaf in dead:
            del node.leaves[leaf]
            if leaf in node.leaf_addresses:
                gone.append(node.leaf_addresses.pop(leaf))
        if node.zla is Zla.DOUBLE:
            if not node.deleted:
                self.write_outer(
                    node,
                    [leaf for leaf in dead if leaf // self.geometry.pointers_block in node.outer_addresses],
                )
            kept = {leaf // self.geometry.pointers_block for leaf in node.leaf_addresses}
            gone.extend(node.outer_addresses.pop(outer) for outer in sorted(set(node.outer_addresses) - kept))
        return gone

    def _leaf_kind(self, node: Node) -> Kind:
        if node.zla is Zla.POINTERS_2:
            return Kind.POINTERS_2
        return Kind.SUB_BLOCK if self.geometry.wide else Kind.POINTERS
