"""An image taken apart into a raw file, as `restore` does it with what comes off tape."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vcbproxy.pipeline import output
from vcbproxy.pipeline.unarchive import Expected, FreshFile, Unpacked, unpack


def restored(
    pieces: Iterable[bytes | memoryview], path: Path, size_bytes: int, *, sha256: str | None = None
) -> Unpacked:
    """Write a disk to a file that must not exist, and that is there only once it is whole and as expected."""
    with output.new_file(path, size_bytes, overwrite=False) as out:
        done = unpack(pieces, FreshFile(out), Expected(size_bytes, sha256), name="image")
        out.commit()
    return done
