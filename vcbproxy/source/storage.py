"""Where the manager's datastores lie on this proxy, and their files, opened by datastore path.

    manager:  datastore san1 ── uuid 5f0e…, extents naa.600144f0…1, naa.600144f0…2
                                  │                  │
    proxy:    LUNs by WWN ──── dm-3, dm-4 ──▶ Volume (must carry that UUID)

Names and WWNs only help to find the devices; what decides is the UUID read from the volume itself. When no LUN carries
the name that the manager gives (image files, arrays that hide it), every LUN without a known WWN is looked at.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from vcbproxy.device import MappedDevice
from vcbproxy.errors import LvmError, SourceError, VmdkError
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath
from vcbproxy.manager.disk import Disk
from vcbproxy.san import naa
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.lun import Lun
from vcbproxy.san.opened import OpenLuns
from vcbproxy.san.patience import Patience
from vcbproxy.source.mounted import MountedFile
from vcbproxy.vmdk.paths import resolve_inside
from vcbproxy.vmfs import probe
from vcbproxy.vmfs.mapping import RawMapping
from vcbproxy.vmfs.volume import Volume


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one datastore lies here: its LUNs, or its mount; or what is missing."""

    datastore: Datastore
    luns: tuple[LunInfo, ...] = ()
    mount: Path | None = None
    missing: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    namesakes: tuple[str, ...] = ()

    @property
    def reachable(self) -> bool:
        """Whether its files can be read by this proxy."""
        if self.namesakes:
            return False
        return self.mount is not None or (bool(self.luns) and not self.missing)

    @property
    def remedy(self) -> str:
        """What to do when it is not."""
        kind = self.datastore.kind
        if self.namesakes:
            return (
                f"the manager has several datastores of that name ({', '.join(self.namesakes)}), and does not say which"
                " is meant: rename all but one"
            )
        if not kind.readable:
            return f"{kind.why_not}; its VMs cannot be read off the SAN"
        if kind is not DatastoreKind.VMFS:
            where = f"{self.datastore.nfs_host}:{self.datastore.nfs_path}"
            return f"mount {where} read-only on this proxy and name it under [san] mounts"
        if self.twins:
            clones = ", ".join(self.twins)
            return f"{clones} all pass for {self.missing[0]}: which is live cannot be told; unmap the copies"
        return f"map {', '.join(self.missing) or 'its LUNs'} to this proxy, read-only"


