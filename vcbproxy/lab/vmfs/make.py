"""Making a volume: what a host's mkfs writes, in the places a host writes it.

    volume   0        2 MiB         3 MiB          base (4 or 8 MiB; VMFS-6: 7 MiB)
             ├────────┼─ descriptor ┼─ heartbeats ─┼─ .fdc.sf ──┼─ / ┼─ more of .fdc.sf ┼─ .fbb.sf ┼─ .pbc.sf ┼─ ...
             └─────────────────── .vh.sf ──────────┘  one block

The first block of .fdc.sf is where every reader begins; from there on only block pointers tell. That the file goes on
behind the root directory's block is as on volumes made by ESXi. On a scattered volume all else lies anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcbproxy.clock import Clock
from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs import address as addresses
from vcbproxy.lab.vmfs import geometry as geometries
from vcbproxy.lab.vmfs import identity, lvm
from vcbproxy.lab.vmfs.address import Kind
from vcbproxy.lab.vmfs.directory import Directory, Entry, FlatDirectory
from vcbproxy.lab.vmfs.files import Files
from vcbproxy.lab.vmfs.hashed import HashedDirectory
from vcbproxy.lab.vmfs.image import Images
from vcbproxy.lab.vmfs.node import FileKind, Node, Zla
from vcbproxy.lab.vmfs.resource import Mapped
from vcbproxy.lab.vmfs.space import Numbers
from vcbproxy.lab.vmfs.spec import VolumeSpec
from vcbproxy.lab.vmfs.store import Store
from vcbproxy.units import MiB

DESCRIPTOR_OFFSET = 0x200000
HEARTBEAT_OFFSET = 0x300000
ROOT = addresses.descriptor(0, 0)


@dataclass(frozen=True, slots=True)
class SystemFile:
    """A file that mkfs makes: its place among the descriptors, name and length."""

    item: int
    name: str
    length: int
    kind: Kind | None = None
    """The resource it holds."""


def open_store(paths: Sequence[Path], spec: VolumeSpec, who: identity.Identity, clock: Clock) -> Store:
    """A store on existing image files, with an empty record."""
    images = Images(paths, lvm.segments(spec, len(paths)))
    return Store(spec, geometries.derive(spec, len(paths)), who, images, clock)


def make(paths: Sequence[Path], spec: VolumeSpec, clock: Clock) -> tuple[Store, dict[int, Directory]]:
    """Create the image files and an empty volume on them.

    Raises:
        UsageError: the spec does not fit.
    """
    geometry = geometries.derive(spec, len(paths))
    now = clock.now().timestamp()
    who = identity.invent(spec, len(paths), int(now))
    if len(who.wwns) != len(paths):
        raise UsageError(f"{len(paths)} devices need as many names, not {len(who.wwns)}")
    lvm.format_devices(paths, spec, geometry, who, int(now * 1e6))
    store = open_store(paths, spec, who, clock)
    try:
        return store, _format(store)
    except BaseException:
        store.images.close()
        for path in paths:
            path.unlink()
        raise


def _format(store: Store) -> dict[int, Directory]:
    nodes = _place_system_files(store)
    _write_volume_descriptor(store)
    _write_heartbeats(store)
    store.bitmap.format(store.mapped[Kind.BLOCK], store.space)
    for kind, resource in store.resources.items():
        resource.format(store.mapped[kind], flags=0 if kind is Kind.JOURNAL else 4)
    for node in nodes.values():
        for leaf, address in node.leaf_addresses.items():
            packed = node.leaves[leaf].astype(store.codec.dtype).tobytes()
            store.images.write(store.locate(address), packed)
        store.write_descriptor(node, data=True)
    return _make_directories(store, nodes)


def system_files(store: Store) -> list[SystemFile]:
    """Every system file, in the order of their places on disk."""
    geometry = store.geometry
    first_length = 0x11000 if geometry.wide else 280
    found = [
        SystemFile(2, ".fdc.sf", geometry.fdc.file_bytes, Kind.DESCRIPTOR),
        SystemFile(0, "/", first_length),
        SystemFile(1, ".fbb.sf", store.bitmap.file_bytes, Kind.BLOCK),
        SystemFile(3, ".pbc.sf", geometry.pbc.file_bytes, Kind.POINTERS),
        SystemFile(4, ".sbc.sf", geometry.sbc.file_bytes, Kind.SUB_BLOCK),
    ]
    if geometry.pb2 is not None:
        found.append(SystemFile(6, ".pb2.sf", geometry.pb2.file_bytes, Kind.POINTERS_2))
        found.append(SystemFile(7, ".sdd.sf", first_length))
    if geometry.jbc is not None:
        found.append(SystemFile(8, ".jbc.sf", geometry.jbc.file_bytes, Kind.JOURNAL))
    return found


def _place_system_files(store: Store) -> dict[int, Node]:
    """Give system files their blocks and descriptors, in the record only."""
    geometry = store.geometry
    step = geometry.block_bytes
    files = system_files(store)
    base = geometry.fdc_base // step
    wanted = base + sum(-(-file.length // step) for file in files)
    if wanted > geometry.blocks:
        raise UsageError(f"the volume is too small: its own tables take {wanted} blocks of {geometry.blocks}")
    placed = [(SystemFile(5, ".vh.sf", geometry.fdc_base), store.space.take_at(0, base))]
    first, root = store.space.take_at(base, 1), store.space.take_at(base + 1, 1)
    for file in sorted(files, key=lambda file: not _torn(store, file)):
        count = -(-file.length // step)
        if file.kind is Kind.DESCRIPTOR:
            numbers = np.concatenate([first, _take(store, file, count - 1)])
        else:
            numbers = root if file.item == 0 else _take(store, file, count)
        placed.append((file, numbers))
    for file, numbers in placed:
        if file.kind is not None:
            store.mapped[file.kind] = Mapped(store.images, step, numbers.tolist())
        store.resources[Kind.DESCRIPTOR].mark(file.item, used=True)
    return {file.item: _system_node(store, file, store.codec.blocks(numbers)) for file, numbers in placed}


def _torn(store: Store, file: SystemFile) -> bool:
    """Whether the file's blocks must be neighbours: VMFS-3's sub-blocks cross the bounds of blocks."""
    return store.geometry.version == 3 and file.kind is Kind.SUB_BLOCK


def _take(store: Store, file: SystemFile, count: int) -> Numbers:
    """Blocks for a system file: one after the other, or anywhere on a scattered volume."""
    return store.space.take_neighbours(count) if _torn(store, file) else store.space.take(count)


def _system_node(store: Store, file: SystemFile, pointers: addresses.Pointers) -> Node:
    geometry = store.geometry
    directory = file.name in ("/", ".sdd.sf")
    kind = FileKind.DIRECTORY if file.name == "/" else FileKind.SYSTEM
    mode = 0o1755 if file.name == "/" else 0o40700 if directory else 0o400
    indirect = len(pointers) > geometry.pointers_direct or (
        geometry.indirect and file.kind in ((Kind.SUB_BLOCK,) if geometry.wide else (Kind.SUB_BLOCK, Kind.DESCRIPTOR))
    )
    zla = (Zla.POINTERS_2 if geometry.wide else Zla.POINTERS) if indirect else Zla.BLOCKS
    node = Node(addresses.descriptor(0, file.item), kind, zla, geometry.block_bytes, 1, mode, ROOT)
    node.length = file.length
    node.links = 2 if directory else 1
    node.blocks = len(pointers)
    node.scatter(0, pointers, geometry)
    if indirect:
        holder = Kind.POINTERS_2 if geometry.wide else Kind.POINTERS
        node.leaf_addresses = {leaf: store.take(holder) for leaf in sorted(node.leaves)}
    store.nodes[node.address] = node
    return node


def _make_directories(store: Store, nodes: dict[int, Node]) -> dict[int, Directory]:
    root = nodes[0]
    writer = Files(store)
    files = [file for file in system_files(store) if file.item]
    files.append(SystemFile(5, ".vh.sf", 0))
    contents: dict[int, Directory] = {ROOT: new_directory(store, root, root)}
    patches = contents[ROOT].initial()
    for file in sorted(files, key=lambda file: file.item):
        node = nodes[file.item]
        patches += contents[ROOT].add(Entry(file.name, node.kind, node.address, node.generation))
        if file.name == ".sdd.sf":
            root.links += 1
            contents[node.address] = new_directory(store, node, root)
            writer.patch(node, contents[node.address].initial())
    writer.patch(root, patches)
    assert root.length == contents[ROOT].length
    return contents


def new_directory(store: Store, node: Node, parent: Node) -> Directory:
    """An empty directory of the version's kind."""
    own = Entry(".", FileKind.DIRECTORY, node.address, node.generation)
    above = Entry("..", FileKind.DIRECTORY, parent.address, parent.generation)
    if store.geometry.wide:
        return HashedDirectory(own, above, root=node.address == ROOT)
    return FlatDirectory(own, above)


