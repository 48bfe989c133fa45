r"""Trees: one directory a blob, as restic's JSON.

    {"nodes":[{"name":…,"type":"dir"|"file",…,"content":[chunk ids]|null,"subtree":tree id},…]}\n

Written canonically: fields in restic's order, nodes ascending by name, whole-second times, content never null for a
file. Only then may stock ``restic rewrite`` touch the snapshot, and only then can long content lists be read by stride.

Names that we write consist of ``A-Z a-z 0-9 . _ -`` and blanks, so they need no escaping in either of Go's two ways.
Trees of others are read with whatever names they have; of their nodes we keep what reading a file needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import pairwise

import numpy as np

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import codec, idlist, longlists, times
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import Buffer, is_hex_id

FILE_MODE = 0o600
DIRECTORY_MODE = 1 << 31 | 0o700  # Go's own bit for directories
_UNSAFE = re.compile(r"[^A-Za-z0-9._ -]")
_NAME_CHARS_MAX = 200


class NodeKind(Enum):
    """What a directory entry is; ``OTHER`` is anything a VM's restore point never has (devices, sockets, ...)."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A directory entry: a file with its chunks, or a directory with its tree."""

    name: str
    kind: NodeKind
    size_bytes: int = 0
    content: Ids | None = None
    subtree: bytes | None = None


def safe_name(text: str) -> str:
    """A name for the tree: strange characters become ``_``; the true name is kept in the manifest."""
    name = _UNSAFE.sub("_", text).strip(" ")[:_NAME_CHARS_MAX]
    return name if name.strip(".") else f"_{name}"


def is_safe_name(name: str) -> bool:
    """Whether ``safe_name`` would leave it as it is."""
    return bool(name) and safe_name(name) == name


class Text:
    """A tree's JSON, given out by bites, any number of times: a long content list is never held as text."""

    def __init__(self, parts: Sequence[bytes | Ids]) -> None:
        self._parts = parts
        sizes = (len(part) if isinstance(part, bytes) else idlist.json_size(len(part)) for part in parts)
        self.size_bytes = sum(sizes)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The bites."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from idlist.json_pieces(part)


def encode(nodes: Sequence[Node], moment: datetime) -> Text:
    """A tree's blob.

    Args:
        nodes: files and directories with safe names, in any order.
        moment: the time that all of them carry.
    """
    ordered = sorted(nodes, key=lambda node: node.name)
    assert all(one.name < other.name for one, other in pairwise(ordered)), "two nodes of one name"
    stamp = times.canonical(moment)
    parts: list[bytes | Ids] = [b'{"nodes":[']
    for node in ordered:
        parts += [*_encoded(node, stamp), b"," if node is not ordered[-1] else b""]
    return Text([*parts, b"]}\n"])


def _encoded(node: Node, stamp: str) -> list[bytes | Ids]:
    assert is_safe_name(node.name), f"a name that needs escaping: {node.name!r}"
    is_file = node.kind is NodeKind.FILE
    assert is_file == (node.content is not None), "a file has content, a directory has none"
    assert is_file == (node.subtree is None), "a directory has a subtree, a file has none"
    fields: dict[str, object] = {
        "name": node.name,
        "type": node.kind.value,
        "mode": FILE_MODE if is_file else DIRECTORY_MODE,
        "mtime": stamp,
        "atime": stamp,
        "ctime": stamp,
        "uid": 0,
        "gid": 0,
    }
    if node.content is None:
        return [codec.dump({**fields, "content": None, "subtree": (node.subtree or b"").hex()})]
    if node.size_bytes:
        fields["size"] = node.size_bytes
    fields["links"] = 1
    return [codec.dump(fields)[:-1], b',"content":[', node.content, b"]}"]


def decode(pieces: Iterable[Buffer], what: str) -> list[Node]:
    """Read a tree, which comes in pieces of any size.

    Raises:
        IntegrityError: malformed; a file without content, a directory without a tree.
    """
    text, lists = longlists.taken_out(pieces, what)
    fields = codec.Fields(codec.parse(text, what), what)
    nodes = [_decode_node(codec.Fields(node, f"a node in {what}"), lists) for node in fields.items("nodes", [])]
    names = {node.name for node in nodes}
    if len(names) != len(nodes):
        raise IntegrityError(f"{what}: two nodes have the same name")
    return nodes


def _decode_node(fields: codec.Fields, lists: list[Ids]) -> Node:
    name = fields.text("name")
    try:
        kind = NodeKind(fields.text("type"))
    except ValueError:
        kind = NodeKind.OTHER
    if kind is NodeKind.FILE:
        return Node(name, kind, fields.number("size", 0), _content(fields, lists))
    if kind is NodeKind.DIRECTORY:
        return Node(name, kind, subtree=fields.id("subtree"))
    return Node(name, kind)


def _content(fields: codec.Fields, lists: list[Ids]) -> Ids:
    if not fields.has("content"):
        raise IntegrityError(f"{fields.what}: file {fields.text('name')!r} has no content list")
    values = fields.items("content")
    if len(values) == 1 and type(values[0]) is int and 0 <= values[0] < len(lists):
        return lists[values[0]]
    if not all(isinstance(value, str) and is_hex_id(value) for value in values):
        raise IntegrityError(f"{fields.what}: file {fields.text('name')!r} lists a chunk that is no id")
    packed = bytes.fromhex("".join(str(value) for value in values))
    return np.frombuffer(packed, np.uint8).reshape(-1, 32)
