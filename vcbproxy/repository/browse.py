"""Walking the trees of a snapshot, ours or a stock restic's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.repository import tree
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.stored import StoredFile
from vcbproxy.repository.tree import Node, NodeKind

_DEPTH_MAX = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """A node and where it is: a path with slashes."""

    path: str
    node: Node


def load_tree(repository: Repository, tree_id: bytes) -> list[Node]:
    """One directory.

    Raises:
        IntegrityError: damaged or missing.
    """
    what = f"{repository.location}: tree {tree_id.hex()}"
    return repository.read_blob(BlobKind.TREE, tree_id, lambda pieces: tree.decode(pieces, what))


def walk(repository: Repository, root: bytes, path: str = "") -> Iterator[Found]:
    """Every node below a tree, directories before what is in them.

    Raises:
        IntegrityError: a tree is damaged or missing.
    """
    waiting = [(path, root, 0)]
    while waiting:
        directory, tree_id, depth = waiting.pop()
        for node in load_tree(repository, tree_id):
            here = f"{directory}/{node.name}"
            yield Found(here, node)
            if node.subtree is not None:
                if depth >= _DEPTH_MAX:
                    raise IntegrityError(f"{repository.location}: trees nest deeper than {_DEPTH_MAX} at {here}")
                waiting.append((here, node.subtree, depth + 1))


def children(repository: Repository, directory: Node) -> list[Node]:
    """What is in a directory; nothing, if it is none.

    Raises:
        IntegrityError: its tree is damaged or missing.
    """
    return load_tree(repository, directory.subtree) if directory.subtree is not None else []


def find(repository: Repository, root: bytes, path: str) -> Node:
    """The node at a path.

    Raises:
        UsageError: there is none.
        IntegrityError: a tree is damaged or missing.
    """
    node = Node("", NodeKind.DIRECTORY, subtree=root)
    for name in path.strip("/").split("/"):
        found = next((child for child in children(repository, node) if child.name == name), None)
        if found is None:
            raise UsageError(f"{repository.location}: no {path!r} in this snapshot: nothing is called {name!r}")
        node = found
    return node


def open_file(repository: Repository, node: Node, name: str) -> StoredFile:
    """A file's bytes.

    Raises:
        IntegrityError: a chunk is in no index, or the chunks do not add up to the file's size.
    """
    if node.content is None:
        raise UsageError(f"{name}: not a file")
    stored = StoredFile(repository, name, node.content, repository.lengths(node.content))
    if stored.size_bytes != node.size_bytes:
        raise IntegrityError(f"{name}: its chunks hold {stored.size_bytes} bytes, its size is {node.size_bytes}")
    return stored
