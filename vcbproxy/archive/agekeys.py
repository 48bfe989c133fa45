"""Keys of age: whom an image is encrypted to, and who can read it.

    recipient   public: age1…, or ssh-ed25519 …, ssh-rsa …            in the configuration, and named in vm.json
    identity    secret: AGE-SECRET-KEY-1…, or a private key of SSH    in a file or from a command; never written by us

A file of identities may itself be encrypted with a passphrase, as ``age -p`` does it: that is how a passphrase guards
images. Encrypting them with one directly is not offered: the passphrase would have to lie about for every backup.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vcbproxy.errors import ConfigError, CredentialsError

_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_AGE = b"age-encryption.org/v1\n"
_SSH = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class Recipients:
    """Whoever has the other half of any of these can read.

    Attributes:
        keys: public keys, without comments.
    """

    keys: tuple[str, ...]

    @classmethod
    def of(cls, lines: Iterable[str]) -> Recipients:
        """Check public keys; lines that are empty or begin with ``#`` are comments, as in age's own files.

        Raises:
            ConfigError: there is none, or one that is none.
        """
        keys = [_without_comment(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        for key in keys:
            _check(key)
        if not keys:
            raise ConfigError("no recipient is given: encrypted to nobody, an image could never be read")
        return cls(tuple(keys))

    @property
    def names(self) -> list[str]:
        """What ``vm.json`` calls them: age's own as they are, those of SSH by their fingerprints."""
        return [key if key.startswith("age1") else _fingerprint(key) for key in self.keys]


@dataclass(frozen=True, slots=True)
class Identities:
    """Secret keys. They do not appear where it is printed."""

    keys: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, secret: bytes, where: str, passphrase: Callable[[], str] | None = None) -> Identities:
        """Read what a file or a command gave: lines of age, a private key of SSH, or either encrypted by ``age -p``.

        Args:
            secret: the content.
            where: what messages call it.
            passphrase: asked when it is needed.

        Raises:
            CredentialsError: it holds no identity, or the passphrase is wrong.
        """
        if secret.startswith((_AGE, _ARMOR)):
            secret = _opened(secret, where, passphrase)
        if secret.lstrip().startswith(_SSH):
            keys = [_text(secret, where)]
        else:
            lines = (line.strip() for line in _text(secret, where).splitlines())
            keys = [line for line in lines if line and not line.startswith("#")]
        for key in keys:
            _check_identity(key, where)
        if not keys:
            raise CredentialsError(f"{where} holds no identity: `age-keygen -o FILE` makes one")
        return cls(tuple(keys))


def recipient(key: str) -> object:
    """Pyrage's object for a public key.

    Raises:
        pyrage.RecipientError: it is none.
    """
    import pyrage

    return pyrage.x25519.Recipient.from_str(key) if key.startswith("age1") else pyrage.ssh.Recipient.from_str(key)


def identity(key: str) -> object:
    """Pyrage's object for a secret key.

    Raises:
        pyrage.IdentityError: it is none.
    """
    import pyrage

    if key.startswith("AGE-SECRET-KEY-"):
        return pyrage.x25519.Identity.from_str(key)
    return pyrage.ssh.Identity.from_buffer(key.encode())


def _check(key: str) -> None:
    import pyrage

    try:
        recipient(key)
    except pyrage.RecipientError as error:
        raise ConfigError(f"{key[:40]!r} is no recipient (age1…, ssh-ed25519 …, ssh-rsa …): {error}") from error


def _check_identity(key: str, where: str) -> None:
    import pyrage

    try:
        identity(key)
    except (pyrage.IdentityError, ValueError) as error:  # the key itself is not told, nor what was wrong with it
        raise CredentialsError(
            f"{where}: what is there is no identity; keys of SSH with a passphrase of their own cannot be used, "
            f"`ssh-keygen -p` takes it off a copy"
        ) from error


def _opened(secret: bytes, where: str, passphrase: Callable[[], str] | None) -> bytes:
    import pyrage

    if passphrase is None:
        raise CredentialsError(f"{where} is encrypted with a passphrase, and none is given")
    try:
        return bytes(pyrage.passphrase.decrypt(secret, passphrase()))
    except pyrage.DecryptError as error:
        raise CredentialsError(f"{where}: the passphrase is wrong, or it is not encrypted with one") from error


def _text(secret: bytes, where: str) -> str:
    try:
        return secret.decode("ascii")
    except UnicodeDecodeError as error:
        raise CredentialsError(f"{where} holds no identity: it is not text") from error


def _without_comment(line: str) -> str:
    return " ".join(line.split()[:2]) if line.startswith("ssh-") else line


def _fingerprint(key: str) -> str:
    """As ``ssh-keygen -l`` has it."""
    kind, blob = key.split()
    try:
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except binascii.Error as error:
        raise ConfigError(f"{key[:40]!r} is no public key of SSH") from error
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
