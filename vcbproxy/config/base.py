"""What every section of the configuration is made of: strictness, paths, and secrets that are never inline."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator

from vcbproxy.errors import ConfigError, CredentialsError

_PASSWORD_FILE_BYTES_MAX = 64 << 10
_COMMAND_TIMEOUT_S = 60


def _from_file_directory(value: object, info: ValidationInfo) -> object:
    """Take a relative path from the directory of the configuration file."""
    if isinstance(value, str) and info.context is not None:
        return info.context["directory"] / Path(value).expanduser()
    return value


FilePath = Annotated[Path, BeforeValidator(_from_file_directory)]


class Section(BaseModel):
    """A table of the file: unknown keys are refused, values are never shown in messages, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Secret(Section):
    """A password by the place it is kept in; exactly one of three."""

    password_file: FilePath | None = None
    password_command: list[str] | str | None = None
    password_credential: str | None = None

    @model_validator(mode="after")
    def _at_most_one(self) -> Secret:
        given = [self.password_file, self.password_command, self.password_credential]
        if sum(place is not None for place in given) > 1:
            raise ValueError("give only one of password_file, password_command, password_credential")
        return self

    @property
    def given(self) -> bool:
        """Whether any place was named."""
        return any(place is not None for place in (self.password_file, self.password_command, self.password_credential))

    def password(self, whose: str) -> str:
        """Read the password now; a trailing newline does not belong to it.

        Raises:
            ConfigError: no place was named.
            CredentialsError: the place could not be read, or is empty.
        """
        if self.password_command is not None:
            text = output_of(self.password_command, f"the password command for {whose}")
        elif self.password_file is not None:
            text = _read(self.password_file, whose)
        elif self.password_credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY")
            if directory is None:
                raise CredentialsError(f"no password for {whose}: not run by systemd with LoadCredential=")
            text = _read(Path(directory) / self.password_credential, whose)
        else:
            raise ConfigError(f"no password for {whose}: give password_file, password_command or password_credential")
        password = text.split("\n", 1)[0].rstrip("\r")
        if not password:
            raise CredentialsError(f"the password for {whose} is empty")
        return password


def _read(path: Path, whose: str) -> str:
    """What a password file holds, without the mark that Windows begins text with; restic drops it, too."""
    what = f"the password for {whose} from {path}"
    try:
        with path.open("rb") as file:
            data = file.read(_PASSWORD_FILE_BYTES_MAX + 1)
        if len(data) > _PASSWORD_FILE_BYTES_MAX:
            raise CredentialsError(f"cannot read {what}: it is too long for a password file; is it another file?")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise CredentialsError(f"cannot read {what}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CredentialsError(f"cannot read {what}: it is no text in UTF-8; is it another file?") from error


def output_of(command: list[str] | str, what: str) -> str:
    """All that a command says.

    Args:
        command: a list of arguments, or a line as for a shell; no shell runs it.
        what: what messages call it.

    Raises:
        CredentialsError: it failed, or says what is no text.
    """
    import shlex

    try:
        arguments = shlex.split(command) if isinstance(command, str) else command
        done = subprocess.run(
            arguments,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            check=True,
        )
        return done.stdout.decode("utf-8")
    except subprocess.CalledProcessError as error:
        ended = f"exit code {error.returncode}" if error.returncode > 0 else f"signal {-error.returncode}"
        raise CredentialsError(f"{what} failed with {ended}") from error
    except subprocess.TimeoutExpired as error:
        raise CredentialsError(f"{what} did not end within {_COMMAND_TIMEOUT_S} s") from error
    except OSError as error:
        raise CredentialsError(f"{what} cannot be run: {error.filename}: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise CredentialsError(f"{what} is none: {error}") from error
