"""A raw device mapping: a name on the volume for a whole other LUN, whose bytes are the disk's.

    web01_1-rdm.vmdk    file descriptor of type RDM, without blocks: length = the LUN's size, and where a small file
                        has its bytes, the SCSI id of the LUN
                          0  kind   2  LUN  │ 5 level │ 6 vendor │ 14 model │ 30 rev. │ 34 id, 44 bytes
                          1  length 4  device type                                      └ the first ``length`` are valid

Kinds of id, as in the ``vml.`` names that hosts make of it (Broadcom KB 320217): 1 serial number, 2 NAA, 3 Symmetrix;
the last six bytes of it are of the model. Mappings made by ESXi in 2025 look so, on VMFS-5 and -6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vcbproxy.errors import VmfsError
from vcbproxy.vmfs import runs
from vcbproxy.vmfs.file import VmfsFile
from vcbproxy.vmfs.inode import Inode

_ID_AT = 34


@dataclass(frozen=True, slots=True)
class DiskId:
    """The SCSI id of a LUN, as the host that made the mapping saw it."""

    kind: int
    id: bytes

    @classmethod
    def parse(cls, raw: bytes) -> DiskId | None:
        """Decode it; None when no id can be so."""
        length = raw[1] if len(raw) > _ID_AT else 0
        if not raw[:1].strip(b"\0") or not 0 < length <= len(raw) - _ID_AT:
            return None
        return cls(raw[0], raw[_ID_AT : _ID_AT + length])


class RawMapping:
    """An open mapping; it has no bytes of its own, and can tell whether it is still what it was."""

    def __init__(self, volume_label: str, inode: Inode, again: Callable[[], Inode]) -> None:
        """Take it as ``Volume.open_mapping`` found it.

        Raises:
            VmfsError: it names no LUN.
        """
        found = DiskId.parse(inode.resident)
        if found is None:
            reason = "is a raw device mapping that names no LUN"
            raise VmfsError(volume=volume_label, file=inode.name, reason=reason, offset=inode.offset)
        self.disk_id = found
        self.size_bytes = inode.length
        """The LUN's, when the mapping was made."""
        nothing = runs.of_one(0, 0, 0)
        self._file = VmfsFile(inode.name, volume_label, (), (inode, nothing), lambda: (again(), nothing))

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._file.name

    def recheck(self) -> None:
        """Read the file descriptor again.

        Raises:
            Changed: someone made the mapping anew, deleted it, or opened it for writing.
            Relocked: all is as it was, but for the lock.
        """
        self._file.recheck()
