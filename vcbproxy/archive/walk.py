"""Finding the frames of an image that has lost its seek table, or never got one: by walking over what can be read.

    image     │ f0 │ f1 │▒▒▒▒▒▒▒│ f4 │ f5 │ table │        ▒ cannot be read, or is no frame
    disk      │ f0 │ f1 │ ? │ ? │ f4 │ f5 │               known from the beginning on, and back from the end

All frames but the last hold as many bytes, so those behind a damaged place are counted back from the disk's end. Those
between two such places cannot be placed for sure: there may be less or more of them than there were, where a disk holds
images of other disks. They are given up: no byte of a disk is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, groupby

import zstandard

from vcbproxy.archive.frames import FRAME_BYTES, MAGIC, Skippable, Splitter
from vcbproxy.archive.seekable import Damage, load_frame
from vcbproxy.archive.seektable import Frame, table_bytes
from vcbproxy.device import Device, read
from vcbproxy.errors import IntegrityError, SourceError

_STEP_BYTES = 512 * 1024
_HEADER_BYTES = 18
"""Of a zstd frame, at most."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Frames that follow one another in the image, numbered and placed as if they began the disk."""

    at: int
    frames: tuple[Frame, ...]

    @property
    def end(self) -> int:
        """Where it ends, in the image."""
        return self.frames[-1].at + self.frames[-1].compressed_bytes


def salvage_walking(
    image: Device, disk_bytes: int, frame_bytes: int = FRAME_BYTES
) -> Iterator[tuple[Frame, bytes] | Damage]:
    """All that can be had of a disk without the seek table, and all that cannot, in order; together they tile it.

    Args:
        image: the image's bytes; ranges of it may be unreadable.
        disk_bytes: the disk's size, as recorded elsewhere.
        frame_bytes: of the disk, in each frame but the last.

    Raises:
        IntegrityError: its frames are not those of such a disk.
    """
    at = 0
    for frame in _placed(list(_runs(image, disk_bytes, frame_bytes)), image, disk_bytes, frame_bytes):
        if at < frame.start:
            yield _lost(image, at, frame.start)
        try:
            yield frame, load_frame(image, frame)
        except (IntegrityError, SourceError) as error:
            yield Damage(frame, error)
        at = frame.end
    if at < disk_bytes:
        yield _lost(image, at, disk_bytes)


def _lost(image: Device, start: int, end: int) -> Damage:
    reason = f"{image.name}: no frame could be found for the {end - start} bytes at disk offset {start}"
    return Damage(Frame(-1, 0, 0, start, end - start, None), IntegrityError(reason, offset=start, length=end - start))


# ------------------------------------------------------------------ which frames there are


def _runs(image: Device, disk_bytes: int, frame_bytes: int) -> Iterator[_Run]:
    sizes = _sizes(disk_bytes, frame_bytes)
    at: int | None = 0
    while at is not None:
        run, behind = _run(image, at)
        if run.frames:
            yield run
        at = _next_frame(image, behind, sizes)


def _run(image: Device, start: int) -> tuple[_Run, int]:
    """The frames from there on, as far as they can be followed; and where to look for others."""
    splitter = Splitter(_readable(image, start), image.name)
    frames: list[Frame] = []
    try:
        for found in splitter:
            if isinstance(found, Skippable):
                return _Run(start, tuple(frames)), start + splitter.at
            frames.append(replace(found.frame, at=start + found.frame.at))
    except IntegrityError:
        pass  # what is there is no frame, or cannot be read to its end
    return _Run(start, tuple(frames)), start + splitter.at + 1


