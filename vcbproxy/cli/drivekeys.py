"""Keys that drives encrypt with, from wherever they are kept; and which one a cartridge wants that has another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vcbproxy.errors import ConfigError, CredentialsError

if TYPE_CHECKING:
    from tape.encryption import Key
    from tape.sequential import SequentialDrive


def parsed(secret: bytes, whose: str) -> Key:
    """A key as it is kept.

    Raises:
        CredentialsError: it is none.
    """
    from tape.encryption import Key

    try:
        return Key.parse(secret)
    except ValueError as error:
        raise CredentialsError(f"{whose}: {error}") from error


def in_file(path: Path, whose: str) -> Key:
    """The key in a file.

    Raises:
        CredentialsError: it cannot be read, or is none.
    """
    try:
        return parsed(path.read_bytes(), whose)
    except OSError as error:
        raise CredentialsError(f"cannot read {whose} in {path}: {error.strerror}") from error


@contextmanager
def keyed(drive: SequentialDrive, key: Key | None, whose: str) -> Iterator[None]:
    """Have the drive encrypt and decrypt with a key, if there is one, for the length of a ``with``.

    Args:
        drive: with a cartridge.
        key: which.
        whose: what messages call it.

    Raises:
        ConfigError: it cannot be given to this drive.
        CredentialsError: the cartridge wants another.
    """
    from tape.drive import TapeDrive
    from tape.encryption import encrypted, forget_leftover, wanted_key
    from tape.errors import KeyWanted

    if not isinstance(drive, TapeDrive):
        if key is not None:
            raise ConfigError(f"{whose}: {drive.name} is not driven by SCSI commands, and cannot be given a key")
        yield
        return
    forget_leftover(drive)
    with nullcontext() if key is None else encrypted(drive, key):
        try:
            yield
        except KeyWanted as error:
            wanted = wanted_key(drive) or "of an unknown name"
            has = "none was given" if key is None else f"{whose} is {key.identity}"
            raise CredentialsError(f"{drive.name}: the cartridge wants the key {wanted}, {has}") from error
