"""Where the files of a disk come from: a datastore (`vcbproxy.source.storage`), or a folder of exported files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from vcbproxy.device import FileDevice, MappedDevice
from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.paths import resolve_inside


class Files(Protocol):
    """Opens the files of one datastore. Paths are its own business; `resolve` makes them."""

    def open(self, path: str) -> MappedDevice:
        """Open a file.

        Raises:
            SourceError: there is none, or it cannot be read.
        """

    def resolve(self, base_path: str, reference: str) -> str:
        """The path that ``reference``, found in the file at ``base_path``, leads to: one path for one file.

        Raises:
            VmdkError: it leads out of the datastore, or is no path.
        """


class FolderFiles:
    """Exported files in a folder of this machine; nothing outside of it is opened."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).resolve()

    def open(self, path: str) -> FileDevice:
        """Open a regular file; a FIFO would hang, a device is not an export."""
        full = self._folder / resolve_inside("", path)
        try:
            real = full.resolve(strict=True)
            mode = real.stat().st_mode
        except OSError as error:
            raise VmdkError(file=str(full), reason=f"cannot be opened: {error.strerror}") from error
        except RuntimeError as error:  # Python 3.11 and 3.12 say so of a loop of symbolic links
            raise VmdkError(file=str(full), reason="cannot be opened: a loop of symbolic links") from error
        if not real.is_relative_to(self._folder):
            raise VmdkError(file=str(full), reason=f"is a symbolic link out of its folder, to {real}")
        if not stat.S_ISREG(mode):
            raise VmdkError(file=str(full), reason="is not a regular file")
        return FileDevice(real, name=str(full))

    def resolve(self, base_path: str, reference: str) -> str:
        """Follow a reference inside the folder."""
        return resolve_inside(base_path, reference)
