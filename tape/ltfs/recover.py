"""Making a volume whole whose last writer did not finish: back to the last state that was committed.

    before   … data ▌ index n ▌ data data ▌ ind                     the writer died here
    after    … data ▌ index n ▌ data data ▌ ind ▌ index n+1 ▌       as n; nothing is written over

What was written behind the last index stays on the tape; no file shows it. How much of it there is, is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tape.errors import FormatError, Inconsistent
from tape.ltfs.format import Maker
from tape.ltfs.label import FIRST_CONTENT_BLOCK
from tape.ltfs.layout import Layout, Tail, read_layout, read_tail
from tape.ltfs.mount import Mounted, hold_extents, mount
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came of it.

    Attributes:
        generation: of the state that the volume is in.
        orphan_blocks: blocks of the data partition behind the last index; 0 when the volume was consistent.
        written: whether anything was written.
    """

    generation: int
    orphan_blocks: int
    written: bool


def recover(drive: SequentialDrive, maker: Maker, now_ns: Callable[[], int]) -> Recovered:
    """Roll a volume back to its last committed state; one that is consistent is brought up to date, and no more.

    Raises:
        FormatError: there is no index left that makes sense.
        TapeError: the cartridge cannot be read, or takes no writing.
    """
    layout = read_layout(drive)
    try:
        mounted = mount(drive, search=True)
    except FormatError:
        return _roll_back(drive, layout, maker, now_ns)
    LtfsVolume(drive, mounted, maker, now_ns).commit()
    return Recovered(mounted.index.generation, 0, written=mounted.index_is_behind)


def _roll_back(drive: SequentialDrive, layout: Layout, maker: Maker, now_ns: Callable[[], int]) -> Recovered:
    data = read_tail(drive, layout, layout.label.data_partition, lenient=True)
    small = read_tail(drive, layout, layout.label.index_partition, lenient=True)
    state = _state(drive, layout, data, small)
    volume = LtfsVolume(drive, state, maker, now_ns)
    volume.commit_anew()
    return Recovered(volume.index.generation, _orphans(data), written=True)


def _state(drive: SequentialDrive, layout: Layout, data: Tail, small: Tail) -> Mounted:
    """The newest index that holds for what is on the tape."""
    candidates = [tail.index for tail in (data, small) if tail.index is not None]
    for index in sorted(candidates, key=lambda one: one.generation, reverse=True):
        try:
            hold_extents(index, layout, data.end, drive.name)
        except FormatError:
            continue
        at = data.index.location if data.index is not None else index.previous
        if at is not None:
            return Mounted(layout, index, at, data.end, index_is_behind=True, full=False, by_memory=False)
    raise Inconsistent(where=drive.name, reason="no index is left that fits what is on the tape")


def _orphans(data: Tail) -> int:
    """How many blocks lie behind the last index, filemarks and pieces of indexes among them."""
    return data.end - (data.behind_index if data.index is not None else FIRST_CONTENT_BLOCK)
