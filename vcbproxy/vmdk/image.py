"""Exported disks in files of this machine: what ovftool, qemu-img or a download left in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from vcbproxy.vmdk.chain import VirtualDisk, open_disk
from vcbproxy.vmdk.files import FolderFiles


def open_image(path: str | os.PathLike[str]) -> VirtualDisk:
    """Open a VMDK by its file; extents and parents must lie in the same folder or below it.

    Raises:
        VmdkError: it is damaged, unknown or not whole.
        DeviceError: a file cannot be read.
    """
    full = Path(path)
    return open_disk(FolderFiles(full.parent), full.name)
