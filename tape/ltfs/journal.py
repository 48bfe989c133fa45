"""What was written since the last index, kept on the host: after a crash the files behind that index are found again.

    {"format": …, "volume": uuid, "generation": 7, "index": "b:1201", "data_end": 1204}      the state it builds on
    {"path": "/web01/…/scsi0-0.raw.zst", "length": …, "start": "b:1204", "xattrs": …, …}     a file, complete
    …

One file for each volume, ``<uuid>.jsonl``, lines appended and put on disk one by one; begun anew with each index on the
data partition, and removed when both partitions have one. A last line that is cut off is no line. What it says is only
believed of a tape whose last index is the one that it names, and of files that are there with the digest that it names.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import FormatError, JournalFailed
from tape.ltfs import names
from tape.ltfs.index import Extent, File, Pointer, Times

_FORMAT = "ltfs-journal/1"
_BLOCK_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class State:
    """What a journal builds on.

    Attributes:
        volume_uuid: of which volume.
        generation: of the data partition's last index.
        index: where that begins.
        data_end: the block behind all that was recorded when the journal was begun.
    """

    volume_uuid: str
    generation: int
    index: Pointer
    data_end: int


@dataclass(frozen=True, slots=True)
class Journaled:
    """What a journal says.

    Attributes:
        state: what it builds on.
        files: with their paths, in the order in which they were written.
    """

    state: State
    files: tuple[tuple[str, File], ...]


class Journal:
    """The journals of a host, in a folder. For one thread and one volume at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._uuid = ""

    def begin(self, state: State) -> None:
        """An index is on the data partition; what was noted before is in it.

        Raises:
            JournalFailed: it cannot be written.
        """
        self.close()
        with self._failing():
            self._begin(state)

    def _begin(self, state: State) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(state.volume_uuid)
        aside = path.with_suffix(".new")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            head = {
                "format": _FORMAT,
                "volume": state.volume_uuid,
                "generation": state.generation,
                "index": str(state.index),
                "data_end": state.data_end,
            }
            _append(fd, head)
            aside.rename(path)
            self._sync_folder()
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._uuid = fd, state.volume_uuid

    def note(self, path: str, file: File) -> None:
        """A file is complete.

        Raises:
            JournalFailed: it cannot be written.
        """
        assert self._fd is not None, "not begun"
        moments = file.times
        line = {
            "path": path,
            "uid": file.uid,
            "length": file.length,
            "start": str(file.extents[0].start) if file.extents else None,
            "times": [moments.created, moments.changed, moments.modified, moments.accessed, moments.backed_up],
            "xattrs": {key: base64.b64encode(value).decode("ascii") for key, value in file.xattrs.items()},
        }
        with self._failing():
            _append(self._fd, line)

    def settle(self, volume_uuid: str) -> None:
        """Both partitions have an index with everything in it.

        Raises:
            JournalFailed: it cannot be removed.
        """
        self.close()
        path = self._path(volume_uuid)
        with self._failing():
            if path.exists():
                path.unlink()
                self._sync_folder()

    def close(self) -> None:
        """Let its file go; what was noted stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self, volume_uuid: str) -> Journaled | None:
        """What is noted of a volume; None when nothing is.

        Raises:
            JournalFailed: it cannot be read, or is damaged.
        """
        path = self._path(volume_uuid)
        with self._failing():
            if not path.exists():
                return None
            data = path.read_bytes()
        try:
            return _decoded(list(_lines(data)), volume_uuid)
        except (KeyError, TypeError, ValueError, AttributeError, FormatError) as error:
            raise JournalFailed(path=path, reason=f"it is damaged: {error!r}; recover without it") from error

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalFailed(path=self._folder, reason=error.strerror or str(error)) from error

    def _path(self, volume_uuid: str) -> Path:
        return self._folder / f"{volume_uuid}.jsonl"

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _append(fd: int, line: Mapping[str, object]) -> None:
    data = json.dumps(line, ensure_ascii=True).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    whole, _, _cut_off = data.rpartition(b"\n")
    for line in whole.splitlines():
        yield json.loads(line)


def _decoded(lines: list[dict[str, Any]], volume_uuid: str) -> Journaled | None:
    if not lines:
        return None
    head, *rest = lines
    if head["format"] != _FORMAT or head["volume"] != volume_uuid:
        raise ValueError("of another format, or of another volume")
    state = State(volume_uuid, _number(head["generation"]), _pointer(head["index"]), _number(head["data_end"]))
    return Journaled(state, tuple((str(line["path"]), _file(line)) for line in rest))


def _file(line: dict[str, Any]) -> File:
    length = _number(line["length"])
    extents: tuple[Extent, ...] = ()
    if length:
        extents = (Extent(0, _pointer(line["start"]), 0, length),)
    return File(
        name=names.normal(str(line["path"]).rpartition("/")[2]),
        uid=_number(line["uid"]),
        times=Times(*(_number(moment) for moment in line["times"])),
        length=length,
        extents=extents,
        xattrs={str(key): base64.b64decode(value, validate=True) for key, value in line["xattrs"].items()},
    )


def _pointer(text: str) -> Pointer:
    partition, _, block = text.partition(":")
    return Pointer(partition, _number(int(block)))


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _BLOCK_MAX:
        raise ValueError(f"{value!r} is no number that can be")
    return value
