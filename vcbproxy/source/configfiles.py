"""A VM's configuration files, as they lie beside its disks: .vmx, .nvram, .vmxf."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from vcbproxy.device import read
from vcbproxy.errors import SourceError
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.source.storage import DatastoreFiles, Storage
from vcbproxy.units import MiB

SIZE_MAX_BYTES = 16 * MiB


def read_config_file(files: DatastoreFiles, path: DatastorePath) -> bytes:
    """Read one small file whole.

    Raises:
        PathNotFound: there is none.
        SourceError: it cannot be read, or is too large to be a configuration file.
    """
    file = files.open(str(path))
    try:
        if file.size_bytes > SIZE_MAX_BYTES:
            raise SourceError(f"{path} has {file.size_bytes} bytes: too large for a configuration file")
        return read(file, 0, file.size_bytes)
    finally:
        close = getattr(file, "close", None)
        if close is not None:
            close()


def vss_manifests(storage: Storage, vmx: DatastorePath) -> list[DatastorePath]:
    """What Windows' writers told when the guest was quiesced: ``web01-vss_manifests7.zip``, beside the .vmx.

    Hosts keep one there from the quiescing to the snapshot's removal; restoring applications by their writers needs it.
    """
    names = storage.files().names(vmx.directory)
    return [vmx.beside(name) for name in names if fnmatch.fnmatch(name, "*vss_manifests*.zip")]


def read_all(storage: Storage, paths: Iterable[DatastorePath]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Read the configuration files; those that cannot be had are named with the reason, and never made up.

    A running VM's host rewrites these small files in place, so one that cannot be read does not fail the disks.
    """
    files = storage.files()
    found: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    for path in paths:
        try:
            found[path.name] = read_config_file(files, path)
        except SourceError as error:
            failed[path.name] = str(error)
    return found, failed
