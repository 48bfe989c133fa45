"""Packs that were taken out of the index and wait for their removal: one sealed file a prune.

    vcbproxy/waiting/<id>      {"format":"vcbproxy.waiting/1","time":…,"until":…,"packs":[ids]}

What no index lists nobody builds upon: backups that begin now store such blobs anew. One that had begun before, and
went on although its lock was lost, may still have; so the next prune looks again before it removes, and takes back into
the index what is needed after all. Stock restic does not know these files: to it the packs are strays, which its own
prune removes at once; ``restic repair index`` would list them again. Both end the waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import codec, times
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import is_hex_id

_FORMAT = "vcbproxy.waiting/1"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Packs that one prune took out of the index.

    Attributes:
        name: the file.
        until: they are not removed before.
        packs: their names, as hexadecimal.
    """

    name: FileName
    until: datetime
    packs: tuple[str, ...]


def load(files: Files) -> list[Waiting]:
    """All that wait.

    Raises:
        IntegrityError: such a file is damaged.
        TargetError: it could not be read.
    """
    return [_decode(files, stored.name) for stored in files.backend.list(FileKind.WAITING)]


def save(files: Files, packs: Iterable[str], now: datetime, until: datetime) -> None:
    """Note packs that wait from now on.

    Raises:
        TargetError: it could not be stored.
    """
    fields = {
        "format": _FORMAT,
        "time": times.canonical(now),
        "until": times.canonical(until),
        "packs": sorted(packs),
    }
    files.save_sealed(FileKind.WAITING, codec.encode(fields))


def _decode(files: Files, name: FileName) -> Waiting:
    what = f"{files.location}: {name.path}"
    fields = codec.Fields(codec.decode(files.load_sealed(name), what), what)
    if fields.text("format") != _FORMAT:
        raise IntegrityError(f"{what}: format {fields.text('format')!r} is not known; a newer vcbproxy wrote it")
    packs = fields.texts("packs")
    if not all(map(is_hex_id, packs)):
        raise IntegrityError(f"{what}: it lists a pack that is no id")
    return Waiting(name, fields.moment("until"), packs)
