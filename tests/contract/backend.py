"""What every backend promises, to be run by each: subclass ``BackendContract`` and give it a fixture ``backend``."""

from __future__ import annotations

import hashlib
import threading

import pytest

from vcbproxy.repository.backend.base import (
    CONFIG,
    PARAMETERS,
    Backend,
    FileExists,
    FileKind,
    FileMissing,
    FileName,
    FileShort,
    exists,
    load_all,
)

NAMED = [kind for kind in FileKind if not kind.single]


def name_of(content: bytes, kind: FileKind = FileKind.INDEX) -> FileName:
    return FileName(kind, hashlib.sha256(content).hexdigest())


class BackendContract:
    """The promises of ``Backend``, one a test."""

    def test_what_is_saved_is_loaded(self, backend: Backend) -> None:
        backend.save(name_of(b"abcdef"), [b"ab", bytearray(b"cd"), memoryview(b"ef")])
        assert load_all(backend, name_of(b"abcdef"), 100) == b"abcdef"

    @pytest.mark.parametrize("kind", NAMED)
    def test_every_kind_is_listed_under_its_own(self, backend: Backend, kind: FileKind) -> None:
        backend.save(name_of(b"x", kind), [b"x"])
        assert [(found.name, found.size_bytes) for found in backend.list(kind)] == [(name_of(b"x", kind), 1)]
        assert all(not list(backend.list(other)) for other in NAMED if other is not kind)

    def test_ranges_are_loaded_by_position(self, backend: Backend) -> None:
        backend.save(name_of(b"0123456789"), [b"0123456789"])
        buf = bytearray(4)
        backend.load(name_of(b"0123456789"), 3, memoryview(buf))
        assert buf == b"3456"

    def test_nothing_can_be_loaded_anywhere_within(self, backend: Backend) -> None:
        backend.save(name_of(b"0123"), [b"0123"])
        backend.load(name_of(b"0123"), 4, memoryview(bytearray(0)))

    def test_reading_past_the_end_is_an_error_not_a_short_read(self, backend: Backend) -> None:
        backend.save(name_of(b"0123"), [b"0123"])
        with pytest.raises(FileShort):
            backend.load(name_of(b"0123"), 2, memoryview(bytearray(3)))

    def test_what_is_not_there_is_missing(self, backend: Backend) -> None:
        name = name_of(b"nothing")
        for attempt in (
            lambda: backend.load(name, 0, memoryview(bytearray(1))),
            lambda: backend.size(name),
            lambda: backend.remove(name),
        ):
            with pytest.raises(FileMissing):
                attempt()
        assert not exists(backend, name)

    def test_saving_again_is_harmless(self, backend: Backend) -> None:
        for _ in range(2):
            backend.save(name_of(b"same"), [b"same"])
        assert load_all(backend, name_of(b"same"), 100) == b"same"

    @pytest.mark.parametrize("name", [CONFIG, PARAMETERS])
    def test_single_files_are_never_written_over(self, backend: Backend, name: FileName) -> None:
        assert not list(backend.list(name.kind))
        backend.save(name, [b"first"])
        with pytest.raises(FileExists):
            backend.save(name, [b"second"])
        assert load_all(backend, name, 100) == b"first"
        assert [found.name for found in backend.list(name.kind)] == [name]

    def test_of_many_who_create_one_wins(self, backend: Backend) -> None:
        won: list[bytes] = []

        def create(content: bytes) -> None:
            try:
                backend.save(CONFIG, [content])
                won.append(content)
            except FileExists:
                pass

        threads = [threading.Thread(target=create, args=(bytes([number]),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [load_all(backend, CONFIG, 100)]

    def test_removed_files_are_gone(self, backend: Backend) -> None:
        backend.save(name_of(b"x"), [b"x"])
        backend.remove(name_of(b"x"))
        assert not list(backend.list(FileKind.INDEX))

    def test_empty_and_large_files(self, backend: Backend) -> None:
        large = bytes(range(256)) * 20000 + b"tail"
        for content in (b"", large):
            backend.save(name_of(content), [memoryview(content)[:1000], memoryview(content)[1000:]])
            assert load_all(backend, name_of(content), 1 << 30) == content

    def test_many_threads_at_once(self, backend: Backend) -> None:
        contents = [bytes([number]) * 5000 for number in range(40)]
        wrong: list[bytes] = []

        def work(mine: list[bytes]) -> None:
            for content in mine:
                backend.save(name_of(content, FileKind.PACK), [content])
                if load_all(backend, name_of(content, FileKind.PACK), 1 << 20) != content:
                    wrong.append(content)

        threads = [threading.Thread(target=work, args=(contents[part::4],)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert len(list(backend.list(FileKind.PACK))) == 40

    def test_creating_twice_is_harmless(self, backend: Backend) -> None:
        backend.save(name_of(b"x"), [b"x"])
        backend.create()
        assert load_all(backend, name_of(b"x"), 100) == b"x"
