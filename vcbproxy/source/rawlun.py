"""The base of a disk that is a raw device mapping: a whole LUN, found by what manager, host and mapping say of it.

    manager:  lunUuid ─┐                    mapping on VMFS:  SCSI id, length
    its host: naa.…   ─┴─▶ LunInfo by WWN ─▶ must be the same LUN and as long ─▶ bytes from offset 0, all DATA

In virtual mode a VM snapshot freezes it as it freezes a flat file: the guest writes into a delta meanwhile. The LUN has
no metadata of ours to look at again, the mapping has: whoever takes another LUN makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

from vcbproxy.device import check_range
from vcbproxy.errors import VmdkError
from vcbproxy.extent import Extent, Kind
from vcbproxy.manager.disk import Disk, RawLun
from vcbproxy.san.lun import Lun
from vcbproxy.source.storage import DatastoreFiles, Storage
from vcbproxy.vmfs.mapping import DiskId, RawMapping


class MappedLun:
    """A LUN behind its mapping; a ``MappedDevice``. The LUN stays open: others may read it, too."""

    def __init__(self, lun: Lun, mapping: RawMapping) -> None:
        self._lun = lun
        self._mapping = mapping

    @property
    def name(self) -> str:
        """The mapping's path, and what the LUN is called here."""
        return f"{self._mapping.name} ({self._lun.name})"

    @property
    def size_bytes(self) -> int:
        """The LUN's."""
        return self._lun.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill the buffer off the LUN, or raise DeviceError."""
        check_range(self, offset, len(buf))
        self._lun.read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        """All DATA: an array does not tell what of a LUN was never written."""
        yield Extent(0, self.size_bytes, Kind.DATA)

    def recheck(self) -> None:
        """Look at the mapping again.

        Raises:
            Changed: it was made anew, or opened for writing.
            Relocked: only its lock changed hands.
        """
        self._mapping.recheck()


def open_mapped(storage: Storage, files: DatastoreFiles, disk: Disk, path: str) -> MappedLun:
    """Open the LUN behind the mapping at ``path``, the base of ``disk``.

    Raises:
        SourceError: the LUN is not the one, is not seen, or cannot be opened.
    """
    info = storage.raw_lun(disk)
    mapping = files.mapping(path)
    assert disk.raw_lun is not None, "storage.raw_lun found one"
    if not _same(mapping.disk_id, disk.raw_lun):
        reason = f"it maps the LUN with the SCSI id {mapping.disk_id.id.hex()}, the manager says {disk.raw_lun.uuid}"
        raise VmdkError(file=path, reason=f"{reason}: the mapping was made anew; run the backup again")
    if mapping.size_bytes != info.size_bytes:
        reason = f"it maps a LUN of {mapping.size_bytes} bytes, {info.name} has {info.size_bytes}"
        raise VmdkError(file=path, reason=f"{reason}; if the LUN was resized, remove and add the disk")
    return MappedLun(storage.open_raw(info), mapping)


def _same(mapped: DiskId, raw: RawLun) -> bool:
    """Whether the mapping's id is the one in the manager's uuid; of NAA ids only the name counts, not the model.

    A uuid of a form that is not known proves nothing either way: the host's name for it, and the size, must do.
    """
    if not raw.id:
        return True
    if raw.decoded is not None:
        return mapped.id.hex().startswith(raw.decoded.removeprefix("naa."))
    return mapped.id == raw.id