class Storage:
    """The datastores of one manager as one job run sees them. Opened late, closed at the end of the ``with``.

    Args:
        datastores: what the manager knows.
        luns: what this proxy sees.
        mounts: where datastores are mounted here, by name.
        opened: opens the LUNs, and says how long to wait for them and for mounts; closed with this.
    """

    def __init__(
        self,
        datastores: Sequence[Datastore],
        luns: Sequence[LunInfo],
        mounts: Mapping[str, Path],
        opened: OpenLuns | None = None,
    ) -> None:
        self._all = tuple(datastores)
        self._datastores = {datastore.name: datastore for datastore in datastores}
        self._namesakes = {
            name: tuple(sorted(datastore.moref for datastore in datastores if datastore.name == name))
            for name, count in Counter(datastore.name for datastore in datastores).items()
            if count > 1
        }
        self._luns = [lun for lun in luns if lun.kind is not LunKind.PARTITION]
        self._mounts = dict(mounts)
        self._opened = opened or OpenLuns()
        self._members: dict[str, probe.Member | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def seen_by(self, disks: Iterable[Disk]) -> Storage:
        """The same storage, as the VM with these disks means it: of datastores of one name, the one that it lies on.

        Names are unique in a datacenter, and a VM lies in one. By the references in its disks' backings it is told
        which. Only VMFS is told apart so: a mount is configured by name. Opened and closed with this one.
        """
        homes: dict[str, set[str]] = {}
        for name, moref in (home for disk in disks for home in disk.homes if home[0] in self._namesakes):
            homes.setdefault(name, set()).add(moref)
        meant = {
            datastore.name: datastore
            for datastore in self._all
            if homes.get(datastore.name) == {datastore.moref} and datastore.kind is DatastoreKind.VMFS
        }
        if not meant:
            return self
        known = [datastore for datastore in self._all if meant.get(datastore.name, datastore) is datastore]
        mounts = {name: path for name, path in self._mounts.items() if name not in meant}
        return Storage(known, self._luns, mounts, self._opened)

    @property
    def patience(self) -> Patience:
        """How long its LUNs and mounts are waited for; its ``interrupt`` ends all waiting."""
        return self._opened.patience

    def datastore(self, name: str) -> Datastore:
        """The datastore of that name.

        Raises:
            SourceError: the manager knows none.
        """
        if name not in self._datastores:
            raise SourceError(f"the manager knows no datastore {name!r}")
        return self._datastores[name]

    def place(self, name: str) -> Placement:
        """Find where a datastore lies here; what is missing is part of the answer, not an error."""
        datastore = self.datastore(name)
        if name in self._namesakes:
            # Names are unique in a datacenter, not in a vCenter. The wrong one may well hold a VM of the same name.
            return Placement(datastore, namesakes=self._namesakes[name])
        if name in self._mounts:
            return Placement(datastore, mount=self._mounts[name])
        if datastore.kind is not DatastoreKind.VMFS:
            return Placement(datastore)
        found: list[LunInfo] = []
        missing: list[str] = []
        for extent in datastore.extents:
            wanted = naa.bare(extent.disk_name)
            match = [lun for lun in self._luns if lun.wwn and lun.wwn == wanted]
            if len(match) > 1:
                twins = tuple(lun.name for lun in match)
                return Placement(datastore, missing=(extent.disk_name,), twins=twins)
            found.extend(match)
            if not match:
                missing.append(extent.disk_name)
        if missing:
            return self._by_uuid(datastore, found, missing)
        return Placement(datastore, luns=tuple(found))

    def _by_uuid(self, datastore: Datastore, found: list[LunInfo], missing: list[str]) -> Placement:
        """Look for a datastore's volume on the LUNs that have no WWN."""
        unknown = [lun for lun in self._luns if not lun.wwn]
        members = [(lun, self._member(lun)) for lun in unknown]
        matching = [lun for lun, member in members if member is not None and member.uuid == datastore.vmfs_uuid]
        lvm_uuids = {m.lvm_uuid for lun, m in members if m is not None and lun in matching}
        lvm_uuids |= {m.lvm_uuid for m in map(self._member, found) if m is not None}
        parts: dict[int, list[LunInfo]] = {}
        for lun, m in members:
            if m is not None and m.lvm_uuid in lvm_uuids:
                parts.setdefault(m.first_byte, []).append(lun)
        twins = next((tuple(lun.name for lun in same) for same in parts.values() if len(same) > 1), ())
        spans = [lun for same in parts.values() for lun in same]
        # Which of the names a nameless span answers to cannot be told, only whether there are enough of them.
        # Opening the volume then proves that they are the right ones.
        still = () if len(spans) == len(missing) and not twins else tuple(missing)
        return Placement(datastore, luns=(*found, *spans), missing=still, twins=twins)

    def _member(self, lun: LunInfo) -> probe.Member | None:
        if lun.path not in self._members:
            try:
                self._members[lun.path] = probe.probe(self._opened.get(lun))
            except SourceError:
                # Not every LUN here is ours to judge. If it was the one we look for, it is named as missing.
                self._members[lun.path] = None
        return self._members[lun.path]

    def volume(self, name: str) -> Volume:
        """Read a datastore's volume afresh: metadata are never kept from one look to the next.

        Raises:
            LvmError: LUNs are missing, or carry another volume.
        """
        place = self.place(name)
        if not place.reachable:
            raise LvmError(device=f"datastore {name}", reason=f"not readable here: {place.remedy}")
        wanted = place.datastore.vmfs_uuid or ""
        volume = Volume.open_named([self._opened.get(lun) for lun in place.luns], wanted)
        if volume.uuid != wanted:
            reason = f"its LUNs carry volume {volume.uuid}, the manager says {wanted or 'none'}"
            raise LvmError(device=f"datastore {name}", reason=reason)
        return volume

    def files(self) -> DatastoreFiles:
        """The files of all datastores; volumes are read once for this one view."""
        return DatastoreFiles(self)

    def mount(self, name: str) -> Path | None:
        """Where a datastore is mounted here, if it is, and if it can be told which is meant."""
        return None if name in self._namesakes else self._mounts.get(name)

    def raw_lun(self, disk: Disk) -> LunInfo:
        """The LUN behind a raw device mapping, held to what the manager says of it; nothing is opened.

        Raises:
            SourceError: it is not told, not seen here, seen twice, or of another size than the disk.
        """
        raw = disk.raw_lun
        if raw is None or raw.name is None:
            raise SourceError(
                "it is a raw device mapping, and neither the manager nor the VM's host names its LUN; see that the host"
                " is connected and sees it, and that our user may look at the host"
            )
        if raw.told is not None and raw.decoded is not None and naa.bare(raw.told) != naa.bare(raw.decoded):
            reason = f"it is a raw device mapping of {raw.decoded} by its backing, of {raw.told} by the VM's host"
            raise SourceError(f"{reason}, and which is meant cannot be told; rescan storage on that host")
        found = [lun for lun in self._luns if lun.wwn and lun.wwn == naa.bare(raw.name)]
        if not found:
            raise SourceError(
                f"it is a raw device mapping of LUN {raw.name}, which is not seen here; map that LUN to this proxy,"
                " read-only (one that this machine itself has mounted, or holds in LVM, is not read)"
            )
        if len(found) > 1:
            names = ", ".join(lun.name for lun in found)
            raise SourceError(f"{names} all pass for {raw.name}: which is live cannot be told; unmap the copies")
        if found[0].size_bytes != disk.capacity_bytes:
            raise SourceError(
                f"it is a raw device mapping of LUN {raw.name}, which has {found[0].size_bytes} bytes here, and the"
                f" manager says {disk.capacity_bytes}; rescan it here, or remove and add the disk if it was resized"
            )
        return found[0]

    def open_raw(self, lun: LunInfo) -> Lun:
        """A LUN that is mapped raw, open; it is not the caller's to close.

        Raises:
            CannotOpen: it cannot be opened.
        """
        return self._opened.get(lun)

    def named(self, name_or_uuid: str) -> str:
        """The datastore's name, given its name or the UUID that ``/vmfs/volumes`` uses.

        Raises:
            VmdkError: the manager knows neither.
        """
        for datastore in self._datastores.values() if name_or_uuid else ():  # NFS datastores have no UUID
            if name_or_uuid in (datastore.name, datastore.vmfs_uuid) or name_or_uuid == posixpath.basename(
                datastore.url.rstrip("/")
            ):
                return datastore.name
        raise VmdkError(file=f"/vmfs/volumes/{name_or_uuid}", reason="the manager knows no such datastore")


class DatastoreFiles:
    """Opens ``[datastore] directory/file`` for the vmdk reader, and resolves what descriptors point at."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._volumes: dict[str, Volume] = {}

    def open(self, path: str) -> MappedDevice:
        """Open a file by its datastore path.

        Raises:
            SourceError: the datastore is not readable here, or has no such file.
        """
        where = DatastorePath.parse(path)
        mount = self._storage.mount(where.datastore)
        if mount is not None:
            return MountedFile(mount, where.path, path, self._storage.patience)
        return self._volume(where.datastore).open_file(where.path)

    def mapping(self, path: str) -> RawMapping:
        """Open a raw device mapping by its datastore path.

        Raises:
            SourceError: its datastore is not readable here or can hold none, or there is no such mapping.
        """
        where = DatastorePath.parse(path)
        if self._storage.mount(where.datastore) is not None:
            raise VmdkError(file=path, reason="a raw device mapping can only lie on VMFS, and this is a mount")
        return self._volume(where.datastore).open_mapping(where.path)

    def names(self, directory: DatastorePath) -> list[str]:
        """What lies in a directory, by name.

        Raises:
            SourceError: the datastore is not readable here, or has no such directory.
        """
        mount = self._storage.mount(directory.datastore)
        if mount is None:
            return sorted(entry.name for entry in self._volume(directory.datastore).entries(directory.path))
        try:
            return sorted(entry.name for entry in (mount / directory.path).iterdir())
        except OSError as error:
            raise SourceError(f"cannot list {directory}: {error.strerror}") from error

    def _volume(self, datastore: str) -> Volume:
        if datastore not in self._volumes:
            self._volumes[datastore] = self._storage.volume(datastore)
        return self._volumes[datastore]

    def resolve(self, base_path: str, reference: str) -> str:
        """Follow a reference found in the descriptor at ``base_path``.

        Raises:
            VmdkError: it leads out of its datastore, or to one the manager does not know.
        """
        if reference.startswith("/vmfs/volumes/"):
            volume = reference.removeprefix("/vmfs/volumes/").partition("/")[0]
            return str(DatastorePath(self._storage.named(volume), resolve_inside("", reference, (volume,))))
        base = DatastorePath.parse(base_path)
        return str(DatastorePath(base.datastore, resolve_inside(base.path, reference)))
