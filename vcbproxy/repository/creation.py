"""A new repository: the key first, the config last, so that half of one is none; nothing there is written over."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import Error, TargetError
from vcbproxy.repository import config, crypto, identity, keys, times
from vcbproxy.repository.backend.base import CONFIG, Backend, FileKind, FileName, exists, load_all
from vcbproxy.repository.config import ChunkerSettings, RepositoryConfig
from vcbproxy.repository.files import Files
from vcbproxy.repository.repository import Repository


def create(
    backend: Backend,
    password: str,
    *,
    chunker: ChunkerSettings | None = None,
    kdf: keys.Kdf | None = None,
    clock: Clock | None = None,
    me: identity.Identity | None = None,
) -> Repository:
    """Make a repository. Gives it open.

    Raises:
        TargetError: something is there already, or it cannot be written.
        CredentialsError: the password is empty.
    """
    clock, me = clock or SystemClock(), me or identity.mine()
    backend.create()
    if exists(backend, CONFIG):
        raise TargetError(f"{backend.location}: there is a repository already")
    for kind in (FileKind.KEY, FileKind.PARAMETERS, FileKind.SNAPSHOT, FileKind.INDEX, FileKind.PACK):
        if next(iter(backend.list(kind)), None) is not None:
            raise TargetError(
                f"{backend.location}: not empty: there are files in {kind.value}, but no config: if a `repo init` "
                "broke off there, remove them; else a repository has lost its config: bring that back from a copy"
            )
    master = crypto.new_key()
    chunker = chunker or ChunkerSettings()
    settings = RepositoryConfig(secrets.token_hex(32), config.new_polynomial(secrets.randbits))
    files = Files(backend, master)
    with _all_or_nothing(backend) as saved:
        saved[keys.add(backend, master, password, kdf or keys.Kdf(), me, times.precise(clock.now()))] = None
        _save(files, FileKind.PARAMETERS, chunker.encode(), saved)
        _save(files, FileKind.CONFIG, settings.encode(), saved)
    return Repository(backend, master, settings, chunker, clock=clock, me=me)


_Saved = dict[FileName, bytes | None]
"""What was saved, and what it holds where the name does not say that: another `repo init` may have been faster."""


@contextlib.contextmanager
def _all_or_nothing(backend: Backend) -> Iterator[_Saved]:
    """What was saved of a repository that came to none goes again, so that it can be tried once more.

    A full disk, or Ctrl-C: without this the next try would find a place that is not empty.
    """
    saved: _Saved = {}
    try:
        yield saved
    except BaseException:
        for name, sealed in reversed(saved.items()):
            with contextlib.suppress(Error):  # the first error is the one to tell
                if sealed is None or load_all(backend, name, len(sealed)) == sealed:
                    backend.remove(name)
        raise


def _save(files: Files, kind: FileKind, plain: bytes, saved: _Saved) -> None:
    """Save a single file. It is noted before: an interrupt may strike behind it."""
    name, sealed = files.sealed(kind, plain)
    saved[name] = sealed
    files.backend.save(name, [sealed])
