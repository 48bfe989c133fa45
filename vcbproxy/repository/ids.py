"""Names of things in a repository: 32-byte SHA-256 digests, printed as 64 lower-case hex digits.

A *file's* id is the digest of its stored (sealed) bytes; a *blob's* id is the digest of its plaintext.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum

ID_BYTES = 32
_HEX_ID = re.compile(r"[0-9a-f]{64}")

Buffer = bytes | bytearray | memoryview


class BlobKind(Enum):
    """What a blob holds: a piece of a file, or a directory's JSON. (kind, id) is a blob's identity."""

    DATA = "data"
    TREE = "tree"

    # Members are single objects: identity is equality, and the default Enum hash (of the name) is slow in a hot dict.
    __hash__ = object.__hash__


def digest(data: Buffer) -> bytes:
    """The id of these bytes."""
    return hashlib.sha256(data).digest()


def is_hex_id(text: str) -> bool:
    """Whether this is a full id in restic's spelling."""
    return _HEX_ID.fullmatch(text) is not None