def _readable(image: Device, start: int) -> Iterator[bytes]:
    """The image's bytes from there on, up to what cannot be read."""
    at = start
    while at < image.size_bytes:
        end = min((at // _STEP_BYTES + 1) * _STEP_BYTES, image.size_bytes)
        piece = _step(image, at, end)
        if piece is None:
            return
        yield piece
        at = end


def _step(image: Device, at: int, end: int) -> bytes | None:
    try:
        return read(image, at, end - at)
    except (IntegrityError, SourceError):
        return None


def _next_frame(image: Device, start: int, sizes: set[int]) -> int | None:
    """Where the next frame of one of these sizes may begin."""
    held, held_at = b"", start
    for at in _grid(start, image.size_bytes):
        piece = _step(image, at, min((at // _STEP_BYTES + 1) * _STEP_BYTES, image.size_bytes))
        if piece is None:
            held = b""
            continue
        held_at = at - len(held)
        held += piece
        found = held.find(MAGIC)
        while found >= 0 and (found + _HEADER_BYTES <= len(held) or at + len(piece) == image.size_bytes):
            if _is_header(held[found : found + _HEADER_BYTES], sizes):
                return held_at + found
            found = held.find(MAGIC, found + 1)
        held = held[max(len(held) - _HEADER_BYTES, 0) :]
    return None


def _grid(start: int, end: int) -> Iterator[int]:
    if start < end:
        yield start
        yield from range((start // _STEP_BYTES + 1) * _STEP_BYTES, end, _STEP_BYTES)


def _is_header(head: bytes, sizes: set[int]) -> bool:
    try:
        parameters = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError:
        return False
    return parameters.content_size in sizes and bool(parameters.has_checksum)


# ------------------------------------------------------------------ where they belong


def _placed(runs: list[_Run], image: Device, disk_bytes: int, frame_bytes: int) -> list[Frame]:
    """The first run, where nothing lies before it, and the last, where nothing lies behind it."""
    if runs and runs[0].at == 0 and sum(frame.plain_bytes for frame in runs[0].frames) == disk_bytes:
        return list(runs[0].frames)  # all of it, whatever the frames' sizes
    runs = [part for run in runs for part in _of_sizes(run, _sizes(disk_bytes, frame_bytes))]
    if not runs:
        return []
    first, last = runs[0], runs[-1]
    total = -(-disk_bytes // frame_bytes)
    placed = list(_numbered(first, 0, image, disk_bytes, frame_bytes)) if first.at == 0 else []
    number = total - len(last.frames)
    if last.at > 0 and _is_end(last, image, disk_bytes, frame_bytes) and number > len(placed):
        placed += _numbered(last, number, image, disk_bytes, frame_bytes)
    return placed


def _sizes(disk_bytes: int, frame_bytes: int) -> set[int]:
    """What a frame of such a disk may hold."""
    return {frame_bytes, disk_bytes % frame_bytes or frame_bytes}


def _of_sizes(run: _Run, sizes: set[int]) -> Iterator[_Run]:
    """The run without frames of other sizes: a length that was damaged in a header may still read as one."""
    for fits, frames in groupby(run.frames, lambda frame: frame.plain_bytes in sizes):
        if fits:
            part = tuple(frames)
            yield _Run(part[0].at, part)


def _is_end(run: _Run, image: Device, disk_bytes: int, frame_bytes: int) -> bool:
    """Whether just the seek table of such a disk finds room behind it; or nothing does, and its last frame is short."""
    if run.end == image.size_bytes:
        return run.frames[-1].plain_bytes == disk_bytes % frame_bytes
    return run.end == image.size_bytes - table_bytes(-(-disk_bytes // frame_bytes))


def _numbered(run: _Run, first: int, image: Device, disk_bytes: int, frame_bytes: int) -> Iterator[Frame]:
    for number, frame in zip(count(first), run.frames, strict=False):
        start = number * frame_bytes
        if frame.plain_bytes != min(frame_bytes, disk_bytes - start):
            raise _strange(image)
        yield replace(frame, number=number, start=start)


def _strange(image: Device) -> IntegrityError:
    return IntegrityError(f"{image.name}: its frames are not those of the disk that was recorded")
