"""Taking packs back into the index that wait for their removal, when a restore point needs them after all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import indexfile, pack
from vcbproxy.repository.backend.base import FileKind, FileName, Heat, Stored
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.prune.survey import Survey
from vcbproxy.repository.prune.used import Missing
from vcbproxy.repository.prune.waiting import Waiting
from vcbproxy.repository.repository import Repository


def needed(
    repository: Repository, found: Survey, waits: Iterable[Waiting], missing: Sequence[Missing]
) -> list[PackBlobs]:
    """Packs among those that wait which hold something that is missing; read off their own headers.

    Raises:
        TargetError: one could not be read.
    """
    waiting = {name for wait in waits for name in wait.packs}
    wanted = {(lost.kind, lost.ids[at : at + 1].tobytes()) for lost in missing for at in range(len(lost.ids))}
    back = []
    for stored in found.strays:
        if stored.name.stem not in waiting:
            continue
        blobs = _header(repository, stored)
        here = {(blob.kind, blob.blob_id) for blob in blobs} & wanted
        if here:
            back.append(PackBlobs(bytes.fromhex(stored.name.stem), blobs))
            wanted -= here
    return back


def take_back(repository: Repository, held: HeldLock, packs: Sequence[PackBlobs]) -> None:
    """List packs in the index again.

    Raises:
        TargetError: the index file could not be stored, or the lock was lost.
    """
    held.check()
    repository.files.save_sealed(FileKind.INDEX, indexfile.encode(packs))


def _header(repository: Repository, stored: Stored) -> list[pack.Blob]:
    """What lies in a pack; nothing when its header cannot be made out: then it cannot help."""
    name = FileName(FileKind.PACK, stored.name.stem, Heat.COLD)

    def load(offset: int, length: int) -> memoryview:
        buf = memoryview(bytearray(length))
        repository.backend.load(name, offset, buf)
        return buf

    try:
        return pack.read_header(repository.key, stored.size_bytes, load, f"pack {name.stem}")
    except IntegrityError:
        return []
