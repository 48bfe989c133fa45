"""Datastores, and paths on them, as the manager names them.

    [san-lun-3] web01/web01-000001.vmdk          a datastore path
     └ name ──┘ └ path inside the volume ┘

A datastore's name is only a name; what ties it to a volume on our LUNs is the VMFS UUID, and what helps to find the
LUNs are the extents' canonical names (``naa.…``).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from enum import Enum

from vcbproxy.errors import ManagerError

_PATH = re.compile(r"\[(?P<datastore>[^\[\]\0]+)\] ?(?P<path>[^\0]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DatastorePath:
    """A file or directory on a datastore: ``[datastore] directory/file``."""

    datastore: str
    path: str

    @classmethod
    def parse(cls, text: str) -> DatastorePath:
        """Read ``[datastore] directory/file``.

        Raises:
            ManagerError: it is not one, or it leads out of the datastore.
        """
        match = _PATH.fullmatch(text)
        if match is None:
            raise ManagerError(f"not a datastore path: {text!r}")
        path = match["path"]
        if path.startswith("/") or ".." in path.split("/"):
            raise ManagerError(f"the datastore path {text!r} leads out of its datastore; not followed")
        return cls(match["datastore"], path.rstrip("/"))

    def __str__(self) -> str:
        return f"[{self.datastore}] {self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def directory(self) -> DatastorePath:
        """What it lies in."""
        return DatastorePath(self.datastore, posixpath.dirname(self.path))

    def beside(self, name: str) -> DatastorePath:
        """A file of another name in the same directory.

        Raises:
            ManagerError: the name leads elsewhere.
        """
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise ManagerError(f"{name!r} is not a file name beside {self}")
        return DatastorePath(self.datastore, posixpath.join(posixpath.dirname(self.path), name))


class DatastoreKind(Enum):
    """What a datastore is made of, hence whether and how its files can be read by us."""

    VMFS = "VMFS"
    NFS = "NFS"
    NFS41 = "NFS41"
    VSAN = "vSAN"
    VVOL = "vVol"
    PMEM = "PMEM"
    OTHER = "other"
    UNTOLD = "not told"  # it is in the inventory, and we may not look into it

    @property
    def readable(self) -> bool:
        """Whether its files can be read off LUNs or a mount."""
        return self in (DatastoreKind.VMFS, DatastoreKind.NFS, DatastoreKind.NFS41)

    @property
    def why_not(self) -> str:
        """Why its files cannot be read, for one whose files cannot."""
        if self is DatastoreKind.UNTOLD:
            return "the manager does not tell what it is: give this user the role Read-only on it"
        return f"it is {self.value}: there are no files on a LUN to read"


@dataclass(frozen=True, slots=True)
class VmfsExtent:
    """One LUN partition that carries a part of a VMFS volume; partition 0 is the whole disk."""

    disk_name: str
    partition: int


@dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore as the manager describes it."""

    moref: str
    name: str
    kind: DatastoreKind
    url: str
    capacity_bytes: int
    free_bytes: int
    accessible: bool
    vmfs_uuid: str | None = None
    vmfs_version: str | None = None
    extents: tuple[VmfsExtent, ...] = ()
    nfs_host: str | None = None
    nfs_path: str | None = None
