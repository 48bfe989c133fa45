"""What can still be had of a disk whose images on tape are damaged. Nothing unknown is ever passed off as zeroes.

scsi0-0.raw.damaged        what could be read; where nothing could, what was there before the delta, or a hole
scsi0-0.raw.damaged.map    a line for each range that is not to be relied upon: offset and length, in bytes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.restore import write_small
from jobs.tapedevice import Loaded, image_device, map_of, open_image
from jobs.tapedisk import Step
from jobs.watcher import Watcher
from vcbproxy.archive.delta import DeltaMap
from vcbproxy.archive.manifest import Kind
from vcbproxy.archive.seekable import Damage, salvage
from vcbproxy.archive.seektable import Frame
from vcbproxy.archive.walk import salvage_walking
from vcbproxy.catalog.records import ArchivedPart
from vcbproxy.errors import IntegrityError, SourceError
from vcbproxy.pipeline import output


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What came of a damaged disk.

    Attributes:
        path: what could be read.
        missing: (offset, length) of what could not.
    """

    path: Path
    missing: tuple[tuple[int, int], ...]

    @property
    def missing_bytes(self) -> int:
        """All of it together."""
        return sum(length for _, length in self.missing)


def salvage_disk(
    steps: Sequence[Step],
    files: Sequence[Sequence[ArchivedPart]],
    path: Path,
    loaded: Loaded,
    watcher: Watcher,
    *,
    overwrite: bool,
) -> Salvaged:
    """Write what can be read of a disk.

    Args:
        steps: its images, the whole one first.
        files: for each of them, all parts of its restore point.
        path: what it would have been called.
        loaded: the drive.
        watcher: is told.
        overwrite: such files that exist.

    Raises:
        UsageError: it is encrypted, or a file is in the way.
        Error: nothing can be written.
    """
    size_bytes = steps[-1].image.size_bytes
    into = path.with_name(f"{path.name}.damaged")
    missing: set[tuple[int, int]] = set()
    with output.new_file(into, size_bytes, overwrite=overwrite) as out:
        for step, parts in zip(steps, files, strict=True):
            try:
                places = _Places(step, parts, loaded)
            except (IntegrityError, SourceError) as error:
                watcher.said(f"{error}: nobody knows what changed then, so nothing of this disk is to be relied upon")
                missing = lost(missing, 0, size_bytes)
                continue
            for offset, plain in _read(step, places.size_bytes, loaded, watcher):
                length = plain if isinstance(plain, int) else len(plain)
                for place, count, within in places.of(offset, length):
                    if isinstance(plain, int):
                        missing = lost(missing, place, count)
                    else:
                        out.write_at(place, memoryview(plain)[within : within + count])
                        missing = written_over(missing, place, count)
        out.commit()
    told = tuple(sorted(missing))
    lines = "".join(f"{offset} {length}\n" for offset, length in told)
    write_small(into.with_name(f"{into.name}.map"), lines.encode(), overwrite=overwrite)
    return Salvaged(into, told)


def _read(step: Step, size_bytes: int, loaded: Loaded, watcher: Watcher) -> Iterator[tuple[int, bytes | int]]:
    """An image's bytes by their offset; where they cannot be had, how many."""
    try:
        for found in _found(step, size_bytes, loaded, watcher):
            if isinstance(found, Damage):
                watcher.said(str(found.error))
                yield found.frame.start, found.frame.plain_bytes
            else:
                yield found[0].start, found[1]
    except IntegrityError as error:
        watcher.said(f"nothing can be had of it: {error}")
        yield 0, size_bytes


def _found(step: Step, size_bytes: int, loaded: Loaded, watcher: Watcher) -> Iterator[tuple[Frame, bytes] | Damage]:
    """By the seek table; where that is damaged, by looking for frames.

    Raises:
        IntegrityError: before anything is found: it is no image of that disk.
    """
    try:
        return salvage(open_image(step, size_bytes, loaded))
    except (IntegrityError, SourceError) as error:
        watcher.said(f"{error}; its frames are looked for one by one")
        return salvage_walking(image_device(step, loaded), size_bytes)


class _Places:
    """Where on the disk the bytes of an image belong."""

    def __init__(self, step: Step, parts: Sequence[ArchivedPart], loaded: Loaded) -> None:
        self._map: DeltaMap | None = map_of(step, parts, loaded) if step.image.kind is Kind.DELTA else None
        self.size_bytes = step.image.size_bytes if self._map is None else self._map.size_bytes
        """Of what the image holds."""

    def of(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Offset on the disk, length, and offset within the bytes."""
        if self._map is None:
            yield offset, length, 0
            return
        within = 0
        for place, count in self._map.places(offset, length):
            yield place, count, within
            within += count


def lost(ranges: set[tuple[int, int]], start: int, length: int) -> set[tuple[int, int]]:
    """Ranges that are missing, and one more; what is missing twice, as in an image and in a delta, is told once."""
    return written_over(ranges, start, length) | {(start, length)}


def written_over(ranges: set[tuple[int, int]], start: int, length: int) -> set[tuple[int, int]]:
    """What is left of ranges that are missing once one was written over."""
    end = start + length
    if not any(at < end and at + count > start for at, count in ranges):
        return ranges
    left: set[tuple[int, int]] = set()
    for at, count in ranges:
        if at < min(start, at + count):
            left.add((at, min(start, at + count) - at))
        if at + count > max(end, at):
            left.add((max(end, at), at + count - max(end, at)))
    return left
