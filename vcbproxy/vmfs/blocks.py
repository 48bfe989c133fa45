"""Maps a file: where in the volume its bytes lie, by its layout, with every check that the format allows.

In: an inode, and the resource files its pointers refer to. Out: a run map over the volume (device 0). A zero
pointer anywhere on the way is a hole, and a block to be zeroed reads as zeroes whatever the disk holds. Promised:
every pointer is of a type its layout calls for and lies inside the volume, no block is used twice, and there are as
many blocks, and as many to be zeroed, as the file descriptor says; else ``VmfsError``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vcbproxy.device import Device
from vcbproxy.errors import Unreadable, VmfsError
from vcbproxy.vmfs import address, c_vmfs, inode, runs
from vcbproxy.vmfs.address import Kind, Mask, Raw
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.inode import FileType, Inode, Layout
from vcbproxy.vmfs.layout import Offsets
from vcbproxy.vmfs.pieces import PIECES_MAX, Pieces
from vcbproxy.vmfs.pointers import Descent, Resources, check_kinds

_SUB_BLOCK_UNIT = (512, 16)  # sub-blocks have up to 16 MiB
_LENGTH_MAX = 1 << 60


def map_of(volume: Device, fs: FileSystem, file: Inode, resources: Resources) -> runs.RunMap:
    """Where each byte of a file lies in the volume.

    Raises:
        Unreadable: a raw device mapping, which has no bytes here.
        VmfsError: a self-check failed.
    """
    if file.type is FileType.RDM:
        reason = "is a raw device mapping: its data are on the LUN it points to, not on this volume; back up that LUN"
        raise Unreadable(volume=fs.name, file=file.name, reason=reason)
    match file.layout:
        case Layout.RESIDENT:
            return _resident(fs, file)
        case Layout.NONE:
            if file.length or file.blocks:
                raise inode.damaged(fs, file, "it has a length but no block layout (ZLA 0)")
            return runs.of_one(0, 0, 0)
        case Layout.SUB_BLOCKS:
            return _sub_blocks(fs, file, resources)
        case _:
            return _FileBlocks(volume, fs, file, resources).map()


def _resident(fs: FileSystem, file: Inode) -> runs.RunMap:
    room = fs.fd_bytes - fs.resident_offset
    if file.length > room:
        reason = f"{file.length} bytes are said to lie in its file descriptor, which has room for {room}"
        raise inode.damaged(fs, file, reason)
    return runs.of_one(0, file.offset + fs.resident_offset, file.length)


def _sub_blocks(fs: FileSystem, file: Inode, resources: Resources) -> runs.RunMap:
    array = file.pointers(fs)
    numbers = np.flatnonzero(array)
    raw = array[numbers]
    check_kinds(fs, file, raw, (Kind.SUB_BLOCK,))
    source = resources(Kind.SUB_BLOCK)
    step = source.item_bytes
    if file.block_size_bytes != step:
        raise inode.damaged(fs, file, f"its block size is {file.block_size_bytes}, that of {source.name} {step}")
    _check_room(fs, file, len(array) * step)
    places = source.offsets(*address.resource(raw, Kind.SUB_BLOCK, fs.pointer_bytes), file.name)
    rows = [
        (number * step + piece.file_offset, piece.length, piece.device_offset)
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
        for piece in source.pieces(place, file.name)
    ]
    columns = np.array(rows, np.int64).reshape(-1, 3)
    found = Pieces(*_SUB_BLOCK_UNIT)
    found.add(columns[:, 0], columns[:, 1], columns[:, 2], np.zeros(len(rows), bool))
    return _checked(fs, file, found, [(len(raw), 0)])


def _check_room(fs: FileSystem, file: Inode, room: int) -> None:
    if file.length > min(room, _LENGTH_MAX):
        raise inode.damaged(fs, file, f"its length is {file.length}, but its layout can hold {room} bytes")


def _checked(fs: FileSystem, file: Inode, found: Pieces, counts: Sequence[tuple[int, int]]) -> runs.RunMap:
    """Counts (blocks, and those to be zeroed) as the descriptor says, nothing used twice; then a map."""
    if (file.blocks, file.blocks_tbz) not in counts:
        for what, counted, said in zip(
            ("blocks", "blocks to be zeroed"), counts[0], (file.blocks, file.blocks_tbz), strict=True
        ):
            if counted != said:
                raise inode.damaged(fs, file, f"{counted} {what} were found, its file descriptor says {said}")
    twice = found.shared()
    if twice is not None:
        raise inode.damaged(fs, file, "one of its blocks is used twice", twice)
    return found.tiled(file.length)


class _LargeTally:
    """Counts the large blocks among pointers, and by how many the pointers to them outnumber them."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self._tbz: set[int] = set()
        self._pointers = 0
        self._pointers_tbz = 0

    def add(self, raw: Raw, zeroed: Mask) -> None:
        """Take in one batch."""
        large = address.kinds(raw) == Kind.LARGE_BLOCK
        if large.any():
            numbers, _ = address.large_block(raw)
            self._pointers += int(np.count_nonzero(large))
            self._pointers_tbz += int(np.count_nonzero(large & zeroed))
            self.seen.update(np.unique(numbers[large]).tolist())
            self._tbz.update(np.unique(numbers[large & zeroed]).tolist())

    @property
    def spare(self) -> int:
        """How many pointers there are beyond one for each."""
        return self._pointers - len(self.seen)

    @property
    def spare_tbz(self) -> int:
        """The same of those to be zeroed."""
        return self._pointers_tbz - len(self._tbz)


