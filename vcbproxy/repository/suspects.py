"""Packs that were found damaged, remembered until they are whole again or gone: one sealed file each.

    vcbproxy/suspect/<id>      {"format":"vcbproxy.suspect/1","time":…,"pack":ID,"reason":…,"blobs":[{"id":…,"type":…}]}

    check finds it ─▶ noted here ─▶ the next backup takes the pack for lost, and stores anew what it still meets
      ─▶ restores read the whole copy ─▶ check says that it is healed ─▶ prune removes the damaged copy

Stock restic neither reads nor removes these files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import codec, times
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.pack import Blob

_FORMAT = "vcbproxy.suspect/1"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A pack that was found damaged.

    Attributes:
        name: the file that says so.
        pack_id: which pack.
        blobs: those in it that could not be read back; none when only its header or its end is damaged.
        reason: what was found.
    """

    name: FileName
    pack_id: bytes
    blobs: tuple[tuple[BlobKind, bytes], ...]
    reason: str


def load(files: Files) -> Iterator[Suspect]:
    """All suspects that can be read; a file that is damaged itself is passed over, ``damaged`` names it.

    Raises:
        TargetError: the files cannot be listed or read.
    """
    for stored in files.backend.list(FileKind.SUSPECT):
        with contextlib.suppress(IntegrityError, FileMissing):
            yield _decode(files, stored.name)


def damaged(files: Files) -> Iterator[tuple[FileName, IntegrityError]]:
    """The files themselves that cannot be read.

    Raises:
        TargetError: the files cannot be listed or read.
    """
    for stored in files.backend.list(FileKind.SUSPECT):
        try:
            _decode(files, stored.name)
        except IntegrityError as error:
            yield stored.name, error


def require_readable(files: Files) -> None:
    """For whoever removes something: without a note, a damaged copy would be taken for a whole one.

    Raises:
        IntegrityError: a note cannot be read.
        TargetError: the files cannot be listed or read.
    """
    for name, error in damaged(files):
        raise IntegrityError(
            f"{error}; it says which pack is damaged, so nothing was removed; "
            f"remove {name.path}, then `vcbproxy repo check --read-data` notes it anew"
        ) from error


def note(files: Files, pack_id: bytes, blobs: Sequence[Blob], reason: str, now: datetime) -> None:
    """Remember a damaged pack.

    Raises:
        TargetError: it could not be stored.
    """
    fields = {
        "format": _FORMAT,
        "time": times.canonical(now),
        "pack": pack_id.hex(),
        "reason": reason,
        "blobs": [{"id": blob.blob_id.hex(), "type": blob.kind.value} for blob in blobs],
    }
    files.save_sealed(FileKind.SUSPECT, codec.encode(fields))


def lift(files: Files, suspect: Suspect) -> None:
    """Forget one: its pack is whole again, or gone.

    Raises:
        TargetError: it could not be removed.
    """
    with contextlib.suppress(FileMissing):
        files.backend.remove(suspect.name)


def _decode(files: Files, name: FileName) -> Suspect:
    what = f"{files.location}: {name.path}"
    fields = codec.Fields(codec.decode(files.load_sealed(name), what), what)
    if fields.text("format") != _FORMAT:
        raise IntegrityError(f"{what}: format {fields.text('format')!r} is not known; a newer vcbproxy wrote it")
    blobs = [_blob(codec.Fields(item, f"a blob in {what}")) for item in fields.items("blobs", [])]
    return Suspect(name, fields.id("pack"), tuple(blobs), fields.text("reason", ""))


def _blob(fields: codec.Fields) -> tuple[BlobKind, bytes]:
    try:
        return BlobKind(fields.text("type")), fields.id("id")
    except ValueError as error:
        raise IntegrityError(f"{fields.what}: {error}") from error
