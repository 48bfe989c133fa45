"""One disk of one VM as a snapshot froze it.

Order (a shared LUN changes under us):

    snapshot exists → open (descriptors, maps, self-checks) → copy → recheck (descriptors and maps again) → release

The metadata that hosts keep in their journals settle shortly after the snapshot was made, so opening is tried a few
times; after the copy ``recheck`` reads the file descriptors and maps again, those of VMFS and then what the VMDKs hold
of their own (descriptor texts, grain directories and tables), and what differs fails the disk.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from vcbproxy.clock import Clock
from vcbproxy.errors import Changed, Relocked, SourceError, VmdkError
from vcbproxy.extent import Extent
from vcbproxy.manager.disk import Disk, DiskKind
from vcbproxy.source.rawlun import open_mapped
from vcbproxy.source.storage import Storage
from vcbproxy.vmdk.chain import VirtualDisk, open_disk

OPEN_TRIES_MAX = 4
SETTLE_S = 0.5


@runtime_checkable
class Rechecked(Protocol):
    """A file that can tell whether it is still what it was when it was opened."""

    def recheck(self) -> None:
        """Look again.

        Raises:
            Changed: it is not.
            Relocked: it is, but its lock changed hands.
        """


class VmDisk:
    """A frozen disk: a MappedDevice that can say whether it stayed frozen."""

    def __init__(self, disk: Disk, chain: VirtualDisk) -> None:
        self.disk = disk
        self._chain = chain

    @property
    def name(self) -> str:
        """The newest link's datastore path."""
        return self._chain.name

    @property
    def size_bytes(self) -> int:
        """The capacity."""
        return self._chain.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill the buffer, or raise SourceError."""
        self._chain.read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        """DATA and ZERO, tiling the disk."""
        return self._chain.extents()

    @property
    def links(self) -> tuple[str, ...]:
        """The chain's descriptors, newest first."""
        return tuple(link.path for link in self._chain.links)

    def recheck(self) -> None:
        """Prove that nothing it was read from changed since it was opened.

        Raises:
            Changed: something did: nothing that was read may be kept.
            Relocked: nothing did, but locks changed hands: it may be kept if the manager says that it was frozen.
        """
        relocked: Relocked | None = None
        for file in self._chain.files:
            if not isinstance(file, Rechecked):
                raise Changed(file=file.name, reason="it cannot be looked at again, so nobody knows")
            try:
                file.recheck()
            except Relocked as error:
                relocked = error
        self._chain.recheck()
        if relocked is not None:
            raise relocked

    def close(self) -> None:
        """Close the files below."""
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_vm_disk(storage: Storage, disk: Disk, clock: Clock) -> VmDisk:
    """Open a snapshot's disk, tried again while the hosts' metadata settle.

    Raises:
        SourceError: it cannot be read, or is not the disk that the manager described.
    """
    for attempt in range(1, OPEN_TRIES_MAX + 1):
        try:
            return _open(storage, disk)
        except SourceError:
            if attempt == OPEN_TRIES_MAX:
                raise
            clock.sleep(SETTLE_S * attempt)
    raise AssertionError("unreachable")


def _open(storage: Storage, disk: Disk) -> VmDisk:
    storage = storage.seen_by([disk])
    files = storage.files()
    chain = open_disk(files, str(disk.path), partial(open_mapped, storage, files, disk))
    try:
        _check(disk, chain)
        if len(chain.links) > 1:
            # Deltas have maps of their own. One that grew as it was frozen may have its tables on the LUN, and not yet
            # its length: that must show while there is time to look again, and what is damaged before the copying.
            collections.deque(chain.extents(), maxlen=0)
    except BaseException:
        chain.close()
        raise
    return VmDisk(disk, chain)


def _check(disk: Disk, chain: VirtualDisk) -> None:
    """Hold what the descriptors say to what the host that runs the VM says of the same disk.

    Raises:
        VmdkError: they do not describe one disk.
    """
    if chain.size_bytes != disk.capacity_bytes:
        reason = f"it holds {chain.size_bytes} bytes, the manager says {disk.capacity_bytes}"
        raise VmdkError(file=str(disk.path), reason=reason)
    if chain.links[-1].is_raw_map != (disk.kind is DiskKind.RDM_VIRTUAL):
        reason = f"its base is of type {chain.links[-1].kind}, and the manager says {disk.kind.value}"
        raise VmdkError(file=str(disk.path), reason=reason)
    parents = [link.path for link in chain.links[1:]]
    if disk.parents and parents != [str(path) for path in disk.parents]:
        told = ", ".join(map(str, disk.parents))
        reason = f"its parents are {', '.join(parents) or 'none'} by the descriptors; the manager says {told}"
        raise VmdkError(file=str(disk.path), reason=reason)
