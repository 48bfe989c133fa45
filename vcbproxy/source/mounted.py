"""A file of a datastore that is mounted here as a directory: NFS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vcbproxy.device import check_range
from vcbproxy.errors import Changed, PathNotFound
from vcbproxy.extent import Extent, Kind
from vcbproxy.san.lun import Lun, open_lun


class MountedFile:
    """One file below a mount point, read with O_DIRECT: the hosts write the same export, and a cached page goes stale.

    A host's idea of a hole is not a promise about a file that others write, so all of it is DATA.
    """

    def __init__(self, root: Path, path: str, name: str) -> None:
        """Open it.

        Raises:
            PathNotFound: there is no such file, or a link leads out of the mount.
            DeviceError: it cannot be opened.
        """
        self._name = name
        self._path = (root / path).resolve()
        if not self._path.is_relative_to(root.resolve()) or not self._path.is_file():
            raise PathNotFound(volume=str(root), file=path, offset=0, reason="no such file")
        self._lun: Lun = open_lun(self._path, name=name)
        self._stamp = self._stat()

    def _stat(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """Its size when it was opened."""
        return self._lun.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill the buffer, or raise DeviceError."""
        check_range(self, offset, len(buf))
        self._lun.read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        """All DATA."""
        if self.size_bytes:
            yield Extent(0, self.size_bytes, Kind.DATA)

    def recheck(self) -> None:
        """Make sure that nobody wrote, replaced or resized it meanwhile.

        Raises:
            Changed: somebody did.
        """
        if self._stat() != self._stamp:
            raise Changed(file=self._name, reason="its inode, size or modification time differs")

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self._lun.close()
