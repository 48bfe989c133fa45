"""From a plaintext to a sealed blob in a pack: the hot path of every backup.

    plain ─▶ digest ─▶ known? ─▶ zstd ─▶ seal ─▶ verify ─▶ next place in the open pack ─▶ full: to the session

One packer belongs to one thread and shares nothing on its hot path but the question "is this blob known or on its
way?". Everything long happens in calls that release the interpreter lock: digest, zstd, AES, Poly1305, comparison.

What was sealed is opened again and compared with the plaintext *before* it may be written: a flipped bit in memory or a
miscomputing core costs the job, never a restore.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import compression, crypto, longblob, pack, pages
from vcbproxy.repository.ids import BlobKind, Buffer, digest
from vcbproxy.units import MiB

if TYPE_CHECKING:
    from vcbproxy.repository.session import WriteSession

_LARGE_BYTES = 8 * MiB
_HEADER_ROOM_BYTES = 1024  # for that of one blob


@dataclass(frozen=True, slots=True)
class PackerStats:
    """What went through a packer.

    Attributes:
        blobs_new: blobs that were stored.
        blobs_known: blobs that were stored already, or were on their way.
        plain_bytes: plaintext of the new ones.
        stored_bytes: what they take in packs.
    """

    blobs_new: int = 0
    blobs_known: int = 0
    plain_bytes: int = 0
    stored_bytes: int = 0

    def __add__(self, other: PackerStats) -> PackerStats:
        return PackerStats(
            self.blobs_new + other.blobs_new,
            self.blobs_known + other.blobs_known,
            self.plain_bytes + other.plain_bytes,
            self.stored_bytes + other.stored_bytes,
        )


class OpenPack:
    """A pack that is being filled, in one buffer, digested as it grows."""

    def __init__(self, kind: BlobKind, buffer: memoryview, full_bytes: int = 0) -> None:
        self.kind = kind
        self.full_bytes = full_bytes
        self.blobs: list[pack.Blob] = []
        self.buffer = buffer
        self.size_bytes = 0
        self._header_bytes = crypto.OVERHEAD_BYTES + pack.LENGTH_BYTES
        self._digest = hashlib.sha256()

    def fits(self, sealed_bytes: int) -> bool:
        """Whether one more blob of this size, and the header then, still have room."""
        header = self._header_bytes + pack.ENTRY_BYTES_MAX
        return self.size_bytes + sealed_bytes + header <= len(self.buffer) and header < pack.HEADER_BYTES_MAX

    def room(self) -> memoryview:
        """Where the next sealed blob goes."""
        return self.buffer[self.size_bytes :]

    def append(self, blob_id: bytes, sealed_bytes: int, zstd_bytes: int) -> None:
        """Count in what was just sealed into ``room``."""
        self._digest.update(self.buffer[self.size_bytes : self.size_bytes + sealed_bytes])
        self.blobs.append(pack.Blob(self.kind, blob_id, self.size_bytes, sealed_bytes, zstd_bytes))
        self.size_bytes += sealed_bytes
        self._header_bytes += pack.ENTRY_BYTES_MAX

    def finish(self, key: crypto.Key) -> ClosedPack:
        """Write the header; nothing can be added afterwards."""
        end = pack.seal_header(key, self.blobs)
        self._digest.update(end)
        total = self.size_bytes + len(end)
        self.buffer[self.size_bytes : total] = end
        return ClosedPack(self._digest.digest(), self.blobs, self.buffer, total)


@dataclass(frozen=True, slots=True)
class ClosedPack:
    """A finished pack on its way to the backend."""

    pack_id: bytes
    blobs: list[pack.Blob]
    buffer: memoryview
    size_bytes: int


class Packer:
    """Stores blobs for one thread."""

    def __init__(self, session: WriteSession) -> None:
        self._session = session
        self._key = session.key
        self._sealer = crypto.Sealer(session.key)
        self._opener = crypto.Opener(session.key)
        level = compression.level_of(session.options.compression)
        self._compressor = compression.compressor(level) if level is not None else None
        self._tree_compressor: compression.Compressor | None = None
        self._decompressor = compression.Decompressor()
        self._scratch = pages.buffer(1 << 20)
        self._open: dict[BlobKind, OpenPack] = {}
        self._finished = False
        self._new = self._known = self._plain_bytes = self._stored_bytes = 0

    @property
    def stats(self) -> PackerStats:
        """What it has stored so far."""
        return PackerStats(self._new, self._known, self._plain_bytes, self._stored_bytes)

    def add(self, kind: BlobKind, plain: Buffer, blob_id: bytes | None = None) -> bytes:
        """Store a blob unless it is stored already.

        Args:
            kind: data or tree.
            plain: its bytes; not kept after the call.
            blob_id: their digest, when the caller has it already.

        Returns:
            The blob's id. It can be read from the repository only after the session's ``flush``.

        Raises:
            IntegrityError: what was sealed did not open to the same bytes; nothing more may be written.
            TargetError: this or another packer's pack could not be stored.
        """
        assert not self._finished, "a packer is used after finish()"
        if blob_id is None:
            blob_id = digest(plain)
        if not self._session.claim(kind, blob_id):
            self._known += 1
            return blob_id
        try:
            open_pack, sealed_bytes, zstd_bytes = self._seal(kind, plain)
            self._verify(open_pack.room()[:sealed_bytes], plain, zstd_bytes, blob_id)
        except BaseException as error:
            self._session.fail(error)  # others rely on our claim to store this blob
            raise
        open_pack.append(blob_id, sealed_bytes, zstd_bytes)
        self._count(len(plain), sealed_bytes)
        if open_pack.size_bytes >= open_pack.full_bytes:
            self._close(kind)
        return blob_id

    def add_text(self, kind: BlobKind, text: longblob.Text) -> bytes:
        """Store a blob that comes by bites; in a pack of its own if it is long, and then never held as plaintext.

        Raises:
            IntegrityError: as ``add``; or it is longer than a blob can be.
            TargetError: as ``add``.
        """
        if text.size_bytes <= longblob.LONG_BYTES:
            return self.add(kind, b"".join(text))
        blob_id = longblob.digest(text)
        if not self._session.claim(kind, blob_id):
            self._known += 1
            return blob_id
        try:
            own = OpenPack(kind, pages.buffer(longblob.sealed_size_max(text) + _HEADER_ROOM_BYTES))
            sealed_bytes = longblob.seal_into(self._key, text, own.room())
            self._verify_text(own.room()[:sealed_bytes], text.size_bytes, blob_id)
        except BaseException as error:
            self._session.fail(error)
            raise
        own.append(blob_id, sealed_bytes, text.size_bytes)
        self._count(text.size_bytes, sealed_bytes)
        self._session.submit(own.finish(self._key))
        return blob_id

    def add_sealed(self, blob: pack.Blob, sealed: memoryview) -> None:
        """Store a blob, known or not, as it lies sealed in another pack; the caller has held it against its id.

        Raises:
            IntegrityError: it was damaged while it was copied; nothing more may be written.
            TargetError: as ``add``.
        """
        open_pack = self._pack_for(blob.kind, len(sealed))
        room = open_pack.room()[: len(sealed)]
        room[:] = sealed
        if not pages.equal(room, sealed):
            raise _faulty(blob.blob_id, "its copy differs")
        open_pack.append(blob.blob_id, len(sealed), blob.zstd_bytes)
        self._count(blob.plain_bytes, len(sealed))
        if open_pack.size_bytes >= open_pack.full_bytes:
            self._close(blob.kind)

    def finish(self) -> None:
        """Hand the last packs to the session. Durable only after the session's ``flush``."""
        if not self._finished:
            for kind in list(self._open):
                self._close(kind)
            self._finished = True
            self._scratch = memoryview(b"")
            self._session.finished(self)

    def _seal(self, kind: BlobKind, plain: Buffer) -> tuple[OpenPack, int, int]:
        """Compress and seal into the next place of a pack; gives the pack, the sealed length, and that of zstd or 0."""
        stored = self._compressed(kind, plain)
        zstd_bytes = len(plain) if stored is not plain else 0
        open_pack = self._pack_for(kind, crypto.sealed_size(len(stored)))
        return open_pack, self._sealer.seal_into(stored, open_pack.room()), zstd_bytes

    def _compressed(self, kind: BlobKind, plain: Buffer) -> Buffer:
        """The frame; or ``plain`` itself where it does not shrink. Trees always: stock prune rewrites raw ones."""
        if not len(plain):
            return plain
        if kind is BlobKind.TREE:
            if self._tree_compressor is None:
                self._tree_compressor = self._compressor or compression.compressor(1)
            return self._tree_compressor.compress(plain)
        if self._compressor is None:
            return plain
        frame = self._compressor.compress(plain)
        return frame if len(frame) < len(plain) else plain

    def _pack_for(self, kind: BlobKind, sealed_bytes: int) -> OpenPack:
        current = self._open.get(kind)
        if current is not None and not current.fits(sealed_bytes):
            self._close(kind)
            current = None
        if current is None:
            current = self._open[kind] = OpenPack(kind, *self._session.room(sealed_bytes))
        return current

    def _close(self, kind: BlobKind) -> None:
        self._session.submit(self._open.pop(kind).finish(self._key))

    def _verify(self, sealed: memoryview, plain: Buffer, zstd_bytes: int, blob_id: bytes) -> None:
        """Open what was sealed, and compare."""
        scratch = self._room(crypto.scratch_size(len(sealed)))
        try:
            opened = scratch[: self._opener.open_into(sealed, scratch)]
            damage = "" if self._is(opened, plain, zstd_bytes) else "it opens to other bytes"
        except IntegrityError as error:
            damage = str(error)
        if damage:
            raise _faulty(blob_id, damage)

    def _verify_text(self, sealed: memoryview, plain_bytes: int, blob_id: bytes) -> None:
        try:
            damage = "" if longblob.holds(self._key, sealed, plain_bytes, blob_id) else "it opens to other bytes"
        except IntegrityError as error:
            damage = str(error)
        if damage:
            raise _faulty(blob_id, damage)

    def _count(self, plain_bytes: int, sealed_bytes: int) -> None:
        self._new += 1
        self._plain_bytes += plain_bytes
        self._stored_bytes += sealed_bytes

    def _is(self, stored: memoryview, plain: Buffer, zstd_bytes: int) -> bool:
        if not zstd_bytes:
            return pages.equal(stored, plain)
        return pages.equal(self._decompressor.decompress(stored, zstd_bytes), plain)

    def _room(self, size_bytes: int) -> memoryview:
        """Scratch memory; kept for the next blob unless it is uncommonly large (the content list of a huge disk)."""
        if size_bytes > _LARGE_BYTES:
            return memoryview(bytearray(size_bytes))
        if len(self._scratch) < size_bytes:
            self._scratch = memoryview(bytearray(size_bytes))
        return self._scratch


def _faulty(blob_id: bytes, damage: str) -> IntegrityError:
    return IntegrityError(
        f"blob {blob_id.hex()} was damaged while it was sealed ({damage}): "
        "this machine's memory or processor is faulty; nothing was written"
    )
