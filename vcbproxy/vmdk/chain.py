"""A virtual disk, whole: a chain of VMDKs from the newest snapshot down to its base, read as one device.

    web01-000002.vmdk   seSparse    parentCID=b ─┐
    web01-000001.vmdk   seSparse    CID=b ◀──────┘  parentCID=a ─┐
    web01.vmdk          vmfs        CID=a ◀──────────────────────┘  parentCID=ffffffff

Each child holds the CID that its parent had when the child was made; a parent that was written since has another one,
and the two no longer belong together: what they would read as is nobody's disk, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from vcbproxy.device import MappedDevice, check_range
from vcbproxy.errors import VmdkError
from vcbproxy.extent import Extent, merged, tiled
from vcbproxy.vmdk import c_vmdk
from vcbproxy.vmdk.files import Files, FolderFiles
from vcbproxy.vmdk.layer import Gap, zero
from vcbproxy.vmdk.link import Link
from vcbproxy.vmdk.opener import Opener, RawLunOpener, no_raw_lun
from vcbproxy.vmdk.overlay import overlay

__all__ = ["Files", "FolderFiles", "VirtualDisk", "open_disk"]


class VirtualDisk:
    """A virtual disk as the guest sees it. A `MappedDevice`; several threads may read at once."""

    def __init__(self, links: Sequence[Link], files: Sequence[MappedDevice], stack: ExitStack) -> None:
        self.links = tuple(links)
        """Newest first, the base last."""
        self.files = tuple(files)
        """Every file that was opened for it, descriptors too: for whoever must look again after the copy."""
        self._stack = stack

    @property
    def name(self) -> str:
        """The path of the newest link."""
        return self.links[0].path

    @property
    def size_bytes(self) -> int:
        """The capacity."""
        return self.links[0].size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill from the newest link, then what it leaves from its parent, and so on; below the base are zeroes."""
        check_range(self, offset, len(buf))
        gaps = [Gap(offset, len(buf))] if len(buf) else []
        for link in self.links:
            if not gaps:
                return
            gaps = [
                below
                for gap in gaps
                for below in link.fill(gap.start, buf[gap.start - offset : gap.start - offset + gap.length])
            ]
        for gap in gaps:
            zero(buf[gap.start - offset : gap.start - offset + gap.length])

    def extents(self) -> Iterator[Extent]:
        """DATA where a link holds bytes, ZERO where the newest link that knows promises zeroes, or none knows."""
        return tiled(merged(overlay([link.tiles() for link in self.links], self.size_bytes)), self.size_bytes)

    def recheck(self) -> None:
        """Read descriptors, headers, directories and tables again, past every cache.

        Where the files lie, and whether they grew, is what each of ``files`` tells for itself.

        Raises:
            Changed: somebody rewrote them since they were first read; nothing that was read may be kept.
            SourceError: they cannot be read.
        """
        for link in self.links:
            link.recheck()

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_disk(files: Files, path: str, raw_lun: RawLunOpener = no_raw_lun) -> VirtualDisk:
    """Open the disk whose newest link's descriptor is at ``path``, with all its parents.

    Args:
        files: where they lie.
        path: the newest link's.
        raw_lun: opens the LUN behind a raw device mapping, by the mapping's path.

    Raises:
        VmdkError: a descriptor, an extent or the chain is damaged, unknown or not whole.
        SourceError: a file is missing or cannot be read.
    """
    with ExitStack() as stack:
        opener = Opener(files, stack, raw_lun)
        links = [opener.link(path)]
        seen = {path}
        while (hint := links[-1].descriptor.parent_hint) is not None:
            parent_path = files.resolve(links[-1].path, hint)
            if parent_path in seen:
                raise VmdkError(file=links[-1].path, reason=f"its parent {parent_path} is one of its own descendants")
            if len(links) >= c_vmdk.MAX_LINKS:
                raise VmdkError(file=path, reason=f"its chain has more than {c_vmdk.MAX_LINKS} links")
            seen.add(parent_path)
            parent = opener.link(parent_path)
            _check_pair(links[-1], parent)
            links.append(parent)
        return VirtualDisk(links, opener.opened, stack.pop_all())


def _check_pair(child: Link, parent: Link) -> None:
    """Do these two belong together?

    Raises:
        VmdkError: the parent was written after the child was made, or is another disk.
    """
    if child.parent_cid != parent.cid:
        reason = (
            f"it was made on a parent with CID {child.parent_cid:08x}, but {parent.path} has CID {parent.cid:08x}:"
            " the parent was written since, or is another disk"
        )
        raise VmdkError(file=child.path, reason=reason, child=child.path, parent=parent.path)
    if child.size_bytes != parent.size_bytes:
        reason = f"it has {child.size_bytes} bytes, but its parent {parent.path} has {parent.size_bytes}"
        raise VmdkError(file=child.path, reason=reason, child=child.path, parent=parent.path)
