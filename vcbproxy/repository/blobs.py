"""Reading blobs out of packs: nothing leaves here that its mac, its length and its digest do not vouch for."""

from __future__ import annotations

import threading

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import compression, crypto
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, FileShort
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import Buffer, digest
from vcbproxy.repository.index import Location

BLOB_BYTES_MAX = 1 << 30


class Blobs:
    """Opens blobs; for any number of threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._local = threading.local()

    def load(self, location: Location) -> Buffer:
        """One copy of a blob.

        Raises:
            IntegrityError: it is damaged or missing; names blob, pack and offset.
        """
        blob = location.blob
        try:
            hold_sane(blob.plain_bytes, blob.stored_bytes)
            sealed = memoryview(bytearray(blob.stored_bytes))
            self._files.backend.load(FileName(FileKind.PACK, location.pack_id.hex()), blob.offset, sealed)
            return self.open(blob.blob_id, sealed, blob.zstd_bytes)
        except (IntegrityError, FileMissing, FileShort) as error:
            raise IntegrityError(
                f"{self._files.location}: {blob.kind.value} blob {blob.blob_id.hex()} "
                f"in pack {location.pack_id.hex()} at offset {blob.offset}: {error}"
            ) from error

    def open(self, blob_id: bytes, sealed: memoryview, zstd_bytes: int) -> Buffer:
        """Open a sealed blob and hold it against its id.

        Args:
            blob_id: what its plaintext's digest must be.
            sealed: as it lies in the pack.
            zstd_bytes: the plaintext's length when it is compressed, else 0.

        Raises:
            IntegrityError: damaged.
        """
        room = memoryview(bytearray(crypto.scratch_size(len(sealed))))
        plain: Buffer = room[: crypto.open_into(self._files.key, sealed, room)]
        if zstd_bytes:
            plain = self._decompressor().decompress(plain, zstd_bytes)
        if digest(plain) != blob_id:
            raise IntegrityError("its content does not match its id")
        return plain

    def _decompressor(self) -> compression.Decompressor:
        if not hasattr(self._local, "decompressor"):
            self._local.decompressor = compression.Decompressor()
        found: compression.Decompressor = self._local.decompressor
        return found


def hold_sane(plain_bytes: int, stored_bytes: int) -> None:
    """Refuse lengths that no blob has.

    Raises:
        IntegrityError: more than a gigabyte.
    """
    if max(plain_bytes, stored_bytes) > BLOB_BYTES_MAX:
        raise IntegrityError(f"it claims more than {BLOB_BYTES_MAX} bytes")
