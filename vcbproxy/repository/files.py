"""Whole sealed files: the small ones (config, locks, snapshots, indexes), read and written at once."""

from __future__ import annotations

from vcbproxy.errors import IntegrityError, RepositoryMissing
from vcbproxy.repository import crypto, keys
from vcbproxy.repository.backend.base import CONFIG, Backend, FileKind, FileName, FileUnreadable, exists, load_all
from vcbproxy.repository.ids import Buffer, digest

_FILE_BYTES_MAX = 256 << 20


class Files:
    """A backend and the key to what it keeps."""

    def __init__(self, backend: Backend, key: crypto.Key) -> None:
        self.backend = backend
        self.key = key

    @property
    def location(self) -> str:
        """What messages call the repository."""
        return self.backend.location

    def save_sealed(self, kind: FileKind, plain: Buffer) -> FileName:
        """Seal, name by digest, store.

        Raises:
            TargetError: it could not be stored.
        """
        name, sealed = self.sealed(kind, plain)
        self.backend.save(name, [sealed])
        return name

    def sealed(self, kind: FileKind, plain: Buffer) -> tuple[FileName, bytes]:
        """Seal, and name by digest what is to be stored."""
        sealed = crypto.seal(self.key, plain)
        if crypto.unseal(self.key, sealed) != plain:
            raise IntegrityError("a file was damaged while it was sealed: this machine's memory or processor is faulty")
        return FileName(kind) if kind.single else FileName(kind, digest(sealed).hex()), sealed

    def load_sealed(self, name: FileName) -> bytes:
        """The plaintext of a file, its digest and its mac checked.

        Raises:
            TargetError: it could not be read.
            IntegrityError: it is damaged, or the medium below it is.
        """
        try:
            sealed = load_all(self.backend, name, _FILE_BYTES_MAX)
        except FileUnreadable as error:
            raise IntegrityError(str(error)) from error
        what = f"{self.location}: {name.path}"
        if not name.kind.single and digest(sealed).hex() != name.stem:
            raise IntegrityError(f"{what} is damaged: its content does not match its name")
        try:
            return crypto.unseal(self.key, sealed)
        except IntegrityError as error:
            raise IntegrityError(f"{what}: {error}") from error


def unlocked(backend: Backend, password: str) -> Files:
    """The files of the repository that lies there. The long part of opening it, by intent of whoever chose scrypt.

    Raises:
        RepositoryMissing: no config there.
        CredentialsError: wrong password.
        IntegrityError: all keys are damaged or lost, or the config is.
    """
    if not exists(backend, CONFIG):
        if next(iter(backend.list(FileKind.KEY)), None) is not None:
            raise IntegrityError(
                f"{backend.location}: there are keys and no config: it is lost, or a `repo init` is not done or broke "
                "off; of a repository that was in use bring the file `config` back from a copy"
            )
        raise RepositoryMissing(location=backend.location)
    return Files(backend, keys.unlock(backend, password))
