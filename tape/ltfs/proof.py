"""Proving that the files of a volume are whole: each is read, and held against the digest that it bears.

What lies on a cartridge may have been made to keep us busy: an index of a few kilobytes can name files of exabytes, all
holes, or all of the same few blocks. No more of either is gone through than goes by what the volume has recorded, and
what is left over is told, not taken for whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tape.errors import FormatError, MediumError
from tape.ltfs.index import DIGEST, File
from tape.ltfs.readahead import ReadAhead
from tape.ltfs.reader import FileReader
from tape.ltfs.volume import LtfsVolume

HOLES_BYTES = 64 << 30
"""So much of holes is digested on any volume, in a minute or two: sparse files of others are no finding."""
_SHARED = 2  # small files may share blocks, and nobody's files share much more
_ZEROES = memoryview(bytes(1 << 20))


def files(volume: LtfsVolume) -> list[tuple[str, File]]:
    """Its files in the order in which they lie on the tape: read so, it goes from its beginning to its end once."""
    found = [
        (path, entry) for path, entry in volume.index.root.walk() if isinstance(entry, File) and entry.symlink is None
    ]
    return sorted(found, key=lambda one: [(extent.start, extent.byte_offset) for extent in one[1].extents[:1]])


def findings(volume: LtfsVolume) -> Iterator[tuple[str, str]]:
    """Read every file; gives the path of each that is not proved to be whole, and why not.

    One without a digest is whole when every block of it can be read.

    Raises:
        TapeError: the drive failed.
    """
    recorded = volume.data_end * volume.layout.label.block_bytes
    data_left, holes_left = _SHARED * recorded, max(recorded, HOLES_BYTES)
    for path, entry in files(volume):
        data, holes = entry.data_bytes, entry.hole_bytes if DIGEST in entry.xattrs else 0
        if data > data_left:
            yield (
                path,
                f"not read: {data} bytes, and with the files before it that is more than the volume has recorded",
            )
        elif holes > holes_left:
            yield path, f"not held against its digest: {holes} bytes of holes, more than the volume has recorded"
        else:
            data_left -= data
            holes_left -= holes
            reason = _fault(volume.open(path), entry)
            if reason is not None:
                yield path, reason


def _fault(reader: FileReader, entry: File) -> str | None:
    """Why a file is not whole; None: it is."""
    digest = hashlib.sha256()
    borne = entry.xattrs.get(DIGEST)
    at = 0
    try:
        with ReadAhead(reader, data_only=True) as pieces:
            for piece in pieces:
                if borne is not None:
                    _add_zeroes(digest, piece.offset - at)
                    digest.update(piece.data)
                at = piece.offset + len(piece.data)
    except (FormatError, MediumError) as error:
        return str(error)
    if borne is None:
        return None
    _add_zeroes(digest, reader.size_bytes - at)
    if borne.decode("ascii", "replace").strip().lower() == digest.hexdigest():
        return None
    return "its content does not match the digest that it bears"


def _add_zeroes(digest: hashlib._Hash, length: int) -> None:
    while length:
        digest.update(_ZEROES[:length])
        length -= min(length, len(_ZEROES))
