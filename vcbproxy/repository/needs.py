"""Which of some blobs a snapshot needs: its trees are walked, content lists compared as arrays."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import browse
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.repository import Repository

BlobName = tuple[bytes, BlobKind]
_BATCH = 1 << 16


def needed_of(repository: Repository, root: bytes, some: AbstractSet[BlobName]) -> set[BlobName]:
    """Those of ``some`` blobs that the snapshot with this root needs; below a damaged tree nothing is known."""
    data = np.array(sorted(blob_id for blob_id, kind in some if kind is BlobKind.DATA), "S32")
    trees = {root}
    found: set[BlobName] = set()
    waiting = [root]
    while waiting:
        try:
            nodes = browse.load_tree(repository, waiting.pop())
        except IntegrityError:
            continue  # reported already
        for node in nodes:
            if node.content is not None and len(data):
                found.update(_within(node.content, data))
            if node.subtree is not None and node.subtree not in trees:
                trees.add(node.subtree)
                waiting.append(node.subtree)
    return found | {(tree, BlobKind.TREE) for tree in trees if (tree, BlobKind.TREE) in some}


def _within(content: Ids, data: np.ndarray[tuple[int], np.dtype[np.bytes_]]) -> set[BlobName]:
    hits: set[BlobName] = set()
    for start in range(0, len(content), _BATCH):
        names = np.ascontiguousarray(content[start : start + _BATCH]).view("S32").ravel()
        at = np.minimum(np.searchsorted(data, names), len(data) - 1)
        rows = np.flatnonzero(data[at] == names)
        hits.update((names[row : row + 1].tobytes(), BlobKind.DATA) for row in rows.tolist())
    return hits
