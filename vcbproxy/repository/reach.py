"""Which packs a restore point relies on."""

from __future__ import annotations

import numpy as np

from vcbproxy.repository import browse
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.repository import Repository


class Reach:
    """Walks trees; one that several restore points share is walked once. The index must be loaded."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[bytes, frozenset[bytes]] = {}

    def packs_under(self, root: bytes) -> frozenset[bytes]:
        """The packs with a tree and all that hangs below it, data included.

        Raises:
            IntegrityError: a tree is damaged or missing.
            TargetError: a tree could not be read.
        """
        if root not in self._known:
            nodes = browse.load_tree(self._repository, root)
            index = self._repository.index
            packs = index.packs_of(np.frombuffer(root, np.uint8).reshape(1, -1), BlobKind.TREE)
            for node in nodes:
                if node.content is not None:
                    packs |= index.packs_of(node.content, BlobKind.DATA)
                if node.subtree is not None:
                    packs |= self.packs_under(node.subtree)
            self._known[root] = frozenset(packs)
        return self._known[root]
