"""The trees of one restore point, and the small files in them: names are claimed, blobs packed, nodes collected.

    /<vm>/vm.json               the manifest
    /<vm>/<file>                .vmx, .nvram, ... as found on the datastore
    /<vm>/<disk>/<disk>.raw     the disk, exact capacity
    /<vm>/<disk>/<disk>.lengths its chunks' lengths, u32 little-endian

What is packed here is durable no sooner than the packer is finished and the session flushed; both are the caller's.
"""

from __future__ import annotations

import threading
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import UsageError
from vcbproxy.repository import longblob, tree
from vcbproxy.repository import manifest as manifests
from vcbproxy.repository.idlist import Ids, no_ids
from vcbproxy.repository.ids import BlobKind, Buffer
from vcbproxy.repository.packer import Packer
from vcbproxy.repository.tree import Node, NodeKind
from vcbproxy.units import MiB

_FILE_CHUNK_BYTES = 1 * MiB


class TreeWriter:
    """One VM's directory while it is filled. Several disks may be added at once."""

    def __init__(self, packer: Packer, vm_name: str, time: datetime) -> None:
        self._packer = packer
        self._vm_name = vm_name
        self._time = time
        self._mutex = threading.Lock()
        self._names = {manifests.FILE_NAME}
        self._nodes: list[Node] = []
        self.directory = tree.safe_name(vm_name)
        """The VM's name, as the tree can have it."""
        self.stored: list[tuple[BlobKind, Ids]] = []
        """The blobs of all trees and small files; those of disks are not among them."""

    @property
    def time(self) -> datetime:
        """The time that all nodes bear."""
        return self._time

    def taken_at(self, moment: datetime) -> None:
        """Set the time; before anything is in the trees."""
        assert not self._nodes, "the time is in the trees already"
        self._time = moment

    def claim_name(self, text: str) -> str:
        """The name that a file or disk gets in the tree.

        Raises:
            UsageError: the name is taken.
        """
        name = tree.safe_name(text)
        with self._mutex:
            if name in self._names:
                raise UsageError(f"{self._vm_name}: {text!r} and another file are both called {name!r} in the tree")
            self._names.add(name)
        return name

    def add_file(self, name: str, data: Buffer) -> None:
        """Keep a small file under a claimed name.

        Raises:
            TargetError: it could not be stored.
        """
        with self._mutex:
            self._nodes.append(self._store_file(name, memoryview(data)))

    def add_disk(self, name: str, size_bytes: int, ids: Ids, lengths: NDArray[np.uint32]) -> None:
        """Keep a disk's directory under a claimed name; its chunks are stored already.

        Raises:
            TargetError: it could not be stored.
            IntegrityError: its list is longer than a tree can be.
        """
        raw = Node(f"{name}.raw", NodeKind.FILE, size_bytes, ids)
        with self._mutex:
            sidecar = self._store_file(f"{name}.lengths", memoryview(lengths.astype("<u4").tobytes()))
            self._nodes.append(self._store_tree(name, [raw, sidecar]))

    def finish(self, vm_json: Buffer) -> bytes:
        """Store the manifest, the VM's directory and the root; the root's id, for the snapshot record."""
        with self._mutex:
            self._nodes.append(self._store_file(manifests.FILE_NAME, memoryview(vm_json)))
            directory = self._store_tree(self.directory, self._nodes)
            return self._store_text(tree.encode([directory], self._time))

    def _store_file(self, name: str, data: memoryview) -> Node:
        ids = [
            self._packer.add(BlobKind.DATA, data[start : start + _FILE_CHUNK_BYTES])
            for start in range(0, len(data), _FILE_CHUNK_BYTES)
        ]
        packed = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32) if ids else no_ids()
        self.stored.append((BlobKind.DATA, packed))
        return Node(name, NodeKind.FILE, len(data), packed)

    def _store_tree(self, name: str, nodes: list[Node]) -> Node:
        text = tree.encode(nodes, self._time)
        longblob.hold_in_range(text.size_bytes, f"{self._vm_name}: {name}")
        return Node(name, NodeKind.DIRECTORY, subtree=self._store_text(text))

    def _store_text(self, text: longblob.Text) -> bytes:
        tree_id = self._packer.add_text(BlobKind.TREE, text)
        self.stored.append((BlobKind.TREE, np.frombuffer(tree_id, np.uint8).reshape(1, -1)))
        return tree_id
