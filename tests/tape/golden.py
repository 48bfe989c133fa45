"""A cartridge that the reference implementation of LTFS wrote."""

from __future__ import annotations

import tarfile
from pathlib import Path

_ARCHIVE = Path(__file__).parent / "data" / "ref-written-basic.tar.gz"


def unpacked(folder: Path) -> Path:
    """The cartridge's folder."""
    with tarfile.open(_ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # type: ignore[assignment]  # Python 3.11.2 has none
        archive.extractall(folder)
    for path in (folder / "tape").iterdir():
        path.chmod(0o600)  # the reference makes records that only root reads
    return folder / "tape"
