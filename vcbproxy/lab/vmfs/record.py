"""The record as a JSON sidecar file, so that another process can go on with a volume.

It is complete: nothing is read back from the image. Arrays are deflated and base64. The file is ours alone; whoever
edits it gets what they deserve, except that another version of it is refused.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcbproxy.clock import Clock
from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs.address import Kind
from vcbproxy.lab.vmfs.directory import Directory, FlatDirectory
from vcbproxy.lab.vmfs.hashed import HashedDirectory
from vcbproxy.lab.vmfs.identity import Identity, Uuid
from vcbproxy.lab.vmfs.make import open_store
from vcbproxy.lab.vmfs.node import FileKind, Node, Zla
from vcbproxy.lab.vmfs.resource import Mapped
from vcbproxy.lab.vmfs.spec import Partition, VolumeSpec
from vcbproxy.lab.vmfs.store import Store

_FORMAT = 1
_NUMBERS = (
    "address",
    "block_bytes",
    "generation",
    "mode",
    "parent",
    "length",
    "links",
    "token",
    "lock_mode",
    "modified_s",
    "sub_blocks_max",
    "blocks",
    "tbz",
    "large",
)


def save(state_path: Path, paths: Sequence[Path], store: Store, directories: dict[int, Directory]) -> None:
    """Write the record beside its place and move it there. The caller keeps the tree still."""
    with contextlib.ExitStack() as held:
        for _, node in sorted(store.nodes.items()):  # every writer holds one of these before the store's
            held.enter_context(node.guard)
        held.enter_context(store.guard)
        state = {
            "format": _FORMAT,
            "paths": [str(path.absolute()) for path in paths],
            "spec": dataclasses.asdict(store.spec) | {"partition": store.spec.partition.value},
            "who": _identity_out(store.who),
            "generation": store.generation,
            "used": _bits_out(store.space.used),
            "stale": _bits_out(store.space.stale),
            "large": _bits_out(store.space.large),
            "resources": {kind.name: _bits_out(resource.used) for kind, resource in store.resources.items()},
            "mapped": {kind.name: mapped.blocks for kind, mapped in store.mapped.items()},
            "nodes": [_node_out(node) for node in store.nodes.values()],
            "directories": {str(address): directory.state() for address, directory in directories.items()},
        }
    beside = state_path.with_name(state_path.name + ".new")
    beside.write_text(json.dumps(state))
    beside.replace(state_path)


def load(state_path: Path, clock: Clock) -> tuple[list[Path], Store, dict[int, Directory]]:
    """Open the images again with the record as it was.

    Raises:
        UsageError: no record of this version.
    """
    try:
        state = json.loads(state_path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{state_path}: no lab volume's record: {error}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise UsageError(f"{state_path}: a record of another version; make the lab anew")
    paths = [Path(path) for path in state["paths"]]
    given = state["spec"] | {
        "partition": Partition(state["spec"]["partition"]),
        "wwns": tuple(state["spec"]["wwns"]),
    }
    store = open_store(paths, VolumeSpec(**given), _identity_in(state["who"]), clock)
    store.generation = state["generation"]
    store.space.used[:] = _bits_in(state["used"], len(store.space.used))
    store.space.stale[:] = _bits_in(state["stale"], len(store.space.stale))
    store.space.large[:] = _bits_in(state["large"], len(store.space.large))
    for kind, resource in store.resources.items():
        resource.used[:] = _bits_in(state["resources"][kind.name], len(resource.used))
    for name, blocks in state["mapped"].items():
        store.mapped[Kind[name]] = Mapped(store.images, store.geometry.block_bytes, blocks)
    for saved in state["nodes"]:
        node = _node_in(saved)
        store.nodes[node.address] = node
    kept = HashedDirectory if store.geometry.wide else FlatDirectory
    return (
        paths,
        store,
        {int(address): kept.restore(saved) for address, saved in state["directories"].items()},
    )


def _bits_out(bits: NDArray[np.bool_]) -> str:
    return _pack(np.packbits(bits).tobytes())


def _bits_in(text: str, length: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(_unpack(text), dtype=np.uint8), count=length).astype(np.bool_)


def _pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode()


def _unpack(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def _identity_out(who: Identity) -> dict[str, Any]:
    uuids = {"volume": who.volume.raw.hex(), "lvm": who.lvm.raw.hex(), "host": who.host.raw.hex()}
    return uuids | {"devices": [uuid.raw.hex() for uuid in who.devices], "wwns": list(who.wwns)}


def _identity_in(saved: dict[str, Any]) -> Identity:
    def uuid(text: str) -> Uuid:
        return Uuid(bytes.fromhex(text))

    devices = tuple(uuid(text) for text in saved["devices"])
    return Identity(uuid(saved["volume"]), uuid(saved["lvm"]), uuid(saved["host"]), devices, tuple(saved["wwns"]))


def _node_out(node: Node) -> dict[str, Any]:
    return {name: getattr(node, name) for name in _NUMBERS} | {
        "kind": node.kind.name,
        "zla": node.zla.name,
        "small": _pack(node.small),
        "leaves": {str(leaf): _pack(pointers.tobytes()) for leaf, pointers in node.leaves.items()},
        "leaf_addresses": {str(leaf): address for leaf, address in node.leaf_addresses.items()},
        "outer_addresses": {str(outer): address for outer, address in node.outer_addresses.items()},
    }


def _node_in(saved: dict[str, Any]) -> Node:
    node = Node(kind=FileKind[saved["kind"]], zla=Zla[saved["zla"]], **{name: saved[name] for name in _NUMBERS})
    node.small = _unpack(saved["small"])
    node.leaves = {
        int(leaf): np.frombuffer(_unpack(text), dtype=np.uint64).copy() for leaf, text in saved["leaves"].items()
    }
    node.leaf_addresses = {int(leaf): address for leaf, address in saved["leaf_addresses"].items()}
    node.outer_addresses = {int(outer): address for outer, address in saved["outer_addresses"].items()}
    return node
