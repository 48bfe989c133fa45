"""Index files: which blobs lie in which packs. JSON, sealed in the usual envelope.

    {"packs":[{"id":PACK,"blobs":[{"id":BLOB,"type":"data"|"tree","offset":n,"length":n,"uncompressed_length":n?},…]},…]}

``length`` counts the seal; ``uncompressed_length`` is there only for compressed blobs. A pack is always listed whole.
Other fields (``supersedes`` of old versions) are ignored: whoever replaces an index file removes the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import codec, crypto
from vcbproxy.repository.ids import ID_BYTES, BlobKind, is_hex_id
from vcbproxy.repository.pack import Blob

BLOBS_PER_FILE_MAX = 50_000
_U32_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class PackBlobs:
    """A pack and all that lies in it."""

    pack_id: bytes
    blobs: Sequence[Blob]


@dataclass(frozen=True, slots=True)
class Columns:
    """Blobs as columns, one row each: what an index of millions is made of."""

    ids: NDArray[np.uint8]
    pack: NDArray[np.uint32]
    offset: NDArray[np.uint32]
    stored: NDArray[np.uint32]
    zstd: NDArray[np.uint32]
    tree: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pack)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Columns:
        """Some of the rows, by number or by flag."""
        return Columns(
            self.ids[rows], self.pack[rows], self.offset[rows], self.stored[rows], self.zstd[rows], self.tree[rows]
        )


def encode(packs: Sequence[PackBlobs]) -> bytes:
    """The plaintext of an index file. Built as text: quicker than a generic encoder, and ids need no escaping."""
    text = ",".join(
        f'{{"id":"{pack.pack_id.hex()}","blobs":[{",".join(map(_blob_json, pack.blobs))}]}}' for pack in packs
    )
    return codec.envelope(f'{{"packs":[{text}]}}'.encode("ascii"))


def _blob_json(blob: Blob) -> str:
    plain = f',"uncompressed_length":{blob.zstd_bytes}' if blob.compressed else ""
    return (
        f'{{"id":"{blob.blob_id.hex()}","type":"{blob.kind.value}","offset":{blob.offset},'
        f'"length":{blob.stored_bytes}{plain}}}'
    )


def decode(plain: bytes, what: str) -> list[tuple[bytes, Columns]]:
    """The packs of an index file, each with its blobs as columns (the pack column still all 0).

    Raises:
        IntegrityError: malformed, or lengths that cannot be.
    """
    fields = codec.Fields(codec.decode(plain, what), what)
    return [_decode_pack(codec.Fields(pack, f"a pack in {what}"), what) for pack in fields.items("packs", [])]


def _decode_pack(fields: codec.Fields, what: str) -> tuple[bytes, Columns]:
    pack_id = fields.id("id")
    blobs = fields.items("blobs", [])
    try:
        columns = _columns(blobs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{what}: pack {pack_id.hex()[:8]} lists a malformed blob: {error!r:.80}") from error
    stored_max = _U32_MAX - columns.offset.astype(np.int64)
    empty = columns.stored < crypto.OVERHEAD_BYTES
    if np.any(columns.stored > stored_max) or np.any(empty):
        raise IntegrityError(f"{what}: pack {pack_id.hex()[:8]} lists blobs of impossible lengths")
    return pack_id, columns


def _columns(blobs: list[object]) -> Columns:
    """Take a list of JSON objects apart; any KeyError, TypeError or ValueError means that it is malformed."""
    rows: list[dict[str, object]] = [_object(blob) for blob in blobs]
    names = [str(row["id"]) for row in rows]
    if not all(map(is_hex_id, names)):
        raise ValueError("an id that is not 64 hex digits")
    kinds = [row["type"] for row in rows]
    if not {BlobKind.DATA.value, BlobKind.TREE.value}.issuperset(kinds):
        raise ValueError("a type that is not known")
    count = len(rows)
    return Columns(
        ids=np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(count, ID_BYTES),
        pack=np.zeros(count, np.uint32),
        offset=_u32([row["offset"] for row in rows]),
        stored=_u32([row["length"] for row in rows]),
        zstd=_u32([row.get("uncompressed_length", 0) for row in rows]),
        tree=np.array([kind == BlobKind.TREE.value for kind in kinds], np.bool_),
    )


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _u32(values: list[object]) -> NDArray[np.uint32]:
    if not all(type(value) is int and 0 <= value <= _U32_MAX for value in values):
        raise ValueError("a number that is none, or does not fit 32 bits")
    return np.array(values, np.uint32)
