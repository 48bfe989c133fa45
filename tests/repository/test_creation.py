"""Making a repository: all of it or nothing, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.repository.repositories import made, reopened
from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import Backend, FileKind, FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.ids import Buffer


class Overtaken(Around):
    """While our config is being saved another ``repo init`` saves its own; then the disk is full."""

    def __init__(self, inner: Backend, theirs: bytes) -> None:
        super().__init__(inner)
        self._theirs = theirs

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        if name.kind is FileKind.CONFIG:
            super().save(name, [self._theirs])
            raise TargetError("no space left on device")
        super().save(name, parts)


class Full(Around):
    """The disk is full when a file of this kind comes, or seems so: it was stored, and nobody heard."""

    def __init__(self, inner: Backend, kind: FileKind, *, stored: bool) -> None:
        super().__init__(inner)
        self._kind, self._stored = kind, stored

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        if name.kind is not self._kind or self._stored:
            super().save(name, parts)
        if name.kind is self._kind:
            raise TargetError("no space left on device")


def test_another_s_config_stays_when_ours_finds_no_room() -> None:
    place = MemoryBackend()
    with pytest.raises(TargetError, match="no space"):
        made(Overtaken(place, b"theirs"))
    config = FileName(FileKind.CONFIG)
    buf = bytearray(place.size(config))
    place.load(config, 0, memoryview(buf))
    assert buf == b"theirs"


@pytest.mark.parametrize("kind", [FileKind.PARAMETERS, FileKind.CONFIG])
@pytest.mark.parametrize("stored", [False, True], ids=["not-stored", "stored-unheard"])
def test_what_broke_off_can_be_tried_again(kind: FileKind, stored: bool) -> None:
    place = MemoryBackend()
    with pytest.raises(TargetError, match="no space"):
        made(Full(place, kind, stored=stored))
    assert [file for each in FileKind for file in place.list(each)] == []
    made(place)
    reopened(place)
