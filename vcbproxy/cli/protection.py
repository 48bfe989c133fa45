"""How a pool's cartridges are kept from strangers: by the drive, or by age before the drive; from the configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import frame
from vcbproxy.cli.drivekeys import in_file, keyed, parsed
from vcbproxy.errors import CredentialsError

if TYPE_CHECKING:
    from tape.sequential import SequentialDrive
    from vcbproxy.archive.agekeys import Identities, Recipients
    from vcbproxy.config import Pool


@dataclass(frozen=True, slots=True)
class Protection:
    """How a pool's cartridges are kept from strangers.

    Attributes:
        told: what ``vm.json`` says of it; never a key.
        recipients: whom images are encrypted to.
        identity_file: where the other half of that is, on this machine.
        identity_command: or what says it.
        drive_session: what a drive is given while it has a cartridge.
    """

    told: Mapping[str, Any]
    recipients: Recipients | None = None
    identity_file: Path | None = None
    identity_command: list[str] | str | None = None
    drive_session: Callable[[SequentialDrive], AbstractContextManager[None]] = lambda drive: nullcontext()


def protection_of(name: str, pool: Pool) -> Protection:
    """By the configuration.

    Raises:
        CredentialsError: a key cannot be read, or is none.
        ConfigError: what is wanted cannot be done.
    """
    from vcbproxy.config import Encryption

    if pool.encryption is Encryption.HARDWARE:
        return _by_drive(name, pool)
    if pool.encryption is Encryption.AGE:
        from vcbproxy.archive.agekeys import Recipients

        recipients = Recipients.of(pool.recipients)
        told = {"method": "age", "recipients": recipients.names}
        return Protection(told, recipients, pool.identity_file, pool.identity_command)
    return Protection({})


def identities_of(protection: Protection, given: Path | None) -> Identities | None:
    """Who can read encrypted images: by the file that was given, or the pool's own; None: neither is there.

    Raises:
        CredentialsError: the file or the command cannot be read, or holds none.
    """
    from vcbproxy.archive.agekeys import Identities
    from vcbproxy.config.base import output_of

    if given is None and protection.identity_command is not None:
        said = output_of(protection.identity_command, "the identity command")
        return Identities.of(said.encode(), "what the identity command says")
    path = given or protection.identity_file
    if path is None:
        return None
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"cannot read the identity {path}: {error.strerror}") from error
    asked = functools.partial(click.prompt, f"Passphrase of {path}", hide_input=True, err=True)
    return Identities.of(secret, str(path), asked if frame.on_terminal() else None)


def _by_drive(name: str, pool: Pool) -> Protection:
    from vcbproxy.config import Secret

    whose = f"the key of pool {name}"
    if pool.hardware_key_file is None:
        key = parsed(Secret(password_command=pool.hardware_key_command).password(f"pool {name}").encode(), whose)
    else:
        key = in_file(pool.hardware_key_file, whose)
    told = {"method": "hardware", "key": key.identity}
    return Protection(told, drive_session=lambda drive: keyed(drive, key, whose))
