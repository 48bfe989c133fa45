"""A pack: sealed blobs one after the other, and at the end the list of what they are.

    sealed blob 1 ‖ … ‖ sealed blob n ‖ sealed header ‖ u32 length of the sealed header          little-endian

    header     one entry a blob, in file order; offsets are the running sum of the stored lengths
      raw      u8 type 0 data | 1 tree,   u32 stored length,                     id[32]           37 bytes
      zstd     u8 type 2 data | 3 tree,   u32 stored length, u32 plain length,   id[32]           41 bytes

Stored lengths count the seal. Data and trees never share a pack. A pack is named by the digest of all its bytes.
(restic design document, "Pack Format"; the limits are restic's.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import crypto
from vcbproxy.repository.ids import ID_BYTES, BlobKind, Buffer

HEADER_BYTES_MAX = 16 << 20
LENGTH_BYTES = 4
_RAW = struct.Struct("<BI32s")
_ZSTD = struct.Struct("<BII32s")
_LENGTH = struct.Struct("<I")
_U32_MAX = (1 << 32) - 1
RAW_ENTRY_BYTES = _RAW.size
ZSTD_ENTRY_BYTES = ENTRY_BYTES_MAX = _ZSTD.size

_KINDS = {0: BlobKind.DATA, 1: BlobKind.TREE, 2: BlobKind.DATA, 3: BlobKind.TREE}


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob as it lies in a pack.

    Attributes:
        kind: data or tree.
        blob_id: digest of the plaintext.
        offset: of the sealed blob in the pack.
        stored_bytes: its sealed length.
        zstd_bytes: the plaintext's length when it is compressed, else 0.
    """

    kind: BlobKind
    blob_id: bytes
    offset: int
    stored_bytes: int
    zstd_bytes: int

    @property
    def compressed(self) -> bool:
        """Whether a zstd frame lies under the seal; never so for an empty blob."""
        return self.zstd_bytes != 0

    @property
    def plain_bytes(self) -> int:
        """The plaintext's length."""
        return self.zstd_bytes or self.stored_bytes - crypto.OVERHEAD_BYTES

    @property
    def end(self) -> int:
        """One past its last byte in the pack."""
        return self.offset + self.stored_bytes


def encode_header(blobs: Sequence[Blob]) -> bytes:
    """The header's plaintext."""
    parts = []
    for blob in blobs:
        tree = blob.kind is BlobKind.TREE
        if blob.compressed:
            parts.append(_ZSTD.pack(2 + tree, blob.stored_bytes, blob.zstd_bytes, blob.blob_id))
        else:
            parts.append(_RAW.pack(0 + tree, blob.stored_bytes, blob.blob_id))
    return b"".join(parts)


def decode_header(plain: Buffer, what: str) -> list[Blob]:
    """The blobs of a pack, from its header's plaintext.

    Raises:
        IntegrityError: an unknown type, a cut entry, or lengths that cannot be.
    """
    view = memoryview(plain)
    blobs: list[Blob] = []
    position = offset = 0
    while position < len(view):
        code = view[position]
        kind = _KINDS.get(code)
        layout = _ZSTD if code >= 2 else _RAW
        if kind is None or position + layout.size > len(view):
            raise IntegrityError(f"{what}: damaged pack header at entry {len(blobs)}")
        if code >= 2:
            _, stored, zstd_bytes, blob_id = layout.unpack_from(view, position)
        else:
            (_, stored, blob_id), zstd_bytes = layout.unpack_from(view, position), 0
        if stored < crypto.OVERHEAD_BYTES or offset + stored > _U32_MAX or (code >= 2 and not zstd_bytes):
            raise IntegrityError(f"{what}: impossible lengths in pack header entry {len(blobs)}")
        blobs.append(Blob(kind, blob_id, offset, stored, zstd_bytes))
        position += layout.size
        offset += stored
    return blobs


def header_size(blobs: Sequence[Blob]) -> int:
    """What the header takes at the end of the pack, seal and length word included."""
    entries = sum(_ZSTD.size if blob.compressed else _RAW.size for blob in blobs)
    return crypto.sealed_size(entries) + LENGTH_BYTES


def seal_header(key: crypto.Key, blobs: Sequence[Blob]) -> bytes:
    """The end of the pack: the sealed header and its length."""
    sealed = crypto.seal(key, encode_header(blobs))
    return sealed + _LENGTH.pack(len(sealed))


def read_header(key: crypto.Key, size_bytes: int, load: Callable[[int, int], Buffer], what: str) -> list[Blob]:
    """Read the list of blobs off the end of a pack.

    Args:
        key: the repository's.
        size_bytes: of the whole pack.
        load: gives ``length`` bytes at ``offset`` of it.
        what: what messages call the pack.

    Raises:
        IntegrityError: no sane header, or its blobs do not fill the pack exactly.
    """
    if size_bytes < LENGTH_BYTES + crypto.OVERHEAD_BYTES:
        raise IntegrityError(f"{what}: {size_bytes} bytes are too few for a pack")
    (sealed_bytes,) = _LENGTH.unpack(load(size_bytes - LENGTH_BYTES, LENGTH_BYTES))
    start = size_bytes - LENGTH_BYTES - sealed_bytes
    if start < 0 or not crypto.OVERHEAD_BYTES <= sealed_bytes <= HEADER_BYTES_MAX:
        raise IntegrityError(f"{what}: a header of {sealed_bytes} bytes cannot be")
    try:
        plain = crypto.unseal(key, load(start, sealed_bytes))
    except IntegrityError as error:
        raise IntegrityError(f"{what}: its header: {error}") from error
    blobs = decode_header(plain, what)
    end = blobs[-1].end if blobs else 0
    if end != start:
        raise IntegrityError(f"{what}: its blobs end at {end}, its header starts at {start}")
    return blobs


assert _RAW.size == 5 + ID_BYTES
