"""Passwords: the right one opens, no other does, and hostile key files are refused before they cost anything."""

from __future__ import annotations

import base64
import json

import pytest

from tests.repository.repositories import ME, PASSWORD, QUICK, made
from vcbproxy.errors import CredentialsError, IntegrityError, RepositoryMissing
from vcbproxy.repository import crypto, keys
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.ids import digest
from vcbproxy.repository.repository import Repository

MASTER = crypto.new_key()


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


def add(backend: MemoryBackend, password: str) -> FileName:
    return keys.add(backend, MASTER, password, QUICK, ME, "2026-11-22T01:00:00Z")


def test_any_of_several_passwords_opens(backend: MemoryBackend) -> None:
    for password in ("one", "zwei ü", "\udc80 bytes"):
        add(backend, password)
    for password in ("one", "zwei ü", "\udc80 bytes"):
        assert keys.unlock(backend, password) == MASTER


@pytest.mark.parametrize("password", ["", "One", "one "])
def test_no_other_password_opens(backend: MemoryBackend, password: str) -> None:
    add(backend, "one")
    with pytest.raises(CredentialsError, match="wrong password") as caught:
        keys.unlock(backend, password)
    assert caught.value.exit_code == 12


def test_no_key_at_all_is_no_wrong_password(backend: MemoryBackend) -> None:
    with pytest.raises(IntegrityError, match="there is no file in keys"):
        keys.unlock(backend, "one")


def test_an_empty_password_is_not_taken(backend: MemoryBackend) -> None:
    with pytest.raises(CredentialsError, match="empty"):
        add(backend, "")


def rewritten(backend: MemoryBackend, name: FileName, **changes: object) -> None:
    fields = json.loads(backend.files()[name]) | changes
    content = json.dumps(fields).encode()
    backend.remove(name)
    backend.save(FileName(FileKind.KEY, digest(content).hex()), [content])


@pytest.mark.parametrize(
    "changes",
    [
        {"kdf": "md5"},
        {"N": 0},
        {"N": 1000},
        {"N": -2},
        {"N": 2**40},
        {"r": 0},
        {"r": 2**30},
        {"p": 2**30},
        {"p": None},
        {"N": "1024"},
        {"salt": "AAAA"},
        {"salt": "!!"},
        {"data": 5},
    ],
)
def test_malformed_key_files_are_damage_and_cost_nothing(backend: MemoryBackend, changes: dict[str, object]) -> None:
    rewritten(backend, add(backend, "one"), **changes)
    with pytest.raises(IntegrityError):
        keys.unlock(backend, "one")
    add(backend, "one")
    assert keys.unlock(backend, "one") == MASTER


@pytest.mark.parametrize("data", ["", "AAAA", base64.b64encode(bytes(200)).decode()])
def test_keys_that_open_to_nothing_are_a_wrong_password(backend: MemoryBackend, data: str) -> None:
    rewritten(backend, add(backend, "one"), data=data)
    with pytest.raises(CredentialsError):
        keys.unlock(backend, "one")


def test_no_more_than_twenty_keys_are_tried(backend: MemoryBackend) -> None:
    for number in range(25):
        add(backend, f"password {number}")
    names = sorted(stored.name.stem for stored in backend.list(FileKind.KEY))
    assert len(names) == 25
    with pytest.raises(CredentialsError):
        keys.unlock(backend, "wrong")


def test_what_is_no_repository_says_so(backend: MemoryBackend) -> None:
    with pytest.raises(RepositoryMissing, match="repo init") as caught:
        Repository.open(backend, PASSWORD)
    assert caught.value.exit_code == 10


def test_the_wrong_password_of_a_repository() -> None:
    with pytest.raises(CredentialsError):
        Repository.open(made().backend, "wrong")
