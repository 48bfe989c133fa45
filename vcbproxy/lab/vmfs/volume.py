"""A VMFS volume on image files, made and kept changing like a host would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.device import Device
from vcbproxy.lab.vmfs.spec import Allocation, Layout, VolumeSpec


class LabVolume:
    """A volume that is being written. Paths are absolute inside it: ``/vm1/vm1-flat.vmdk``."""

    uuid: str
    label: str
    paths: tuple[Path, ...]
    wwns: tuple[str, ...]

    @classmethod
    def create(cls, paths: Sequence[Path], spec: VolumeSpec, clock: Clock | None = None) -> Self:
        """Make the image files (sparse; they must not exist) and an empty volume on them."""
        raise NotImplementedError

    @classmethod
    def load(cls, state_path: Path, clock: Clock = SystemClock()) -> Self:
        """Go on with a volume whose record was saved."""
        raise NotImplementedError

    def save(self, state_path: Path) -> None:
        """Write the record, atomically."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the image files."""
        raise NotImplementedError

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        raise NotImplementedError

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        raise NotImplementedError

    def rdm(self, path: str, wwn: str) -> None:
        """Make a raw device mapping."""
        raise NotImplementedError

    def create_file(
        self,
        path: str,
        size_bytes: int = 0,
        data: bytes = b"",
        *,
        layout: Layout = Layout.AUTO,
        allocation: Allocation = Allocation.THIN,
        use_lfb: bool = False,
        materialise: bool = True,
    ) -> None:
        """Make a file of ``size_bytes`` (at least the data's) that starts with ``data``."""
        raise NotImplementedError

    def write(self, path: str, offset: int, data: bytes | memoryview) -> None:
        """Write as a host does: data, then pointer blocks, then the descriptor."""
        raise NotImplementedError

    def write_from(self, path: str, source: Device | Path, *, keep_holes: bool = True) -> None:
        """Copy a whole device or local file in; with ``keep_holes`` blocks of zeroes stay unallocated."""
        raise NotImplementedError

    def read(self, path: str, offset: int, length: int) -> bytes:
        """The truth, from the record and the image."""
        raise NotImplementedError

    def size(self, path: str) -> int:
        """The file's length."""
        raise NotImplementedError

    def truncate(self, path: str, size_bytes: int) -> None:
        """Shrink or grow (with a hole)."""
        raise NotImplementedError

    def rename(self, old: str, new: str) -> None:
        """Move a file or directory; a file at the new name is replaced."""
        raise NotImplementedError

    def delete(self, path: str) -> None:
        """Remove a file, link or empty directory; its blocks are freed, their bytes stay on disk."""
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        """Whether there is something at the path."""
        raise NotImplementedError

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        raise NotImplementedError

    def data_ranges(self, path: str) -> list[tuple[int, int]]:
        """(offset, length) of what is allocated and written, in whole blocks, clipped to the file's length."""
        raise NotImplementedError
