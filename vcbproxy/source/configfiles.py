"""A VM's configuration files, as they lie beside its disks: .vmx, .nvram, .vmxf.

No snapshot freezes them. The host of a running VM rewrites them, in place or by a new file under the old name; then
what the old one lay in is soon another file's. So each is read twice, with a look at its descriptor and map between:

    open ─▶ read ─▶ recheck ─▶ read ─same─▶ kept
      ◀──────┴─ changed ────────┴─ another ─┘            a few times
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Protocol

from vcbproxy.device import MappedDevice, read
from vcbproxy.errors import Changed, Relocked, SourceError
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.source.storage import Storage
from vcbproxy.source.vmdisk import Rechecked
from vcbproxy.units import MiB

SIZE_MAX_BYTES = 16 * MiB
TRIES_MAX = 5


class Files(Protocol):
    """Opens files by their datastore path."""

    def open(self, path: str) -> MappedDevice:
        """Open a file.

        Raises:
            SourceError: it cannot be read.
        """


def read_config_file(files: Files, path: DatastorePath) -> bytes:
    """Read one small file whole, as it was at one moment.

    Raises:
        PathNotFound: there is none.
        Changed: it did not stand still.
        SourceError: it cannot be read, or is too large to be a configuration file.
    """
    for attempt in range(1, TRIES_MAX + 1):
        try:
            return _read_still(files, path)
        except Changed:
            if attempt == TRIES_MAX:
                raise
    raise AssertionError("unreachable")


def _read_still(files: Files, path: DatastorePath) -> bytes:
    with ExitStack() as stack:
        file = files.open(str(path))
        close = getattr(file, "close", None)
        if close is not None:
            stack.callback(close)
        if file.size_bytes > SIZE_MAX_BYTES:
            raise SourceError(f"{path} has {file.size_bytes} bytes: too large for a configuration file")
        found = read(file, 0, file.size_bytes)
        if not isinstance(file, Rechecked):
            raise Changed(file=file.name, reason="it cannot be looked at again, so nobody knows")
        with suppress(Relocked):  # as when the VM changes host; its bytes are looked at again all the same
            file.recheck()
        if read(file, 0, file.size_bytes) != found:
            raise Changed(file=file.name, reason="it was rewritten in place")
        return found


def vss_manifests(storage: Storage, vmx: DatastorePath) -> list[DatastorePath]:
    """What Windows' writers told when the guest was quiesced: ``web01-vss_manifests7.zip``, beside the .vmx.

    Hosts keep one there from the quiescing to the snapshot's removal; restoring applications by their writers needs it.
    """
    names = storage.files().names(vmx.directory)
    return [vmx.beside(name) for name in names if fnmatch.fnmatch(name, "*vss_manifests*.zip")]


def read_all(storage: Storage, paths: Iterable[DatastorePath]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Read the configuration files; those that cannot be had are named with the reason, and never made up.

    A running VM's host rewrites these small files, so one that does not stand still does not fail the disks.
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
