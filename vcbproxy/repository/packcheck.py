"""Reading a whole pack to find out whether every byte of it is as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import pack
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, FileShort, FileUnreadable, Heat
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.repository import Repository
from vcbproxy.units import MiB

_WHOLE_BYTES_MAX = 64 * MiB
_STEP_BYTES = 4 * MiB

Load = Callable[[int, int], memoryview]


@dataclass(frozen=True, slots=True)
class PackDamage:
    """What is wrong with a pack; ``blobs`` are those of it that cannot be read back."""

    message: str
    blobs: tuple[Blob, ...]


def check_pack(repository: Repository, indexed: PackBlobs, size_bytes: int) -> PackDamage | None:
    """Digest the pack, open every blob, and hold the header against the index.

    Args:
        repository: an open one.
        indexed: what the index says of the pack.
        size_bytes: of the pack, as listed.

    Returns:
        What is wrong, if anything.
    """
    name = FileName(FileKind.PACK, indexed.pack_id.hex(), Heat.COLD)  # what is stored is asked, never a local copy
    what = f"pack {name.stem}"
    try:
        load = _loader(repository, name, size_bytes)
        problems = [] if _digest(load, size_bytes) == indexed.pack_id else ["its content does not match its name"]
        problems += _header_problems(repository, indexed, size_bytes, load, what)
        lost = dict(_damaged_blobs(repository, indexed, size_bytes, load))
    except (FileMissing, FileShort, FileUnreadable) as error:
        return PackDamage(f"{what}: {error}", tuple(indexed.blobs))
    problems += [
        f"{blob.kind.value} blob {blob.blob_id.hex()} at offset {blob.offset}: {why}" for blob, why in lost.items()
    ]
    return PackDamage(f"{what}: {'; '.join(problems)}", tuple(lost)) if problems else None


def _loader(repository: Repository, name: FileName, size_bytes: int) -> Load:
    """Gives ranges of the pack; one read for all of a usual pack."""
    if size_bytes <= _WHOLE_BYTES_MAX:
        whole = memoryview(bytearray(size_bytes))
        repository.backend.load(name, 0, whole)
        return lambda offset, length: whole[offset : offset + length]

    def load(offset: int, length: int) -> memoryview:
        buf = memoryview(bytearray(length))
        repository.backend.load(name, offset, buf)
        return buf

    return load


def _digest(load: Load, size_bytes: int) -> bytes:
    found = hashlib.sha256()
    for offset in range(0, size_bytes, _STEP_BYTES):
        found.update(load(offset, min(_STEP_BYTES, size_bytes - offset)))
    return found.digest()


def _header_problems(
    repository: Repository, indexed: PackBlobs, size_bytes: int, load: Load, what: str
) -> Iterator[str]:
    try:
        header = pack.read_header(repository.key, size_bytes, load, what)
    except IntegrityError as error:
        yield str(error).removeprefix(f"{what}: ")
        return
    if header != list(indexed.blobs):
        yield "its header and the index list different blobs"


def _damaged_blobs(
    repository: Repository, indexed: PackBlobs, size_bytes: int, load: Load
) -> Iterator[tuple[Blob, str]]:
    for blob in indexed.blobs:
        if blob.end > size_bytes:
            yield blob, f"it ends beyond the pack's {size_bytes} bytes"
        else:
            try:
                repository.blobs.prove(blob, load(blob.offset, blob.stored_bytes))
            except IntegrityError as error:
                yield blob, str(error)