class _FileBlocks:
    """One pass over a file that lies in file blocks, directly or behind pointer blocks."""

    def __init__(self, volume: Device, fs: FileSystem, file: Inode, resources: Resources) -> None:
        self._fs = fs
        self._file = file
        self._descent = Descent(volume, fs, file, resources)
        self._blocks = 0
        self._blocks_tbz = 0
        self._tally = _LargeTally()
        self._slots: Counter[int] = Counter()  # of ranges as long as a large block, how many blocks they have
        self._large_groups: set[int] = set()  # which of them a large block backs

    def map(self) -> runs.RunMap:
        """Decode batch after batch, then check the whole."""
        _check_room(self._fs, self._file, self._descent.slots * self._file.block_size_bytes)
        size = self._file.block_size_bytes
        found = Pieces(self._fs.block_size_bytes, 32)
        pieces_max = min(PIECES_MAX, self._fs.size_bytes // self._fs.block_size_bytes)
        for numbers, raw in self._descent.leaves():
            places, zeroed = self._places(numbers, raw)
            if int(places.max()) + size > self._fs.size_bytes:
                raise self._error("one of its blocks lies past the end of the volume", int(places.max()))
            self._count(numbers, zeroed)
            self._tally.add(raw, zeroed)
            found.add_blocks(numbers, places, zeroed, size)
            if len(found) > pieces_max:
                blocks = self._fs.size_bytes // self._fs.block_size_bytes
                raise self._error(f"it lies in {len(found)} pieces, the volume has {blocks} blocks")
        counts = [(self._blocks, self._blocks_tbz)]
        if self._file.blocks_large and self._file.blocks_large == len(self._tally.seen):
            # No ESXi-made sample tells whether a large block counts once, or once for each small one it stands for.
            counts.append((self._blocks - self._tally.spare, self._blocks_tbz - self._tally.spare_tbz))
        done = _checked(self._fs, self._file, found, counts)
        self._check_large_groups(done)
        return done

    def _count(self, numbers: Offsets, zeroed: Mask) -> None:
        if (int(numbers[-1]) + 1) * self._file.block_size_bytes > _LENGTH_MAX:
            raise self._error(f"block {int(numbers[-1])} lies farther out than any file reaches")
        self._blocks += len(numbers)
        self._blocks_tbz += int(np.count_nonzero(zeroed))
        if self._fs.large_block_bytes:
            starts = numbers * self._file.block_size_bytes
            inside = starts[starts < self._file.length]
            groups, counts = np.unique(inside // self._fs.large_block_bytes, return_counts=True)
            self._slots.update(dict(zip(groups.tolist(), counts.tolist(), strict=True)))

    def _places(self, numbers: Offsets, raw: Raw) -> tuple[Offsets, Mask]:
        """Where in the volume blocks lie, and which of them are to be zeroed."""
        if self._fs.pointer_bytes == 4:
            check_kinds(self._fs, self._file, raw, (Kind.FILE_BLOCK,))
            number, zeroed = address.file_block_32(raw)
            return self._block_places(number), zeroed
        check_kinds(self._fs, self._file, raw, (Kind.FILE_BLOCK, Kind.LARGE_BLOCK))
        large = address.kinds(raw) == Kind.LARGE_BLOCK
        places, bitmap = np.empty(len(raw), np.int64), np.empty(len(raw), np.int64)
        places[~large], bitmap[~large] = self._small(raw[~large])
        if large.any():
            places[large], bitmap[large] = self._large(numbers[large], raw[large])
        whole = (bitmap == address.TBZ_64_FIRST) & ~large & self._is_tbz_whole()
        doubtful = (bitmap != 0) & (bitmap != address.TBZ_64_ALL) & ~whole
        if doubtful.any():
            worst = int(np.argmax(doubtful))
            reason = f"a block is to be zeroed in part (TBZ bitmap {int(bitmap[worst]):#x}), which is not understood"
            raise self._error(reason, int(places[worst]))
        return places, bitmap != 0

    def _is_tbz_whole(self) -> bool:
        """Whether one bit of a TBZ bitmap stands for a whole small block, so that the first one means all of it.

        Some public readers take any bit so, but no ESXi-made sample has one: others set contradict what they stand
        for, and the block may be written in part. Where file and volume disagree, the finer of the two is believed:
        then a bitmap of some bits is not understood.
        """
        said = {self._fs.tbz_bytes, 1 << self._file.tbz_shift if self._file.tbz_shift < 64 else 0} - {0, 1}
        return bool(said) and min(said) >= self._fs.block_size_bytes

    def _small(self, raw: Raw) -> tuple[Offsets, Offsets]:
        cluster, item, bitmap = address.file_block_64(raw)
        whole = c_vmfs.FS6_SFB_CLUSTER_BYTES // self._fs.block_size_bytes
        per_cluster = max(1, min(c_vmfs.FS6_SFBS_PER_CLUSTER_MAX, whole))
        if (item >= per_cluster).any():
            raise self._error(f"a pointer names file block {int(item.max())} of a cluster of {per_cluster}")
        return self._block_places(cluster * per_cluster + item), bitmap

    def _large(self, numbers: Offsets, raw: Raw) -> tuple[Offsets, Offsets]:
        """Large blocks: every slot that one backs carries its address; the place inside follows the file offset."""
        size, step = self._fs.large_block_bytes, self._file.block_size_bytes
        if not size or step not in (self._fs.block_size_bytes, size):
            raise self._error(f"it uses large blocks, with a block size of {step}")
        number, bitmap = address.large_block(raw)
        self._check_inside(number, size)
        self._large_groups.update(np.unique(numbers * step // size).tolist())
        return number * size + numbers * step % size, bitmap

    def _block_places(self, number: Offsets) -> Offsets:
        size = self._fs.block_size_bytes
        if len(number) and self._file.block_size_bytes != size:
            raise self._error(f"its block size is {self._file.block_size_bytes}, that of the volume {size}")
        self._check_inside(number, size)
        return number * size

    def _check_inside(self, number: Offsets, size: int) -> None:
        """The start of each block must be on the volume; before it is multiplied, so that nothing overflows."""
        if len(number) and int(number.max()) * size >= self._fs.size_bytes:
            reason = f"one of its blocks, number {int(number.max())}, lies past the end of the volume"
            raise self._error(reason)

    def _check_large_groups(self, done: runs.RunMap) -> None:
        """No ESXi-made sample tells what a hole beside a large block, in the range that it backs, means: refuse it."""
        size = self._fs.large_block_bytes
        for group in sorted(self._large_groups):
            start = group * size
            if self._slots[group] * self._file.block_size_bytes < min(size, self._file.length - start):
                raise self._error(f"it has a hole in the range of bytes from {start} on that a large block backs")

    def _error(self, reason: str, offset: int | None = None) -> VmfsError:
        return inode.damaged(self._fs, self._file, reason, offset)
