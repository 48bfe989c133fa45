"""Which restore points need what is known to be damaged, and has no other copy.

Only what was noted is asked about (``suspects.py``): where nothing is, this costs one listing. Each tree is read once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vcbproxy.errors import Error, IntegrityError
from vcbproxy.repository import browse, suspects
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import ID_BYTES, BlobKind
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.repository import Repository

_KEY = f"V{ID_BYTES}"


def hurt(repository: Repository, points: Sequence[PointSummary]) -> frozenset[str]:
    """The ids of the points that would not restore whole.

    Raises:
        IntegrityError: the index is damaged, or a note of damage.
        TargetError: something could not be read.
    """
    suspects.require_readable(repository.files)
    noted = {blob for suspect in suspects.load(repository.files) for blob in suspect.blobs}
    if not noted:
        return frozenset()
    repository.indexing.load()
    lost = [(kind, blob_id) for kind, blob_id in noted if not _has_whole_copy(repository, kind, blob_id)]
    if not lost:
        return frozenset()
    search = _Search(repository, lost)
    return frozenset(point.id for point in points if search.needs(point.tree))


def _has_whole_copy(repository: Repository, kind: BlobKind, blob_id: bytes) -> bool:
    try:
        repository.read_blob(kind, blob_id, lambda _: None)
    except IntegrityError:
        return False
    return True


class _Search:
    """Looks for lost blobs below trees, and remembers the answer for each tree."""

    def __init__(self, repository: Repository, lost: Sequence[tuple[BlobKind, bytes]]) -> None:
        self._repository = repository
        self._trees: dict[bytes, bool] = {blob_id: True for kind, blob_id in lost if kind is BlobKind.TREE}
        data = b"".join(blob_id for kind, blob_id in lost if kind is BlobKind.DATA)
        self._data = np.frombuffer(data, _KEY)

    def needs(self, tree: bytes) -> bool:
        """Whether a lost blob is in a tree or below it."""
        if tree not in self._trees:
            self._trees[tree] = False  # should trees nest in themselves, which no honest writer can make them do
            self._trees[tree] = self._look(tree)
        return self._trees[tree]

    def _look(self, tree: bytes) -> bool:
        try:
            nodes = browse.load_tree(self._repository, tree)
        except Error:
            return True
        return any(
            (node.content is not None and self._uses(node.content))
            or (node.subtree is not None and self.needs(node.subtree))
            for node in nodes
        )

    def _uses(self, content: Ids) -> bool:
        keys = np.ascontiguousarray(content).view(_KEY).ravel()
        return bool(np.isin(keys, self._data).any())