def _write_volume_descriptor(store: Store) -> None:
    geometry, who = store.geometry, store.who
    sector = bytearray(512)
    struct.pack_into("<IIB", sector, 0, 0x2FABF15E, geometry.fs_major, geometry.fs_minor)
    sector[0x09:0x19] = who.volume.raw
    struct.pack_into("<I128s", sector, 0x19, geometry.config, store.spec.label.encode())
    struct.pack_into("<IQII", sector, 0x9D, 512, geometry.block_bytes, store.now_s(), 1)
    sector[0xB1:0xC1] = who.lvm.raw
    struct.pack_into("<I", sector, 0xC1, 1)
    journal = {3: 0, 5: 8, 6: 64}[geometry.version]
    struct.pack_into("<IIII", sector, 0xD1, 0x10000, geometry.fdc.per_group, geometry.sub_block_bytes, journal)
    if geometry.pb2 is not None:
        for place, item in ((0xE1, 6), (0x105, 7)):
            own = addresses.descriptor(0, item)
            struct.pack_into("<QI", sector, place, store.locate(own), own)
    sector[0xED:0xFD] = who.host.raw
    struct.pack_into("<Q", sector, 0xFD, 1)
    if geometry.wide:
        struct.pack_into("<H", sector, 0x112, 1)
        struct.pack_into("<IIH", sector, 0x130, 512, geometry.alignment, 9)
        struct.pack_into("<HH", sector, 0x13E, 16, 44)
        struct.pack_into("<IIII", sector, 0x144, MiB, 2 * MiB, 16000, 4000)
    store.images.write(DESCRIPTOR_OFFSET, sector)


def _write_heartbeats(store: Store) -> None:
    step = store.geometry.heartbeat_bytes
    slots = 1024 if store.geometry.wide else 2048
    region = bytearray(slots * step)
    for slot in range(slots):
        struct.pack_into("<IQ", region, slot * step, 0xABCDEF01, HEARTBEAT_OFFSET + slot * step)
    store.images.write(HEARTBEAT_OFFSET, region)
