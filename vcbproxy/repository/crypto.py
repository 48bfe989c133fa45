"""Sealed messages: encrypted, authenticated, and nothing else.

    nonce   16   random, never twice under one key
    text     n   AES-256 in counter mode; the nonce is the first counter block
    mac     16   Poly1305 over the text; its one-time key is r followed by AES-128(k, nonce)

The mac is always checked before a byte is decrypted. Nothing in a message says which file or blob it is: whoever opens
one must also compare the digest it is named by.

Encryption goes straight into a buffer of the caller's (``update_into``): no copy, and the interpreter lock is free.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.poly1305 import Poly1305

from vcbproxy.errors import IntegrityError
from vcbproxy.repository.ids import Buffer

NONCE_BYTES = 16
MAC_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + MAC_BYTES
_SPARE = AES.block_size // 8 - 1  # update_into insists on this much room beyond the text


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """The three secrets that seal and open messages; never printed."""

    encrypt: bytes
    mac_k: bytes
    mac_r: bytes

    def __post_init__(self) -> None:
        sizes = (len(self.encrypt), len(self.mac_k), len(self.mac_r))
        if sizes != (32, 16, 16) or not (any(self.encrypt) and any(self.mac_k) and any(self.mac_r)):
            raise IntegrityError("a key of this repository has a wrong size or is all zeroes")

    def __repr__(self) -> str:
        return "Key(…)"

    @classmethod
    def from_bytes(cls, secret: bytes) -> Key:
        """Cut 64 bytes into the three secrets, in the order in which scrypt's output is used."""
        return cls(secret[:32], secret[32:48], secret[48:64])


def new_key() -> Key:
    """A key drawn from the system's randomness."""
    return Key.from_bytes(os.urandom(64))


def sealed_size(plain_bytes: int) -> int:
    """How long a message is once sealed."""
    return plain_bytes + OVERHEAD_BYTES


class Sealer:
    """Seals messages with ciphers that are set up once: for one thread, and quicker for many."""

    def __init__(self, key: Key) -> None:
        self._cipher = Cipher(AES(key.encrypt), CTR(bytes(NONCE_BYTES))).encryptor()
        self._macs = _Macs(key)

    def seal_into(self, plain: Buffer, out: memoryview) -> int:
        """Seal ``plain`` into the beginning of ``out``.

        Args:
            plain: what to seal.
            out: at least ``sealed_size(len(plain))`` bytes.

        Returns:
            How many bytes of ``out`` the message takes.
        """
        size = len(plain)
        nonce = os.urandom(NONCE_BYTES)
        out[:NONCE_BYTES] = nonce
        self._cipher.reset_nonce(nonce)
        # The mac's place serves as the spare room that the cipher wants after the text; it is written afterwards.
        self._cipher.update_into(plain, out[NONCE_BYTES : NONCE_BYTES + size + _SPARE])
        mac = self._macs.of(nonce)
        mac.update(out[NONCE_BYTES : NONCE_BYTES + size])
        out[NONCE_BYTES + size : OVERHEAD_BYTES + size] = mac.finalize()
        return OVERHEAD_BYTES + size


class Opener:
    """Opens messages with ciphers that are set up once: for one thread, and quicker for many.

    It shares nothing with a ``Sealer``: whoever checks with it what that one sealed finds out when a bit flips in the
    memory of either.
    """

    def __init__(self, key: Key) -> None:
        self._cipher = Cipher(AES(key.encrypt), CTR(bytes(NONCE_BYTES))).decryptor()
        self._macs = _Macs(key)

    def open_into(self, sealed: Buffer, out: memoryview) -> int:
        """Check and decrypt a message into the beginning of ``out``.

        Args:
            sealed: the whole message.
            out: at least ``scratch_size(len(sealed))`` bytes; the last fifteen are only scratch.

        Returns:
            How many bytes of ``out`` the plaintext takes.

        Raises:
            IntegrityError: too short, or the mac is wrong: damaged, or sealed with another key.
        """
        nonce, text = self._macs.checked(memoryview(sealed))
        self._cipher.reset_nonce(nonce)
        self._cipher.update_into(text, out[: len(text) + _SPARE])
        return len(text)


def seal(key: Key, plain: Buffer) -> bytes:
    """Seal a small message."""
    out = bytearray(sealed_size(len(plain)))
    Sealer(key).seal_into(plain, memoryview(out))
    return bytes(out)


def unseal(key: Key, sealed: Buffer) -> bytes:
    """Check and decrypt a message.

    Raises:
        IntegrityError: as ``Opener.open_into``.
    """
    out = bytearray(scratch_size(len(sealed)))
    size = Opener(key).open_into(sealed, memoryview(out))
    del out[size:]
    return bytes(out)


class LongSealer:
    """Seals one long message bit by bit into a buffer."""

    def __init__(self, key: Key, out: memoryview) -> None:
        nonce = os.urandom(NONCE_BYTES)
        out[:NONCE_BYTES] = nonce
        self._out = out
        self._end = NONCE_BYTES
        self._cipher = Cipher(AES(key.encrypt), CTR(nonce)).encryptor()
        self._mac = _Macs(key).of(nonce)

    def write(self, plain: Buffer) -> None:
        """The next piece of the plaintext."""
        start, self._end = self._end, self._end + len(plain)
        self._cipher.update_into(plain, self._out[start : self._end + _SPARE])
        self._mac.update(self._out[start : self._end])

    def finish(self) -> int:
        """Write the mac; returns how many bytes the message takes."""
        self._out[self._end : self._end + MAC_BYTES] = self._mac.finalize()
        return self._end + MAC_BYTES


class LongOpener:
    """Opens one long message bit by bit: a file to be read from, whose mac has been checked as a whole."""

    def __init__(self, key: Key, sealed: memoryview) -> None:
        """Check the mac.

        Raises:
            IntegrityError: as ``Opener.open_into``.
        """
        nonce, self._text = _Macs(key).checked(sealed)
        self._cipher = Cipher(AES(key.encrypt), CTR(nonce)).decryptor()

    def read(self, size_bytes: int) -> bytes:
        """The next bytes of the plaintext; none at its end."""
        piece, self._text = self._text[:size_bytes], self._text[size_bytes:]
        return self._cipher.update(piece)


def scratch_size(sealed_bytes: int) -> int:
    """How large the buffer for ``open_into`` must be."""
    return max(0, sealed_bytes - OVERHEAD_BYTES) + _SPARE


class _Macs:
    """Poly1305, keyed anew for each message by its nonce."""

    def __init__(self, key: Key) -> None:
        # One block, once per nonce: the mode does not matter, ECB is AES itself.
        self._pad = Cipher(AES(key.mac_k), ECB()).encryptor()  # noqa: S305
        self._r = key.mac_r

    def of(self, nonce: bytes) -> Poly1305:
        """For the text of the message that has this nonce."""
        return Poly1305(self._r + self._pad.update(nonce))

    def checked(self, message: memoryview) -> tuple[bytes, memoryview]:
        """The nonce and the text of a message, once its mac is known to be right."""
        size = len(message) - OVERHEAD_BYTES
        if size < 0:
            raise IntegrityError(f"a sealed message of {len(message)} bytes is too short to be one")
        nonce = bytes(message[:NONCE_BYTES])
        text = message[NONCE_BYTES : NONCE_BYTES + size]
        mac = self.of(nonce)
        mac.update(text)
        try:
            mac.verify(bytes(message[NONCE_BYTES + size :]))
        except InvalidSignature as error:
            raise IntegrityError("authentication failed: the data are damaged, or sealed with another key") from error
        return nonce, text
