"""A new repository: the key first, the config last, so that half of one is none; nothing there is written over."""

from __future__ import annotations

import secrets

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import TargetError
from vcbproxy.repository import config, crypto, identity, keys, times
from vcbproxy.repository.backend.base import CONFIG, Backend, FileKind, exists
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
    for kind in (FileKind.KEY, FileKind.SNAPSHOT, FileKind.INDEX, FileKind.PACK):
        if next(iter(backend.list(kind)), None) is not None:
            raise TargetError(f"{backend.location}: not empty: there are {kind.value} files, but no config; look first")
    master = crypto.new_key()
    keys.add(backend, master, password, kdf or keys.Kdf(), me, times.precise(clock.now()))
    chunker = chunker or ChunkerSettings()
    files = Files(backend, master)
    files.save_sealed(FileKind.PARAMETERS, chunker.encode())
    settings = RepositoryConfig(secrets.token_hex(32), config.new_polynomial(secrets.randbits))
    files.save_sealed(FileKind.CONFIG, settings.encode())
    return Repository(backend, master, settings, chunker, clock=clock, me=me)
