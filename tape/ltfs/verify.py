"""Reading again what was just written, before an index says that it is there.

A drive reads each block right after writing it, and writes it again elsewhere when it must. What this finds went wrong
before the drive: in memory, on a bus, in an adapter. A checksum of each block, kept since it was handed over, says
which block it is; the file's digest has the last word.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterable

from tape.errors import FormatError, MediumError, VerifyFailed
from tape.ltfs.index import DIGEST, File
from tape.ltfs.readahead import ReadAhead
from tape.ltfs.reader import FileReader


def checksums() -> array[int]:
    """CRC-32 of each block of a file, in order; none yet."""
    return array("I")


def checksum(block: bytes | bytearray | memoryview) -> int:
    """Of one block."""
    return zlib.crc32(block)


def read_again(reader: FileReader, file: File, kept: Iterable[int]) -> None:
    """Read a file, and hold it against what was written.

    Raises:
        VerifyFailed: another block came back, or none; it is named.
        TapeError: the drive failed.
    """
    digest = hashlib.sha256()
    expected = iter(kept)
    last = None
    try:
        with ReadAhead(reader) as pieces:
            for piece in pieces:
                if checksum(piece.data) != next(expected, None):
                    raise VerifyFailed(
                        path=reader.name, block=piece.place, reason="another block was read than written"
                    )
                digest.update(piece.data)
                last = piece.place
    except (FormatError, MediumError) as error:
        raise VerifyFailed(path=reader.name, block=f"the block after {last}", reason=str(error)) from error
    borne = file.xattrs.get(DIGEST)
    if borne is not None and borne != digest.hexdigest().encode("ascii"):
        raise VerifyFailed(path=reader.name, block=last, reason="the file has another digest than was written")
