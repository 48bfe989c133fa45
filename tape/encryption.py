"""Encryption by the drive: LTO's AES-256-GCM, with a key that lives in the drive as long as the cartridge is in use.

    with encrypted(drive, Key.parse(data)):      blocks written are encrypted, encrypted and plain ones are read
        …                                        whatever happens, the drive forgets the key at the end

What is on tape bears the key's identity, not the key: 16 hex digits made from it one-way. They tell which key a
cartridge wants. A drive that lost its key (a power failure, another host) would go on and write in the clear: so the
drive is asked after every reset whether it still encrypts, and nothing more is written when it does not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tape.drive import TapeDrive
from tape.errors import CannotEncrypt, EncryptionLost, RefusedCommand, TapeError, UnitAttention
from tape.scsi import cdb, security
from tape.scsi.security import AES_256_GCM, ANSWER_BYTES, KEY_BYTES, Algorithm, BlockStatus, Encryption, InPage, Status
from tape.sequential import SequentialDrive

_ATTENTIONS_MAX = 8
_IDENTITY_DIGITS = 16
_IDENTITY = re.compile("[0-9a-f]{16}")
_PURPOSE = b"identity of an LTO key"


class Key:
    """A key. Its bytes are shown nowhere: not in ``repr``, not in errors."""

    __slots__ = ("_secret", "identity")

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes, of good randomness.

        Raises:
            ValueError: not 32.
        """
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key for the drive's encryption has {KEY_BYTES} bytes, this one {len(secret)}")
        self._secret = bytes(secret)
        self.identity = hmac.new(self._secret, _PURPOSE, hashlib.sha256).hexdigest()[:_IDENTITY_DIGITS]
        """Tells keys apart, and nothing of the key."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """A key as it is kept in files and given by commands: 32 bytes, or 64 hexadecimal digits.

        Raises:
            ValueError: neither.
        """
        if len(data) == KEY_BYTES:
            return cls(data)
        digits = data.strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{64}", digits):
            raise ValueError(f"a key for the drive's encryption is {KEY_BYTES} bytes, or {2 * KEY_BYTES} hex digits")
        return cls(bytes.fromhex(digits.decode("ascii")))

    def page(self, algorithm: int) -> bytes:
        """The page that gives it to a drive."""
        return security.set_encryption(algorithm, self._secret, self.identity)

    def __repr__(self) -> str:
        return f"Key({self.identity})"


def algorithm(drive: TapeDrive) -> Algorithm:
    """The drive's AES-256-GCM.

    Raises:
        CannotEncrypt: it has none that we may use.
        TapeError: it does not answer.
    """
    for one in security.algorithms(_ask(drive, InPage.CAPABILITIES)):
        fits = one.key_bytes == KEY_BYTES and one.description_bytes_max >= _IDENTITY_DIGITS
        if one.code == AES_256_GCM and one.encrypts and one.decrypts and fits:
            return one
    raise CannotEncrypt(device=drive.name, reason="it has no AES-256 that a host may set the key of")


def status(drive: SequentialDrive) -> Status:
    """What the drive does at present.

    Raises:
        CannotEncrypt: it does not say.
    """
    found = security.status(_ask(drive, InPage.STATUS))
    if found is None:
        raise CannotEncrypt(device=drive.name, reason="it does not tell whether it encrypts")
    return found


def wanted_key(drive: SequentialDrive) -> str | None:
    """The identity of the key that the next block wants and the drive has not; None when it needs none.

    Raises:
        TapeError: the drive does not answer.
    """
    try:
        found = security.next_block(_ask(drive, InPage.NEXT_BLOCK))
    except CannotEncrypt:
        return None
    return found.description if found is not None and found.status == BlockStatus.LOCKED else None


@contextmanager
def encrypted(drive: TapeDrive, key: Key) -> Iterator[None]:
    """Have the drive encrypt what is written, for the length of a ``with``; what is read it decrypts.

    Raises:
        CannotEncrypt: the drive cannot, or does not, although it took the key.
        EncryptionLost: it ceased to.
    """
    chosen = algorithm(drive).index
    try:
        _send(drive, key.page(chosen), "set the encryption key")
        counter = _hold(drive, key).counter

        def guard() -> None:
            _hold(drive, key, counter)

        with drive.guarded(guard):
            yield
            guard()
    except BaseException:
        with suppress(TapeError):  # the first error is the one to be told
            clear(drive, chosen)
        raise
    clear(drive, chosen)


def forget_leftover(drive: SequentialDrive) -> str:
    """Have a drive forget a key of ours that a killed program left in it; tells its identity, or nothing.

    Whoever comes next means to write in the clear, or with another key: and the drive would go on with that one. Keys
    that others gave it, a library's own management perhaps, are left alone.

    Raises:
        EncryptionLost: it does not forget it.
        TapeError: the drive does not answer.
    """
    try:
        found = status(drive)
    except CannotEncrypt:
        return ""
    if found.encryption != Encryption.ON or not _IDENTITY.fullmatch(found.description):
        return ""
    clear(drive, found.algorithm)
    return found.description


def clear(drive: SequentialDrive, index: int) -> None:
    """Have the drive forget its key.

    Raises:
        EncryptionLost: it says that it still encrypts.
        TapeError: it does not answer.
    """
    for _ in range(_ATTENTIONS_MAX):
        with suppress(UnitAttention):  # it was not carried out: whatever has happened, the key is to go
            _send(drive, security.clear_encryption(index), "clear the encryption key")
            break
    else:
        _send(drive, security.clear_encryption(index), "clear the encryption key")
    if status(drive).encryption != Encryption.OFF:
        raise EncryptionLost(device=drive.name, reason="it did not forget the encryption key: switch it off and on")


def _hold(drive: TapeDrive, key: Key, counter: int | None = None) -> Status:
    """Hold that the drive encrypts with this key, and that nobody has set one since."""
    found = status(drive)
    if found.encryption != Encryption.ON or found.description not in ("", key.identity):
        raise EncryptionLost(
            device=drive.name, reason=f"it does not encrypt with key {key.identity}: nothing more is written"
        )
    if counter is not None and found.counter != counter:
        raise EncryptionLost(device=drive.name, reason="somebody else has set its encryption key meanwhile")
    return found


def _ask(drive: SequentialDrive, page: InPage) -> bytes:
    try:
        return drive.unit.ask(cdb.security_protocol_in(page, ANSWER_BYTES), "ask for encryption", ANSWER_BYTES)
    except RefusedCommand as error:
        raise CannotEncrypt(device=drive.name, reason="it has no encryption that a host may use") from error


def _send(drive: SequentialDrive, page: bytes, what: str) -> None:
    try:
        drive.unit.run(cdb.security_protocol_out(security.SET_ENCRYPTION, len(page)), what, data_out=page)
    except RefusedCommand as error:
        raise CannotEncrypt(device=drive.name, reason=f"it refuses to {what}: {error}") from error
