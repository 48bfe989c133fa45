"""What this proxy remembers of restore points on tape, so that the next delta needs no cartridge to be loaded.

    STATE/tape/points/<id>/vm.json         as it is on the cartridge
                           scsi0-0.sums    a checksum of each frame of the disk, as it was then: for the audit
                           scsi0-0.holes   what its map knew to be zeroes

All of it can be lost: then the next image is a full one. It is removed with the restore point's entry in the catalog.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.archive import layout
from vcbproxy.archive.frames import FRAME_BYTES
from vcbproxy.archive.manifest import Document, decode
from vcbproxy.archive.seektable import SeekTable
from vcbproxy.archive.sums import digest
from vcbproxy.errors import IntegrityError, TargetError

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, eq=False)
class FrameSums:
    """A checksum of each frame of a disk: the low half of its XXH64, as the seek table of its image has it.

    Attributes:
        sums: uint32[n]; the last frame may be short.
        known: bool[n]; of a frame that changed since in part, none is known.
        holes: int64[m, 2], [start, end) in order: what was known to be zeroes.
        size_bytes: of the disk.
    """

    sums: NDArray[np.uint32]
    known: NDArray[np.bool_]
    holes: NDArray[np.int64]
    size_bytes: int

    @classmethod
    def of(cls, table: SeekTable, holes: NDArray[np.int64]) -> Self:
        """As an image has them, of a disk whose map has these holes."""
        sums = np.fromiter((frame.checksum or 0 for frame in table.frames()), np.uint32, len(table))
        known = np.fromiter((frame.checksum is not None for frame in table.frames()), np.bool_, len(table))
        return cls(sums, known, holes, table.plain_bytes)

    def after(self, ranges: NDArray[np.int64], holes: NDArray[np.int64]) -> FrameSums:
        """What is known once these [start, end) have changed, of a disk whose map has these holes by then."""
        known = self.known.copy()
        for start, end in ranges.tolist():
            known[start // FRAME_BYTES : -(-end // FRAME_BYTES)] = False
        return FrameSums(self.sums, known, holes, self.size_bytes)

    def place(self, frame: int) -> tuple[int, int]:
        """Where a frame begins on the disk, and its length."""
        start = frame * FRAME_BYTES
        return start, min(FRAME_BYTES, self.size_bytes - start)


class Remembered:
    """One directory of these."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, point_id: str, vm_json: bytes, sums: Mapping[str, FrameSums]) -> None:
        """Remember a restore point that is safe; ``vm.json`` last, so that one without it is none.

        Raises:
            TargetError: it cannot be written.
        """
        folder = self._folder(point_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for key, one in sums.items():
                packed = np.where(one.known, one.sums.astype("<i8"), -1).astype("<i8")
                _write(folder / f"{layout.safe_name(key)}.sums", packed.tobytes())
                _write(folder / f"{layout.safe_name(key)}.holes", one.holes.astype("<i8").tobytes())
            _write(folder / layout.VM_JSON, vm_json)
        except OSError as error:
            raise TargetError(f"cannot write {folder}: {error.strerror}") from error

    def has(self, point_id: str) -> bool:
        """Whether it is remembered."""
        return (self._folder(point_id) / layout.VM_JSON).exists()

    def document_like(self, point_id: str, sha256: str) -> Document | None:
        """What its ``vm.json`` says, where it is remembered as it lies on the cartridge."""
        path = self._folder(point_id) / layout.VM_JSON
        try:
            data = path.read_bytes()
            return decode(data, str(path)) if digest(data) == sha256 else None
        except (OSError, IntegrityError):
            return None

    def document(self, point_id: str) -> Document:
        """What its ``vm.json`` says.

        Raises:
            IntegrityError: it is not remembered, or damaged.
        """
        path = self._folder(point_id) / layout.VM_JSON
        try:
            return decode(path.read_bytes(), str(path))
        except OSError as error:
            raise IntegrityError(f"cannot read {path}: {error.strerror}") from error

    def sums(self, point_id: str, key: str, size_bytes: int) -> FrameSums:
        """A disk's checksums.

        Raises:
            IntegrityError: they are not remembered, or those of another disk.
        """
        path = self._folder(point_id) / f"{layout.safe_name(key)}.sums"
        try:
            packed = np.frombuffer(path.read_bytes(), "<i8")
            holes = np.frombuffer(path.with_suffix(".holes").read_bytes(), "<i8").reshape(-1, 2)
        except (OSError, ValueError) as error:
            raise IntegrityError(f"cannot read {path}: {error}") from error
        if len(packed) != -(-size_bytes // FRAME_BYTES):
            raise IntegrityError(f"{path} is not of a disk of {size_bytes} bytes")
        known = packed >= 0
        return FrameSums(np.where(known, packed, 0).astype(np.uint32), known, holes.astype(np.int64), size_bytes)

    def forget_all_but(self, ids: Collection[str]) -> None:
        """Forget restore points that the catalog has not any more."""
        with suppress(FileNotFoundError):
            for folder in self._directory.iterdir():
                if _ID.fullmatch(folder.name) and folder.name not in ids:
                    shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, point_id: str) -> Path:
        assert _ID.fullmatch(point_id), point_id
        return self._directory / point_id


def _write(path: Path, data: bytes) -> None:
    """A file that is there whole, or not at all."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
