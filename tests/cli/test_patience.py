"""A storage that is away: it is waited for, that is said, and Ctrl-C ends it."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.program import Program, stopped_by
from tests.repository.repositories import SMALL, chunk, info, made
from tests.seaweed import ADMIN
from vcbproxy.clock import SystemClock
from vcbproxy.errors import Cancelled
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.backend.faults import FaultyBackend, Order, Verb, What
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.backend.retry import RetryingBackend
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget


def test_ctrl_c_ends_the_waiting(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    nobody = ("--repo", "s3:http://127.0.0.1:1/bucket", "--password-file", password)
    process = Program(**ADMIN.environment).start("points", "list", *nobody)
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "cannot be reached" in said
    assert "trying again, for 300 s at most" in said
    began = time.monotonic()
    done = stopped_by(process, signal.SIGINT)
    assert done.code == 130
    assert done.err == "vcbproxy: interrupted\n"
    assert time.monotonic() - began < 20


def test_what_waits_in_another_thread_ends_too() -> None:
    """The main thread is interrupted while a pack is tried again and again; its way out leads past that thread."""
    storage = FaultyBackend(MemoryBackend())
    wanted = threading.Event()
    patient = RetryingBackend(storage, SystemClock(), random.Random(1), interrupted=wanted.is_set)
    repository = Repository.of(Files(patient, made(storage).key), clock=SystemClock())
    storage.order(Order(What.LOST, verbs=frozenset({Verb.SAVE}), kinds=frozenset({FileKind.PACK}), times=0))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        interrupted_backup(repository, storage, wanted)
    assert time.monotonic() - began < 10
    assert not list(storage.list(FileKind.LOCK))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pack-writer")]


def interrupted_backup(repository: Repository, storage: FaultyBackend, wanted: threading.Event) -> None:
    with RepositoryTarget(repository, SMALL).begin(info()) as writer:
        packer = writer.disk("scsi0-0", 1 << 20).packer()
        for letter in "abcdefghijklmnop":
            packer.add(BlobKind.DATA, chunk(letter))
        while not storage.struck:
            time.sleep(0.01)
        wanted.set()
        raise Cancelled
