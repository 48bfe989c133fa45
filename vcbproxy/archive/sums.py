"""``SHA256SUMS``: for ``sha256sum -c``, beside what it names.

It has the files of the folder, every part by itself, and the raw disks that come out of the images: so that one command
proves what was read off the cartridges, and the same command what was made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from vcbproxy.archive.manifest import Document, Kind, State
from vcbproxy.catalog.records import ArchivedPart


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sums_of(document: Document, here: Sequence[ArchivedPart], folder: str) -> bytes:
    """The file.

    Args:
        document: what is known of the restore point.
        here: what lies on this cartridge; it alone counts while more is to come.
        folder: where all of it lies, on every cartridge.
    """
    if document.state is State.CONTINUES:
        return _lines((part.sha256, _within(part, folder)) for part in here)
    lines = [(part.sha256, _within(part, folder)) for part in document.parts]
    lines += [(image.sha256, f"{image.key}.raw") for image in document.images if image.kind is Kind.FULL]
    return _lines(lines)


def _within(part: ArchivedPart, folder: str) -> str:
    return part.path.removeprefix(f"{folder}/")


def _lines(lines: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{sha256}  {name}\n" for sha256, name in lines).encode()
