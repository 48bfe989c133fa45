"""Exported disks in files of this machine: what ovftool, qemu-img or a download left in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.chain import VirtualDisk, open_disk
from vcbproxy.vmdk.files import FolderFiles


def open_image(path: str | os.PathLike[str]) -> VirtualDisk:
    """Open a VMDK by its file; extents and parents must lie in the same folder or below it.

    Raises:
        VmdkError: it is damaged, unknown or not whole.
        DeviceError: a file cannot be read.
    """
    try:
        full = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise VmdkError(file=os.fspath(path), reason=f"cannot be opened: {error}") from error
    return open_disk(FolderFiles(full.parent), full.name)
