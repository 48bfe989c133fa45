"""Making a volume whole whose last writer did not finish: back to the last committed state, by a journal on from it.

    before         … data ▌ index n ▌ file, file, half a file                  the writer died here
    after          … data ▌ index n ▌ file, file, half a file ▌ index n+1 ▌    as n; nothing is written over
    by a journal   likewise, and index n+1 has the two files: each was read, and has the digest that was noted

What else was written behind the last index stays on the tape; no file shows it. How much of it there is, is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tape.errors import EndOfData, FormatError, Inconsistent, IncrementalIndex, JournalFailed, MediumError
from tape.ltfs import index as model
from tape.ltfs.format import Maker
from tape.ltfs.index import DIGEST, Directory, File
from tape.ltfs.journal import Journal, Journaled
from tape.ltfs.label import FIRST_CONTENT_BLOCK
from tape.ltfs.layout import Layout, Tail, read_layout, read_tail
from tape.ltfs.mount import Mounted, hold_extents, is_shared, mount
from tape.ltfs.reader import FileReader
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive

_FOR_READING = "it was mounted for reading"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came of it.

    Attributes:
        generation: of the state that the volume is in.
        orphan_blocks: blocks of the data partition behind the last index that there was; 0 when it was consistent.
        written: whether anything was written.
        found: files that no index had, and that are there by the journal.
        lost: files that the journal names, and that are not there whole; with the reason of each.
    """

    generation: int
    orphan_blocks: int
    written: bool
    found: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()


def recover(
    drive: SequentialDrive, maker: Maker, now_ns: Callable[[], int], journal: Journal | None = None
) -> Recovered:
    """Roll a volume back to its last committed state; one that is consistent is brought up to date, and no more.

    Args:
        drive: with the cartridge.
        maker: who writes.
        now_ns: the time, in nanoseconds since 1970.
        journal: what the writer noted; its files are read, and those that are whole are listed again.

    Raises:
        FormatError: there is no index left that makes sense.
        JournalFailed: it is damaged, or builds on another state than the tape's: somebody else wrote meanwhile.
        IncrementalIndex: another program has to finish it.
        WriteProtected: the cartridge takes no writing.
        TapeError: it cannot be read, or not be written.
    """
    layout = read_layout(drive)
    noted = None if journal is None else journal.read(layout.label.volume_uuid)
    try:
        mounted = mount(drive, search=True)
    except IncrementalIndex:
        raise  # rolled back, it would lose what its own program can still make of it
    except FormatError:
        done = _roll_back(drive, layout, maker, now_ns, noted)
    else:
        LtfsVolume(drive, mounted, maker, now_ns).commit()
        done = Recovered(mounted.index.generation, 0, written=mounted.index_is_behind)
    if journal is not None:
        journal.settle(layout.label.volume_uuid)
    return done


def _roll_back(
    drive: SequentialDrive, layout: Layout, maker: Maker, now_ns: Callable[[], int], noted: Journaled | None
) -> Recovered:
    data = read_tail(drive, layout, layout.label.data_partition, lenient=True)
    small = read_tail(drive, layout, layout.label.index_partition, lenient=True)
    state = _state(drive, layout, data, small)
    volume = LtfsVolume(drive, state, maker, now_ns)
    found: list[str] = []
    lost: list[tuple[str, str]] = []
    for path, file in _of(noted, state):
        reason = _damage(drive, layout, path, file) or _put(volume, path, file)
        if reason:
            lost.append((path, reason))
        else:
            found.append(path)
    volume.commit_anew()
    return Recovered(volume.index.generation, _orphans(data), True, tuple(found), tuple(lost))


def _state(drive: SequentialDrive, layout: Layout, data: Tail, small: Tail) -> Mounted:
    """The newest index that holds for what is on the tape."""
    candidates = [tail.index for tail in (data, small) if tail.index is not None]
    ends = {layout.label.data_partition: data.end, layout.label.index_partition: small.end}
    for index in sorted(candidates, key=lambda one: one.generation, reverse=True):
        try:
            hold_extents(index, layout, ends, drive.name)
        except FormatError:
            continue
        at = data.index.location if data.index is not None else index.previous
        older = data.index.generation if data.index is not None else index.generation
        if at is not None:
            shared = is_shared(index, small.index, layout)
            return Mounted(layout, index, at, older, data.end, True, shared, full=False, by_memory=False)
    raise Inconsistent(where=drive.name, reason="no index is left that fits what is on the tape")


def _of(noted: Journaled | None, state: Mounted) -> Iterator[tuple[str, File]]:
    """The files of a journal, if it builds on this state."""
    if noted is None:
        return
    if (noted.state.index, noted.state.generation) != (state.data_index, state.data_generation):
        raise JournalFailed(
            path=f"volume {noted.state.volume_uuid}",
            reason=f"it builds on generation {noted.state.generation} at {noted.state.index}, the tape ends with "
            f"{state.data_generation} at {state.data_index}; recover without it",
        )
    # Of one name the last: what was taken out of the index again, and written anew, is noted twice.
    yield from dict(noted.files).items()


def _damage(drive: SequentialDrive, layout: Layout, path: str, file: File) -> str:
    """Why a file is not there as it was noted; nothing when it is. It is read whole."""
    reader = FileReader(drive, layout, file, path)
    digest = hashlib.sha256()
    piece = memoryview(bytearray(layout.label.block_bytes))
    try:
        for at in range(0, file.length, len(piece)):
            part = piece[: min(len(piece), file.length - at)]
            reader.read_into(at, part)
            digest.update(part)
    except (FormatError, MediumError, EndOfData) as error:
        return str(error)
    borne = file.xattrs.get(DIGEST)
    if not file.length:
        return ""
    if borne is None:
        return "it bears no digest: what lies there may be something else"
    return "" if borne == digest.hexdigest().encode("ascii") else "what lies there has another digest"


def _put(volume: LtfsVolume, path: str, file: File) -> str:
    """List it again; why that cannot be."""
    above, name = model.split(path)
    home: Directory = volume.make_directory(above)
    if name in home.entries:
        return "something of that name is there"
    file.uid = volume.index.new_uid()
    home.entries[name] = file
    return ""


def _orphans(data: Tail) -> int:
    """How many blocks lie behind the last index, filemarks and pieces of indexes among them."""
    return data.end - (data.behind_index if data.index is not None else FIRST_CONTENT_BLOCK)


def for_reading(
    drive: SequentialDrive,
    maker: Maker,
    now_ns: Callable[[], int],
    *,
    older: Callable[[FormatError], None] = lambda _: None,
) -> LtfsVolume:
    """Mount a volume that is only to be read from: one whose last writer did not finish, as it was committed last.

    A restore need not wait until somebody has recovered what last night's job left; and what takes no writing any more
    can be recovered no other way.

    Args:
        drive: with the cartridge.
        maker: as in ``LtfsVolume.mount``.
        now_ns: likewise.
        older: told why, when an older state is shown.

    Raises:
        FormatError: no LTFS volume, or there is no index left that makes sense.
        TapeError: it cannot be read.
    """
    try:
        return LtfsVolume(drive, mount(drive), maker, now_ns, read_only=_FOR_READING)
    except (Inconsistent, IncrementalIndex) as error:
        older(error)
        layout = read_layout(drive)
        data = read_tail(drive, layout, layout.label.data_partition, lenient=True, over_incremental=True)
        small = read_tail(drive, layout, layout.label.index_partition, lenient=True)
        state = _state(drive, layout, data, small)
        return LtfsVolume(drive, state, maker, now_ns, read_only=f"{_FOR_READING}, as it was before: {error}")
