"""Writing anew what is kept of packs that go: read in long ranges, verified, copied as it is sealed.

    rows kept in such packs ─▶ sorted by pack and offset ─▶ ranges ─▶ read and verified by threads ─▶ packer ─▶ packs

Nothing ties a sealed blob to its pack, so it need not be sealed again; but nothing is written on that does not open to
what its id says.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository import ahead, suspects
from vcbproxy.repository.backend.base import FileMissing, FileName, FileShort, FileUnreadable
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.packer import Packer
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune.buckets import Buckets
from vcbproxy.repository.prune.copies import Kept
from vcbproxy.repository.prune.plan import Fate
from vcbproxy.repository.prune.survey import Survey
from vcbproxy.repository.prune.table import ROW, blob_of
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions
from vcbproxy.units import MiB

GAP_BYTES_MAX = 1 * MiB
RANGE_BYTES_MAX = 16 * MiB
_PACKS_PER_BUCKET = 1024
_BUCKETS_MAX = 256


@dataclass(frozen=True, slots=True)
class Range:
    """Neighbouring blobs of one pack, read at once."""

    pack: int
    name: FileName
    blobs: tuple[Blob, ...]

    @property
    def start(self) -> int:
        """Where it begins in the pack."""
        return self.blobs[0].offset

    @property
    def size_bytes(self) -> int:
        """How much is read, gaps included."""
        return self.blobs[-1].end - self.start


def repack(
    repository: Repository,
    held: HeldLock,
    found: Survey,
    kept: Kept,
    fates: NDArray[np.uint8],
    *,
    pack_bytes: int,
    workers: int,
    progress: Progress,
) -> int:
    """Write new packs and list them in the index.

    Returns:
        How many bytes of blobs were written.

    Raises:
        IntegrityError: a blob is damaged and has no other copy; it is noted as suspect, nothing is removed.
        TargetError: something could not be read or written; or the lock was lost.
    """
    packs = np.flatnonzero(fates == Fate.REPACK)
    if not len(packs):
        return 0
    buckets = _collected(found, kept, packs)
    total = int(kept.bytes[packs].sum())
    options = WriteOptions(pack_bytes=pack_bytes)
    done = 0
    with (
        repository.writing(held, options) as session,
        ThreadPoolExecutor(workers, "repack") as pool,
    ):
        packer = session.packer()
        verified = functools.partial(_load_verified, repository)
        for part, buffer in ahead.results(pool, verified, _ranges(found, buckets), workers + 1):
            held.check()
            done += _copy(packer, part, buffer)
            progress("repack", min(done, total), total)
        packer.finish()
        session.flush()
        progress("repack", total, total)
        return session.stats.stored_bytes


def ranges(pack: int, name: FileName, blobs: Sequence[Blob]) -> Iterator[Range]:
    """Blobs of one pack, by offset, as few long reads: small gaps are read through."""
    part: list[Blob] = []
    for blob in blobs:
        if part and (blob.offset - part[-1].end > GAP_BYTES_MAX or blob.end - part[0].offset > RANGE_BYTES_MAX):
            yield Range(pack, name, tuple(part))
            part = []
        part.append(blob)
    if part:
        yield Range(pack, name, tuple(part))


def _collected(found: Survey, kept: Kept, packs: NDArray[np.intp]) -> Buckets:
    """The kept rows of some packs, in buckets that follow the packs' order."""
    count = min(_BUCKETS_MAX, 1 + len(packs) // _PACKS_PER_BUCKET)
    place = np.full(len(found.packs), -1, np.intp)
    place[packs] = np.arange(len(packs)) * count // len(packs)
    buckets = Buckets(ROW, count)
    for table in found.tables:
        for number, flags in enumerate(kept.flags[table.kind]):
            rows = table.rows(number)[flags]
            rows = rows[place[rows["pack"]] >= 0]
            if len(rows):
                buckets.add(rows, place[rows["pack"]])
    return buckets


def _ranges(found: Survey, buckets: Buckets) -> Iterator[Range]:
    for number in range(len(buckets)):
        rows = buckets.rows(number)
        rows = rows[np.lexsort((rows["offset"], rows["pack"]))]
        starts = np.flatnonzero(rows["pack"][1:] != rows["pack"][:-1]) + 1
        for part in np.split(rows, starts):
            if len(part):
                pack = int(part["pack"][0])
                blobs = [blob_of(part[at : at + 1]) for at in range(len(part))]
                yield from ranges(pack, found.packs.name(pack), blobs)


def _load_verified(repository: Repository, part: Range) -> memoryview:
    buffer = memoryview(bytearray(part.size_bytes))
    try:
        repository.backend.load(part.name, part.start, buffer)
    except (FileMissing, FileShort, FileUnreadable) as error:
        raise IntegrityError(f"{repository.location}: {error}; nothing was removed") from error
    for blob in part.blobs:
        sealed = buffer[blob.offset - part.start : blob.end - part.start]
        try:
            repository.blobs.prove(blob, sealed)
        except IntegrityError as error:
            raise _damaged(repository, part, blob, error) from error
    return buffer


def _damaged(repository: Repository, part: Range, blob: Blob, why: IntegrityError) -> IntegrityError:
    what = f"{blob.kind.value} blob {blob.blob_id.hex()} in pack {part.name.stem} at offset {blob.offset}"
    noted = "it is noted, so the next backup that meets it stores it anew"
    try:
        suspects.note(repository.files, bytes.fromhex(part.name.stem), [blob], str(why), repository.clock.now())
    except TargetError as error:
        noted = f"it could not be noted: {error}"
    return IntegrityError(f"{repository.location}: {what}: {why}; nothing was removed; {noted}")


def _copy(packer: Packer, part: Range, buffer: memoryview) -> int:
    for blob in part.blobs:
        packer.add_sealed(blob, buffer[blob.offset - part.start : blob.end - part.start])
    return sum(blob.stored_bytes for blob in part.blobs)
