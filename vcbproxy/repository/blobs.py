"""Reading blobs out of packs: nothing leaves here that its mac, its length and its digest do not vouch for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import compression, crypto, longblob
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, FileShort, FileUnreadable, Heat
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import BlobKind, Buffer, digest
from vcbproxy.repository.index import Location
from vcbproxy.repository.pack import Blob

BLOB_BYTES_MAX = 1 << 30  # held as a whole; longer trees are read by bites

Result = TypeVar("Result")


class Blobs:
    """Opens blobs; for any number of threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._own = _Own(files.key)

    def load(self, location: Location) -> Buffer:
        """One copy of a blob.

        Raises:
            IntegrityError: it is damaged or missing; names blob, pack and offset.
        """
        blob = location.blob
        with self._naming(location):
            hold_sane(blob.plain_bytes, blob.stored_bytes)
            return self.open(blob.blob_id, self._sealed(location), blob.zstd_bytes)

    def read(self, location: Location, take: Callable[[Iterator[Buffer]], Result]) -> Result:
        """Hand one copy of a blob to ``take``, by bites if it is long; give what it gives, once the digest is right.

        Raises:
            IntegrityError: as ``load``; or raised by ``take``.
        """
        blob = location.blob
        if blob.zstd_bytes <= longblob.LONG_BYTES:
            return take(iter((self.load(location),)))
        with self._naming(location):
            hold_sane(0, blob.stored_bytes)
            pieces = longblob.opened(self._files.key, self._sealed(location), blob.zstd_bytes, blob.blob_id)
            taken = take(pieces)
            for _ in pieces:  # the digest is held against the id at the very end
                pass
            return taken

    def _sealed(self, location: Location) -> memoryview:
        sealed = memoryview(bytearray(location.blob.stored_bytes))
        heat = Heat.HOT if location.blob.kind is BlobKind.TREE else Heat.COLD
        name = FileName(FileKind.PACK, location.pack_id.hex(), heat)
        self._files.backend.load(name, location.blob.offset, sealed)
        return sealed

    @contextmanager
    def _naming(self, location: Location) -> Iterator[None]:
        """Say of which blob, and where it lies, what is wrong with it."""
        blob = location.blob
        try:
            yield
        except (IntegrityError, FileMissing, FileShort, FileUnreadable) as error:
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
        plain: Buffer = room[: self._own.opener.open_into(sealed, room)]
        if zstd_bytes:
            plain = self._own.decompressor.decompress(plain, zstd_bytes)
        if digest(plain) != blob_id:
            raise IntegrityError("its content does not match its id")
        return plain

    def prove(self, blob: Blob, sealed: memoryview) -> None:
        """Hold a sealed blob against its id; by bites if it is long, so that it never is in memory as a whole.

        Raises:
            IntegrityError: damaged.
        """
        if blob.zstd_bytes <= longblob.LONG_BYTES:
            hold_sane(blob.plain_bytes, len(sealed))
            self.open(blob.blob_id, sealed, blob.zstd_bytes)
            return
        hold_sane(0, len(sealed))
        for _ in longblob.opened(self._files.key, sealed, blob.zstd_bytes, blob.blob_id):
            pass


class _Own(threading.local):
    """What every thread has one of."""

    def __init__(self, key: crypto.Key) -> None:
        self.opener = crypto.Opener(key)
        self.decompressor = compression.Decompressor()


def hold_sane(plain_bytes: int, stored_bytes: int) -> None:
    """Refuse lengths that no blob has.

    Raises:
        IntegrityError: more than a gigabyte.
    """
    if max(plain_bytes, stored_bytes) > BLOB_BYTES_MAX:
        raise IntegrityError(f"it claims more than {BLOB_BYTES_MAX} bytes")
